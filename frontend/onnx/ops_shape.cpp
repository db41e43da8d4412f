// Operators about shapes: what they compute with sizes becomes attributes of Kiln's ops.
#include "frontend/onnx/calc.h"
#include "frontend/onnx/importer.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/run_sizes.h"
#include "frontend/onnx/selection.h"
#include "frontend/onnx/tensors.h"
#include "frontend/onnx/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kiln::onnx {
namespace {

Shape without_axes(const Shape &shape, const std::vector<int> &axes) {
  Shape out;
  for (size_t i = 0; i < shape.size(); ++i)
    if (std::find(axes.begin(), axes.end(), int(i)) == axes.end())
      out.push_back(shape[i]);
  return out;
}

// A reshape of which some sizes are only found when it runs: 0 copies a size, -1 is what the others leave,
// and that they fit the elements is checked then.
Status reshape_found(OnnxNode &n, std::vector<RunInt> target, bool allow_zero) {
  Emitter &e = n.emitter();
  const Val &x = n.in(0);
  Dim total = element_count(x.type.shape), known_product = 1;
  std::optional<size_t> rest;
  for (size_t i = 0; i < target.size(); ++i) {
    RunInt &t = target[i];
    if (!t.known) {
      if (!allow_zero && int(i) < x.rank()) {
        KILN_TRY(zero, e.emit(Op::eq, {t.value, number(e, 0)}));
        KILN_TRY(size, choose(e, zero, number(e, x.dim(int(i))), t.value));
        t.value = size;
      }
      continue;
    }
    if (t.known->is_const(-1)) {
      if (rest)
        return Error{"the shape leaves more than one size open"};
      rest = i;
      continue;
    }
    if (t.known->is_const(0) && !allow_zero) {
      if (int(i) >= x.rank())
        return Error{fmt::format("the shape copies dim {}, which {} does not have", i, x.type.text())};
      t = {x.dim(int(i)), number(e, x.dim(int(i)))};
    }
    known_product *= *t.known;
  }
  // One of those that are found may be -1.
  Val product = number(e, known_product);
  if (!rest)
    for (RunInt &t : target)
      if (!t.known) {
        KILN_TRY(size, e.emit(Op::abs, {t.value}));
        KILN_TRY(more, e.emit(Op::mul, {product, size}));
        product = more;
      }
  Shape shape;
  auto divisor = known_product.try_const();
  Dim bound = divisor && *divisor > 0 ? floordiv(total, *divisor) : total, found = 1;
  for (RunInt &t : target) {
    if (t.known) {
      shape.push_back(*t.known);
      continue;
    }
    Val size = t.value;
    if (!rest) {
      KILN_TRY(by, e.emit(Op::maximum, {product, number(e, 1)}));
      KILN_TRY(left, e.emit(Op::div, {number(e, total), by}));
      KILN_TRY(open, e.emit(Op::eq, {size, number(e, -1)}));
      KILN_TRY(chosen, choose(e, open, left, size));
      size = chosen;
    }
    // Of no elements the sizes may be anything.
    KILN_TRY(one, total.is_const(0) ? e.bind_free_size(size, 64, "reshape") : e.bind_size(size, bound, "reshape"));
    shape.push_back(one);
    found *= one;
  }
  if (rest)
    shape[*rest] = floordiv(total, known_product * found);
  return n.finish(reshape(e, x, shape));
}

// Numbers of which the first, the limit or the step is only found when it runs.
Status range_found(OnnxNode &n) {
  Emitter &e = n.emitter();
  std::vector<Val> parts;
  for (size_t i = 0; i < 3; ++i) {
    if (!element_count(n.shape(i)).is_const(1) || n.dtype(i) != n.dtype(0))
      return Error{"its operands must be single numbers of one type"};
    KILN_TRY(scalar, reshape(e, n.in(i), {}));
    parts.push_back(scalar);
  }
  Val count;
  if (is_float(n.dtype())) {
    std::vector<Val> wide;
    for (const Val &v : parts) {
      KILN_TRY(one, convert(e, v, DType::f64));
      wide.push_back(one);
    }
    KILN_TRY(span, e.emit(Op::sub, {wide[1], wide[0]}));
    KILN_TRY(steps, e.emit(Op::div, {span, wide[2]}));
    KILN_TRY(whole, e.emit(Op::ceil, {steps}));
    KILN_TRY(number_of, convert(e, whole, DType::i64));
    count = number_of;
  } else {
    std::vector<Val> wide;
    for (const Val &v : parts) {
      KILN_TRY(one, convert(e, v, DType::i64));
      wide.push_back(one);
    }
    // 0, 1, ..., n - 1 has the number n, which others may read as well.
    auto is = [&](size_t i, int64_t value) { return wide[i].constant && wide[i].constant->at_i64(0) == value; };
    count = wide[1];
    if (!is(0, 0)) {
      KILN_TRY(span, e.emit(Op::sub, {wide[1], wide[0]}));
      count = span;
    }
    if (!is(2, 1)) {
      KILN_TRY(steps, ceil_quotient(e, count, wide[2]));
      count = steps;
    }
  }
  KILN_TRY(some, e.emit(Op::maximum, {count, number(e, 0)}));
  std::vector<RunInt> size = {{std::nullopt, some}};
  if (auto known = e.dims(some))
    size[0].known = (*known)[0];
  KILN_TRY(sizes, bind_free(n, size, "range"));
  KILN_TRY(index, e.emit(Op::iota, {}, {{"shape", Shape{sizes[0]}}, {"axis", Dim(0)}, {"dtype", n.dtype()}}));
  KILN_TRY(scaled, e.emit(Op::mul, {index, parts[2]}));
  return n.finish(Op::add, {scaled, parts[0]});
}

} // namespace

