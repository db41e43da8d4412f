// Functions of f32. The ones that networks are made of (exp, log, tanh, erf, sigmoid) stay in f32;
// the others are computed in f64, where a plain formula is exact enough. Coefficients are minimax
// fits (Remez exchange) made for this file; error bounds are in math_bounds.def.
#include "passes/kernel/math_reduce.h"

namespace kiln {
namespace {

constexpr double kLog2e = 1.4426950408889634;
constexpr double kLn2Hi = 0.6923828125, kLn2Lo = 0.0007643680599453094; // 10 bits and the rest
constexpr double kRoundMagic = 12582912;                                // 1.5 * 2^23

// x = n ln2 + r. `shifted` holds n in its low bits.
struct ExpParts {
  MathValue shifted, n, r;
};

ExpParts split_exp(const MathValue &x, MathBuilder &b) {
  MathValue shifted = b.bind(fused(x, kLog2e, kRoundMagic));
  MathValue n = b.bind(shifted - kRoundMagic);
  MathValue r = b.bind(fused(n, -kLn2Hi, x));
  return {shifted, n, b.bind(fused(n, -kLn2Lo, r))};
}

// (e^r - 1 - r) / r^2 for |r| <= ln2 / 2
MathValue exp_tail(const MathValue &r) {
  return polynomial(r, {0.499999934321515698, 0.166665203989507631, 0.0416683907780360923,
                        0.00836874511741246601, 0.00138145404891636332});
}

MathValue exp32(MathValue x, MathBuilder &b) {
  ExpParts p = split_exp(x, b);
  MathValue e = fused(fused(exp_tail(p.r), p.r, MathValue{like(x, 1)}), p.r, MathValue{like(x, 1)});
  // Adding n to the exponent is exact wherever the result is a normal number.
  MathValue raw = as_bits(DType::i32, p.shifted);
  MathValue scaled = as_bits(DType::f32, as_bits(DType::i32, e) + (raw << bits(raw, 23)));
  MathValue low = choose(x < -87.336548, 0.0, scaled);
  return choose(x <= 88.722839, low, x + kMathInf);
}

// 2^f - 1 over f, for |f| <= 1/2
MathValue exp2_tail(const MathValue &f) {
  return polynomial(f, {0.6931469775987168, 0.2402224208463513, 0.05550733743574296, 0.009671512688151078,
                        0.0013264727247095758});
}

// With n up to 128 the power of two is made in two halves.
MathValue expm1_32_from(const MathValue &x, MathBuilder &b) {
  MathValue at = b.bind(clamped(x, -30, 89));
  ExpParts p = split_exp(at, b);
  MathValue r2 = b.bind(p.r * p.r);
  MathValue em = b.bind(fused(exp_tail(p.r), r2, p.r));
  MathValue raw = as_bits(DType::i32, p.shifted);
  MathValue half =
      b.bind(as_bits(DType::f32, (raw << bits(raw, 23)) + bits(raw, int64_t(126) << 23)));
  MathValue y = fused(half, em, half - 0.5);
  return y + y;
}

MathValue log32(MathValue x, MathBuilder &b) {
  MathValue is_small = b.bind(x < 0x1p-126);
  MathValue scaled = choose(is_small, x * 0x1p24, x);
  MathValue u = b.bind(as_bits(DType::i32, scaled));
  // m in [sqrt(1/2), sqrt(2)), x = m 2^k
  MathValue offset = b.bind(u - bits(u, 0x3f3504f3));
  MathValue k = b.bind(offset >> bits(offset, 23));
  MathValue m = as_bits(DType::f32, u - (k << bits(k, 23)));
  MathValue f = b.bind(m - 1.0);
  MathValue power = b.bind(cast(DType::f32, k) - choose(is_small, MathValue{like(x, 24)}, 0.0));
  MathValue tail =
      polynomial_in_pairs(f,
                          {0.333333126041010086, -0.250000095995299987, 0.200021186555103417,
                           -0.166679958436840956, 0.14219552422973446, -0.124055891521814591,
                           0.118881620583474396, -0.116756503139857152, 0.0674663908390498001},
                          b);
  MathValue f2 = b.bind(f * f);
  MathValue low = fused(power, kLn2Lo, fused(f2, -0.5, b.bind(f2 * f) * tail));
  MathValue y = fused(power, kLn2Hi, b.bind(low + f));
  y = choose(x < kMathInf, y, x);
  y = choose(x == 0.0, -kMathInf, b.bind(y));
  return choose(x < 0.0, kMathNan, y);
}

// Odd rationals x P(x^2) / Q(x^2) up to where the result rounds to 1.
MathValue tanh32(MathValue x, MathBuilder &b) {
  MathValue at = b.bind(clamped(x, -9.01, 9.01));
  MathValue z = b.bind(at * at);
  MathValue p =
      polynomial(z, {0.9999999987020221, 0.136799319933790478, 0.00386834805957863094,
                     0.0000280078153911933903, 3.05856707254169278e-8, -1.22037604124586595e-11});
  MathValue q = polynomial(z, {1.0, 0.470132640633314131, 0.027245915457776273,
                               0.000393866501856499308, 1.28738870528210433e-6});
  return clamped(b.bind(at * p / q), -1, 1);
}

MathValue erf32(MathValue x, MathBuilder &b) {
  MathValue at = b.bind(clamped(x, -3.925, 3.925));
  MathValue z = b.bind(at * at);
  MathValue p =
      polynomial(z, {1.12837914562790343, 0.190759520972741102, 0.0527866619603860474,
                     0.00377845876245704156, 0.000284764665690359572, 2.04191830067347966e-6});
  MathValue q =
      polynomial(z, {1.0, 0.50238894977512177, 0.114247104121185329, 0.0149951426287152485,
                     0.00116490037313234866, 0.0000380012392808255677});
  return clamped(b.bind(at * p / q), -1, 1);
}

MathValue sigmoid32(MathValue x, MathBuilder &b) {
  MathValue at = b.bind(clamped(-x, -87, 88));
  ExpParts p = split_exp(at, b);
  MathValue e = fused(fused(exp_tail(p.r), p.r, MathValue{like(x, 1)}), p.r, MathValue{like(x, 1)});
  MathValue raw = as_bits(DType::i32, p.shifted);
  MathValue scaled = as_bits(DType::f32, as_bits(DType::i32, e) + (raw << bits(raw, 23)));
  MathValue y = 1.0 / (b.bind(scaled) + 1.0);
  // What is 0 to f32's normal numbers, and NaN, whose bits the exponent's sum does not keep.
  return choose(x < -87.336548, 0.0, choose(x == x, y, x));
}

MathValue sin_cos32(MathValue x, int turns, MathBuilder &b) {
  QuarterTurn t = reduce_quarter_turns(b.bind(cast(DType::f64, x)), b);
  MathValue r = b.bind(cast(DType::f32, t.angle)), z = b.bind(r * r);
  MathValue s =
      polynomial(z, {-0.166666548734719139, 0.00833217354286277235, -0.000195166557704964797});
  MathValue c =
      polynomial(z, {0.0416666467477913592, -0.0013887361450892934, 0.0000244377301700479213});
  MathValue sine = fused(b.bind(z * r), 1, MathValue{like(r, 0)});
  sine = {kb::fma(sine.e, s.e, r.e)};
  MathValue cosine = fused(b.bind(z * z), 1, MathValue{like(r, 0)});
  cosine = {kb::fma(cosine.e, c.e, fused(z, -0.5, 1.0).e)};
  MathValue q = b.bind(cast(DType::i32, t.quarters) + bits(cast(DType::i32, t.quarters), turns));
  MathValue odd = (q & bits(q, 1)) == bits(q, 1), flip = (q & bits(q, 2)) == bits(q, 2);
  MathValue y = b.bind(choose(odd, cosine, sine));
  // sin(-0) is -0.
  y = b.bind(choose(flip, -y, y));
  return turns == 0 ? choose(x == 0.0, x, y) : y;
}

} // namespace

// The power of two is a factor, so NaN stays; what would be less than the smallest normal number is 0.
MathValue math_power_of_two_f32(MathValue x, double factor, MathBuilder &b) {
  constexpr int kBias = 127;
  x = b.bind(x);
  MathValue shifted = b.bind(fused(x, factor, kRoundMagic + kBias));
  MathValue n = b.bind(shifted - (kRoundMagic + kBias));
  MathValue f = b.bind(fused(x, factor, -n));
  MathValue e = fused(exp2_tail(f), f, MathValue{like(x, 1)});
  MathValue raw = as_bits(DType::i32, shifted);
  MathValue power = as_bits(DType::f32, raw << bits(raw, 23));
  return choose(x < -126 / factor, 0.0, e * power);
}

MathValue math_unary_f32(UnaryOp op, MathValue x, MathBuilder &b) {
  x = b.bind(x);
  switch (op) {
  case UnaryOp::exp:
    return exp32(x, b);
  case UnaryOp::expm1:
    return choose(fabs(x) < 0x1p-25, x, expm1_32_from(x, b));
  case UnaryOp::log:
    return log32(x, b);
  case UnaryOp::tanh:
    return tanh32(x, b);
  case UnaryOp::erf:
    return erf32(x, b);
  case UnaryOp::sigmoid:
    return sigmoid32(x, b);
  case UnaryOp::sin:
    return sin_cos32(x, 0, b);
  case UnaryOp::cos:
    return sin_cos32(x, 1, b);
  default:
    return cast(DType::f32, math_unary_f64(op, b.bind(cast(DType::f64, x)), b));
  }
}

} // namespace kiln
