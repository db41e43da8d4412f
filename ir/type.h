// TensorType: dtype and shape. Layout: how a value of that type lies in memory.
//
// A type is what the program means; a layout is the compiler's business and never changes a result.
// Passes give values layouts (blocked channels, weight panels, zero halos, padded rows), lowering turns
// logical indices into offsets by them, and no op needs a second form for any of it.
#pragma once

#include "ir/dim.h"
#include "ir/dtype.h"

#include <string>
#include <vector>

namespace kiln {

struct TensorType {
  DType dtype = DType::f32;
  Shape shape;

  int rank() const { return int(shape.size()); }
  std::string text() const; // "f32[N, 10]"
  friend bool operator==(const TensorType &, const TensorType &) = default;
};

// The physical shape is, for each logical dim in `order` (outermost first), its size, or the number of
// its blocks (rounded up), plus its halo; then each block's size in the order of `blocks`.
//   row-major            order 0 1 2 3
//   NCHWc16, halo of 1   order 0 1 2 3, blocks {1: 16}, halo 2: {1, 1}, 3: {1, 1}
//   panels of B[K, N]    order 1 0, blocks {1: 16}        [N/16][K][16]
//   weights OIHW         order 0 1 2 3, blocks {0: 16}    [O/16][I][H][W][16]
// Elements of a halo are zero. Elements that pad the last block of a dim are unspecified in
// activations and zero in constants.
struct Layout {
  struct Block {
    int dim;
    int64_t size;
    friend bool operator==(const Block &, const Block &) = default;
  };
  struct Halo {
    int dim;
    int64_t lo, hi;
    friend bool operator==(const Halo &, const Halo &) = default;
  };
  std::vector<int> order; // empty: 0, 1, 2, ...
  std::vector<Block> blocks;
  std::vector<Halo> halos;

  bool is_row_major() const { return order.empty() && blocks.empty() && halos.empty(); }
  int64_t block_of(int dim) const; // 1 where it is not blocked
  Halo halo_of(int dim) const;
  std::string text() const; // "" where row-major, else "{order 0 1 2 3, block 1:16, halo 2:1:1}"
  friend bool operator==(const Layout &, const Layout &) = default;
};

Shape physical_shape(const Shape &shape, const Layout &layout);
// Elements the buffer holds.
Dim physical_size(const TensorType &type, const Layout &layout);
// The offset, in elements, of the element at logical `index` (which may lie in the halo).
Dim physical_offset(const Shape &shape, const Layout &layout, std::span<const Dim> index);

} // namespace kiln
