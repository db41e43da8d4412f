// Activation functions. All of them hand NaN on.
#include "ir/ops/elementwise.h"

#include <cmath>
#include <limits>

namespace kiln {
namespace {

using namespace elementwise;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kSqrtHalf = 0.70710678118654752440, kSqrtTwoOverPi = 0.79788456080286535588;
constexpr double kGeluCubic = 0.044715;

Expr call(UnaryOp op, Expr x) {
  return kb::unary(op, std::move(x));
}

double softplus(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x)));
}

constexpr auto kRelu = [](auto x) { return x <= decltype(x)(0) ? decltype(x)(0) : x; };
constexpr auto kSilu = [](double x) { return x / (1 + std::exp(-x)); };
constexpr auto kMish = [](double x) { return x * std::tanh(std::isnan(x) ? x : softplus(x)); };
constexpr auto kSoftplus = [](double x) { return std::isnan(x) ? x : softplus(x); };
constexpr auto kSoftsign = [](double x) { return x / (1 + std::fabs(x)); };
constexpr auto kHardSwish = [](double x) {
  double t = x / 6 + 0.5;
  return x * (t <= 0 ? 0 : t >= 1 ? 1 : t);
};

Expr relu_scalar(const Attrs &, DType, Operands x) {
  return kb::max(x[0], like(x[0], 0));
}

Result<std::vector<Tensor>> gelu_ref(const RefContext &c) {
  if (c.attrs.get_string("approximate") == "tanh")
    return map_elements<1, kFloats>(c, [](double x) {
      return 0.5 * x * (1 + std::tanh(kSqrtTwoOverPi * (x + kGeluCubic * x * x * x)));
    });
  return map_elements<1, kFloats>(c, [](double x) { return 0.5 * x * std::erfc(-x * kSqrtHalf); });
}

InferResult gelu_infer(InferContext &c) {
  KILN_RETURN_IF_ERROR(choice_attr(c.attrs, "approximate", {"none", "tanh"}));
  return infer_map(c, kFloats);
}

Expr gelu_scalar(const Attrs &attrs, DType, Operands operands) {
  const Expr &x = operands[0];
  Expr inner;
  if (attrs.get_string("approximate") == "tanh") {
    // x + c x^3 = x (1 + c x^2)
    Expr cubic = kb::add(like(x, 1), kb::mul(like(x, kGeluCubic), kb::mul(x, x)));
    inner = call(UnaryOp::tanh, kb::mul(kb::mul(like(x, kSqrtTwoOverPi), x), cubic));
  } else {
    inner = call(UnaryOp::erf, kb::mul(x, like(x, kSqrtHalf)));
  }
  return kb::mul(kb::mul(like(x, 0.5), x), kb::add(like(x, 1), inner));
}

Expr silu_scalar(const Attrs &, DType, Operands x) {
  return kb::mul(x[0], call(UnaryOp::sigmoid, x[0]));
}

// tanh(log(1 + e)) = n / (n + 2) with e = exp(x), n = e (e + 2); it is 1 from x = 20 on.
Expr mish_scalar(const Attrs &, DType, Operands operands) {
  const Expr &x = operands[0];
  Expr e = call(UnaryOp::exp, kb::min(x, like(x, 20)));
  Expr n = kb::mul(e, kb::add(e, like(x, 2)));
  Expr y = kb::mul(x, kb::div(n, kb::add(n, like(x, 2))));
  return kb::select(gt(x, like(x, 20)), x, y);
}

Expr softplus_scalar(const Attrs &, DType, Operands operands) {
  const Expr &x = operands[0];
  Expr e = call(UnaryOp::exp, call(UnaryOp::neg, call(UnaryOp::abs, x)));
  return kb::add(kb::max(x, like(x, 0)), call(UnaryOp::log1p, e));
}

Expr softsign_scalar(const Attrs &, DType, Operands x) {
  return kb::div(x[0], kb::add(like(x[0], 1), call(UnaryOp::abs, x[0])));
}