Status import_identity(OnnxNode &n) { return n.finish(Result<Val>(n.in(0))); }

Status import_constant(OnnxNode &n) {
  Emitter &e = n.emitter();
  auto give = [&](Tensor tensor) {
    n.set(0, e.constant(std::move(tensor), n.output_count() ? n.view().outputs[0] : ""));
    return Unit{};
  };
  int given = 0;
  for (const AttributeView &a : n.view().attributes)
    given += a.name.ends_with("value") || a.name.starts_with("value_");
  if (given > 1)
    return Error{fmt::format("it has {} values; one is needed", given)};
  if (n.has_attr("value_string")) {
    std::string one[] = {n.get_string("value_string", "")};
    return n.finish(text_constant(e, one, {}));
  }
  if (n.has_attr("value_strings"))
    return n.finish(text_constant(e, n.get_strings("value_strings")));
  if (const AttributeView *value = n.find("value"); value && value->type == AttrType::tensor) {
    KILN_TRY(view, read_tensor(value->message, n.importer().budget()));
    if (view.data_type == kStringType) {
      KILN_TRY(text, make_text(view));
      return n.finish(Result<Val>(as_text(e.constant(std::move(text)))));
    }
  }
  if (n.has_attr("value")) {
    KILN_TRY(tensor, n.get_tensor("value"));
    return give(std::move(tensor));
  }
  if (n.has_attr("value_float"))
    return give(Tensor::scalar_f64(DType::f32, n.get_float("value_float", 0)));
  if (n.has_attr("value_int"))
    return give(Tensor::scalar_i64(DType::i64, n.get_int("value_int", 0)));
  if (n.has_attr("value_ints"))
    return give(Tensor::from_i64(n.get_ints("value_ints")));
  if (n.has_attr("value_floats")) {
    auto values = n.get_floats("value_floats");
    Tensor tensor(DType::f32, {int64_t(values.size())});
    for (size_t i = 0; i < values.size(); ++i)
      tensor.set_f64(int64_t(i), values[i]);
    return give(std::move(tensor));
  }
  if (const AttributeView *value = n.find("sparse_value"); value && value->type == AttrType::sparse_tensor) {
    KILN_TRY(view, read_sparse(value->message, n.importer().budget()));
    KILN_TRY(tensor, make_tensor(view, n.importer().files()));
    return give(std::move(tensor));
  }
  return Error{"it holds no tensor, number or string"};
}

