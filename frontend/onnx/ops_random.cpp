// Operators that draw random numbers: words of Philox (ops/random.cpp), which are the same on every machine,
// turned into numbers. ONNX does not say which generator a seed feeds, so the numbers are not those of
// another runtime.
//
// With the attribute `seed` a node is a function: it draws the same numbers in every run. Nodes without one
// share the state variable `random.draws` of the model, which counts draws; setting it repeats a run.
#include "frontend/onnx/ops.h"
#include "frontend/onnx/tensors.h"

#include <fmt/format.h>

#include <bit>

namespace kiln::onnx {
namespace {

constexpr const char *kCounter = "random.draws";

VariableId counter_of(Module &module) {
  for (size_t i = 0; i < module.variables.size(); ++i)
    if (module.variables[i].name == kCounter)
      return VariableId(uint32_t(i));
  Variable v;
  v.name = kCounter;
  v.kind = VariableKind::state;
  v.type = {DType::u64, {}};
  module.variables.push_back(std::move(v));
  return VariableId(uint32_t(module.variables.size() - 1));
}

// The key of this node's words, u64[2].
Result<Val> key_of(OnnxNode &n) {
  Emitter &e = n.emitter();
  Tensor seed(DType::u64, {1});
  if (const AttributeView *given = n.find("seed")) { // an integer for Dropout
    double value = given->type == AttrType::i ? double(given->i) : n.get_float("seed", 0);
    seed.set_i64(0, int64_t(std::bit_cast<uint64_t>(value)));
    Tensor key(DType::u64, {2});
    key.set_i64(0, seed.at_i64(0));
    return e.constant(std::move(key));
  }
  VariableId counter = counter_of(e.module());
  KILN_TRY(before, n.emit(Op::read_variable, {}, {{"variable", counter}}));
  KILN_TRY(after, n.emit(Op::add, {before, e.constant(Tensor::scalar_i64(DType::u64, 1))}));
  KILN_TRY(id, e.materialize(after));
  KILN_TRY(done, e.builder().emit(Op::assign, {id}, {{"variable", counter}}));
  (void)done;
  seed.set_i64(0, -1); // no seed: the bits of a NaN
  KILN_TRY(draw, reshape(e, before, {1}));
  return n.emit(Op::concat, {e.constant(std::move(seed)), draw}, {{"axis", attr_int(0)}});
}

// `count` lists of uniform numbers of [0, 1): 24 bits of one word, or 53 of two.
Result<std::vector<Val>> uniform(OnnxNode &n, const Shape &shape, DType dtype, int64_t count) {
  Emitter &e = n.emitter();
  bool wide = dtype == DType::f64;
  KILN_TRY(key, key_of(n));
  Shape all = shape;
  all.insert(all.begin(), Dim(wide ? 2 * count : count));
  KILN_TRY(words, n.emit(Op::random_bits, {key}, {{"shape", all}}));
  auto part = [&](int64_t i, int64_t drop) -> Result<Val> {
    KILN_TRY(row, slice_axis(e, words, 0, i, 1));
    KILN_TRY(one, reshape(e, row, shape));
    KILN_TRY(high, n.emit(Op::shift_right, {one, e.constant(Tensor::scalar_i64(DType::u32, drop))}));
    return convert(e, high, wide ? DType::f64 : DType::f32);
  };
  std::vector<Val> out;
  for (int64_t i = 0; i < count; ++i) {
    if (!wide) {
      KILN_TRY(bits, part(i, 8));
      KILN_TRY(unit, n.emit(Op::mul, {bits, e.scalar(DType::f32, 0x1p-24)}));
      out.push_back(unit);
      continue;
    }
    KILN_TRY(high, part(2 * i, 5));
    KILN_TRY(low, part(2 * i + 1, 6));
    KILN_TRY(high_unit, n.emit(Op::mul, {high, e.scalar(DType::f64, 0x1p-27)}));
    KILN_TRY(low_unit, n.emit(Op::mul, {low, e.scalar(DType::f64, 0x1p-53)}));
    KILN_TRY(unit, n.emit(Op::add, {high_unit, low_unit}));
    out.push_back(unit);
  }
  return out;
}

// The dtype of the result: the attribute's, else `otherwise`.
Result<DType> result_dtype(OnnxNode &n, DType otherwise, bool floats) {
  int64_t given = n.get_int("dtype", 0);
  if (given == 0)
    return otherwise;
  auto known = dtype_from_onnx(given);
  if (!known || (floats && !is_float(*known)))
    return Error{fmt::format("its result cannot be {}", onnx_type_name(given))};
  return *known;
}

DType drawn_dtype(DType d) { return d == DType::f64 ? d : DType::f32; }

// a + b * x
Result<Val> affine(OnnxNode &n, const Val &x, double a, double b) {
  KILN_TRY(scaled, n.emit(Op::mul, {x, n.emitter().scalar(x.dtype(), b)}));
  return n.emit(Op::add, {scaled, n.emitter().scalar(x.dtype(), a)});
}

Status draw_uniform(OnnxNode &n, const Shape &shape, DType dtype) {
  double low = n.get_float("low", 0), high = n.get_float("high", 1);
  KILN_TRY(units, uniform(n, shape, drawn_dtype(dtype), 1));
  KILN_TRY(y, affine(n, units[0], low, high - low));
  return n.finish(convert(n.emitter(), y, dtype));
}

// By Box and Muller; 1 - u is in (0, 1], so that the logarithm is finite.
Status draw_normal(OnnxNode &n, const Shape &shape, DType dtype) {
  double mean = n.get_float("mean", 0), scale = n.get_float("scale", 1);
  KILN_TRY(units, uniform(n, shape, drawn_dtype(dtype), 2));
  KILN_TRY(positive, affine(n, units[0], 1, -1));
  KILN_TRY(log, n.emit(Op::log, {positive}));
  KILN_TRY(squared, affine(n, log, 0, -2));
  KILN_TRY(radius, n.emit(Op::sqrt, {squared}));
  KILN_TRY(angle, affine(n, units[1], 0, 6.283185307179586));
  KILN_TRY(cosine, n.emit(Op::cos, {angle}));
  KILN_TRY(standard, n.emit(Op::mul, {radius, cosine}));
  KILN_TRY(y, affine(n, standard, mean, scale));
  return n.finish(convert(n.emitter(), y, dtype));
}

Result<Shape> given_shape(OnnxNode &n) {
  if (!n.has_attr("shape"))
    return Error{"the attribute 'shape' is missing"};
  Shape out;
  for (int64_t d : n.get_ints("shape")) {
    if (d < 0)
      return Error{fmt::format("'shape' has the size {}", d)};
    out.push_back(d);
  }
  return out;
}

// Whatever is no float asks for floats of the default type.
DType like_dtype(OnnxNode &n) { return is_float(n.dtype(0)) ? n.dtype(0) : DType::f32; }

} // namespace

Status import_random_uniform(OnnxNode &n) {
  KILN_TRY(shape, given_shape(n));
  KILN_TRY(dtype, result_dtype(n, DType::f32, true));
  return draw_uniform(n, shape, dtype);
}

Status import_random_normal(OnnxNode &n) {
  KILN_TRY(shape, given_shape(n));
  KILN_TRY(dtype, result_dtype(n, DType::f32, true));
  return draw_normal(n, shape, dtype);
}

Status import_random_uniform_like(OnnxNode &n) {
  KILN_TRY(dtype, result_dtype(n, like_dtype(n), true));
  return draw_uniform(n, n.shape(0), dtype);
}

Status import_random_normal_like(OnnxNode &n) {
  KILN_TRY(dtype, result_dtype(n, like_dtype(n), true));
  return draw_normal(n, n.shape(0), dtype);
}

// 1 with the probability that the operand says.
Status import_bernoulli(OnnxNode &n) {
  KILN_TRY(dtype, result_dtype(n, n.dtype(0), false));
  DType drawn = drawn_dtype(n.dtype(0));
  KILN_TRY(units, uniform(n, n.shape(0), drawn, 1));
  KILN_TRY(limits, convert(n.emitter(), n.in(0), drawn));
  KILN_TRY(is, n.emit(Op::lt, {units[0], limits}));
  return n.finish(convert(n.emitter(), is, dtype));
}

// Samples of classes whose logarithms of probability are [B, C]: how many of the running sums of a row a
// uniform number of [0, the row's sum) has passed.
Status import_multinomial(OnnxNode &n) {
  Emitter &e = n.emitter();
  int64_t samples = n.get_int("sample_size", 1);
  KILN_TRY(dtype, result_dtype(n, DType::i32, false));
  if (n.rank(0) != 2 || n.shape(0)[1].is_const(0))
    return Error{fmt::format("its operand must be [B, C], not {}", n.in(0).type.text())};
  if (samples < 1 || !is_integer(dtype))
    return Error{fmt::format("{} samples of {} cannot be drawn", samples, dtype_name(dtype))};
  const Dim &batch = n.shape(0)[0], &classes = n.shape(0)[1];
  DType t = drawn_dtype(n.dtype(0));
  KILN_TRY(x, convert(e, n.in(0), t));
  KILN_TRY(weights, n.emit(Op::softmax, {x}, {{"axis", attr_int(1)}}));
  KILN_TRY(sums, n.emit(Op::cumsum, {weights}, {{"axis", attr_int(1)}}));
  KILN_TRY(total, slice_axis(e, sums, 1, classes - Dim(1), 1));
  KILN_TRY(units, uniform(n, {batch, Dim(samples)}, t, 1));
  KILN_TRY(at, n.emit(Op::mul, {units[0], total}));
  KILN_TRY(columns, reshape(e, at, {batch, Dim(samples), 1}));
  KILN_TRY(rows, reshape(e, sums, {batch, 1, classes}));
  auto count = [&](Op op, const Val &a, const Val &b, int64_t axis) -> Result<Val> {
    KILN_TRY(is, n.emit(op, {a, b}));
    KILN_TRY(ones, convert(e, is, DType::i64));
    return n.emit(Op::reduce_sum, {ones}, {{"axes", attr_ints(std::vector<int64_t>{axis})}, {"keepdims", false}});
  };
  KILN_TRY(passed, count(Op::le, rows, columns, 2));
  KILN_TRY(before_last, count(Op::lt, sums, total, 1)); // rounding may lead to the sum itself
  KILN_TRY(last, reshape(e, before_last, {batch, 1}));
  KILN_TRY(chosen, n.emit(Op::minimum, {passed, last}));
  return n.finish(convert(e, chosen, dtype));
}

// In training mode elements are dropped with the probability `ratio`, and the others grow by 1 / (1 - ratio).
Status import_dropout(OnnxNode &n) {
  Emitter &e = n.emitter();
  n.get_float("ratio", 0.5); // without effect, but a number
  n.ignore({"is_test", "consumed_inputs", "seed"});
  bool training = n.has(2);
  if (training && !element_count(n.shape(2)).is_const(1))
    return Error{fmt::format("its training mode is {}, not one bool", n.in(2).type.text())};
  if (training && n.in(2).constant && n.in(2).constant->at_i64(0) == 0)
    training = false;
  if (training && n.has(1) && n.in(1).constant && n.in(1).constant->count() == 1 && n.in(1).constant->at_f64(0) == 0)
    training = false;
  if (!training) {
    n.set(0, n.in(0));
    if (n.wants(1)) {
      KILN_TRY(mask, broadcast_to(e, e.scalar(n.opset() < 10 ? n.dtype(0) : DType::bool_, 1), n.shape()));
      n.set(1, mask);
    }
    return Unit{};
  }
  DType t = drawn_dtype(n.dtype(0));
  Val ratio = e.scalar(t, 0.5);
  if (n.has(1)) {
    KILN_TRY(typed, convert(e, n.in(1), t));
    KILN_TRY(one, reshape(e, typed, {}));
    ratio = one;
  }
  KILN_TRY(flag, reshape(e, n.in(2), {}));
  KILN_TRY(rate, n.emit(Op::where, {flag, ratio, e.scalar(t, 0)}));
  KILN_TRY(units, uniform(n, n.shape(0), t, 1));
  KILN_TRY(mask, n.emit(Op::ge, {units[0], rate}));
  KILN_TRY(kept, n.emit(Op::sub, {e.scalar(t, 1), rate}));
  KILN_TRY(factor, n.emit(Op::div, {e.scalar(t, 1), kept}));
  KILN_TRY(x, convert(e, n.in(0), t));
  KILN_TRY(grown, n.emit(Op::mul, {x, factor}));
  KILN_TRY(y, n.emit(Op::where, {mask, grown, e.scalar(t, 0)}));
  n.set(1, mask);
  return n.finish(convert(e, y, n.dtype(0)));
}

} // namespace kiln::onnx