// x > 0 ? scale * x : scale * alpha * expm1(x / width), which elu, selu and celu are cases of.
Result<std::vector<Tensor>> exponential_ref(const RefContext &c, double scale, double alpha,
                                            double width) {
  return map_elements<1, kFloats>(
      c, [&](double x) { return x > 0 ? scale * x : scale * alpha * std::expm1(x / width); });
}
Expr exponential_scalar(const Expr &x, double scale, double alpha, double width) {
  Expr inner = width == 1 ? x : kb::div(x, like(x, width));
  Expr low = call(UnaryOp::expm1, std::move(inner));
  if (scale * alpha != 1)
    low = kb::mul(like(x, scale * alpha), low);
  return kb::select(gt(x, like(x, 0)), scale == 1 ? x : kb::mul(like(x, scale), x), low);
}

Result<std::vector<Tensor>> elu_ref(const RefContext &c) {
  return exponential_ref(c, 1, c.attrs.get_float("alpha"), 1);
}
Result<std::vector<Tensor>> selu_ref(const RefContext &c) {
  return exponential_ref(c, c.attrs.get_float("gamma"), c.attrs.get_float("alpha"), 1);
}
Result<std::vector<Tensor>> celu_ref(const RefContext &c) {
  double alpha = c.attrs.get_float("alpha");
  return exponential_ref(c, 1, alpha, alpha);
}
Expr elu_scalar(const Attrs &attrs, DType, Operands x) {
  return exponential_scalar(x[0], 1, attrs.get_float("alpha"), 1);
}
Expr selu_scalar(const Attrs &attrs, DType, Operands x) {
  return exponential_scalar(x[0], attrs.get_float("gamma"), attrs.get_float("alpha"), 1);
}
Expr celu_scalar(const Attrs &attrs, DType, Operands x) {
  double alpha = attrs.get_float("alpha");
  return exponential_scalar(x[0], 1, alpha, alpha);
}

InferResult celu_infer(InferContext &c) {
  if (c.attrs.get_float("alpha") == 0)
    return Error{"'alpha' must not be 0"};
  return infer_map(c, kFloats);
}

Result<std::vector<Tensor>> leaky_relu_ref(const RefContext &c) {
  double alpha = c.attrs.get_float("alpha");
  return map_elements<1, kFloats>(c, [&](double x) { return x >= 0 ? x : alpha * x; });
}
Expr leaky_relu_scalar(const Attrs &attrs, DType, Operands x) {
  return kb::select(kb::binary(BinaryOp::ge, x[0], like(x[0], 0)), x[0],
                    kb::mul(like(x[0], attrs.get_float("alpha")), x[0]));
}

Result<std::vector<Tensor>> thresholded_relu_ref(const RefContext &c) {
  double alpha = c.attrs.get_float("alpha");
  return map_elements<1, kFloats>(c, [&](double x) { return x <= alpha ? 0 : x; });
}
Expr thresholded_relu_scalar(const Attrs &attrs, DType, Operands x) {
  return kb::select(kb::le(x[0], like(x[0], attrs.get_float("alpha"))), like(x[0], 0), x[0]);
}

Result<std::vector<Tensor>> hard_sigmoid_ref(const RefContext &c) {
  double alpha = c.attrs.get_float("alpha"), beta = c.attrs.get_float("beta");
  return map_elements<1, kFloats>(c, [&](double x) {
    double t = alpha * x + beta;
    return t <= 0 ? 0 : t >= 1 ? 1 : t;
  });
}
Expr hard_sigmoid_scalar(const Attrs &attrs, DType, Operands operands) {
  const Expr &x = operands[0];
  Expr t = kb::add(kb::mul(like(x, attrs.get_float("alpha")), x), like(x, attrs.get_float("beta")));
  return kb::max(like(x, 0), kb::min(like(x, 1), t));
}
Expr hard_swish_scalar(const Attrs &, DType, Operands operands) {
  const Expr &x = operands[0];
  Expr t = kb::add(kb::mul(like(x, 1.0 / 6), x), like(x, 0.5));
  return kb::mul(x, kb::max(like(x, 0), kb::min(like(x, 1), t)));
}

