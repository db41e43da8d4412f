// Arithmetic of two operands.
#include "ir/ops/elementwise.h"

#include <cmath>
#include <limits>

namespace kiln {
namespace {

using namespace elementwise;

// Integers wrap: their arithmetic is done without sign.
constexpr auto kAdd = [](auto a, auto b) {
  if constexpr (std::is_same_v<decltype(a), double>)
    return a + b;
  else
    return decltype(a)(uint64_t(a) + uint64_t(b));
};
constexpr auto kSub = [](auto a, auto b) {
  if constexpr (std::is_same_v<decltype(a), double>)
    return a - b;
  else
    return decltype(a)(uint64_t(a) - uint64_t(b));
};
constexpr auto kMul = [](auto a, auto b) {
  if constexpr (std::is_same_v<decltype(a), double>)
    return a * b;
  else
    return decltype(a)(uint64_t(a) * uint64_t(b));
};
constexpr auto kMinimum = [](auto a, auto b) {
  if constexpr (std::is_same_v<decltype(a), double>)
    if (std::isnan(a) || std::isnan(b))
      return a + b;
  return b < a ? b : a;
};
constexpr auto kMaximum = [](auto a, auto b) {
  if constexpr (std::is_same_v<decltype(a), double>)
    if (std::isnan(a) || std::isnan(b))
      return a + b;
  return a < b ? b : a;
};
// Divisors are not 0 here; the least integer over -1 wraps.
constexpr auto kDiv = [](auto a, auto b) {
  using T = decltype(a);
  if constexpr (std::is_same_v<T, int64_t>)
    if (b == -1)
      return T(0 - uint64_t(a));
  return T(a / b);
};
constexpr auto kFmod = [](auto a, auto b) {
  using T = decltype(a);
  if constexpr (std::is_same_v<T, double>)
    return std::fmod(a, b);
  else if constexpr (std::is_same_v<T, int64_t>)
    return b == -1 ? T(0) : T(a % b);
  else
    return T(a % b);
};
constexpr auto kRemainder = [](auto a, auto b) {
  auto r = kFmod(a, b);
  if constexpr (std::is_same_v<decltype(a), double>)
    if (r == 0)
      return std::copysign(r, b); // a zero has the divisor's sign too
  return r != 0 && (r < 0) != (b < 0) ? decltype(a)(r + b) : r;
};

template <auto f>
Result<std::vector<Tensor>> division_ref(const RefContext &c) {
  const Tensor &divisor = *c.operands[1];
  if (!is_float(divisor.dtype()) && make_tensor(c.results[0]).count() > 0)
    for (int64_t i = 0; i < divisor.count(); ++i)
      if (divisor.at_i64(i) == 0)
        return Error{"integer division by zero"};
  return map_elements<2, kNumbers>(c, f);
}

Expr fmod_scalar(const Attrs &, DType, Operands x) {
  return kb::binary(BinaryOp::rem, x[0], x[1]);
}

Expr remainder_scalar(const Attrs &attrs, DType result, Operands x) {
  Expr r = fmod_scalar(attrs, result, x);
  if (is_unsigned_int(x[0].dtype))
    return r;
  Expr zero = like(x[0], 0);
  Expr below = kb::lt(x[1], zero), differ = ne(kb::lt(r, zero), below);
  Expr moved = kb::select(kb::logical_and(ne(r, zero), std::move(differ)), kb::add(r, x[1]), r);
  if (!is_float(x[0].dtype))
    return moved;
  // A zero has the divisor's sign too.
  return kb::select(kb::eq(r, zero), kb::select(std::move(below), like(zero, -0.0), zero), std::move(moved));
}

// -- pow. Of integers to integers: a product that wraps. To floats: computed in f64, saturating.
InferResult pow_infer(InferContext &c) {
  KILN_RETURN_IF_ERROR(check_kinds(c, 0, kNumbers));
  KILN_RETURN_IF_ERROR(check_kinds(c, 1, kNumbers));
  KILN_TRY(shape, broadcast_operands(c));
  return std::vector{TensorType{c.operands[0].dtype, std::move(shape)}};
}

int64_t integer_power(int64_t a, int64_t b, bool signed_a, bool signed_b) {
  if (signed_b && b < 0) // of 1 / a^-b the whole part
    return a == 1 ? 1 : signed_a && a == -1 ? (b % 2 ? -1 : 1) : 0;
  uint64_t power = 1, square = uint64_t(a);
  for (uint64_t rest = uint64_t(b); rest; rest >>= 1, square *= square)
    power *= rest & 1 ? square : 1;
  return int64_t(power);
}

Tensor integer_powers(const RefContext &c) {
  Tensor out = make_tensor(c.results[0]);
  BroadcastReader<int64_t> base(*c.operands[0], out.dims()), exponent(*c.operands[1], out.dims());
  bool signed_a = is_signed_int(out.dtype()), signed_b = is_signed_int(c.operands[1]->dtype());
  std::vector<int64_t> a(kChunk), b(kChunk);
  for (int64_t begin = 0; begin < out.count(); begin += kChunk) {
    int64_t n = std::min(kChunk, out.count() - begin);
    base.read(n, a.data());
    exponent.read(n, b.data());
    for (size_t i = 0; i < size_t(n); ++i)
      a[i] = integer_power(a[i], b[i], signed_a, signed_b);
    narrow(a.data(), begin, n, out);
  }
  return out;
}

Result<std::vector<Tensor>> pow_ref(const RefContext &c) {
  bool integers = !is_float(c.results[0].dtype);
  if (integers && !is_float(c.operands[1]->dtype()))
    return std::vector{integer_powers(c)};
  Tensor out = make_tensor(c.results[0]);
  BroadcastReader<double> base(*c.operands[0], out.dims()), exponent(*c.operands[1], out.dims());
  std::vector<double> a(kChunk), b(kChunk);
  for (int64_t begin = 0; begin < out.count(); begin += kChunk) {
    int64_t n = std::min(kChunk, out.count() - begin);
    base.read(n, a.data());
    exponent.read(n, b.data());
    for (size_t i = 0; i < size_t(n); ++i) {
      double p = std::pow(a[i], b[i]);
      a[i] = integers ? std::trunc(p) : p;
    }
    narrow(a.data(), begin, n, out);
  }
  return std::vector{std::move(out)};
}

Expr integer_power(DType result, const Expr &a, const Expr &b) {
  bool wide = dtype_bits(a.dtype) == 64 || dtype_bits(b.dtype) == 64;
  DType dtype = wide ? DType::u64 : DType::u32;
  Expr p = kb::binary(BinaryOp::pow, kb::convert(dtype, a), kb::convert(dtype, b));
  p = kb::convert(result, std::move(p));
  if (!is_signed_int(b.dtype))
    return p;
  Expr one = like(p, 1), zero = like(p, 0), inverse = kb::select(kb::eq(a, like(a, 1)), one, zero);
  if (is_signed_int(a.dtype)) {
    Expr odd = ne(kb::binary(BinaryOp::bit_and, b, like(b, 1)), like(b, 0));
    Expr sign = kb::select(std::move(odd), like(p, -1), one);
    inverse = kb::select(kb::eq(a, like(a, -1)), std::move(sign), std::move(inverse));
  }
  return kb::select(kb::lt(b, like(b, 0)), std::move(inverse), std::move(p));
}

Expr pow_scalar(const Attrs &, DType result, Operands x) {
  if (!is_float(result) && !is_float(x[1].dtype))
    return integer_power(result, x[0], x[1]);
  DType dtype = is_float(result) ? x[0].dtype : DType::f64;
  Expr p = kb::binary(BinaryOp::pow, kb::convert(dtype, x[0]), kb::convert(dtype, x[1]));
  if (is_float(result))
    return p;
  // Truncated, but a power that is a unit or two below a whole number is that number.
  Expr whole = kb::unary(UnaryOp::round, p);
  Expr near = kb::le(kb::unary(UnaryOp::abs, kb::sub(p, whole)), kb::mul(kb::unary(UnaryOp::abs, p), like(p, 0x1p-51)));
  p = kb::select(std::move(near), std::move(whole), kb::unary(UnaryOp::trunc, p));
  return kb::convert(result, std::move(p));
}

std::vector<OpSample> nonzero(std::vector<OpSample> samples) {
  for (OpSample &s : samples)
    s.nonzero = true;
  return samples;
}

std::vector<OpSample> pow_samples() {
  std::vector<OpSample> out;
  for (auto [a, b] : {std::pair{DType::f32, DType::f32},
                      {DType::f64, DType::f64},
                      {DType::f16, DType::f16},
                      {DType::bf16, DType::f32},
                      {DType::f32, DType::i64},
                      {DType::i32, DType::i32},
                      {DType::i64, DType::i32},
                      {DType::i32, DType::f32},
                      {DType::u8, DType::u8}})
    out.push_back({{{a, {3, 7}}, {b, {7}}}, {}, is_float(a) ? 0.25 : 0.0, 3});
  // Past the width, and negative.
  for (auto [a, b] : {std::pair{DType::i64, DType::i64}, {DType::i32, DType::i64}, {DType::i8, DType::i32},
                      {DType::i32, DType::i16}})
    out.push_back({{{a, {3, 67}}, {b, {67}}}, {}, -40, 40});
  out.push_back({{{DType::u64, {2, 35}}, {DType::u64, {2, 35}}}, {}, 0, 70});
  out.push_back({{{DType::i64, {5, 9}}, {DType::i32, {9}}}, {}, -2, 2});
  out.push_back({{{DType::f32, {}}, {DType::f32, {5}}}, {}, 0.25, 3});
  return out;
}

} // namespace

#define KILN_BINARY_OP(id, text, infer_fn, ref_fn, scalar_fn, extra, sampled)                      \
  const OpDef op_##id{.name = #id,                                                                 \
                      .doc = text,                                                                 \
                      .min_operands = 2,                                                           \
                      .max_operands = 2,                                                           \
                      .infer = infer_fn,                                                           \
                      .ref = ref_fn,                                                               \
                      .scalar = scalar_fn,                                                         \
                      .traits = kElementwise | (extra),                                            \
                      .samples = sampled};

