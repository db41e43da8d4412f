#include "ir/pack.h"

#include <cstring>
#include <functional>

namespace kiln {
namespace {

// The offset of an element is a sum with one term for each dim, so a table for each dim is enough.
std::vector<std::vector<int64_t>> offset_tables(const std::vector<int64_t> &dims, const Layout &layout) {
  Shape physical = physical_shape(Shape(dims.begin(), dims.end()), layout);
  std::vector<int64_t> strides(physical.size(), 1);
  for (size_t i = physical.size(); i-- > 1;)
    strides[i - 1] = strides[i] * physical[i].as_const();
  std::vector<std::vector<int64_t>> tables(dims.size());
  for (size_t p = 0; p < dims.size(); ++p) {
    size_t d = layout.order.empty() ? p : size_t(layout.order[p]);
    int64_t block = layout.block_of(int(d)), lo = layout.halo_of(int(d)).lo, block_stride = 0;
    for (size_t b = 0; b < layout.blocks.size(); ++b)
      if (layout.blocks[b].dim == int(d))
        block_stride = strides[dims.size() + b];
    for (int64_t i = 0; i < dims[d]; ++i)
      tables[d].push_back((i / block + lo) * strides[p] + i % block * block_stride);
  }
  return tables;
}

// f(linear index, physical offset) for every element in row-major order.
template <typename F>
void for_each(const std::vector<int64_t> &dims, const Layout &layout, const F &f) {
  auto tables = offset_tables(dims, layout);
  int64_t linear = 0;
  auto walk = [&](auto &self, size_t d, int64_t base) -> void {
    if (d == dims.size()) {
      f(linear++, base);
      return;
    }
    if (d + 1 == dims.size()) {
      for (int64_t offset : tables[d])
        f(linear++, base + offset);
      return;
    }
    for (int64_t offset : tables[d])
      self(self, d + 1, base + offset);
  };
  walk(walk, 0, 0);
}

template <int kBytes>
void scatter(const std::byte *in, std::byte *out, const std::vector<int64_t> &dims, const Layout &layout) {
  for_each(dims, layout, [&](int64_t linear, int64_t offset) {
    std::memcpy(out + offset * kBytes, in + linear * kBytes, kBytes);
  });
}

template <int kBytes>
void gather(const std::byte *in, std::byte *out, const std::vector<int64_t> &dims, const Layout &layout) {
  for_each(dims, layout, [&](int64_t linear, int64_t offset) {
    std::memcpy(out + linear * kBytes, in + offset * kBytes, kBytes);
  });
}

} // namespace

void pack(const Tensor &tensor, const Layout &layout, std::span<std::byte> out) {
  int64_t bytes = dtype_bytes(tensor.dtype());
  int64_t size = physical_size(tensor.type(), layout).as_const() * bytes;
  KILN_CHECK(out.size() == size_t(size), "pack: the buffer holds the layout exactly");
  const std::byte *in = tensor.bytes().data();
  if (layout.is_row_major()) {
    if (size > 0)
      std::memcpy(out.data(), in, size_t(size));
    return;
  }
  if (size != tensor.count() * bytes)
    std::memset(out.data(), 0, out.size());
  switch (bytes) {
  case 1:
    return scatter<1>(in, out.data(), tensor.dims(), layout);
  case 2:
    return scatter<2>(in, out.data(), tensor.dims(), layout);
  case 4:
    return scatter<4>(in, out.data(), tensor.dims(), layout);
  default:
    return scatter<8>(in, out.data(), tensor.dims(), layout);
  }
}

Tensor unpack(DType dtype, const std::vector<int64_t> &dims, const Layout &layout,
              std::span<const std::byte> bytes) {
  Tensor out(dtype, dims);
  if (out.count() == 0)
    return out;
  switch (dtype_bytes(dtype)) {
  case 1:
    gather<1>(bytes.data(), out.mutable_bytes(), dims, layout);
    break;
  case 2:
    gather<2>(bytes.data(), out.mutable_bytes(), dims, layout);
    break;
  case 4:
    gather<4>(bytes.data(), out.mutable_bytes(), dims, layout);
    break;
  default:
    gather<8>(bytes.data(), out.mutable_bytes(), dims, layout);
    break;
  }
  return out;
}

} // namespace kiln
