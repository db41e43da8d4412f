// What movement and index ops share: walking concrete indices and copying elements for their refs, and
// the pieces their code forms are made of.
#pragma once

#include "ir/ops/infer_util.h"
#include "ir/ops/ref_util.h"

#include <cstring>

namespace kiln {

// -- refs

// f(at, linear) for every index of `dims` in row-major order.
template <typename F>
void for_each_index(std::span<const int64_t> dims, F &&f) {
  int64_t count = product(dims);
  std::vector<int64_t> at(dims.size(), 0);
  for (int64_t linear = 0; linear < count; ++linear) {
    f(std::as_const(at), linear);
    for (size_t d = dims.size(); d-- > 0;) {
      if (++at[d] < dims[d])
        break;
      at[d] = 0;
    }
  }
}

// Copies `count` elements as bytes; the tensors are of one dtype.
inline void copy_elements(const Tensor &from, int64_t i, Tensor &to, int64_t j, int64_t count = 1) {
  size_t bytes = size_t(dtype_bytes(from.dtype()));
  if (count > 0)
    std::memcpy(to.mutable_bytes() + size_t(j) * bytes, from.bytes().data() + size_t(i) * bytes,
                size_t(count) * bytes);
}

// out[index] = x[base + sum of index[d] * strides[d]], for every index of `type`.
Tensor strided_copy(const Tensor &x, int64_t base, std::span<const int64_t> strides, const TensorType &type);

// An index that may count from the end, as one from the front; an error if it is out of range.
Result<int64_t> wrapped_index(int64_t index, int64_t size);
// Element `at` of a tensor of indices so; unsigned ones count from the start only.
Result<int64_t> index_at(const Tensor &indices, int64_t at, int64_t size);

// The value of a Dim attribute of a concrete node.
inline std::vector<Tensor> one_tensor(Tensor t) {
  std::vector<Tensor> out;
  out.push_back(std::move(t));
  return out;
}

// -- code forms

// `value` in the dtype's compute type.
Expr literal(DType dtype, double value);
// The first element, in the compute dtype.
Expr literal(const Tensor &tensor);
// The index that operand `i` holds at `at`, counting from the end where negative, within [0, size):
// anything else traps.
Dim checked_index(LowerContext &context, int i, std::span<const Dim> at, const Dim &size);
// `lower` only: the element of a result that has been stored before, in its compute dtype.
Expr load_result(LowerContext &context, int result, std::span<const Dim> index);
// `lower` only: parallel loops over `shape`; dims of size 1 have no loop.
void parallel_nest(LowerContext &context, const Shape &shape,
                   const std::function<void(std::vector<Dim> &index)> &body);
// The same over some dims of an index, in order; the others keep what they hold.
void parallel_nest_over(LowerContext &context, const Shape &shape, std::span<const int> dims,
                        std::vector<Dim> &index, const std::function<void()> &body);

} // namespace kiln