KILN_BINARY_OP(add, "a + b; integers wrap.", map<kNumbers>, (ref<2, kNumbers, kAdd>),
               scalar<BinaryOp::add>, kCommutative, binary_samples(kNumbers))
KILN_BINARY_OP(sub, "a - b; integers wrap.", map<kNumbers>, (ref<2, kNumbers, kSub>),
               scalar<BinaryOp::sub>, 0u, binary_samples(kNumbers))
KILN_BINARY_OP(mul, "a * b; integers wrap.", map<kNumbers>, (ref<2, kNumbers, kMul>),
               scalar<BinaryOp::mul>, kCommutative, binary_samples(kNumbers))
KILN_BINARY_OP(div, "a / b; of integers: towards zero, an error where b is 0.", map<kNumbers>,
               division_ref<kDiv>, scalar<BinaryOp::div>, kExpensive | kTrapsOnZero,
               join(nonzero(binary_samples(kNumbers, 0.5, 4)), nonzero(binary_samples(kIntegers))))
KILN_BINARY_OP(remainder,
               "a - b * floor(a / b): the sign of b. Of integers: an error where b is 0.",
               map<kNumbers>, division_ref<kRemainder>, remainder_scalar, kExpensive | kTrapsOnZero,
               join(nonzero(binary_samples(kNumbers, 0.5, 4)), nonzero(binary_samples(kNumbers))))
