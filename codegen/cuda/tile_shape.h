// How large the tiles of a product are, by a model of the GPU.
#pragma once

#include "codegen/gpu_machine.h"
#include "ir/dim.h"

namespace kiln::cuda {

// What multiplies.
enum class TileUnit : uint8_t {
  scalar, // fused multiply-adds of f32, f64 or integers
  tensor, // tensor cores (mma.sync), 32 bytes along the sum at a time
  split, // the same, three times: f32 as sums of two tf32 (split_product.h)
  warpgroup, // tensor cores fed from shared memory by four warps together (wgmma), 32 bytes along the sum at a time
};

struct TileShape {
  int rows, columns;
  int depth;                // of the sum, in a stage
  int rows_each, columns_each; // of a thread; for tensor cores, of a warp or a warpgroup
  int threads;
  int stages = 2;
  int slices = 1; // of the sum, each multiplied by blocks of its own and added up by another launch
  TileUnit unit = TileUnit::scalar;
  double cycles = 0; // of a multiprocessor for one tile of a slice, by the model
};

struct TileProblem {
  Dim rows, columns, batch, sum;
  bool on_tensors = false;
  int element_bytes = 4; // in shared memory
  bool is_async = false; // some operand is copied past the registers
  bool may_slice = false;
  bool may_split = false; // f32 as sums of two tf32
};

TileShape choose_tile(const TileProblem &problem, const GpuMachine &machine);

} // namespace kiln::cuda
