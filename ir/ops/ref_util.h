// What the ref functions of ir/ops share: elements widened to the type that reference arithmetic is
// done in, read in bulk, so that whole models run through the interpreter in bearable time.
//
// Floats widen to double, signed integers and bool to int64_t, unsigned integers to uint64_t; narrow
// dtypes as others of their kind do.
#pragma once

#include "ir/ops/op.h"

namespace kiln {

// Elements [begin, begin + count) of a tensor, in row-major order. W: double, int64_t or uint64_t.
template <typename W>
void widen(const Tensor &tensor, int64_t begin, int64_t count, W *out);
// Writes them; floats are rounded once more where the dtype is narrower, integers wrap.
template <typename W>
void narrow(const W *values, int64_t begin, int64_t count, Tensor &out);

template <typename W>
std::vector<W> widen_all(const Tensor &tensor) {
  std::vector<W> out(size_t(tensor.count()));
  widen(tensor, 0, tensor.count(), out.data());
  return out;
}

// Concrete dims of a type whose shape is static.
std::vector<int64_t> concrete_dims(const TensorType &type);
// A zero tensor of a static type.
Tensor make_tensor(const TensorType &type);
// Elements between neighbours along each dim.
std::vector<int64_t> row_major_strides(std::span<const int64_t> dims);
int64_t product(std::span<const int64_t> dims);

// Reads a tensor as if broadcast to `dims`, from the first element on.
template <typename W>
class BroadcastReader {
public:
  BroadcastReader(const Tensor &tensor, std::span<const int64_t> dims);
  void read(int64_t count, W *out);

private:
  const Tensor &tensor_;
  bool plain_ = false;    // no broadcasting: elements in order
  int64_t position_ = 0;  // plain: the next element; else: offset of the current one
  std::vector<W> values_; // all elements, where broadcast
  std::vector<int64_t> dims_, strides_, at_;
};

// Calls f.template operator()<W>() with the type that elements of `dtype` widen to.
template <typename F>
decltype(auto) with_wide_type(DType dtype, F &&f) {
  switch (dtype_kind(dtype)) {
  case DTypeKind::float_:
  case DTypeKind::narrow_float_:
    return f.template operator()<double>();
  case DTypeKind::unsigned_:
  case DTypeKind::narrow_unsigned_:
    return f.template operator()<uint64_t>();
  default:
    return f.template operator()<int64_t>();
  }
}

} // namespace kiln
