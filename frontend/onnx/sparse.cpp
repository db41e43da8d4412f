// Sparse tensors of a model. Kiln's tensors are dense: zeros are written out while the model is read, as far as
// that is not out of proportion to what the file holds.
#include "frontend/onnx/tensors.h"

#include "frontend/onnx/value.h"

#include <fmt/format.h>

#include <cstring>

namespace kiln::onnx {
namespace {

constexpr int64_t kAlways = 16 << 20, kMostTimes = 1024; // bytes, and times as many as the values have

} // namespace

Result<Tensor> make_tensor(const SparseView &view, ExternalFiles &files) {
  KILN_TRY(values, make_tensor(view.values, files));
  KILN_TRY(indices, make_tensor(view.indices, files));
  if (view.dims.size() > size_t(kMaxRank))
    return Error{fmt::format("it has {} dims; at most {} are supported", view.dims.size(), kMaxRank)};
  auto bytes = checked_bytes(values.dtype(), view.dims);
  if (!bytes)
    return Error{"its dims are negative or too large"};
  int64_t stored = int64_t(values.bytes().size()), width = dtype_bytes(values.dtype());
  if (*bytes > kAlways && *bytes / kMostTimes > stored)
    return Error{fmt::format("it is a sparse tensor of {} elements, which would be {} bytes with its zeros; store it dense",
                             values.count(), *bytes)};
  int64_t rank = int64_t(view.dims.size()), per_value = indices.rank() == 2 ? rank : 1;
  bool fits = values.rank() == 1 && indices.dtype() == DType::i64 && indices.count() == values.count() * per_value &&
              (indices.rank() == 1 || (indices.rank() == 2 && indices.dims()[0] == values.count()));
  if (!fits)
    return Error{fmt::format("its indices {} do not fit its values {} and its {} dims", indices.type().text(),
                             values.type().text(), rank)};
  Tensor out(values.dtype(), view.dims);
  int64_t count = *bytes / width;
  for (int64_t i = 0; i < values.count(); ++i) {
    int64_t at = 0;
    bool inside = true;
    if (indices.rank() == 1) {
      at = indices.at_i64(i);
      inside = at >= 0 && at < count;
    }
    for (int64_t d = 0; indices.rank() == 2 && d < rank; ++d) {
      int64_t index = indices.at_i64(i * rank + d), size = view.dims[size_t(d)];
      inside = inside && index >= 0 && index < size;
      at = inside ? at * size + index : 0;
    }
    if (!inside)
      return Error{fmt::format("the index of its value {} is outside of its dims", i)};
    std::memcpy(out.mutable_bytes() + at * width, values.bytes().data() + i * width, size_t(width));
  }
  return out;
}

} // namespace kiln::onnx