KILN_BINARY_OP(fmod, "a - b * trunc(a / b): the sign of a. Of integers: an error where b is 0.",
               map<kNumbers>, division_ref<kFmod>, fmod_scalar, kExpensive | kTrapsOnZero,
               join(nonzero(binary_samples(kNumbers, 0.5, 4)), nonzero(binary_samples(kNumbers))))
KILN_BINARY_OP(
    pow,
    "a to the power of b, in a's dtype. Of integers a product, which wraps; of a negative b the "
    "whole part of 1 / a^-b, and 0 where a is 0. An integer to a float is computed in f64, truncated "
    "and saturates.",
    pow_infer, pow_ref, pow_scalar, kExpensive, pow_samples())
KILN_BINARY_OP(minimum, "The lesser; NaN where either is.", map<kNumbers>,
               (ref<2, kNumbers, kMinimum>), scalar<BinaryOp::min>, kCommutative,
               binary_samples(kNumbers))
KILN_BINARY_OP(maximum, "The greater; NaN where either is.", map<kNumbers>,
               (ref<2, kNumbers, kMaximum>), scalar<BinaryOp::max>, kCommutative,
               binary_samples(kNumbers))
KILN_BINARY_OP(atan2, "The angle of the point (b, a), in [-pi, pi].", map<kFloats>,
               (ref<2, kFloats, [](double a, double b) { return std::atan2(a, b); }>),
               scalar<BinaryOp::atan2>, kExpensive, binary_samples(kFloats))
#undef KILN_BINARY_OP

} // namespace kiln