Status import_shape(OnnxNode &n) {
  Shape shape = n.in(0).text ? text_shape(n.in(0)) : n.shape();
  int64_t rank = int64_t(shape.size());
  auto clamp = [&](int64_t v) { return std::clamp<int64_t>(v < 0 ? v + rank : v, 0, rank); };
  int64_t start = clamp(n.get_int("start", 0)), end = clamp(n.get_int("end", rank));
  std::span<const Dim> dims = shape;
  n.set(0, n.emitter().sizes(dims.subspan(size_t(start), size_t(std::max<int64_t>(end - start, 0)))));
  return Unit{};
}

Status import_size(OnnxNode &n) {
  n.set(0, n.emitter().sizes({{element_count(n.in(0).text ? text_shape(n.in(0)) : n.shape())}}, {}));
  return Unit{};
}

Status import_reshape(OnnxNode &n) {
  n.ignore({"consumed_inputs"});
  Shape target;
  bool allow_zero = n.get_flag("allowzero", false);
  if (n.has(1)) {
    if (n.rank(1) != 1)
      return Error{fmt::format("its shape is {}, not a row of integers", n.in(1).type.text())};
    KILN_TRY(sizes, run_ints(n, 1, "shape"));
    if (!all_known(sizes))
      return reshape_found(n, std::move(sizes), allow_zero);
    target = known_dims(sizes);
  } else {
    if (!n.has_attr("shape"))
      return Error{"it has neither an input nor an attribute with the shape"};
    auto ints = n.get_ints("shape");
    target.assign(ints.begin(), ints.end());
  }
  if (target.size() > size_t(kMaxRank))
    return Error{fmt::format("the shape has {} dims; at most {} are supported", target.size(), kMaxRank)};
  std::optional<size_t> rest;
  Dim product = 1;
  bool has_zero = std::any_of(target.begin(), target.end(), [](const Dim &d) { return d.is_const(0); });
  for (size_t i = 0; i < target.size(); ++i) {
    if (target[i].is_const(-1)) {
      if (allow_zero && has_zero)
        return Error{fmt::format("the shape {} leaves a size open beside one that is 0", shape_text(target))};
      if (rest)
        return Error{fmt::format("the shape {} leaves more than one size open", shape_text(target))};
      rest = i;
      continue;
    }
    if (target[i].is_const() && target[i].as_const() < -1)
      return Error{fmt::format("the shape {} has a negative size", shape_text(target))};
    if (target[i].is_const(0) && !allow_zero) {
      if (int(i) >= n.rank())
        return Error{fmt::format("the shape {} copies dim {}, which {} does not have", shape_text(target), i,
                                 n.in(0).type.text())};
      target[i] = n.shape()[i];
    }
    product *= target[i];
  }
  if (rest) {
    Dim total = element_count(n.shape());
    if (product.is_const(0))
      target[*rest] = 0;
    else
      target[*rest] = floordiv(total, product);
    if (!target[*rest].is_valid())
      return Error{fmt::format("the sizes of {} overflow", shape_text(target))};
  }
  return n.finish(reshape(n.emitter(), n.in(0), target));
}

Status import_flatten(OnnxNode &n) {
  int rank = n.rank();
  KILN_TRY(axis, n.axis(n.get_int("axis", 1), rank + 1));
  // A negative axis counts from the rank, not from one past it.
  if (n.get_int("axis", 1) < 0)
    --axis;
  std::span<const Dim> dims = n.shape();
  if (axis < 0)
    return Error{"the axis is outside of the tensor"};
  return n.finish(reshape(n.emitter(), n.in(0),
                          {element_count(dims.first(size_t(axis))), element_count(dims.subspan(size_t(axis)))}));
}

