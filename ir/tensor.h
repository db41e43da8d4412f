// Tensor: concrete values, dense and row-major. The interpreter computes on these; constants are these.
// A Tensor either owns its bytes or views bytes that somebody else keeps (a mapped model file).
#pragma once

#include "ir/type.h"

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <vector>

namespace kiln {

// Memory that begins with a line of the cache, which no load of a vector or of a tile's row then lies across.
template <typename T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kLine{64};
  LineAllocator() = default;
  template <typename U>
  LineAllocator(const LineAllocator<U> &) {}
  T *allocate(size_t count) { return static_cast<T *>(::operator new(count * sizeof(T), kLine)); }
  void deallocate(T *memory, size_t) { ::operator delete(memory, kLine); }
  friend bool operator==(const LineAllocator &, const LineAllocator &) = default;
};

class Tensor {
public:
  Tensor() = default;
  // Zero-filled. The element count must have been checked (see checked_bytes()).
  Tensor(DType dtype, std::vector<int64_t> dims);
  // A view: `bytes` must stay alive and hold exactly the elements, little-endian, bools as 0 or 1.
  Tensor(DType dtype, std::vector<int64_t> dims, std::span<const std::byte> bytes);

  DType dtype() const { return dtype_; }
  const std::vector<int64_t> &dims() const { return dims_; }
  int rank() const { return int(dims_.size()); }
  int64_t count() const { return count_; }
  TensorType type() const;

  std::span<const std::byte> bytes() const;
  bool owns() const { return view_.data() == nullptr; }
  std::byte *mutable_bytes(); // owned tensors only

  template <typename T>
  const T *data() const {
    return reinterpret_cast<const T *>(bytes().data());
  }
  template <typename T>
  T *data() {
    return reinterpret_cast<T *>(mutable_bytes());
  }

  // Element `i` in row-major order, by the language's conversion rules. The i64 forms are exact for
  // every integer type (u64 is reinterpreted); the f64 forms are exact for every float type.
  double at_f64(int64_t i) const;
  int64_t at_i64(int64_t i) const;
  void set_f64(int64_t i, double value);
  void set_i64(int64_t i, int64_t value);

  static Tensor scalar_f64(DType dtype, double value);
  static Tensor scalar_i64(DType dtype, int64_t value);
  static Tensor from_i64(std::span<const int64_t> values); // i64[n]

private:
  DType dtype_ = DType::f32;
  std::vector<int64_t> dims_;
  int64_t count_ = 0;
  std::vector<std::byte, LineAllocator<std::byte>> owned_;
  std::span<const std::byte> view_;
};

// Bytes of a tensor; nothing where a dim is negative or the size overflows.
std::optional<int64_t> checked_bytes(DType dtype, std::span<const int64_t> dims);

} // namespace kiln
