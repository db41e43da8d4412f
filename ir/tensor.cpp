#include "ir/tensor.h"

#include "ir/narrow.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace kiln {
namespace {

template <typename T>
T load(const std::byte *p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

template <typename T>
void store(std::byte *p, T value) {
  std::memcpy(p, &value, sizeof(T));
}

// Saturating; NaN becomes 0.
template <typename T>
T saturate(double value) {
  if (std::isnan(value))
    return 0;
  if (value <= double(std::numeric_limits<T>::min()))
    return std::numeric_limits<T>::min();
  // Not <=: double(max) rounds up for 64-bit types.
  if (value >= double(std::numeric_limits<T>::max()))
    return std::numeric_limits<T>::max();
  return T(value);
}

} // namespace

std::optional<int64_t> checked_bytes(DType dtype, std::span<const int64_t> dims) {
  int64_t total = dtype_bytes(dtype);
  bool empty = false;
  for (int64_t d : dims) {
    if (d < 0)
      return std::nullopt;
    empty |= d == 0;
  }
  if (empty)
    return 0;
  for (int64_t d : dims)
    if (__builtin_mul_overflow(total, d, &total))
      return std::nullopt;
  return total;
}

Tensor::Tensor(DType dtype, std::vector<int64_t> dims) : dtype_(dtype), dims_(std::move(dims)) {
  auto bytes = checked_bytes(dtype_, dims_);
  KILN_CHECK(bytes.has_value(), "a tensor's size must be checked before it is made");
  count_ = *bytes / dtype_bytes(dtype_);
  owned_.resize(size_t(*bytes));
}

Tensor::Tensor(DType dtype, std::vector<int64_t> dims, std::span<const std::byte> bytes)
    : dtype_(dtype), dims_(std::move(dims)), view_(bytes) {
  auto size = checked_bytes(dtype_, dims_);
  KILN_CHECK(size && size_t(*size) == bytes.size(), "a tensor view covers exactly its elements");
  count_ = *size / dtype_bytes(dtype_);
}

TensorType Tensor::type() const { return {dtype_, Shape(dims_.begin(), dims_.end())}; }

std::span<const std::byte> Tensor::bytes() const {
  return owns() ? std::span<const std::byte>(owned_) : view_;
}

std::byte *Tensor::mutable_bytes() {
  KILN_CHECK(owns(), "a tensor view cannot be written");
  return owned_.data();
}

double Tensor::at_f64(int64_t i) const {
  const std::byte *p = bytes().data() + i * dtype_bytes(dtype_);
  switch (dtype_) {
  case DType::f64:
    return load<double>(p);
  case DType::f32:
    return double(load<float>(p));
  case DType::f16:
    return double(f16_to_f32(load<uint16_t>(p)));
  case DType::bf16:
    return double(bf16_to_f32(load<uint16_t>(p)));
  case DType::u64:
    return double(load<uint64_t>(p));
  default:
    return is_narrow(dtype_) ? narrow_value(dtype_, load<uint8_t>(p)) : double(at_i64(i));
  }
}

int64_t Tensor::at_i64(int64_t i) const {
  const std::byte *p = bytes().data() + i * dtype_bytes(dtype_);
  switch (dtype_) {
  case DType::i64:
  case DType::u64:
    return load<int64_t>(p);
  case DType::i32:
    return load<int32_t>(p);
  case DType::u32:
    return load<uint32_t>(p);
  case DType::i16:
    return load<int16_t>(p);
  case DType::u16:
    return load<uint16_t>(p);
  case DType::i8:
    return load<int8_t>(p);
  case DType::u8:
    return load<uint8_t>(p);
  case DType::bool_:
    return load<uint8_t>(p) != 0;
  default:
    return saturate<int64_t>(at_f64(i));
  }
}

void Tensor::set_f64(int64_t i, double value) {
  std::byte *p = mutable_bytes() + i * dtype_bytes(dtype_);
  switch (dtype_) {
  case DType::f64:
    return store(p, value);
  case DType::f32:
    return store(p, float(value));
  case DType::f16:
    return store(p, f32_to_f16(float(value)));
  case DType::bf16:
    return store(p, f32_to_bf16(float(value)));
  case DType::i64:
    return store(p, saturate<int64_t>(value));
  case DType::u64:
    return store(p, saturate<uint64_t>(value));
  case DType::i32:
    return store(p, saturate<int32_t>(value));
  case DType::u32:
    return store(p, saturate<uint32_t>(value));
  case DType::i16:
    return store(p, saturate<int16_t>(value));
  case DType::u16:
    return store(p, saturate<uint16_t>(value));
  case DType::i8:
    return store(p, saturate<int8_t>(value));
  case DType::u8:
    return store(p, saturate<uint8_t>(value));
  case DType::bool_:
    return store(p, uint8_t(value != 0));
  default:
    return store(p, to_narrow(dtype_, value));
  }
}

void Tensor::set_i64(int64_t i, int64_t value) {
  std::byte *p = mutable_bytes() + i * dtype_bytes(dtype_);
  switch (dtype_) {
  case DType::i64:
  case DType::u64:
    return store(p, value);
  case DType::i32:
  case DType::u32:
    return store(p, uint32_t(value));
  case DType::i16:
  case DType::u16:
    return store(p, uint16_t(value));
  case DType::i8:
  case DType::u8:
    return store(p, uint8_t(value));
  case DType::bool_:
    return store(p, uint8_t(value != 0));
  default:
    return is_narrow(dtype_) ? store(p, to_narrow(dtype_, value)) : set_f64(i, double(value));
  }
}

Tensor Tensor::scalar_f64(DType dtype, double value) {
  Tensor out(dtype, {});
  out.set_f64(0, value);
  return out;
}

Tensor Tensor::scalar_i64(DType dtype, int64_t value) {
  Tensor out(dtype, {});
  out.set_i64(0, value);
  return out;
}

Tensor Tensor::from_i64(std::span<const int64_t> values) {
  Tensor out(DType::i64, {int64_t(values.size())});
  for (size_t i = 0; i < values.size(); ++i)
    out.set_i64(int64_t(i), values[i]);
  return out;
}

} // namespace kiln
