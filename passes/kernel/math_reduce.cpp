// x modulo pi/2 for sine and cosine, in f64 for both float types.
//
// Up to 2^20 the multiple of pi/2 is subtracted in three parts whose products are exact. Beyond, a
// branch that ordinary data never takes multiplies the integer mantissa by a 192-bit window of 2/pi
// (Payne and Hanek, "Radian reduction for trigonometric functions", 1983), which is exact enough
// for every double.
#include "passes/kernel/math_reduce.h"

#include <array>

namespace kiln {
namespace {

constexpr double kSimpleLimit = 1048576; // 2^20
constexpr double kTwoOverPi = 0.63661977236758134308;
constexpr double kHalfPi = 1.57079632679489661923;
constexpr double kRoundMagic = 6755399441055744; // 1.5 * 2^52

// 2/pi, 32 bits a word, after 64 zero bits, so that windows may begin in front of the point.
constexpr std::array<uint32_t, 40> kTwoOverPiBits = {
    0,          0,          0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0, 0xdb629599, 0x3c439041,
    0xfe5163ab, 0xdebbc561, 0xb7246e3a, 0x424dd2e0, 0x06492eea, 0x09d1921c, 0xfe1deb1c, 0xb129a73e,
    0xe88235f5, 0x2ebb4484, 0xe99c7026, 0xb45f7e41, 0x3991d639, 0x835339f4, 0x9c845f8b, 0xbdf9283b,
    0x1ff897ff, 0xde05980f, 0xef2f118b, 0x5a0a6d1f, 0x6d367ecf, 0x27cb09b7, 0x4f463f66, 0x9e5fea2d,
    0x7527bac7, 0xebe5f17b, 0x3d0739f7, 0x8a5292ea, 0x6bfb5fb1, 0x1f8d5d08, 0x56033046, 0xfc7b6bab};
constexpr int kWindow = 6; // words

struct Reduced {
  MathValue n, r;
};

Reduced reduce_simple(const MathValue &x, MathBuilder &b) {
  MathValue shifted = b.bind(fused(x, kTwoOverPi, kRoundMagic));
  MathValue n = b.bind(shifted - kRoundMagic);
  MathValue r = fused(n, -0x1.921fb54400000p+0, x); // 33 bits of pi/2
  r = fused(n, -0x1.0b4611a600000p-34, b.bind(r));  // 33 more
  r = fused(n, -0x1.3198a2e037073p-69, b.bind(r));  // 53 more
  MathValue low = as_bits(DType::i64, shifted) & bits(as_bits(DType::i64, shifted), 3);
  return {b.bind(low), b.bind(r)};
}

Reduced reduce_any(const MathValue &x, MathBuilder &b) {
  Symbol table = b.names().fresh("two_over_pi");
  b.out().push_back(
      kb::alloc(table, DType::u64, int64_t(kTwoOverPiBits.size()), 1, MemorySpace::stack));
  for (size_t i = 0; i < kTwoOverPiBits.size(); ++i)
    b.out().push_back(kb::store(table, int64_t(i), kb::integer(DType::u64, kTwoOverPiBits[i])));

  MathValue u = b.bind(as_bits(DType::u64, x));
  auto k = [&](int64_t v) { return bits(u, v); };
  // x = mantissa * 2^e; the window begins at the bit of weight 2 in 2/pi * 2^e.
  MathValue e = (u >> k(52)) & k(0x7ff);
  MathValue at = b.bind(e - k(1075 + 2 - 64));
  MathValue mantissa = b.bind((u & k(0xfffffffffffff)) | k(0x10000000000000));
  MathValue low = b.bind(mantissa & k(0xffffffff)), high = b.bind(mantissa >> k(32));
  // Lanes on which this result is not used may be anywhere.
  MathValue word = b.bind(cast(DType::i64, at >> k(5)));
  MathValue zero = bits(word, 0), most = bits(word, int64_t(kTwoOverPiBits.size()) - kWindow - 1);
  word = b.bind(choose(word < zero, zero, choose(most < word, most, word)));
  MathValue shift = b.bind(k(32) - (at & k(31)));
  std::vector<MathValue> words, window;
  for (int i = 0; i <= kWindow; ++i)
    words.push_back(b.bind({kb::gather(table, DType::u64, (word + bits(word, i)).e)}));
  for (int i = 0; i < kWindow; ++i)
    window.push_back(
        b.bind((((words[size_t(i)] << k(32)) | words[size_t(i) + 1]) >> shift) & k(0xffffffff)));

  std::vector<MathValue> product(kWindow, k(0)), sum(kWindow, k(0));
  MathValue carry = k(0);
  for (size_t i = kWindow; i-- > 0;) {
    MathValue t = b.bind(low * window[i] + carry);
    product[i] = b.bind(t & k(0xffffffff));
    carry = t >> k(32);
  }
  carry = k(0);
  for (size_t i = kWindow; i-- > 1;) {
    MathValue t = b.bind(high * window[i] + product[i - 1] + carry);
    sum[i - 1] = b.bind(t & k(0xffffffff));
    carry = t >> k(32);
  }
  // The value modulo 4, 62 bits after the point, and the 64 bits that follow.
  MathValue top = b.bind((sum[0] << k(32)) | sum[1]), rest = (sum[2] << k(32)) | sum[3];
  MathValue n = b.bind((top + k(int64_t(1) << 61)) >> k(62));
  MathValue part = cast(DType::i64, top - (n << k(62)));
  MathValue fraction = fused(cast(DType::f64, rest >> k(1)), 0x1p-63, cast(DType::f64, part));
  MathValue r = b.bind(fraction * (kHalfPi * 0x1p-62));
  MathValue negative = b.bind(x < 0.0);
  MathValue quadrant = cast(DType::i64, n);
  return {b.bind(choose(negative, bits(quadrant, 4) - quadrant, quadrant) & bits(quadrant, 3)),
          b.bind(choose(negative, -r, r))};
}

} // namespace

// Each round takes away a multiple of y that leaves nothing to round: the quotient is cut to as
// many bits as leave its product with y exact. Ordinary arguments take one round.
MathValue math_rem_f64(MathValue x, MathValue y, bool narrow, MathBuilder &b) {
  x = b.bind(x);
  MathValue a = b.bind(fabs(x)), d = b.bind(fabs(y));
  int lanes = x.e.lanes;
  Symbol rest = b.names().fresh("rest");
  b.out().push_back(kb::alloc(rest, DType::f64, 1, lanes, MemorySpace::reg));
  b.out().push_back(kb::store(rest, 0, a.e));
  MathValue r{kb::load(rest, DType::f64, 0, lanes)};
  MathValue zero{like(x, 0)};
  MathValue goes_on = (d <= r) & (zero < d) & (r < kMathInf);
  Expr any = lanes == 1 ? goes_on.e : kb::reduce(BinaryOp::bit_or, goes_on.e);
  std::vector<Stmt> body;
  MathBuilder inner(b.names(), body);
  MathValue now = inner.bind(r);
  // A quotient that no f64 holds: first the remainder by a large multiple of y.
  MathValue step = inner.bind(choose(now / d == kMathInf, d * 0x1p1022, d));
  MathValue quotient = inner.bind(now / step);
  MathValue raw = inner.bind(as_bits(DType::i64, quotient));
  // A large one may have been rounded up by many y: one unit less is below the true one.
  raw = choose(MathValue{like(x, 0x1p24)} < quotient, raw - bits(raw, 1), raw);
  int64_t keep = narrow ? ~((int64_t(1) << 27) - 1) : ~((int64_t(1) << 28) - 1);
  MathValue cut = as_bits(DType::f64, raw & bits(raw, keep));
  MathValue whole = inner.bind(ftrunc(cut));
  // For 53-bit y, the product of 25 bits of quotient with either half of y is exact.
  MathValue upper_bits = as_bits(DType::i64, step);
  MathValue high =
      inner.bind(as_bits(DType::f64, upper_bits & bits(upper_bits, ~((int64_t(1) << 27) - 1))));
  MathValue low = inner.bind(step - high);
  MathValue less = narrow ? now - whole * step : inner.bind(now - whole * high) - whole * low;
  less = inner.bind(less);
  // A quotient that was rounded up to a whole number took away one y too many.
  less = inner.bind(choose(less < 0.0, less + step, less));
  MathValue is_more = (d <= now) & (now < kMathInf);
  body.push_back(kb::store(rest, 0, choose(is_more & (zero < d), less, now).e));
  // As many rounds as the exponents' range can need; most find nothing left to do.
  std::vector<Stmt> round;
  round.push_back(kb::if_(std::move(any), std::move(body)));
  b.out().push_back(kb::loop(b.names().fresh("round"), 0, narrow ? 16 : 96, LoopKind::serial, std::move(round)));
  MathValue result = b.bind(with_sign_of(b.bind(r), x));
  MathValue defined = (zero < d) & (a < kMathInf);
  return choose(defined, result, kMathNan);
}

QuarterTurn reduce_quarter_turns(MathValue x, MathBuilder &b) {
  Reduced simple = reduce_simple(x, b);
  int lanes = x.e.lanes;
  Symbol n = b.names().fresh("quadrant"), r = b.names().fresh("angle");
  b.out().push_back(kb::alloc(n, DType::i64, 1, lanes, MemorySpace::reg));
  b.out().push_back(kb::alloc(r, DType::f64, 1, lanes, MemorySpace::reg));
  b.out().push_back(kb::store(n, 0, simple.n.e));
  b.out().push_back(kb::store(r, 0, simple.r.e));
  MathValue is_large = b.bind(MathValue{like(x, kSimpleLimit)} < fabs(x));
  Expr any = lanes == 1 ? is_large.e : kb::reduce(BinaryOp::bit_or, is_large.e);
  std::vector<Stmt> body;
  MathBuilder inner(b.names(), body);
  Reduced large = reduce_any(x, inner);
  body.push_back(kb::store(n, 0, choose(is_large, large.n, simple.n).e));
  body.push_back(kb::store(r, 0, choose(is_large, large.r, simple.r).e));
  b.out().push_back(kb::if_(std::move(any), std::move(body)));
  MathValue finite = fabs(x) < kMathInf;
  MathValue angle = choose(finite, MathValue{kb::load(r, DType::f64, 0, lanes)}, kMathNan);
  return {b.bind({kb::load(n, DType::i64, 0, lanes)}), b.bind(angle)};
}

} // namespace kiln
