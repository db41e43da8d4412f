// Elementwise ops of one operand: rounding, roots, exponentials, trigonometry.
#include "ir/ops/elementwise.h"

#include <cmath>
#include <limits>

namespace kiln {
namespace {

using namespace elementwise;

template <typename T>
constexpr bool is_real = std::is_same_v<T, double>;

// Integers wrap: arithmetic is done without sign.
template <typename T>
T negate(T x) {
  if constexpr (is_real<T>)
    return -x;
  else
    return T(0 - uint64_t(x));
}

constexpr auto kNeg = [](auto x) { return negate(x); };
constexpr auto kAbs = [](auto x) {
  if constexpr (is_real<decltype(x)>)
    return std::fabs(x);
  else
    return x < 0 ? negate(x) : x;
};
constexpr auto kSign = [](auto x) {
  using T = decltype(x);
  return x > 0 ? T(1) : x < 0 ? T(-1) : x;
};
constexpr auto kSquare = [](auto x) {
  if constexpr (is_real<decltype(x)>)
    return x * x;
  else
    return decltype(x)(uint64_t(x) * uint64_t(x));
};

Expr abs_scalar(const Attrs &, DType, Operands x) {
  return is_unsigned_int(x[0].dtype) ? x[0] : kb::unary(UnaryOp::abs, x[0]);
}
// Zero and NaN stay what they are.
Expr sign_scalar(const Attrs &, DType, Operands x) {
  Expr zero = like(x[0], 0);
  Expr rest =
      is_unsigned_int(x[0].dtype) ? x[0] : kb::select(kb::lt(x[0], zero), like(x[0], -1), x[0]);
  return kb::select(gt(x[0], zero), like(x[0], 1), rest);
}
Expr square_scalar(const Attrs &, DType, Operands x) {
  return kb::mul(x[0], x[0]);
}
Expr reciprocal_scalar(const Attrs &, DType, Operands x) {
  return kb::div(like(x[0], 1), x[0]);
}
Expr rsqrt_scalar(const Attrs &, DType, Operands x) {
  return kb::div(like(x[0], 1), kb::unary(UnaryOp::sqrt, x[0]));
}

} // namespace

const OpDef op_neg{.name = "neg",
                   .doc = "-x; integers wrap.",
                   .min_operands = 1,
                   .max_operands = 1,
                   .infer = map<kNumbers>,
                   .ref = ref<1, kNumbers, kNeg>,
                   .scalar = scalar<UnaryOp::neg>,
                   .traits = kElementwise | kInvolution | kZeroPreserving,
                   .samples = unary_samples(kNumbers)};

const OpDef op_abs{.name = "abs",
                   .doc = "The absolute value; that of the least integer wraps to itself.",
                   .min_operands = 1,
                   .max_operands = 1,
                   .infer = map<kNumbers>,
                   .ref = ref<1, kNumbers, kAbs>,
                   .scalar = abs_scalar,
                   .traits = kElementwise | kIdempotent | kZeroPreserving,
                   .samples = unary_samples(kNumbers)};

const OpDef op_sign{.name = "sign",
                    .doc = "-1, 0 or 1; NaN for NaN.",
                    .min_operands = 1,
                    .max_operands = 1,
                    .infer = map<kNumbers>,
                    .ref = ref<1, kNumbers, kSign>,
                    .scalar = sign_scalar,
                    .traits = kElementwise | kIdempotent | kZeroPreserving,
                    .samples = unary_samples(kNumbers)};

const OpDef op_square{.name = "square",
                      .doc = "x * x; integers wrap.",
                      .min_operands = 1,
                      .max_operands = 1,
                      .infer = map<kNumbers>,
                      .ref = ref<1, kNumbers, kSquare>,
                      .scalar = square_scalar,
                      .traits = kElementwise | kZeroPreserving,
                      .samples = unary_samples(kNumbers)};

const OpDef op_reciprocal{.name = "reciprocal",
                          .doc = "1 / x.",
                          .min_operands = 1,
                          .max_operands = 1,
                          .infer = map<kFloats>,
                          .ref = ref<1, kFloats, [](double x) { return 1 / x; }>,
                          .scalar = reciprocal_scalar,
                          .traits = kElementwise | kExpensive,
                          .samples = unary_samples(kFloats, 0.25, 4)};

const OpDef op_rsqrt{.name = "rsqrt",
                     .doc = "1 / sqrt(x).",
                     .min_operands = 1,
                     .max_operands = 1,
                     .infer = map<kFloats>,
                     .ref = ref<1, kFloats, [](double x) { return 1 / std::sqrt(x); }>,
                     .scalar = rsqrt_scalar,
                     .traits = kElementwise | kExpensive,
                     .samples = unary_samples(kFloats, 0.25, 4)};

// Functions that are one scalar op of the kernel IR.
#define KILN_FUNCTION(id, text, function, extra, ...)                                              \
  const OpDef op_##id{.name = #id,                                                                 \
                      .doc = text,                                                                 \
                      .min_operands = 1,                                                           \
                      .max_operands = 1,                                                           \
                      .infer = map<kFloats>,                                                       \
                      .ref = ref<1, kFloats, [](double x) { return function; }>,                   \
                      .scalar = scalar<UnaryOp::id>,                                               \
                      .traits = kElementwise | (extra),                                            \
                      .samples = unary_samples(kFloats, __VA_ARGS__)};

