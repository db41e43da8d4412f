// Logic, bits, comparisons, predicates, where and convert.
#include "ir/ops/elementwise.h"
#include "ir/ops/ref_codes.h"

#include <cmath>
#include <limits>

namespace kiln {
namespace {

using namespace elementwise;

// -- shifts: by the width or more, or by a negative amount, gives 0
template <bool left>
Result<std::vector<Tensor>> shift_ref(const RefContext &c) {
  int width = dtype_bits(c.operands[0]->dtype());
  return map_elements<2, kIntegers>(c, [width](auto a, auto b) {
    using T = decltype(a);
    if (b < T(0) || b >= T(width))
      return T(0);
    return left ? T(uint64_t(a) << b) : T(a >> b);
  });
}

Result<std::vector<Tensor>> bitwise_not_ref(const RefContext &c) {
  bool logical = is_bool(c.operands[0]->dtype());
  return map_elements<1, kIntegers | kBools>(c, [=](auto x) {
    using T = decltype(x);
    return logical ? T(x == T(0)) : T(~x);
  });
}

// -- infinities
Result<std::vector<Tensor>> is_inf_ref(const RefContext &c) {
  bool positive = c.attrs.get_bool("positive"), negative = c.attrs.get_bool("negative");
  return map_elements<1, kFloats>(
      c, [=](double x) { return std::isinf(x) && (x > 0 ? positive : negative); });
}

Expr is_inf_scalar(const Attrs &attrs, DType, Operands x) {
  Expr infinity = like(x[0], std::numeric_limits<double>::infinity());
  bool positive = attrs.get_bool("positive"), negative = attrs.get_bool("negative");
  if (positive && negative)
    return kb::eq(kb::unary(UnaryOp::abs, x[0]), infinity);
  if (positive)
    return kb::eq(x[0], infinity);
  if (negative)
    return kb::eq(kb::unary(UnaryOp::neg, x[0]), infinity);
  return kb::boolean(false, x[0].lanes);
}

// -- where
InferResult where_infer(InferContext &c) {
  KILN_RETURN_IF_ERROR(check_kinds(c, 0, kBools));
  KILN_RETURN_IF_ERROR(same_dtype(c, 1, 2));
  KILN_TRY(shape, broadcast_operands(c));
  return std::vector{TensorType{c.operands[1].dtype, std::move(shape)}};
}

template <typename W>
Tensor where_wide(const RefContext &c) {
  Tensor out = make_tensor(c.results[0]);
  BroadcastReader<int64_t> condition(*c.operands[0], out.dims());
  BroadcastReader<W> yes(*c.operands[1], out.dims()), no(*c.operands[2], out.dims());
  std::vector<int64_t> pick(kChunk);
  std::vector<W> a(kChunk), b(kChunk);
  for (int64_t begin = 0; begin < out.count(); begin += kChunk) {
    int64_t n = std::min(kChunk, out.count() - begin);
    condition.read(n, pick.data());
    yes.read(n, a.data());
    no.read(n, b.data());
    for (size_t i = 0; i < size_t(n); ++i)
      a[i] = pick[i] ? a[i] : b[i];
    narrow(a.data(), begin, n, out);
  }
  return out;
}

Result<std::vector<Tensor>> where_ref(const RefContext &c) {
  if (is_narrow(c.operands[1]->dtype()))
    return ref_on_codes(where_ref, c);
  std::vector<Tensor> out;
  out.push_back(
      with_wide_type(c.operands[1]->dtype(), [&]<typename W>() { return where_wide<W>(c); }));
  return out;
}

Expr where_scalar(const Attrs &, DType, Operands x) {
  return kb::select(x[0], x[1], x[2]);
}

std::vector<OpSample> where_samples() {
  std::vector<OpSample> out;
  auto add = [&](DType dtype, Shape condition, Shape a, Shape b) {
    out.push_back(
        {{{DType::bool_, std::move(condition)}, {dtype, std::move(a)}, {dtype, std::move(b)}},
         {},
         0,
         4});
  };
#define KILN_DTYPE(name, bits, kind, code) add(DType::name, {3, 5}, {3, 5}, {5});
#include "ir/dtypes.def"
#undef KILN_DTYPE
  add(DType::f32, {}, {2, 3}, {});
  add(DType::f32, {2, 1}, {1, 7}, {2, 7});
  add(DType::f32, {0, 1}, {1, 7}, {});
  return out;
}

// -- convert
InferResult convert_infer(InferContext &c) {
  return std::vector{TensorType{c.attrs.get_dtype("dtype"), c.operands[0].shape}};
}

// Integers go to f32 and narrower in one rounding from the integer, then one more to f16 or bf16.
template <typename W>
Tensor convert_wide(const RefContext &c) {
  Tensor out = make_tensor(c.results[0]);
  bool through_f32 =
      is_float(out.dtype()) && out.dtype() != DType::f64 && !std::is_same_v<W, double>;
  std::vector<W> in(kChunk);
  std::vector<double> rounded(kChunk);
  for (int64_t begin = 0; begin < out.count(); begin += kChunk) {
    int64_t n = std::min(kChunk, out.count() - begin);
    widen(*c.operands[0], begin, n, in.data());
    if (through_f32) {
      for (size_t i = 0; i < size_t(n); ++i)
        rounded[i] = double(float(in[i]));
      narrow(rounded.data(), begin, n, out);
    } else {
      narrow(in.data(), begin, n, out);
    }
  }
  return out;
}

Result<std::vector<Tensor>> convert_ref(const RefContext &c) {
  std::vector<Tensor> out;
  out.push_back(
      with_wide_type(c.operands[0]->dtype(), [&]<typename W>() { return convert_wide<W>(c); }));
  return out;
}

// The value that a store and a load of the dtype would leave, also where neither takes place.
Expr convert_scalar(const Attrs &attrs, DType compute, Operands x) {
  return kb::convert(compute, kb::convert(attrs.get_dtype("dtype"), kb::convert(compute, x[0])));
}

std::vector<OpSample> convert_samples() {
  std::vector<OpSample> out;
  for (DType from : {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i64, DType::i32,
                     DType::i8, DType::u8, DType::u32, DType::u64, DType::bool_, DType::f8e4m3fn,
                     DType::f8e4m3fnuz, DType::f8e5m2, DType::f8e5m2fnuz, DType::f8e8m0,
                     DType::f4e2m1, DType::i4, DType::u4, DType::i2, DType::u2}) {
    double lo = is_unsigned_int(from) || is_bool(from) || from == DType::f8e8m0 ? 0 : -100;
    double hi = is_bool(from) ? 1 : 120;
#define KILN_DTYPE(name, bits, kind, code)                                                         \
  out.push_back({{{from, {3, 11}}}, {{"dtype", DType::name}}, lo, hi});
#include "ir/dtypes.def"
#undef KILN_DTYPE
  }
  out.push_back({{{DType::f32, {}}}, {{"dtype", DType::i32}}, -1000, 1000});
  out.push_back({{{DType::f32, {64}}}, {{"dtype", DType::i8}}, -1000, 1000});
  out.push_back({{{DType::f32, {64}}}, {{"dtype", DType::u8}}, -1000, 1000});
  out.push_back({{{DType::i64, {64}}}, {{"dtype", DType::i8}}, -1000, 1000});
  return out;
}

Expr logical_not_scalar(const Attrs &, DType, Operands x) {
  return kb::logical_not(x[0]);
}
// Of a dtype's own kind for integers, and logical for bool.
template <auto f>
constexpr auto kBits = [](auto a, auto b) { return decltype(a)(f(a, b)); };
constexpr auto kAnd = [](auto a, auto b) { return a & b; };
constexpr auto kOr = [](auto a, auto b) { return a | b; };
constexpr auto kXor = [](auto a, auto b) { return a ^ b; };
constexpr auto kEq = [](auto a, auto b) { return a == b; };
constexpr auto kNe = [](auto a, auto b) { return a != b; };
constexpr auto kLt = [](auto a, auto b) { return a < b; };
constexpr auto kLe = [](auto a, auto b) { return a <= b; };
constexpr auto kGt = [](auto a, auto b) { return a > b; };
constexpr auto kGe = [](auto a, auto b) { return a >= b; };

} // namespace

#define KILN_LOGIC_OP(id, count, text, infer_fn, ref_fn, scalar_fn, extra, sampled)                \
  const OpDef op_##id{.name = #id,                                                                 \
                      .doc = text,                                                                 \
                      .min_operands = count,                                                       \
                      .max_operands = count,                                                       \
                      .infer = infer_fn,                                                           \
                      .ref = ref_fn,                                                               \
                      .scalar = scalar_fn,                                                         \
                      .traits = kElementwise | (extra),                                            \
                      .samples = sampled};