Status import_squeeze(OnnxNode &n) {
  KILN_TRY(given, n.ints_attr_or_input("axes", 1));
  std::vector<int> axes;
  if (given) {
    KILN_TRY(list, n.axes(*given, n.rank()));
    axes = list;
    for (int a : axes)
      if (!n.emitter().require_equal(n.in(0).dim(a), 1, "Squeeze"))
        return Error{fmt::format("dim {} of {} is not 1", a, n.in(0).type.text())};
  } else {
    for (int i = 0; i < n.rank(); ++i)
      if (n.in(0).dim(i).is_const(1))
        axes.push_back(i);
  }
  return n.finish(reshape(n.emitter(), n.in(0), without_axes(n.shape(), axes)));
}

Status import_unsqueeze(OnnxNode &n) {
  KILN_TRY(given, n.ints_attr_or_input("axes", 1));
  if (!given)
    return Error{"it has neither an input nor an attribute with the axes"};
  if (given->size() > size_t(kMaxRank))
    return Error{fmt::format("it adds {} dims; at most {} are supported", given->size(), kMaxRank)};
  int rank = n.rank() + int(given->size());
  KILN_TRY(axes, n.axes(*given, rank));
  Shape shape;
  size_t next = 0;
  for (int i = 0; i < rank; ++i)
    shape.push_back(std::find(axes.begin(), axes.end(), i) != axes.end() ? Dim(1) : n.shape()[next++]);
  return n.finish(reshape(n.emitter(), n.in(0), shape));
}

Status import_transpose(OnnxNode &n) {
  auto order = n.get_ints("perm");
  for (int64_t axis : order)
    if (axis < 0)
      return Error{fmt::format("perm names the axis {}; axes count from 0 here", axis)};
  if (!n.has_attr("perm"))
    for (int i = n.rank(); i-- > 0;)
      order.push_back(i);
  KILN_TRY(axes, n.axes(order, n.rank()));
  if (int(axes.size()) != n.rank())
    return Error{fmt::format("perm lists {} axes of {}", axes.size(), n.in(0).type.text())};
  return n.finish(permute(n.emitter(), n.in(0), std::vector<int64_t>(axes.begin(), axes.end())));
}

Status import_concat(OnnxNode &n) {
  if (!n.has_attr("axis") && n.opset() >= 4)
    return Error{"the attribute 'axis' is missing"};
  KILN_TRY(axis, n.axis(n.get_int("axis", 1), n.rank()));
  if (n.input_count() == 1)
    return n.finish(Result<Val>(n.in(0)));
  return n.finish(Op::concat, n.inputs(), {{"axis", attr_int(axis)}});
}

Status import_expand(OnnxNode &n) {
  KILN_TRY(sizes, run_ints(n, 1, "shape"));
  if (sizes.size() > size_t(kMaxRank))
    return Error{fmt::format("the shape has {} dims; at most {} are supported", sizes.size(), kMaxRank)};
  const Shape &from = n.shape();
  // What is found at run time is free where the operand has 1 (or nothing), and either 1 or the operand's
  // own size elsewhere.
  for (size_t i = 0; i < sizes.size(); ++i) {
    RunInt &size = sizes[sizes.size() - 1 - i];
    const Dim *own = i < from.size() ? &from[from.size() - 1 - i] : nullptr;
    if (size.known || !own || own->is_const(1))
      continue;
    Emitter &e = n.emitter();
    KILN_TRY(one, e.emit(Op::eq, {size.value, number(e, 1)}));
    KILN_TRY(value, choose(e, one, number(e, *own), size.value));
    KILN_TRY(same, e.bind_size(value, *own, "expand"));
    if (!e.require_equal(same, *own, "Expand"))
      return Error{fmt::format("it cannot expand {} to {}", n.in(0).type.text(), same.text())};
    size.known = *own;
  }
  KILN_TRY(target, bind_free(n, sizes, "expand"));
  // Broadcast both ways: a size of 1 in the target keeps the operand's.
  Shape out(std::max(from.size(), target.size()));
  for (size_t i = 0; i < out.size(); ++i) {
    Dim a = i < from.size() ? from[from.size() - 1 - i] : Dim(1);
    Dim b = i < target.size() ? target[target.size() - 1 - i] : Dim(1);
    out[out.size() - 1 - i] = b.is_const(1) ? a : b;
  }
  return n.finish(broadcast_to(n.emitter(), n.in(0), out));
}