// Bounds of an integer clamp have to be integers, or infinite; those outside the dtype have no
// effect.
InferResult clamp_infer(InferContext &c) {
  double lo = c.attrs.get_float("min"), hi = c.attrs.get_float("max");
  if (std::isnan(lo) || std::isnan(hi))
    return Error{"'min' and 'max' must not be NaN"};
  if (!is_float(c.operands[0].dtype) &&
      ((std::isfinite(lo) && lo != std::trunc(lo)) || (std::isfinite(hi) && hi != std::trunc(hi))))
    return Error{"'min' and 'max' must be whole numbers for a tensor of " +
                 std::string(dtype_name(c.operands[0].dtype))};
  return infer_map(c, kNumbers);
}

int64_t saturated(DType dtype, double value) {
  return Tensor::scalar_f64(dtype, value).at_i64(0);
}

Result<std::vector<Tensor>> clamp_ref(const RefContext &c) {
  double lo = c.attrs.get_float("min"), hi = c.attrs.get_float("max");
  DType dtype = c.operands[0]->dtype();
  return map_elements<1, kNumbers>(c, [&](auto x) {
    using T = decltype(x);
    if constexpr (std::is_same_v<T, double>) {
      double low = x < lo ? lo : x;
      return low > hi ? hi : low;
    } else {
      return std::min(std::max(x, T(saturated(dtype, lo))), T(saturated(dtype, hi)));
    }
  });
}

Expr clamp_scalar(const Attrs &attrs, DType, Operands x) {
  double lo = attrs.get_float("min"), hi = attrs.get_float("max");
  DType dtype = x[0].dtype;
  auto bound = [&](double value) {
    return is_float(dtype) ? like(x[0], value)
                           : kb::integer(dtype, saturated(dtype, value), x[0].lanes);
  };
  Expr out = x[0];
  if (lo != -kInf)
    out = kb::max(out, bound(lo));
  if (hi != kInf)
    out = kb::min(out, bound(hi));
  return out;
}

constexpr auto kPrelu = [](double x, double slope) { return x > 0 ? x : slope * x; };
Expr prelu_scalar(const Attrs &, DType, Operands x) {
  return kb::select(gt(x[0], like(x[0], 0)), x[0], kb::mul(x[1], x[0]));
}

} // namespace

#define KILN_ACTIVATION(id, text, attributes, infer_fn, ref_fn, extra, sampled)                    \
  const OpDef op_##id{.name = #id,                                                                 \
                      .doc = text,                                                                 \
                      .min_operands = 1,                                                           \
                      .max_operands = 1,                                                           \
                      .attrs = attributes,                                                         \
                      .infer = infer_fn,                                                           \
                      .ref = ref_fn,                                                               \
                      .scalar = id##_scalar,                                                       \
                      .traits = kElementwise | (extra),                                            \
                      .samples = sampled};
#define KILN_LIST(...)                                                                             \
  { __VA_ARGS__ }
#define KILN_REAL(name, value)                                                                     \
  AttrSpec {                                                                                       \
    name, AttrKind::real, Attr(double(value))                                                      \
  }

KILN_ACTIVATION(relu, "max(x, 0).", {}, map<kNumbers>, (ref<1, kNumbers, kRelu>),
                kIdempotent | kZeroPreserving, unary_samples(kNumbers))
KILN_ACTIVATION(
    gelu, "x times the normal distribution function of x; \"tanh\": its approximation by tanh.",
    KILN_LIST({"approximate", AttrKind::string, Attr(std::string("none"))}), gelu_infer, gelu_ref,
    kExpensive | kZeroPreserving,
    join(unary_samples(kFloats, -4, 4, {{"approximate", std::string("none")}}),
         unary_samples(kFloats, -4, 4, {{"approximate", std::string("tanh")}})))
