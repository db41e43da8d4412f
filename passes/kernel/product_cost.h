// What a product of tiles (ir/kernel/tile_product.h) costs beside the same dots by vectors: matrix registers take as long
// for a product however much of it is filled, and its loads go on beside the products before it.
#pragma once

#include "codegen/machine.h"
#include "ir/kernel/tile_product.h"

#include <algorithm>

namespace kiln {

// Products of bf16 that vectors add in the time of one of f32. Of the processors that have matrix registers it is measured: vdpbf16ps
// takes four times as long as a multiply-add.
inline double bf16_dot_rate(const MachineDesc &machine) { return machine.tile_rows > 0 ? 0.5 : 2; }

struct ProductCosts { // cycles
  double products = 0, vectors = 0;
  bool pays() const { return products < vectors; }
};

inline ProductCosts product_costs(const TileProduct &p, const MachineDesc &machine) {
  double tiles = p.rows > machine.tile_rows ? 2 : 1, columns = double(p.columns);
  double dots = machine.fma_per_cycle * (p.dtype == DType::f32 ? bf16_dot_rate(machine) / 2 : 1); // a cycle
  return {std::max(tiles * columns * machine.tile_product_cycles, (tiles + columns) * machine.tile_load_cycles),
          double(p.rows * p.depth) * columns / dots};
}

// Whether a product is one for matrix registers: unrolled steps of a tile for vectors have the same form.
inline bool is_for_tiles(const TileProduct &p, const MachineDesc &machine) {
  if (p.dtype == DType::f32 ? !machine.has_bf16_tiles : !machine.has_byte_tiles)
    return false;
  bool for_vectors = p.rows * p.columns <= machine.vector_registers * 3 / 4;
  return !for_vectors || product_costs(p, machine).pays();
}

} // namespace kiln
