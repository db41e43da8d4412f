// NonZero, Compress and Unique: how many elements they give is found by the run. Where an element goes is a
// running count of those before it (cumsum), which keeps their order and needs no memory beyond the
// bound's.
#include "frontend/onnx/ops.h"
#include "frontend/onnx/selection.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::onnx {
namespace {

Result<Val> i64_sum(Emitter &e, const Val &x) {
  return e.emit(Op::reduce_sum, {x}, {{"axes", std::vector<Dim>{0}}, {"keepdims", false}});
}

Result<Val> gather(Emitter &e, const Val &x, const Val &indices, int axis) {
  return e.emit(Op::gather, {x, indices}, {{"axis", attr_int(axis)}});
}

Result<Val> sorted_order(Emitter &e, const Val &x, Val *values = nullptr) {
  std::vector<Val> operands = {x};
  KILN_TRY(results, e.emit_all(Op::sort, operands, {{"axis", Dim(0)}}));
  if (values)
    *values = results.at(0);
  return results.at(1);
}

// x[i] for i >= 1 against x[i - 1], over axis 0; the first differs from nothing, and counts as different.
Result<Val> differs_from_previous(Emitter &e, const Val &x) {
  Dim rows = x.dim(0);
  Dim rest = 1;
  for (int d = 1; d < x.rank(); ++d)
    rest *= x.dim(d);
  KILN_TRY(flat, reshape(e, x, {rows, rest}));
  // The element before the first is the first itself; its answer is replaced.
  KILN_TRY(index, counted(e, rows));
  KILN_TRY(before, e.emit(Op::sub, {index, number(e, 1)}));
  KILN_TRY(from, e.emit(Op::maximum, {before, number(e, 0)}));
  KILN_TRY(previous, gather(e, flat, from, 0));
  KILN_TRY(differ, e.emit(Op::ne, {flat, previous}));
  KILN_TRY(any, e.emit(Op::reduce_any, {differ}, {{"axes", std::vector<Dim>{1}}, {"keepdims", false}}));
  KILN_TRY(first, e.emit(Op::eq, {index, number(e, 0)}));
  return e.emit(Op::logical_or, {any, first});
}

// The order of rows by their elements, the first column first: stable sorts from the last column on.
Result<Val> row_order(Emitter &e, const Val &rows, std::string_view what) {
  auto columns = rows.dim(1).try_const();
  constexpr int64_t kMaxColumns = 256;
  if (!columns || *columns > kMaxColumns)
    return Error{fmt::format("it compares slices of {} elements; only numbers up to {} are supported", what, kMaxColumns)};
  KILN_TRY(order, counted(e, rows.dim(0)));
  for (int64_t c = *columns; c-- > 0;) {
    KILN_TRY(column, slice_axis(e, rows, 1, c, 1));
    KILN_TRY(flat, reshape(e, column, {rows.dim(0)}));
    KILN_TRY(now, gather(e, flat, order, 0));
    KILN_TRY(step, sorted_order(e, now));
    KILN_TRY(next, gather(e, order, step, 0));
    order = next;
  }
  return order;
}

// updates put at indices of zeros[size].
Result<Val> scatter_new(Emitter &e, const Dim &size, const Val &indices, const Val &updates) {
  KILN_TRY(zeros, broadcast_to(e, e.scalar(updates.dtype(), 0), {size}));
  return e.emit(Op::scatter_elements, {zeros, indices, updates}, {{"axis", Dim(0)}});
}

} // namespace

Val number(Emitter &e, const Dim &d) { return e.sizes({{d}}, {}); }

Result<Val> counted(Emitter &e, const Dim &count) {
  return e.emit(Op::iota, {}, {{"shape", Shape{count}}, {"axis", Dim(0)}, {"dtype", DType::i64}});
}

Result<Val> unsqueezed(Emitter &e, const Val &x, int axis) {
  Shape shape = x.type.shape;
  shape.insert(shape.begin() + axis, Dim(1));
  return reshape(e, x, shape);
}

Result<Selection> select_true(Emitter &e, const Val &mask, std::string_view stem) {
  const Dim size = mask.dim(0);
  KILN_TRY(ones, convert(e, mask, DType::i64));
  KILN_TRY(total, i64_sum(e, ones));
  KILN_TRY(count, e.bind_size(total, size, stem));
  KILN_TRY(before, e.emit(Op::cumsum, {ones}, {{"axis", Dim(0)}, {"exclusive", true}}));
  // What is not selected goes to a place past the end.
  KILN_TRY(to, e.emit(Op::where, {mask, before, number(e, size)}));
  KILN_TRY(index, counted(e, size));
  KILN_TRY(places, scatter_new(e, size + Dim(1), to, index));
  KILN_TRY(positions, slice_axis(e, places, 0, 0, count));
  return Selection{positions, count};
}

