// Elementwise operators whose form differs from Kiln's.
#include "frontend/onnx/ops.h"

#include "frontend/onnx/tensors.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace kiln::onnx {
namespace {

Status with_alpha(OnnxNode &n, Op op, double alpha) {
  return n.finish(op, {n.in(0)}, {{"alpha", n.get_float("alpha", alpha)}});
}

Result<Val> variadic(OnnxNode &n, Op op) {
  Val out = n.in(0);
  for (size_t i = 1; i < n.input_count(); ++i) {
    KILN_TRY(next, n.emit(op, {out, n.in(i)}));
    out = next;
  }
  return out;
}

} // namespace

Status import_celu(OnnxNode &n) { return with_alpha(n, Op::celu, 1.0); }
Status import_elu(OnnxNode &n) { return with_alpha(n, Op::elu, 1.0); }
Status import_leaky_relu(OnnxNode &n) { return with_alpha(n, Op::leaky_relu, 0.01); }

// NaN is not above the threshold here, as it is for the op.
Status import_thresholded_relu(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(above, n.emit(Op::gt, {n.in(0), e.scalar(n.dtype(), n.get_float("alpha", 1.0))}));
  return n.finish(Op::where, {above, n.in(0), e.scalar(n.dtype(), 0)});
}

Status import_selu(OnnxNode &n) {
  return n.finish(Op::selu, {n.in(0)},
                  {{"alpha", n.get_float("alpha", 1.67326319217681884765625)},
                   {"gamma", n.get_float("gamma", 1.05070102214813232421875)}});
}

Status import_hard_sigmoid(OnnxNode &n) {
  return n.finish(Op::hard_sigmoid, {n.in(0)},
                  {{"alpha", n.get_float("alpha", 0.2)}, {"beta", n.get_float("beta", 0.5)}});
}

Status import_gelu(OnnxNode &n) {
  return n.finish(Op::gelu, {n.in(0)}, {{"approximate", n.get_string("approximate", "none")}});
}

// a * sigmoid(alpha * a), times the second operand in SwiGLU.
static Result<Val> swish(OnnxNode &n) {
  double alpha = n.get_float("alpha", 1.0);
  if (alpha == 1.0)
    return n.emit(Op::silu, {n.in(0)});
  KILN_TRY(scaled, n.emit(Op::mul, {n.in(0), n.emitter().scalar(n.dtype(), alpha)}));
  KILN_TRY(gate, n.emit(Op::sigmoid, {scaled}));
  return n.emit(Op::mul, {n.in(0), gate});
}

Status import_swish(OnnxNode &n) { return n.finish(swish(n)); }

Status import_swiglu(OnnxNode &n) {
  if (n.shape(0) != n.shape(1))
    return Error{fmt::format("its operands {} and {} have different shapes", n.in(0).type.text(), n.in(1).type.text())};
  KILN_TRY(gate, swish(n));
  return n.finish(Op::mul, {gate, n.in(1)});
}

// x < -lambd: x + bias; x > lambd: x - bias; else 0
Status import_shrink(OnnxNode &n) {
  Emitter &e = n.emitter();
  double lambda = n.get_float("lambd", 0.5), bias = n.get_float("bias", 0.0);
  const Val &x = n.in(0);
  auto number = [&](double v) { return e.scalar(x.dtype(), v); };
  KILN_TRY(below, n.emit(Op::lt, {x, number(-lambda)}));
  KILN_TRY(above, n.emit(Op::gt, {x, number(lambda)}));
  KILN_TRY(up, n.emit(Op::add, {x, number(bias)}));
  KILN_TRY(down, n.emit(Op::sub, {x, number(bias)}));
  KILN_TRY(rest, n.emit(Op::where, {above, down, number(0)}));
  return n.finish(Op::where, {below, up, rest});
}

// Floats of 8 bits as ones that ops take; infinities and NaNs stay what they are.
static Result<Val> computed_with(Emitter &e, const Val &x) { return is_narrow(x.dtype()) ? convert(e, x, DType::f32) : Result<Val>(x); }

Status import_is_nan(OnnxNode &n) {
  KILN_TRY(x, computed_with(n.emitter(), n.in(0)));
  return n.finish(Op::is_nan, {x});
}

Status import_is_inf(OnnxNode &n) {
  KILN_TRY(x, computed_with(n.emitter(), n.in(0)));
  return n.finish(Op::is_inf, {x},
                  {{"positive", n.get_flag("detect_positive", true)},
                   {"negative", n.get_flag("detect_negative", true)}});
}

