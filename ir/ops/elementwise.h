// What the definitions of elementwise ops share. A ref is written once, as a generic lambda over
// double, int64_t and uint64_t; a scalar form is an expression of the kernel IR's scalar ops.
// Operands of scalar forms may be used several times: whoever calls binds them, and equal
// subexpressions are computed once.
#pragma once

#include "ir/ops/infer_util.h"
#include "ir/ops/ref_util.h"

#include <array>

namespace kiln {

// Sets of dtype kinds that an op takes.
enum Kinds : unsigned {
  kFloats = 1,
  kSigned = 2,
  kUnsigned = 4,
  kBools = 8,
  kIntegers = kSigned | kUnsigned,
  kNumbers = kFloats | kIntegers,
  kAnyKind = kNumbers | kBools,
  kNarrow = 16, // values that are compared and picked, and no more
  kAnything = kAnyKind | kNarrow,
};
bool in_kinds(DType dtype, unsigned kinds);
Status check_kinds(const InferContext &context, int operand, unsigned kinds);

} // namespace kiln

namespace kiln::elementwise {

inline constexpr int64_t kChunk = 4096;

// -- infer
using InferResult = Result<std::vector<TensorType>>;
InferResult infer_map(InferContext &context, unsigned kinds); // operands broadcast, of one dtype
InferResult infer_predicate(InferContext &context,
                            unsigned kinds); // the same, with results of bool

template <unsigned kinds>
InferResult map(InferContext &context) {
  return infer_map(context, kinds);
}
template <unsigned kinds>
InferResult predicate(InferContext &context) {
  return infer_predicate(context, kinds);
}

// -- ref
template <typename W, typename F, size_t... I>
Tensor map_wide(const RefContext &context, const F &f, std::index_sequence<I...>) {
  Tensor out = make_tensor(context.results[0]);
  std::array<BroadcastReader<W>, sizeof...(I)> readers{
      BroadcastReader<W>(*context.operands[I], out.dims())...};
  using Out = decltype(f((static_cast<void>(I), W())...));
  using Stored = std::conditional_t<std::is_same_v<Out, bool>, int64_t, Out>;
  std::array<std::vector<W>, sizeof...(I)> in;
  for (auto &v : in)
    v.resize(kChunk);
  std::vector<Stored> result(kChunk);
  for (int64_t begin = 0; begin < out.count(); begin += kChunk) {
    int64_t n = std::min(kChunk, out.count() - begin);
    (readers[I].read(n, in[I].data()), ...);
    for (int64_t i = 0; i < n; ++i)
      result[size_t(i)] = Stored(f(in[I][size_t(i)]...));
    narrow(result.data(), begin, n, out);
  }
  return out;
}

// f(W...) for each element, where W is what the operands' dtype widens to.
template <int operands, unsigned kinds, typename F>
Result<std::vector<Tensor>> map_elements(const RefContext &context, const F &f) {
  using Index = std::make_index_sequence<size_t(operands)>;
  std::vector<Tensor> out;
  DType dtype = context.operands[0]->dtype();
  if constexpr ((kinds & kNarrow) != 0)
    if (is_narrow(dtype))
      out.push_back(with_wide_type(
          dtype, [&]<typename W>() { return map_wide<W>(context, f, Index()); }));
  if constexpr ((kinds & kFloats) != 0)
    if (is_float(dtype))
      out.push_back(map_wide<double>(context, f, Index()));
  if constexpr ((kinds & kUnsigned) != 0)
    if (is_unsigned_int(dtype))
      out.push_back(map_wide<uint64_t>(context, f, Index()));
  if constexpr ((kinds & (kSigned | kBools)) != 0)
    if (is_signed_int(dtype) || is_bool(dtype))
      out.push_back(map_wide<int64_t>(context, f, Index()));
  KILN_CHECK(!out.empty(), "infer lets through a dtype that ref does not take");
  return out;
}

// RefFns of lambdas without captures: ref<operands, kinds, [](auto a, auto b) { ... }>.
template <int operands, unsigned kinds, auto f>
Result<std::vector<Tensor>> ref(const RefContext &context) {
  return map_elements<operands, kinds>(context, f);
}

// -- scalar
using Operands = std::span<const Expr>;

template <UnaryOp op>
Expr scalar(const Attrs &, DType, Operands x) {
  return kb::unary(op, x[0]);
}
template <BinaryOp op>
Expr scalar(const Attrs &, DType, Operands x) {
  return kb::binary(op, x[0], x[1]);
}
inline Expr like(const Expr &x, double value) {
  return kb::constant(x.dtype, value, x.lanes);
}
inline Expr gt(Expr a, Expr b) {
  return kb::binary(BinaryOp::gt, std::move(a), std::move(b));
}
inline Expr ne(Expr a, Expr b) {
  return kb::binary(BinaryOp::ne, std::move(a), std::move(b));
}

// -- samples: several shapes (odd, rank 0, empty, broadcast) in every dtype of `kinds`
std::vector<OpSample> unary_samples(unsigned kinds, double lo = -2, double hi = 2,
                                    Attrs attrs = {});
std::vector<OpSample> binary_samples(unsigned kinds, double lo = -2, double hi = 2);
std::vector<OpSample> join(std::vector<OpSample> a, std::vector<OpSample> b);

} // namespace kiln::elementwise
