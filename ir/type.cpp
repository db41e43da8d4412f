#include "ir/type.h"

namespace kiln {

std::string TensorType::text() const {
  return std::string(dtype_name(dtype)) + shape_text(shape);
}

int64_t Layout::block_of(int dim) const {
  for (const Block &b : blocks)
    if (b.dim == dim)
      return b.size;
  return 1;
}

Layout::Halo Layout::halo_of(int dim) const {
  for (const Halo &h : halos)
    if (h.dim == dim)
      return h;
  return {dim, 0, 0};
}

std::string Layout::text() const {
  if (is_row_major())
    return "";
  std::string out;
  auto part = [&](const std::string &s) { out += (out.empty() ? "{" : ", ") + s; };
  if (!order.empty()) {
    std::string s = "order";
    for (int d : order)
      s += " " + std::to_string(d);
    part(s);
  }
  for (const Block &b : blocks)
    part("block " + std::to_string(b.dim) + ":" + std::to_string(b.size));
  for (const Halo &h : halos)
    part("halo " + std::to_string(h.dim) + ":" + std::to_string(h.lo) + ":" + std::to_string(h.hi));
  return out + "}";
}

Shape physical_shape(const Shape &shape, const Layout &layout) {
  Shape out;
  for (size_t i = 0; i < shape.size(); ++i) {
    int d = layout.order.empty() ? int(i) : layout.order[i];
    auto halo = layout.halo_of(d);
    out.push_back(ceildiv(shape[size_t(d)], layout.block_of(d)) + Dim(halo.lo + halo.hi));
  }
  for (const auto &block : layout.blocks)
    out.push_back(block.size);
  return out;
}

Dim physical_size(const TensorType &type, const Layout &layout) {
  return element_count(physical_shape(type.shape, layout));
}

Dim physical_offset(const Shape &shape, const Layout &layout, std::span<const Dim> index) {
  KILN_CHECK(index.size() == shape.size(), "an index has as many entries as the shape has dims");
  Shape physical = physical_shape(shape, layout);
  Dim offset = 0;
  for (size_t i = 0; i < shape.size(); ++i) {
    size_t d = layout.order.empty() ? i : size_t(layout.order[i]);
    int64_t block = layout.block_of(int(d));
    offset = offset * physical[i] + floordiv(index[d], block) + Dim(layout.halo_of(int(d)).lo);
  }
  for (const auto &block : layout.blocks)
    offset = offset * Dim(block.size) + mod(index[size_t(block.dim)], block.size);
  return offset;
}

} // namespace kiln