KILN_ACTIVATION(silu, "x * sigmoid(x).", {}, map<kFloats>, (ref<1, kFloats, kSilu>),
                kExpensive | kZeroPreserving, unary_samples(kFloats, -8, 8))
KILN_ACTIVATION(mish, "x * tanh(softplus(x)).", {}, map<kFloats>, (ref<1, kFloats, kMish>),
                kExpensive | kZeroPreserving, unary_samples(kFloats, -8, 25))
KILN_ACTIVATION(softplus, "log(1 + exp(x)).", {}, map<kFloats>, (ref<1, kFloats, kSoftplus>),
                kExpensive, unary_samples(kFloats, -30, 30))
KILN_ACTIVATION(softsign, "x / (1 + |x|).", {}, map<kFloats>, (ref<1, kFloats, kSoftsign>),
                kExpensive | kZeroPreserving, unary_samples(kFloats))
KILN_ACTIVATION(elu, "x where x > 0, else alpha * (exp(x) - 1).", KILN_LIST(KILN_REAL("alpha", 1)),
                map<kFloats>, elu_ref, kExpensive | kZeroPreserving,
                unary_samples(kFloats, -4, 4, {{"alpha", 1.5}}))
KILN_ACTIVATION(selu, "gamma * elu(x, alpha).",
                KILN_LIST(KILN_REAL("alpha", 1.67326324235437728481704429916717),
                          KILN_REAL("gamma", 1.0507009873554804934193349852946)),
                map<kFloats>, selu_ref, kExpensive | kZeroPreserving, unary_samples(kFloats, -4, 4))
KILN_ACTIVATION(celu, "x where x > 0, else alpha * (exp(x / alpha) - 1).",
                KILN_LIST(KILN_REAL("alpha", 1)), celu_infer, celu_ref,
                kExpensive | kZeroPreserving, unary_samples(kFloats, -4, 4, {{"alpha", 2.0}}))
KILN_ACTIVATION(leaky_relu, "x where x >= 0, else alpha * x.", KILN_LIST(KILN_REAL("alpha", 0.01)),
                map<kFloats>, leaky_relu_ref, kZeroPreserving, unary_samples(kFloats))
KILN_ACTIVATION(thresholded_relu, "x where x > alpha, else 0.", KILN_LIST(KILN_REAL("alpha", 1)),
                map<kFloats>, thresholded_relu_ref, 0u, unary_samples(kFloats))
KILN_ACTIVATION(hard_sigmoid, "clamp(alpha * x + beta, 0, 1).",
                KILN_LIST(KILN_REAL("alpha", 1.0 / 6), KILN_REAL("beta", 0.5)), map<kFloats>,
                hard_sigmoid_ref, 0u, unary_samples(kFloats, -5, 5))
KILN_ACTIVATION(hard_swish, "x * clamp(x / 6 + 0.5, 0, 1).", {}, map<kFloats>,
                (ref<1, kFloats, kHardSwish>), kZeroPreserving, unary_samples(kFloats, -5, 5))
KILN_ACTIVATION(clamp, "min(max(x, min), max).",
                KILN_LIST(KILN_REAL("min", -kInf), KILN_REAL("max", kInf)), clamp_infer, clamp_ref,
                kIdempotent,
                join(unary_samples(kNumbers, -2, 2, {{"min", -1.0}, {"max", 3.0}}),
                     unary_samples(kFloats, -8, 8, {{"min", 0.0}, {"max", 6.0}})))
#undef KILN_REAL
#undef KILN_LIST
#undef KILN_ACTIVATION

const OpDef op_prelu{.name = "prelu",
                     .doc = "x where x > 0, else slope * x. (x, slope)",
                     .min_operands = 2,
                     .max_operands = 2,
                     .infer = map<kFloats>,
                     .ref = ref<2, kFloats, kPrelu>,
                     .scalar = prelu_scalar,
                     .traits = kElementwise,
                     .samples = binary_samples(kFloats)};

} // namespace kiln