KILN_LOGIC_OP(logical_not, 1, "Whether x is false.", map<kBools>,
              (ref<1, kBools, [](int64_t x) { return int64_t(x == 0); }>), logical_not_scalar,
              kInvolution, unary_samples(kBools))
KILN_LOGIC_OP(bitwise_not, 1, "All bits inverted; of bool: logical.", (map<kIntegers | kBools>),
              bitwise_not_ref, scalar<UnaryOp::bit_not>, kInvolution,
              unary_samples(kIntegers | kBools))
KILN_LOGIC_OP(is_nan, 1, "Whether x is not a number.", predicate<kFloats>,
              (ref<1, kFloats, [](double x) { return std::isnan(x); }>), scalar<UnaryOp::is_nan>,
              0u, unary_samples(kFloats))
KILN_LOGIC_OP(logical_and, 2, "Whether both are true.", map<kBools>, (ref<2, kBools, kBits<kAnd>>),
              scalar<BinaryOp::bit_and>, kCommutative, binary_samples(kBools))
KILN_LOGIC_OP(logical_or, 2, "Whether either is true.", map<kBools>, (ref<2, kBools, kBits<kOr>>),
              scalar<BinaryOp::bit_or>, kCommutative, binary_samples(kBools))
KILN_LOGIC_OP(logical_xor, 2, "Whether exactly one is true.", map<kBools>,
              (ref<2, kBools, kBits<kXor>>), scalar<BinaryOp::bit_xor>, kCommutative,
              binary_samples(kBools))
