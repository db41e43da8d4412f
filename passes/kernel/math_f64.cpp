// Functions of f64, after the formulas of W. Kahan ("Branch Cuts for Complex Elementary Functions")
// and J.-M. Muller ("Elementary Functions"); coefficients are minimax fits made for this file.
#include "passes/kernel/math_reduce.h"

namespace kiln {

MathValue polynomial(const MathValue &x, std::initializer_list<double> c) {
  const double *at = c.end() - 1;
  MathValue sum{like(x, *at)};
  while (at != c.begin()) {
    --at;
    sum = fused(sum, x, MathValue{like(x, *at)});
  }
  return sum;
}

MathValue polynomial_in_pairs(const MathValue &x, std::initializer_list<double> c, MathBuilder &b) {
  std::vector<MathValue> terms;
  for (double v : c)
    terms.push_back({like(x, v)});
  MathValue power = x;
  while (terms.size() > 1) {
    std::vector<MathValue> next;
    for (size_t i = 0; i < terms.size(); i += 2)
      next.push_back(i + 1 < terms.size() ? fused(terms[i + 1], power, terms[i]) : terms[i]);
    terms = std::move(next);
    if (terms.size() > 1)
      power = b.bind(power * power);
  }
  return terms[0];
}

MathValue with_sign_of(const MathValue &a, const MathValue &s) {
  DType u = s.e.dtype == DType::f64 ? DType::u64 : DType::u32;
  MathValue raw = as_bits(u, s);
  MathValue sign = raw & bits(raw, u == DType::u64 ? INT64_MIN : int64_t(0x80000000));
  return as_bits(s.e.dtype, as_bits(u, a) | sign);
}

namespace {

constexpr double kLog2e = 1.4426950408889634;
constexpr double kLn2Hi = 0.6931471803691238,
                 kLn2Lo = 1.9082149292705877e-10; // 32 bits and the rest
constexpr double kLn2 = 0.69314718055994530942;
constexpr double kRoundMagic = 6755399441055744; // 1.5 * 2^52
constexpr double kPi = 3.14159265358979323846, kPiLow = 1.2246467991473531772e-16;

MathValue number(const MathValue &x, double v) {
  return {like(x, v)};
}

struct ExpParts {
  MathValue shifted, r;
};

ExpParts split_exp(const MathValue &x, MathBuilder &b) {
  MathValue shifted = b.bind(fused(x, kLog2e, kRoundMagic));
  MathValue n = b.bind(shifted - kRoundMagic);
  MathValue r = b.bind(fused(n, -kLn2Hi, x));
  return {shifted, b.bind(fused(n, -kLn2Lo, r))};
}

// (e^r - 1 - r) / r^2 for |r| <= ln2 / 2
MathValue exp_tail(const MathValue &r, MathBuilder &b) {
  return polynomial_in_pairs(r,
                             {0.500000000000000004, 0.166666666666666835, 0.041666666666666092,
                              0.00833333333331698226, 0.00138888888891163561,
                              0.000198412698965157256, 0.0000248015869257302751,
                              2.7557234727270406e-6, 2.75575822702415422e-7, 2.51120846838248144e-8,
                              2.08265865347463092e-9},
                             b);
}

MathValue exp64(const MathValue &x, MathBuilder &b) {
  ExpParts p = split_exp(x, b);
  MathValue e = fused(b.bind(p.r * p.r), 1, number(x, 0));
  e = b.bind(MathValue{kb::fma(e.e, exp_tail(p.r, b).e, p.r.e)}) + 1.0;
  MathValue raw = as_bits(DType::i64, p.shifted);
  MathValue scaled = as_bits(DType::f64, as_bits(DType::i64, e) + (raw << bits(raw, 52)));
  MathValue low = choose(x < -708.39641853226408, 0.0, scaled);
  return choose(x <= 709.78271289338397, low, x + kMathInf);
}

MathValue expm1_64(const MathValue &x, MathBuilder &b) {
  MathValue at = b.bind(clamped(x, -50, 710));
  ExpParts p = split_exp(at, b);
  MathValue em = b.bind(MathValue{kb::fma((p.r * p.r).e, exp_tail(p.r, b).e, p.r.e)});
  MathValue raw = as_bits(DType::i64, p.shifted);
  MathValue half =
      b.bind(as_bits(DType::f64, (raw << bits(raw, 52)) + bits(raw, int64_t(1022) << 52)));
  MathValue y = b.bind(fused(half, em, half - 0.5));
  return choose(fabs(x) < 0x1p-54, x, y + y);
}

// x = (1 + f) 2^power with f in [-0.29, 0.41], for x > 0.
struct LogParts {
  MathValue f, power;
};

LogParts split_log(const MathValue &x, MathBuilder &b) {
  MathValue is_small = b.bind(x < 0x1p-1022);
  MathValue scaled = choose(is_small, x * 0x1p54, x);
  MathValue u = b.bind(as_bits(DType::i64, scaled));
  MathValue offset = b.bind(u - bits(u, 0x3fe6a09e667f3bcd));
  MathValue k = b.bind(offset >> bits(offset, 52));
  MathValue m = as_bits(DType::f64, u - (k << bits(k, 52)));
  MathValue f = b.bind(m - 1.0);
  return {f, b.bind(cast(DType::f64, k) - choose(is_small, number(x, 54), 0.0))};
}

// log(1 + f) = 2 atanh(s) = 2 s + s z tail(z), s = f / (2 + f), z = s^2
MathValue log_tail(const MathValue &z, MathBuilder &b) {
  return polynomial_in_pairs(
      z,
      {0.6666666666666666, 0.4000000000000088, 0.28571428570801954, 0.22222222392089008,
       0.18181795600060793, 0.15386241881938595, 0.13268714792348096, 0.1308723619665962},
      b);
}

// log(m 2^k), with `low` added to the logarithm.
MathValue log64(const MathValue &x, MathBuilder &b, const MathValue *correction = nullptr) {
  LogParts p = split_log(x, b);
  MathValue f = p.f, power = p.power;
  MathValue s = b.bind(f / (f + 2.0)), z = b.bind(s * s);
  MathValue tail = log_tail(z, b);
  // f - (f^2/2 - s (f^2/2 + z tail))
  MathValue half = b.bind(f * f * 0.5);
  MathValue inner = b.bind(s * (half + z * tail));
  MathValue low = fused(power, kLn2Lo, inner);
  if (correction)
    low = low + *correction;
  MathValue y = fused(power, kLn2Hi, f - (half - b.bind(low)));
  y = choose(x < kMathInf, y, x);
  y = choose(x == 0.0, -kMathInf, b.bind(y));
  return choose(x < 0.0, kMathNan, y);
}

MathValue log1p_64(const MathValue &x, MathBuilder &b) {
  MathValue u = b.bind(x + 1.0);
  // What the sum lost, as a fraction of it.
  MathValue lost = choose(fabs(x) < 1.0, x - (u - 1.0), 1.0 - (u - x));
  MathValue correction = b.bind(choose(fabs(lost) < 1.0, lost / u, 0.0));
  correction = b.bind(choose(fabs(correction) < 1.0, correction, 0.0));
  MathValue y = b.bind(log64(u, b, &correction));
  return choose(fabs(x) < 0x1p-60, x, y);
}

MathValue sin_cos(const MathValue &x, int turns, MathBuilder &b, bool tangent = false) {
  QuarterTurn t = reduce_quarter_turns(x, b);
  MathValue r = t.angle, z = b.bind(r * r);
  MathValue s =
      polynomial(z, {-0.166666666666666666, 0.0083333333333333227, -0.000198412698412549892,
                     2.75573192141488668e-6, -2.50521049005426012e-8, 1.60583651935202805e-10,
                     -7.57862550675333299e-13});
  MathValue c =
      polynomial(z, {0.0416666666666666666, -0.0013888888888888874, 0.000024801587301571381,
                     -2.7557319215325606e-7, 2.08767543546498057e-9, -1.14702919388047787e-11,
                     4.73804822762852973e-14});
  MathValue sine = b.bind(MathValue{kb::fma((z * r).e, s.e, r.e)});
  MathValue cosine = b.bind(MathValue{kb::fma((z * z).e, c.e, fused(z, -0.5, 1.0).e)});
  MathValue q = b.bind(t.quarters + bits(t.quarters, turns));
  MathValue odd = b.bind((q & bits(q, 1)) == bits(q, 1)), flip = (q & bits(q, 2)) == bits(q, 2);
  if (tangent)
    return choose(x == 0.0, x, choose(odd, -cosine, sine) / choose(odd, sine, cosine));
  MathValue y = b.bind(choose(odd, cosine, sine));
  y = b.bind(choose(flip, -y, y));
  return turns == 0 ? choose(x == 0.0, x, y) : y;
}

MathValue atan64(const MathValue &x, MathBuilder &b) {
  MathValue a = b.bind(fabs(x));
  // |x| > tan(3 pi/8): pi/2 + atan(-1/x); > tan(pi/8): pi/4 + atan((x-1)/(x+1))
  MathValue large = b.bind(MathValue{like(x, 2.414213562373095)} < a);
  MathValue middle = b.bind(MathValue{like(x, 0.41421356237309503)} < a);
  MathValue top = choose(large, -1.0, choose(middle, a - 1.0, a));
  MathValue bottom = choose(large, a, choose(middle, a + 1.0, number(x, 1)));
  MathValue t = b.bind(top / bottom), z = b.bind(t * t);
  MathValue p = polynomial_in_pairs(
      z,
      {-0.333333333333331964, 0.199999999999532382, -0.142857142801590103, 0.111111107814658907,
       -0.0909089769704189703, 0.0769205907592336824, -0.0666309042514885671, 0.0584778525939962139,
       -0.0503881403703935921, 0.0380515516435467851, -0.0178923855886825762},
      b);
  MathValue base = choose(large, kPi / 2, choose(middle, number(x, kPi / 4), 0.0));
  MathValue low = choose(large, kPiLow / 2, choose(middle, number(x, kPiLow / 4), 0.0));
  MathValue y = base + (MathValue{kb::fma((t * z).e, p.e, t.e)} + low);
  return with_sign_of(y, x);
}

// Large arguments through exp(x/2)^2, which does not overflow early.
MathValue sinh64(const MathValue &x, MathBuilder &b) {
  MathValue a = b.bind(fabs(x)), e = b.bind(expm1_64(a, b));
  MathValue near = (e + e / (e + 1.0)) * 0.5;
  MathValue half = b.bind(exp64(b.bind(a * 0.5), b));
  return with_sign_of(choose(MathValue{like(x, 22)} < a, (half * 0.5) * half, near), x);
}

MathValue cosh64(const MathValue &x, MathBuilder &b) {
  MathValue a = b.bind(fabs(x)), half = b.bind(exp64(b.bind(a * 0.5), b)), e = b.bind(exp64(a, b));
  MathValue near = (e + 1.0 / e) * 0.5;
  return choose(MathValue{like(x, 22)} < a, (half * 0.5) * half, near);
}

MathValue tanh64(const MathValue &x, MathBuilder &b) {
  MathValue e = b.bind(expm1_64(b.bind(fabs(x) * -2.0), b));
  return with_sign_of(-e / (e + 2.0), x);
}

MathValue asinh64(const MathValue &x, MathBuilder &b) {
  MathValue a = b.bind(fabs(x));
  MathValue near = b.bind(log1p_64(b.bind(a + a * a / (fsqrt(a * a + 1.0) + 1.0)), b));
  MathValue far = b.bind(log64(a, b)) + kLn2;
  return with_sign_of(choose(a < 1e8, near, far), x);
}

MathValue acosh64(const MathValue &x, MathBuilder &b) {
  MathValue t = b.bind(x - 1.0);
  MathValue near = b.bind(log1p_64(b.bind(t + fsqrt(t * (t + 2.0))), b));
  MathValue far = b.bind(log64(x, b)) + kLn2;
  return choose(x < 1.0, kMathNan, choose(x < 1e8, near, far));
}

MathValue atanh64(const MathValue &x, MathBuilder &b) {
  MathValue a = b.bind(fabs(x));
  return with_sign_of(b.bind(log1p_64(b.bind((a + a) / (1.0 - a)), b)) * 0.5, x);
}

// erf: a series up to 1, then 1 - exp(-x^2) times a fit of exp(x^2) erfc(x) in t = (x-3)/(x+3).
MathValue erf64(const MathValue &x, MathBuilder &b) {
  MathValue a = b.bind(clamped(fabs(x), 0, 6.2)), z = b.bind(a * a);
  MathValue near =
      a *
      polynomial_in_pairs(z,
                          {1.12837916709551257, -0.376126389031837476, 0.112837916709548575,
                           -0.0268661706450728942, 0.00522397762478085913, -0.000854832697874174153,
                           0.000120553310368819719, -0.0000149255935064524887,
                           1.64609728098545968e-6, -1.63500251457813047e-7, 1.46578793236894309e-8,
                           -1.13656639655295479e-9, 5.94525840400899376e-11},
                          b);
  MathValue t = b.bind((a - 3.0) / (a + 3.0));
  MathValue scaled = polynomial_in_pairs(
      t,
      {0.179001151181389947, -0.326233560043037428, 0.245603801712333492, -0.150115936500729479,
       0.0716658371976470585, -0.02439249932211495, 0.00426913634761033143, 0.000707746553767889266,
       -0.000597062240994138085, 0.0000452532394040361519, 0.0000640591349237919147,
       -0.0000128399257582472603, -7.98384797778936768e-6, 2.01174064482382371e-6,
       1.20396744171524154e-6, -5.61616445318087099e-8},
      b);
  MathValue far = 1.0 - b.bind(exp64(b.bind(-z), b)) * scaled;
  return with_sign_of(choose(a < 1.0, near, far), x);
}

} // namespace

MathValue math_unary_f64(UnaryOp op, MathValue x, MathBuilder &b) {
  x = b.bind(x);
  switch (op) {
  case UnaryOp::exp:
    return exp64(x, b);
  case UnaryOp::expm1:
    return expm1_64(x, b);
  case UnaryOp::log:
    return log64(x, b);
  case UnaryOp::log1p:
    return log1p_64(x, b);
  case UnaryOp::sin:
    return sin_cos(x, 0, b);
  case UnaryOp::cos:
    return sin_cos(x, 1, b);
  case UnaryOp::tan:
    return sin_cos(x, 0, b, true);
  case UnaryOp::asin:
    return atan64(b.bind(x / fsqrt((1.0 - x) * (x + 1.0))), b);
  case UnaryOp::acos:
    return atan64(b.bind(fsqrt((1.0 - x) / (x + 1.0))), b) * 2.0;
  case UnaryOp::atan:
    return atan64(x, b);
  case UnaryOp::sinh:
    return sinh64(x, b);
  case UnaryOp::cosh:
    return cosh64(x, b);
  case UnaryOp::tanh:
    return tanh64(x, b);
  case UnaryOp::asinh:
    return asinh64(x, b);
  case UnaryOp::acosh:
    return acosh64(x, b);
  case UnaryOp::atanh:
    return atanh64(x, b);
  case UnaryOp::erf:
    return erf64(x, b);
  case UnaryOp::sigmoid:
    return 1.0 / (b.bind(exp64(b.bind(-x), b)) + 1.0);
  default:
    break;
  }
  KILN_CHECK(false, "no function named " + std::string(unary_name(op)));
}

// log(a) for a >= 0 as a sum of two: what rounding has left of the first is in the second, to some 58 bits.
struct LongLog {
  MathValue high, low;
};

LongLog long_log64(const MathValue &a, MathBuilder &b) {
  LogParts p = split_log(a, b);
  // The quotient s = f / (2 + f) with its remainder; 2 + f may round, too.
  MathValue d = b.bind(p.f + 2.0), d_low = p.f - (d - 2.0);
  MathValue s = b.bind(p.f / d);
  MathValue rest = b.bind((fused(-s, d, p.f) - s * d_low) / d);
  MathValue z = b.bind(s * s);
  MathValue low = b.bind(fused(p.power, kLn2Lo, fused(s * z, log_tail(z, b), rest + rest)));
  // power * kLn2Hi is exact, and larger than 2 s unless it is 0.
  MathValue whole = b.bind(p.power * kLn2Hi), part = b.bind(s + s);
  MathValue sum = b.bind(whole + part);
  low = b.bind(low + (part - (sum - whole)));
  MathValue high = b.bind(sum + low);
  low = low - (high - sum);
  MathValue finite = b.bind((a < kMathInf) & (MathValue{like(a, 0)} < a));
  MathValue limit = choose(a == 0.0, -kMathInf, a);
  return {b.bind(choose(finite, high, limit)), b.bind(choose(finite, low, 0.0))};
}

// x^y = e^(y log |x|); the sign and the special cases of IEEE 754 follow. An error of the logarithm counts
// y log |x| times, so f64 has it to more than 53 bits.
MathValue math_pow_f64(MathValue x, MathValue y, bool narrow, MathBuilder &b) {
  x = b.bind(x);
  y = b.bind(y);
  MathValue a = b.bind(fabs(x));
  MathValue r;
  if (narrow) {
    r = b.bind(exp64(b.bind(y * b.bind(log64(a, b))), b));
  } else {
    LongLog log = long_log64(a, b);
    MathValue product = b.bind(y * log.high);
    MathValue rest = b.bind(fused(y, log.high, -product) + y * log.low);
    r = b.bind(exp64(product, b));
    MathValue ordinary = (fabs(product) < 746.0) & (r < kMathInf);
    r = b.bind(choose(ordinary, fused(r, rest, r), r));
  }
  MathValue whole = b.bind(ftrunc(y) == y);
  MathValue half = b.bind(y * 0.5);
  MathValue odd = whole & (MathValue{kb::binary(BinaryOp::ne, ftrunc(half).e, half.e)});
  odd = b.bind(odd & (fabs(y) < 0x1p53));
  // A negative base: odd powers are negative, broken ones are undefined.
  MathValue negative = b.bind(as_bits(DType::i64, x) < bits(as_bits(DType::i64, x), 0));
  r = b.bind(choose(negative & odd, -r, r));
  MathValue infinite_base = a == kMathInf;
  MathValue broken = (x < 0.0) & (MathValue{kb::logical_not(whole.e)}) &
                     (MathValue{kb::logical_not(infinite_base.e)});
  r = b.bind(choose(broken, kMathNan, r));
  // 1^y and x^0 are 1 whatever the other is, (-1)^inf too.
  MathValue one = (x == 1.0) | (y == 0.0) | ((a == 1.0) & (fabs(y) == kMathInf));
  return choose(one, 1.0, r);
}

// By repeated squaring, without a branch: a factor is the square or 1, by one bit of y after the other.
MathValue math_pow_integer(MathValue x, MathValue y, MathBuilder &b) {
  y = b.bind(y);
  MathValue square = b.bind(x), power = bits(square, 1);
  for (int bit = 0; bit < dtype_bits(y.e.dtype); ++bit) {
    MathValue unset = (y & bits(y, int64_t(uint64_t(1) << bit))) == bits(y, 0);
    power = b.bind(power * choose(unset, bits(y, 1), square));
    square = b.bind(square * square);
  }
  return power;
}

MathValue math_atan2_f64(MathValue y, MathValue x, MathBuilder &b) {
  x = b.bind(x);
  y = b.bind(y);
  MathValue ax = b.bind(fabs(x)), ay = b.bind(fabs(y));
  MathValue both_infinite = (ax == kMathInf) & (ay == kMathInf);
  MathValue ratio = choose(both_infinite, 1.0, ay / ax);
  ratio = b.bind(choose(ay == 0.0, 0.0, ratio));
  MathValue angle = b.bind(atan64(ratio, b));
  MathValue left = as_bits(DType::i64, x) < bits(as_bits(DType::i64, x), 0);
  MathValue result = with_sign_of(choose(left, kPi - (angle - kPiLow), angle), y);
  MathValue defined = (x == x) & (y == y);
  return choose(defined, b.bind(result), kMathNan);
}

} // namespace kiln