Status import_tile(OnnxNode &n) {
  if (n.has(2) && n.opset() < 6)
    return import_first_tile(n);
  const Val &x = n.in(0);
  KILN_TRY(counts, run_ints(n, 1, "repeats"));
  KILN_TRY(repeats, bind_free(n, counts, "repeats"));
  if (int(repeats.size()) != x.rank())
    return Error{fmt::format("it has {} repeats for {}", repeats.size(), x.type.text())};
  Shape split, spread, joined;
  for (int i = 0; i < x.rank(); ++i) {
    const Dim &r = repeats[size_t(i)], &d = x.dim(i);
    if (!r.is_const(1) && !d.is_const(1)) {
      split.push_back(1);
      spread.push_back(r);
    }
    split.push_back(d);
    spread.push_back(d.is_const(1) ? r : d);
    joined.push_back(d * r);
  }
  if (split.size() > size_t(kMaxRank))
    return Error{"it repeats too many dims at once"};
  KILN_TRY(apart, reshape(n.emitter(), x, split));
  KILN_TRY(wide, broadcast_to(n.emitter(), apart, spread));
  return n.finish(reshape(n.emitter(), wide, joined));
}

Status import_constant_of_shape(OnnxNode &n) {
  KILN_TRY(sizes, run_ints(n, 0, "shape"));
  KILN_TRY(shape, bind_free(n, sizes, "filled"));
  if (shape.size() > size_t(kMaxRank))
    return Error{fmt::format("the shape has {} dims; at most {} are supported", shape.size(), kMaxRank)};
  for (const Dim &d : shape)
    if (d.is_const() && d.as_const() < 0)
      return Error{fmt::format("the shape {} has a negative size", shape_text(shape))};
  Val value = n.emitter().scalar(DType::f32, 0);
  if (n.has_attr("value")) {
    KILN_TRY(tensor, n.get_tensor("value"));
    if (tensor.count() != 1)
      return Error{"its value must be one number"};
    KILN_TRY(scalar, reshape(n.emitter(), n.emitter().constant(std::move(tensor)), {}));
    value = scalar;
  }
  return n.finish(broadcast_to(n.emitter(), value, shape));
}

Status import_range(OnnxNode &n) {
  Emitter &e = n.emitter();
  const Val &start = n.in(0), &limit = n.in(1), &delta = n.in(2);
  if (start.constant && limit.constant && delta.constant && is_float(start.dtype())) {
    for (const Val *v : {&start, &limit, &delta})
      if (v->constant->count() != 1)
        return Error{"its operands must be single numbers"};
    double s = start.constant->at_f64(0), step = delta.constant->at_f64(0);
    double count = std::ceil((limit.constant->at_f64(0) - s) / step);
    if (!(count <= double(kMaxFoldElements)))
      return Error{"it makes too many numbers"};
    Tensor out(start.dtype(), {std::max<int64_t>(int64_t(count), 0)});
    for (int64_t i = 0; i < out.count(); ++i)
      out.set_f64(i, s + double(i) * step);
    n.set(0, e.constant(std::move(out)));
    return Unit{};
  }
  bool known = is_integer(start.dtype());
  for (const Val *v : {&start, &limit, &delta})
    known = known && e.dims(*v).has_value();
  if (!known)
    return range_found(n);
  KILN_TRY(s, n.dims_of(0, "start"));
  KILN_TRY(l, n.dims_of(1, "limit"));
  KILN_TRY(d, n.dims_of(2, "delta"));
  if (s.size() != 1 || l.size() != 1 || d.size() != 1)
    return Error{"its operands must be single numbers"};
  auto step = d[0].try_const();
  if (!step || *step == 0 || *step == INT64_MIN)
    return Error{fmt::format("the delta must be a constant other than 0, not {}", d[0].text())};
  Dim span = *step > 0 ? l[0] - s[0] : s[0] - l[0];
  Dim count = ceildiv(span, std::abs(*step));
  if (!known_nonnegative(count, DimRanges()))
    count = max(count, 0);
  KILN_TRY(index, e.emit(Op::iota, {}, {{"shape", Shape{count}}, {"axis", Dim(0)}, {"dtype", start.dtype()}}));
  Val out = index;
  if (*step != 1) {
    KILN_TRY(scaled, e.emit(Op::mul, {out, e.constant(Tensor::scalar_i64(start.dtype(), *step))}));
    out = scaled;
  }
  if (!s[0].is_const(0)) {
    KILN_TRY(first, reshape(e, start, {}));
    KILN_TRY(moved, e.emit(Op::add, {out, first}));
    out = moved;
  }
  return n.finish(Result<Val>(out));
}