Status import_nonzero(OnnxNode &n) {
  Emitter &e = n.emitter();
  const Val &x = n.in(0);
  Dim size = element_count(x.type.shape);
  KILN_TRY(flat, reshape(e, x, {size}));
  Val mask = flat;
  if (!is_bool(x.dtype())) {
    KILN_TRY(differs, e.emit(Op::ne, {flat, e.scalar(x.dtype(), 0)}));
    mask = differs;
  }
  KILN_TRY(found, select_true(e, mask, "nonzero"));
  if (x.rank() == 0) { // no row for the dims that it does not have
    KILN_TRY(none, broadcast_to(e, e.scalar(DType::i64, 0), {0, found.count}));
    return n.finish(Result<Val>(none));
  }
  std::vector<Val> rows;
  for (int d = 0; d < x.rank(); ++d) {
    Dim inner = 1;
    for (int k = d + 1; k < x.rank(); ++k)
      inner *= x.dim(k);
    Val at = found.positions;
    if (!inner.is_const(1)) {
      KILN_TRY(quotient, e.emit(Op::div, {at, number(e, inner)}));
      at = quotient;
    }
    if (d > 0) {
      KILN_TRY(rest, e.emit(Op::remainder, {at, number(e, x.dim(d))}));
      at = rest;
    }
    KILN_TRY(row, unsqueezed(e, at, 0));
    rows.push_back(row);
  }
  if (rows.size() == 1)
    return n.finish(Result<Val>(rows[0]));
  return n.finish(Op::concat, rows, {{"axis", Dim(0)}});
}

Status import_compress(OnnxNode &n) {
  Emitter &e = n.emitter();
  Val x = n.in(0);
  const Val &condition = n.in(1);
  if (!is_bool(condition.dtype()) || condition.rank() != 1)
    return Error{fmt::format("its condition must be a row of bools, not {}", condition.type.text())};
  int axis = 0;
  if (n.has_attr("axis")) {
    KILN_TRY(given, n.axis(n.get_int("axis", 0), x.rank()));
    axis = given;
  } else {
    KILN_TRY(flat, reshape(e, x, {element_count(x.type.shape)}));
    x = flat;
  }
  const Dim &size = x.dim(axis), &length = condition.dim(0);
  if (size.is_const() && length.is_const() && length.as_const() > size.as_const())
    return Error{fmt::format("its condition {} is longer than axis {} of {}", condition.type.text(), axis, x.type.text())};
  KILN_TRY(found, select_true(e, condition, "selected"));
  return n.finish(gather(e, x, found.positions, axis));
}

// Values in ascending order, by a stable sort; where a new one begins, a count goes up. Without sorting they
// stand in the order of their first occurrences.
Status import_unique(OnnxNode &n) {
  Emitter &e = n.emitter();
  const Val &x = n.in(0);
  bool sorted = n.get_flag("sorted", true);
  int axis = 0;
  Val rows = x; // [rows] or [rows, elements]: what is compared
  Shape rest;
  bool whole = !n.has_attr("axis");
  if (whole) {
    KILN_TRY(flat, reshape(e, x, {element_count(x.type.shape)}));
    rows = flat;
  } else {
    KILN_TRY(given, n.axis(n.get_int("axis", 0), x.rank()));
    axis = given;
    std::vector<int64_t> order = {axis};
    for (int d = 0; d < x.rank(); ++d)
      if (d != axis) {
        order.push_back(d);
        rest.push_back(x.dim(d));
      }
    KILN_TRY(front, permute(e, x, order));
    KILN_TRY(flat, reshape(e, front, {x.dim(axis), element_count(rest)}));
    rows = flat;
  }
  const Dim count = rows.dim(0);
  Val order;
  if (rows.rank() == 1) {
    KILN_TRY(by_value, sorted_order(e, rows));
    order = by_value;
  } else {
    KILN_TRY(by_value, row_order(e, rows, element_count(rest).text()));
    order = by_value;
  }
  KILN_TRY(in_order, gather(e, rows, order, 0));
  KILN_TRY(begins, differs_from_previous(e, in_order));
  KILN_TRY(found, select_true(e, begins, "unique"));
  // Each group's number, in sorted order, and of each element.
  KILN_TRY(ones, convert(e, begins, DType::i64));
  KILN_TRY(up_to, e.emit(Op::cumsum, {ones}, {{"axis", Dim(0)}}));
  KILN_TRY(group, e.emit(Op::sub, {up_to, number(e, 1)}));
  KILN_TRY(inverse, scatter_new(e, count, order, group));
  // The first occurrence is the first of its group, since the sort is stable.
  KILN_TRY(first, gather(e, order, found.positions, 0));
  KILN_TRY(zeros, broadcast_to(e, e.scalar(DType::i64, 0), {found.count}));
  KILN_TRY(all_ones, broadcast_to(e, e.constant(Tensor::scalar_i64(DType::i64, 1)), {count}));
  KILN_TRY(counts, e.emit(Op::scatter_elements, {zeros, group, all_ones},
                          {{"axis", Dim(0)}, {"reduction", std::string("add")}}));
  if (!sorted) {
    Val seen;
    KILN_TRY(by_occurrence, sorted_order(e, first, &seen));
    KILN_TRY(numbers, counted(e, found.count));
    KILN_TRY(place, scatter_new(e, found.count, by_occurrence, numbers));
    KILN_TRY(moved, gather(e, place, inverse, 0));
    KILN_TRY(moved_counts, gather(e, counts, by_occurrence, 0));
    first = seen;
    inverse = moved;
    counts = moved_counts;
  }
  Val source = x;
  if (whole)
    source = rows;
  KILN_TRY(values, gather(e, source, first, axis));
  n.set(0, values);
  n.set(1, first);
  n.set(2, inverse);
  n.set(3, counts);
  return Unit{};
}

} // namespace kiln::onnx
