#include "ir/ops/ref_util.h"

#include "ir/narrow.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

namespace kiln {
namespace {

template <typename T, typename W>
void widen_as(const Tensor &tensor, int64_t begin, int64_t count, W *out) {
  // Copied out: a view into a model file need not be aligned.
  const std::byte *p = tensor.bytes().data() + size_t(begin) * sizeof(T);
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, p + size_t(i) * sizeof(T), sizeof(T));
    out[i] = W(value);
  }
}

template <typename T, typename W>
T narrow_one(W value) {
  if constexpr (std::is_same_v<W, double> && std::is_integral_v<T>) {
    if (std::isnan(value))
      return 0;
    if (value <= double(std::numeric_limits<T>::min()))
      return std::numeric_limits<T>::min();
    if (value >= double(std::numeric_limits<T>::max()))
      return std::numeric_limits<T>::max();
  }
  return T(value);
}

template <typename T, typename W>
void narrow_as(const W *values, int64_t begin, int64_t count, Tensor &out) {
  T *p = out.data<T>() + begin;
  for (int64_t i = 0; i < count; ++i)
    p[i] = narrow_one<T, W>(values[i]);
}

} // namespace

template <typename W>
void widen(const Tensor &tensor, int64_t begin, int64_t count, W *out) {
  switch (tensor.dtype()) {
  case DType::f64:
    if constexpr (std::is_same_v<W, double>)
      return widen_as<double>(tensor, begin, count, out);
    break;
  case DType::f32:
    if constexpr (std::is_same_v<W, double>)
      return widen_as<float>(tensor, begin, count, out);
    break;
  case DType::i64:
    return widen_as<int64_t>(tensor, begin, count, out);
  case DType::i32:
    return widen_as<int32_t>(tensor, begin, count, out);
  case DType::i16:
    return widen_as<int16_t>(tensor, begin, count, out);
  case DType::i8:
    return widen_as<int8_t>(tensor, begin, count, out);
  case DType::u64:
    return widen_as<uint64_t>(tensor, begin, count, out);
  case DType::u32:
    return widen_as<uint32_t>(tensor, begin, count, out);
  case DType::u16:
    return widen_as<uint16_t>(tensor, begin, count, out);
  case DType::u8:
  case DType::bool_:
    return widen_as<uint8_t>(tensor, begin, count, out);
  default:
    break;
  }
  for (int64_t i = 0; i < count; ++i)
    out[i] = std::is_same_v<W, double> ? W(tensor.at_f64(begin + i)) : W(tensor.at_i64(begin + i));
}

template <typename W>
void narrow(const W *values, int64_t begin, int64_t count, Tensor &out) {
  switch (out.dtype()) {
  case DType::f64:
    return narrow_as<double>(values, begin, count, out);
  case DType::f32:
    return narrow_as<float>(values, begin, count, out);
  case DType::f16:
  case DType::bf16: {
    auto *p = out.data<uint16_t>() + begin;
    for (int64_t i = 0; i < count; ++i)
      p[i] =
          out.dtype() == DType::f16 ? f32_to_f16(float(values[i])) : f32_to_bf16(float(values[i]));
    return;
  }
  case DType::i64:
    return narrow_as<int64_t>(values, begin, count, out);
  case DType::i32:
    return narrow_as<int32_t>(values, begin, count, out);
  case DType::i16:
    return narrow_as<int16_t>(values, begin, count, out);
  case DType::i8:
    return narrow_as<int8_t>(values, begin, count, out);
  case DType::u64:
    return narrow_as<uint64_t>(values, begin, count, out);
  case DType::u32:
    return narrow_as<uint32_t>(values, begin, count, out);
  case DType::u16:
    return narrow_as<uint16_t>(values, begin, count, out);
  case DType::u8:
    return narrow_as<uint8_t>(values, begin, count, out);
  case DType::bool_: {
    auto *p = out.data<uint8_t>() + begin;
    for (int64_t i = 0; i < count; ++i)
      p[i] = values[i] != W(0);
    return;
  }
  default: {
    auto *p = out.data<uint8_t>() + begin;
    for (int64_t i = 0; i < count; ++i)
      p[i] = to_narrow(out.dtype(), values[i]);
    return;
  }
  }
}

std::vector<int64_t> concrete_dims(const TensorType &type) {
  std::vector<int64_t> out;
  for (const Dim &d : type.shape)
    out.push_back(d.as_const());
  return out;
}

Tensor make_tensor(const TensorType &type) {
  return Tensor(type.dtype, concrete_dims(type));
}

std::vector<int64_t> row_major_strides(std::span<const int64_t> dims) {
  std::vector<int64_t> out(dims.size(), 1);
  for (size_t i = dims.size(); i-- > 1;)
    out[i - 1] = out[i] * std::max<int64_t>(dims[i], 1);
  return out;
}

int64_t product(std::span<const int64_t> dims) {
  int64_t out = 1;
  for (int64_t d : dims)
    out *= d;
  return out;
}

template <typename W>
BroadcastReader<W>::BroadcastReader(const Tensor &tensor, std::span<const int64_t> dims)
    : tensor_(tensor) {
  plain_ = std::equal(dims.begin(), dims.end(), tensor.dims().begin(), tensor.dims().end());
  if (plain_)
    return;
  values_ = widen_all<W>(tensor);
  auto strides = row_major_strides(tensor.dims());
  size_t lead = dims.size() - tensor.dims().size();
  for (size_t i = 0; i < dims.size(); ++i) {
    bool repeats = i < lead || (tensor.dims()[i - lead] == 1 && dims[i] != 1);
    int64_t stride = repeats ? 0 : strides[i - lead];
    // Neighbouring dims that step as one are one.
    if (!dims_.empty() && (dims[i] == 1 || strides_.back() == stride * dims[i])) {
      if (dims[i] != 1) {
        dims_.back() *= dims[i];
        strides_.back() = stride;
      }
      continue;
    }
    dims_.push_back(dims[i]);
    strides_.push_back(stride);
  }
  at_.resize(dims_.size());
}

template <typename W>
void BroadcastReader<W>::read(int64_t count, W *out) {
  if (plain_) {
    widen(tensor_, position_, count, out);
    position_ += count;
    return;
  }
  if (dims_.empty()) {
    std::fill(out, out + count, values_[0]);
    return;
  }
  size_t last = dims_.size() - 1;
  while (count > 0) {
    int64_t run = std::min(count, dims_[last] - at_[last]);
    for (int64_t i = 0; i < run; ++i)
      out[i] = values_[size_t(position_ + i * strides_[last])];
    out += run;
    count -= run;
    at_[last] += run;
    position_ += run * strides_[last];
    for (size_t d = last; at_[d] == dims_[d];) {
      position_ -= dims_[d] * strides_[d];
      at_[d] = 0;
      if (d == 0)
        break;
      --d;
      ++at_[d];
      position_ += strides_[d];
    }
  }
}

#define KILN_INSTANTIATE(W)                                                                        \
  template void widen<W>(const Tensor &, int64_t, int64_t, W *);                                   \
  template void narrow<W>(const W *, int64_t, int64_t, Tensor &);                                  \
  template class BroadcastReader<W>;
KILN_INSTANTIATE(double)
KILN_INSTANTIATE(int64_t)
KILN_INSTANTIATE(uint64_t)
#undef KILN_INSTANTIATE

} // namespace kiln