Status import_eye_like(OnnxNode &n) {
  if (n.rank() != 2)
    return Error{fmt::format("its operand must have two dims, not {}", n.in(0).type.text())};
  Emitter &e = n.emitter();
  DType dtype = n.dtype();
  if (n.has_attr("dtype")) {
    KILN_TRY(like, Result<int64_t>(n.get_int("dtype", 0)));
    auto wanted = dtype_from_onnx(like);
    if (!wanted)
      return Error{fmt::format("elements of {} are not supported", onnx_type_name(like))};
    dtype = *wanted;
  }
  auto index = [&](int64_t axis) {
    return e.emit(Op::iota, {}, {{"shape", n.shape()}, {"axis", Dim(axis)}, {"dtype", DType::i64}});
  };
  KILN_TRY(row, index(0));
  KILN_TRY(column, index(1));
  KILN_TRY(shifted, e.emit(Op::add, {row, e.constant(Tensor::scalar_i64(DType::i64, n.get_int("k", 0)))}));
  KILN_TRY(on, e.emit(Op::eq, {shifted, column}));
  return n.finish(convert(e, on, dtype));
}

Status import_depth_to_space(OnnxNode &n) {
  return n.finish(Op::depth_to_space, {n.in(0)},
                  {{"block", attr_int(n.get_int("blocksize", 0))}, {"mode", n.get_string("mode", "DCR")}});
}

Status import_space_to_depth(OnnxNode &n) {
  int64_t block = n.get_int("blocksize", 0);
  std::string mode = n.get_string("mode", "DCR");
  if (mode == "DCR")
    return n.finish(Op::space_to_depth, {n.in(0)}, {{"block", attr_int(block)}});
  if (mode != "CRD" || n.rank() != 4 || block <= 0 || block > (1 << 20))
    return Error{fmt::format("the mode is '{}' and the block {} for {}", mode, block, n.in(0).type.text())};
  const Shape &x = n.shape();
  Dim rows = floordiv(x[2], block), columns = floordiv(x[3], block);
  KILN_TRY(split, reshape(n.emitter(), n.in(0), {x[0], x[1], rows, block, columns, block}));
  KILN_TRY(moved, permute(n.emitter(), split, {0, 1, 3, 5, 2, 4}));
  return n.finish(reshape(n.emitter(), moved, {x[0], x[1] * Dim(block * block), rows, columns}));
}

Status import_trilu(OnnxNode &n) {
  bool upper = n.get_flag("upper", true);
  if (n.has(1) && !element_count(n.shape(1)).is_const(1))
    return Error{fmt::format("the diagonal k is {}, not one number", n.in(1).type.text())};
  if (!n.has(1) || n.emitter().dims(n.in(1))) {
    Dim k = n.has(1) ? (*n.emitter().dims(n.in(1)))[0] : Dim(0);
    return n.finish(Op::trilu, {n.in(0)}, {{"upper", upper}, {"k", k}});
  }
  if (n.rank() < 2)
    return Error{fmt::format("its operand is {}, not matrices", n.in(0).type.text())};
  Calc c(n.emitter());
  Shape matrix = n.in(0).dims(n.rank() - 2, n.rank());
  Num k = reshape(convert(c(n.in(1)), DType::i64), {}), diagonal = c.iota(DType::i64, matrix, 1) - c.iota(DType::i64, matrix, 0);
  return n.finish(c.done(where(upper ? diagonal >= k : diagonal <= k, c(n.in(0)), 0)));
}

} // namespace kiln::onnx