KILN_LOGIC_OP(bitwise_and, 2, "The bits set in both.", (map<kIntegers | kBools>),
              (ref<2, kIntegers | kBools, kBits<kAnd>>), scalar<BinaryOp::bit_and>, kCommutative,
              binary_samples(kIntegers | kBools))
KILN_LOGIC_OP(bitwise_or, 2, "The bits set in either.", (map<kIntegers | kBools>),
              (ref<2, kIntegers | kBools, kBits<kOr>>), scalar<BinaryOp::bit_or>, kCommutative,
              binary_samples(kIntegers | kBools))
KILN_LOGIC_OP(bitwise_xor, 2, "The bits set in exactly one.", (map<kIntegers | kBools>),
              (ref<2, kIntegers | kBools, kBits<kXor>>), scalar<BinaryOp::bit_xor>, kCommutative,
              binary_samples(kIntegers | kBools))
KILN_LOGIC_OP(shift_left, 2,
              "a shifted left by b bits; 0 where b is negative or the width or more.",
              map<kIntegers>, shift_ref<true>, scalar<BinaryOp::shl>, 0u, binary_samples(kIntegers))
KILN_LOGIC_OP(
    shift_right, 2,
    "a shifted right by b bits, keeping the sign; 0 where b is negative or the width or more.",
    map<kIntegers>, shift_ref<false>, scalar<BinaryOp::shr>, 0u, binary_samples(kIntegers))
KILN_LOGIC_OP(eq, 2, "Whether a is equal to b; false where either is NaN.", predicate<kAnything>,
              (ref<2, kAnything, kEq>), scalar<BinaryOp::eq>, kCommutative, binary_samples(kAnything))
KILN_LOGIC_OP(ne, 2, "Whether a differs from b; true where either is NaN.", predicate<kAnything>,
              (ref<2, kAnything, kNe>), scalar<BinaryOp::ne>, kCommutative, binary_samples(kAnything))
KILN_LOGIC_OP(lt, 2, "Whether a < b.", predicate<kNumbers>, (ref<2, kNumbers, kLt>),
              scalar<BinaryOp::lt>, 0u, binary_samples(kNumbers))
KILN_LOGIC_OP(le, 2, "Whether a <= b.", predicate<kNumbers>, (ref<2, kNumbers, kLe>),
              scalar<BinaryOp::le>, 0u, binary_samples(kNumbers))
KILN_LOGIC_OP(gt, 2, "Whether a > b.", predicate<kNumbers>, (ref<2, kNumbers, kGt>),
              scalar<BinaryOp::gt>, 0u, binary_samples(kNumbers))
KILN_LOGIC_OP(ge, 2, "Whether a >= b.", predicate<kNumbers>, (ref<2, kNumbers, kGe>),
              scalar<BinaryOp::ge>, 0u, binary_samples(kNumbers))
KILN_LOGIC_OP(where, 3, "a where the condition holds, else b. (condition: bool, a, b)", where_infer,
              where_ref, where_scalar, 0u, where_samples())
#undef KILN_LOGIC_OP

const OpDef op_is_inf{.name = "is_inf",
                      .doc = "Whether x is an infinity of a sign asked for.",
                      .min_operands = 1,
                      .max_operands = 1,
                      .attrs = {{"positive", AttrKind::boolean, Attr(true)},
                                {"negative", AttrKind::boolean, Attr(true)}},
                      .infer = predicate<kFloats>,
                      .ref = is_inf_ref,
                      .scalar = is_inf_scalar,
                      .traits = kElementwise,
                      .samples = unary_samples(kFloats)};

const OpDef op_convert{
    .name = "convert",
    .doc = "x in another dtype. Float to integer saturates and NaN becomes 0, integers "
           "wrap, anything to bool is x != 0, f16 and bf16 round to nearest even. Narrow floats round "
           "to nearest even and saturate (f8e8m0: up, to a power of two).",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"dtype", AttrKind::dtype, std::nullopt, "the result's"}},
    .infer = convert_infer,
    .ref = convert_ref,
    .scalar = convert_scalar,
    .traits = kElementwise,
    .samples = convert_samples()};

} // namespace kiln