Status import_clip(OnnxNode &n) {
  n.ignore({"consumed_inputs"});
  constexpr double kInf = std::numeric_limits<double>::infinity();
  double lo = n.get_float("min", -kInf), hi = n.get_float("max", kInf);
  Val x = n.in(0);
  bool wide = is_integer(x.dtype()) && dtype_bits(x.dtype()) == 64;
  auto single = [&](size_t i) { return element_count(n.shape(i)).is_const(1); };
  for (size_t i : {size_t(1), size_t(2)}) {
    if (!n.has(i))
      continue;
    if (!single(i))
      return Error{fmt::format("its bound {} is {}, not one number", i, n.in(i).type.text())};
    if (n.in(i).dtype() != x.dtype())
      return Error{fmt::format("its bound {} is {}, but the operand is {}", i, n.in(i).type.text(),
                               x.type.text())};
    // 64-bit integers do not all fit an attribute, which is a double.
    if (n.in(i).constant && !wide) {
      (i == 1 ? lo : hi) = n.in(i).constant->at_f64(0);
      continue;
    }
    // The upper bound wins where it is below the lower one: it comes last.
    if (i == 2 && lo != -kInf) {
      KILN_TRY(raised, n.emit(Op::clamp, {x}, {{"min", lo}, {"max", kInf}}));
      x = raised, lo = -kInf;
    }
    KILN_TRY(bound, reshape(n.emitter(), n.in(i), {}));
    KILN_TRY(next, n.emit(i == 1 ? Op::maximum : Op::minimum, {x, bound}));
    x = next;
  }
  if (lo == -kInf && hi == kInf)
    return n.finish(Result<Val>(x));
  return n.finish(Op::clamp, {x}, {{"min", lo}, {"max", hi}});
}

// Before opset 7 a slope of one dim was one for each channel.
Status import_prelu(OnnxNode &n) {
  Val slope = n.in(1);
  if (n.opset() < 7 && slope.rank() == 1 && n.rank() > 2 && !slope.dim(0).is_const(1)) {
    Shape shape(size_t(n.rank() - 1), Dim(1));
    shape[0] = slope.dim(0);
    KILN_TRY(column, reshape(n.emitter(), slope, shape));
    slope = column;
  }
  if (is_integer(n.dtype())) {
    Emitter &e = n.emitter();
    KILN_TRY(negative, e.emit(Op::lt, {n.in(0), e.scalar(n.dtype(), 0)}));
    KILN_TRY(scaled, e.emit(Op::mul, {n.in(0), slope}));
    return n.finish(Op::where, {negative, scaled, n.in(0)});
  }
  return n.finish(Op::prelu, {n.in(0), slope});
}

Status import_bit_shift(OnnxNode &n) {
  std::string direction = n.get_string("direction", "");
  if (direction != "LEFT" && direction != "RIGHT")
    return Error{fmt::format("the direction is '{}', not LEFT or RIGHT", direction)};
  if (direction == "LEFT" || !is_signed_int(n.dtype()))
    return n.finish(direction == "LEFT" ? Op::shift_left : Op::shift_right, {n.in(0), n.in(1)});
  // Shifting a negative number out leaves its sign, where Kiln's shift by the width or more gives 0.
  Emitter &e = n.emitter();
  auto number = [&](int64_t v) { return e.constant(Tensor::scalar_i64(n.dtype(1), v)); };
  int bits = dtype_bits(n.dtype());
  KILN_TRY(below, n.emit(Op::lt, {n.in(1), number(0)}));
  KILN_TRY(above, n.emit(Op::ge, {n.in(1), number(bits)}));
  KILN_TRY(outside, n.emit(Op::logical_or, {below, above}));
  KILN_TRY(amount, n.emit(Op::where, {outside, number(bits - 1), n.in(1)}));
  return n.finish(Op::shift_right, {n.in(0), amount});
}

Status import_mod(OnnxNode &n) {
  return n.finish(n.get_flag("fmod", false) ? Op::fmod : Op::remainder, {n.in(0), n.in(1)});
}

Status import_max(OnnxNode &n) { return n.finish(variadic(n, Op::maximum)); }
Status import_min(OnnxNode &n) { return n.finish(variadic(n, Op::minimum)); }
Status import_sum(OnnxNode &n) { return n.finish(variadic(n, Op::add)); }

Status import_mean(OnnxNode &n) {
  KILN_TRY(sum, variadic(n, Op::add));
  if (n.input_count() == 1)
    return n.finish(Result<Val>(sum));
  return n.finish(Op::div, {sum, n.emitter().scalar(n.dtype(), double(n.input_count()))});
}

Status import_where(OnnxNode &n) { return n.finish(Op::where, {n.in(0), n.in(1), n.in(2)}); }

} // namespace kiln::onnx
