// Operators that pick elements by index.
#include "frontend/onnx/calc.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/run_sizes.h"

#include <fmt/format.h>

namespace kiln::onnx {

Status import_gather(OnnxNode &n) {
  const Val &x = n.in(0), &indices = n.in(1);
  if (x.rank() == 0)
    return Error{"its data has no axis to gather from"};
  KILN_TRY(axis, n.axis(n.get_int("axis", 0), x.rank()));
  // One known index is a slice.
  if (indices.constant && indices.constant->count() == 1 && !x.is_known() && is_integer(indices.dtype())) {
    int64_t index = indices.constant->at_i64(0);
    const Dim &size = x.dim(axis);
    if (size.is_const() && (index < -size.as_const() || index >= size.as_const()))
      return Error{fmt::format("the index {} is outside of axis {} of {}", index, axis, x.type.text())};
    if (size.is_const() || index >= 0) {
      KILN_TRY(one, slice_axis(n.emitter(), x, axis, index < 0 ? Dim(index) + size : Dim(index), 1));
      Shape shape = x.dims(0, axis), after = x.dims(axis + 1, x.rank());
      shape.insert(shape.end(), indices.type.shape.begin(), indices.type.shape.end());
      shape.insert(shape.end(), after.begin(), after.end());
      return n.finish(reshape(n.emitter(), one, shape));
    }
  }
  return n.finish(Op::gather, {x, indices}, {{"axis", attr_int(axis)}});
}

Status import_gather_elements(OnnxNode &n) {
  KILN_TRY(axis, n.axis(n.get_int("axis", 0), n.rank()));
  return n.finish(Op::gather_elements, {n.in(0), n.in(1)}, {{"axis", attr_int(axis)}});
}

Status import_gather_nd(OnnxNode &n) {
  return n.finish(Op::gather_nd, {n.in(0), n.in(1)}, {{"batch_dims", attr_int(n.get_int("batch_dims", 0))}});
}

Status import_scatter_elements(OnnxNode &n) {
  KILN_TRY(axis, n.axis(n.get_int("axis", 0), n.rank()));
  return n.finish(Op::scatter_elements, {n.in(0), n.in(1), n.in(2)},
                  {{"axis", attr_int(axis)}, {"reduction", n.get_string("reduction", "none")}});
}

Status import_scatter_nd(OnnxNode &n) {
  return n.finish(Op::scatter_nd, {n.in(0), n.in(1), n.in(2)},
                  {{"reduction", n.get_string("reduction", "none")}});
}

// The first sequence_lens[b] elements along the time axis, from the last to the first.
Status import_reverse_sequence(OnnxNode &n) {
  if (n.rank() < 2 || n.rank(1) != 1 || !is_integer(n.dtype(1)))
    return Error{fmt::format("its operand {} must have a time and a batch axis, and its lengths {} one dim", n.in(0).type.text(),
                             n.in(1).type.text())};
  KILN_TRY(time, n.axis(n.get_int("time_axis", 0), n.rank()));
  KILN_TRY(batch, n.axis(n.get_int("batch_axis", 1), n.rank()));
  if (time == batch)
    return Error{fmt::format("its time axis and its batch axis are both {}", time)};
  if (!n.emitter().require_equal(n.in(0).dim(batch), n.in(1).dim(0), "ReverseSequence"))
    return Error{fmt::format("its lengths are {}, but axis {} of {} is {}", n.in(1).type.text(), batch, n.in(0).type.text(),
                             n.in(0).dim(batch).text())};
  Calc c(n.emitter());
  Shape places(size_t(n.rank()), Dim(1)), rows = places;
  places[size_t(time)] = n.in(0).dim(time);
  rows[size_t(batch)] = n.in(0).dim(batch);
  Num place = reshape(c.iota(DType::i64, {n.in(0).dim(time)}), places);
  Num length = reshape(convert(c(n.in(1)), DType::i64), rows);
  Num from = where(place < length, length - 1.0 - place, place);
  return n.finish(c.done(gather_elements(c(n.in(0)), broadcast_to(from, n.shape()), time)));
}

Status import_one_hot(OnnxNode &n) {
  // Any type of number is allowed for the depth.
  KILN_TRY(whole_depth, convert(n.emitter(), n.in(1), DType::i64));
  if (!element_count(whole_depth.type.shape).is_const(1))
    return Error{fmt::format("its depth is {}; it must be one number", whole_depth.type.text())};
  auto depth = n.emitter().dims(whole_depth);
  if (!depth) {
    std::vector<RunInt> found = {{std::nullopt, whole_depth}};
    KILN_TRY(size, bind_free(n, found, "depth"));
    depth = std::move(size);
  }
  KILN_TRY(axis, n.axis(n.get_int("axis", -1), n.rank() + 1));
  Val indices = n.in(0);
  if (is_float(indices.dtype())) {
    KILN_TRY(whole, convert(n.emitter(), indices, DType::i64));
    indices = whole;
  }
  return n.finish(Op::one_hot, {indices, n.in(2)}, {{"depth", (*depth)[0]}, {"axis", attr_int(axis)}});
}

Status import_cumsum(OnnxNode &n) {
  KILN_TRY(given, n.int_of(1, "axis"));
  KILN_TRY(axis, n.axis(given, n.rank()));
  return n.finish(Op::cumsum, {n.in(0)},
                  {{"axis", attr_int(axis)},
                   {"exclusive", n.get_flag("exclusive", false)},
                   {"reverse", n.get_flag("reverse", false)}});
}

// A scan along the axis, which carries the product of what came before.
Status import_cumprod(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(given, n.int_of(1, "axis"));
  KILN_TRY(axis, n.axis(given, n.rank()));
  bool exclusive = n.get_flag("exclusive", false), reverse = n.get_flag("reverse", false);
  DType t = compute_dtype(n.dtype());
  std::vector<int64_t> order = {axis}, back;
  for (int d = 0; d < n.rank(); ++d) {
    if (d != axis)
      order.push_back(d);
    back.push_back(d == axis ? 0 : d < axis ? d + 1 : d);
  }
  KILN_TRY(wide, convert(e, n.in(0), t));
  KILN_TRY(front, permute(e, wide, order));
  auto turned = [&](const Val &x) -> Result<Val> {
    return reverse ? e.emit(Op::flip, {x}, {{"axes", attr_ints(std::vector<int>{0})}}) : Result<Val>(x);
  };
  KILN_TRY(ordered, turned(front));
  Shape row = front.dims(1, front.rank());
  KILN_TRY(one, broadcast_to(e, e.scalar(t, 1), row));
  Block body;
  Val before = e.argument(body, {t, row}, "product"), x = e.argument(body, {t, row}, "x");
  {
    IntoBlock scope(e.builder(), body);
    KILN_TRY(after, n.emit(Op::mul, {before, x}));
    KILN_TRY(next, e.materialize(after));
    KILN_TRY(shown, e.materialize(exclusive ? before : after));
    body.results = {next, shown};
  }
  std::vector<Val> operands = {one, ordered};
  std::vector<Block> regions;
  regions.push_back(std::move(body));
  KILN_TRY(results, e.emit_all(Op::scan, operands, {{"carried", attr_int(1)}}, std::move(regions)));
  KILN_TRY(unturned, turned(results.at(1)));
  KILN_TRY(y, permute(e, unturned, back));
  return n.finish(convert(e, y, n.dtype()));
}

Status import_topk(OnnxNode &n) {
  n.ignore({"sorted"}); // Kiln's are always sorted
  KILN_TRY(axis, n.axis(n.get_int("axis", -1), n.rank()));
  Dim k = n.get_int("k", -1);
  if (n.has(1)) {
    KILN_TRY(list, run_ints(n, 1, "k"));
    if (list.size() != 1)
      return Error{"k must be one number"};
    KILN_TRY(size, n.emitter().bind_size(list[0].value, n.in(0).dim(axis), "k"));
    k = size;
  }
  std::vector<Val> operands = {n.in(0)};
  KILN_TRY(results, n.emitter().emit_all(
                        Op::topk, operands,
                        {{"k", k}, {"axis", attr_int(axis)}, {"largest", n.get_flag("largest", true)}}));
  n.set(0, results.at(0));
  n.set(1, results.at(1));
  return Unit{};
}

} // namespace kiln::onnx