KILN_FUNCTION(ceil, "The least integer not below x.", std::ceil(x), kIdempotent | kZeroPreserving,
              -5, 5)
KILN_FUNCTION(floor, "The greatest integer not above x.", std::floor(x),
              kIdempotent | kZeroPreserving, -5, 5)
KILN_FUNCTION(round, "The nearest integer, ties to even.", std::nearbyint(x),
              kIdempotent | kZeroPreserving, -5, 5)
KILN_FUNCTION(trunc, "The integer part.", std::trunc(x), kIdempotent | kZeroPreserving, -5, 5)
KILN_FUNCTION(sqrt, "The square root.", std::sqrt(x), kZeroPreserving, 0, 4)
KILN_FUNCTION(exp, "e to the power of x.", std::exp(x), kExpensive, -6, 3)
KILN_FUNCTION(expm1, "exp(x) - 1, exact near 0.", std::expm1(x), kExpensive | kZeroPreserving, -6,
              3)
KILN_FUNCTION(log, "The natural logarithm.", std::log(x), kExpensive, 0.01, 8)
KILN_FUNCTION(log1p, "log(1 + x), exact near 0.", std::log1p(x), kExpensive | kZeroPreserving, -0.9,
              8)
KILN_FUNCTION(sin, "The sine of x in radians.", std::sin(x), kExpensive | kZeroPreserving, -8, 8)
KILN_FUNCTION(cos, "The cosine of x in radians.", std::cos(x), kExpensive, -8, 8)
KILN_FUNCTION(tan, "The tangent of x in radians.", std::tan(x), kExpensive | kZeroPreserving, -1.4,
              1.4)
KILN_FUNCTION(asin, "The inverse of sin, in [-pi/2, pi/2].", std::asin(x),
              kExpensive | kZeroPreserving, -1, 1)
KILN_FUNCTION(acos, "The inverse of cos, in [0, pi].", std::acos(x), kExpensive, -1, 1)
KILN_FUNCTION(atan, "The inverse of tan, in [-pi/2, pi/2].", std::atan(x),
              kExpensive | kZeroPreserving, -5, 5)
KILN_FUNCTION(sinh, "The hyperbolic sine.", std::sinh(x), kExpensive | kZeroPreserving, -3, 3)
KILN_FUNCTION(cosh, "The hyperbolic cosine.", std::cosh(x), kExpensive, -3, 3)
KILN_FUNCTION(tanh, "The hyperbolic tangent.", std::tanh(x), kExpensive | kZeroPreserving, -5, 5)
KILN_FUNCTION(asinh, "The inverse of sinh.", std::asinh(x), kExpensive | kZeroPreserving, -5, 5)
KILN_FUNCTION(acosh, "The inverse of cosh, for x >= 1.", std::acosh(x), kExpensive, 1, 6)
KILN_FUNCTION(atanh, "The inverse of tanh, for |x| < 1.", std::atanh(x),
              kExpensive | kZeroPreserving, -0.95, 0.95)
KILN_FUNCTION(erf, "The error function.", std::erf(x), kExpensive | kZeroPreserving, -3, 3)
KILN_FUNCTION(sigmoid, "1 / (1 + exp(-x)).", 1 / (1 + std::exp(-x)), kExpensive, -8, 8)
#undef KILN_FUNCTION

} // namespace kiln
