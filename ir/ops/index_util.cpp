#include "ir/ops/index_util.h"

#include "runtime/entry_abi.h"

#include "ir/narrow.h"

#include <fmt/format.h>

#include <cstring>

namespace kiln {
namespace {

template <typename T>
void copy_strided(const Tensor &x, int64_t base, std::span<const int64_t> strides, Tensor &out) {
  // Bytes: a view into a model file need not be aligned.
  const std::byte *from = x.bytes().data();
  T *to = out.data<T>();
  const auto &dims = out.dims();
  if (dims.empty()) {
    std::memcpy(to, from + size_t(base) * sizeof(T), sizeof(T));
    return;
  }
  int64_t inner = dims.back(), step = strides.back();
  std::vector<int64_t> outer(dims.begin(), dims.end() - 1);
  for_each_index(outer, [&](const std::vector<int64_t> &at, int64_t) {
    int64_t offset = base;
    for (size_t d = 0; d < at.size(); ++d)
      offset += at[d] * strides[d];
    for (int64_t i = 0; i < inner; ++i)
      std::memcpy(to++, from + size_t(offset + i * step) * sizeof(T), sizeof(T));
  });
}

} // namespace

Tensor strided_copy(const Tensor &x, int64_t base, std::span<const int64_t> strides, const TensorType &type) {
  Tensor out = make_tensor(type);
  if (out.count() == 0)
    return out;
  switch (dtype_bytes(x.dtype())) {
  case 1:
    copy_strided<uint8_t>(x, base, strides, out);
    break;
  case 2:
    copy_strided<uint16_t>(x, base, strides, out);
    break;
  case 4:
    copy_strided<uint32_t>(x, base, strides, out);
    break;
  default:
    copy_strided<uint64_t>(x, base, strides, out);
    break;
  }
  return out;
}

Result<int64_t> wrapped_index(int64_t index, int64_t size) {
  if (index < -size || index >= size)
    return Error{fmt::format("the index {} is out of range for size {}: it must be from {} to {}", index, size,
                             -size, size - 1)};
  return index < 0 ? index + size : index;
}

Result<int64_t> index_at(const Tensor &indices, int64_t at, int64_t size) {
  int64_t index = indices.at_i64(at);
  if (index < 0 && is_unsigned_int(indices.dtype()))
    return Error{fmt::format("the index {} is out of range for size {}", uint64_t(index), size)};
  return wrapped_index(index, size);
}

Expr literal(const Tensor &t) {
  if (is_narrow(t.dtype()))
    return kb::integer(t.dtype(), narrow_code(t.dtype(), *t.data<uint8_t>()));
  DType dtype = compute_dtype(t.dtype());
  return is_float(dtype) ? kb::number(dtype, t.at_f64(0)) : kb::integer(dtype, t.at_i64(0));
}

Expr literal(DType dtype, double value) {
  Tensor t = Tensor::scalar_f64(compute_dtype(dtype), value);
  return literal(t);
}

Dim checked_index(LowerContext &context, int i, std::span<const Dim> at, const Dim &size) {
  Expr raw = kb::convert(DType::i64, context.operand(i, at));
  bool is_unsigned = is_unsigned_int(context.operand_type(i).dtype);
  if (raw.is(Expr::Kind::number) && size.is_const() && !(is_unsigned && raw.integer < 0))
    if (auto index = wrapped_index(raw.integer, size.as_const()))
      return *index;
  if (raw.is(Expr::Kind::index)) {
    Dim index = context.simplified(raw.index);
    if (context.simplified(max(min(index, size - Dim(1)), 0)) == index)
      return index;
  }
  raw = context.bind(std::move(raw));
  Expr zero = kb::integer(DType::i64, 0), end = kb::index(size);
  Expr index = raw;
  if (!is_unsigned)
    index = context.bind(kb::select(kb::lt(raw, zero), kb::add(raw, end), raw));
  context.require(kb::logical_and(kb::le(zero, index), kb::lt(index, end)), KILN_TRAP_INDEX);
  return context.bind_index(std::move(index), 0, size);
}

Expr load_result(LowerContext &context, int result, std::span<const Dim> index) {
  DType dtype = context.result_type(result).dtype;
  Stmt where = context.store_result(result, index, kb::constant(compute_dtype(dtype), 0));
  return kb::convert(compute_dtype(dtype), kb::load(where.name, dtype, where.index));
}

void parallel_nest_over(LowerContext &context, const Shape &shape, std::span<const int> dims,
                        std::vector<Dim> &index, const std::function<void()> &body) {
  if (dims.empty())
    return body();
  size_t d = size_t(dims[0]);
  auto rest = dims.subspan(1);
  if (shape[d].is_const(1)) {
    index[d] = 0;
    return parallel_nest_over(context, shape, rest, index, body);
  }
  context.loop("i", 0, shape[d], LoopKind::parallel, [&](const Dim &var) {
    index[d] = var;
    parallel_nest_over(context, shape, rest, index, body);
  });
}

void parallel_nest(LowerContext &context, const Shape &shape,
                   const std::function<void(std::vector<Dim> &index)> &body) {
  std::vector<Dim> index(shape.size());
  std::vector<int> dims;
  for (size_t d = 0; d < shape.size(); ++d)
    dims.push_back(int(d));
  parallel_nest_over(context, shape, dims, index, [&] { body(index); });
}

} // namespace kiln
