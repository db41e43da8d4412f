#include "codegen/cuda/tile_shape.h"

#include <algorithm>
#include <span>

namespace kiln::cuda {
namespace {

// `cost`: of a multiplication in a tile of that shape, beside the largest: what it reads from shared and global memory
// for each one grows as tiles shrink.
struct Candidate {
  TileShape shape;
  double cost;
};

constexpr Candidate kScalarTiles[] = {
    {{128, 128, 8, 8, 8, 256}, 1},  {{128, 64, 8, 8, 4, 256}, 1.15}, {{64, 128, 8, 4, 8, 256}, 1.15}, {{64, 64, 16, 4, 4, 256}, 1.4}, {{32, 64, 16, 2, 4, 256}, 1.9},
    {{64, 32, 16, 4, 2, 256}, 1.9}, {{32, 32, 16, 2, 2, 256}, 2.6},  {{16, 64, 16, 1, 4, 256}, 3},    {{64, 16, 16, 4, 1, 256}, 3},
};
// The depth is in bytes.
constexpr Candidate kTensorTiles[] = {
    {{128, 256, 64, 64, 64, 256}, 0.95}, {{256, 128, 64, 64, 64, 256}, 0.95}, {{128, 128, 64, 64, 32, 256}, 1}, {{128, 64, 64, 32, 32, 256}, 1.2},
    {{64, 128, 64, 32, 32, 256}, 1.2},   {{64, 64, 64, 32, 32, 128}, 1.5},    {{32, 64, 64, 16, 32, 128}, 2},   {{64, 32, 64, 32, 16, 128}, 2},
    {{32, 32, 64, 16, 16, 128}, 2.6},
};

constexpr int kMostSlices = 16;
constexpr int64_t kLeastSlice = 128; // steps of the sum
constexpr double kTileCycles = 1500; // until the first pieces are there, and to store the sums
constexpr double kLaunchCycles = 3000;

} // namespace

TileShape choose_tile(const TileProblem &p, const GpuMachine &machine) {
  // Sizes that only a run tells are taken to be middling.
  auto typical = [](const Dim &d, int64_t otherwise) { return d.is_const() ? std::max<int64_t>(d.as_const(), 1) : otherwise; };
  int64_t m = typical(p.rows, 512), n = typical(p.columns, 512), batch = typical(p.batch, 1), k = typical(p.sum, 512);
  bool is_tensor = p.unit == TileUnit::tensor;
  double rate = is_tensor ? 2048.0 / p.element_bytes : 128; // products of a multiprocessor in a cycle
  const Candidate *best = nullptr;
  double least = 0;
  int slices = 1;
  for (const Candidate &c : is_tensor ? std::span<const Candidate>(kTensorTiles) : std::span<const Candidate>(kScalarTiles)) {
    int64_t count = (m + c.shape.rows - 1) / c.shape.rows * ((n + c.shape.columns - 1) / c.shape.columns) * batch;
    for (int s = 1; s <= (p.may_slice ? kMostSlices : 1) && (s == 1 || k >= s * kLeastSlice); s *= 2) {
      // Each multiprocessor does its tiles side by side, so the one with most of them counts; a single one waits for
      // memory with nothing else to do.
      int64_t most = (count * s + machine.multiprocessors - 1) / machine.multiprocessors;
      double cycles = double(most) * (most == 1 ? 1.2 : 1) * (c.shape.rows * c.shape.columns * (double(k) / s) * c.cost / rate + kTileCycles);
      // Sums of slices are written and read again, some 12 bytes a cycle for each multiprocessor.
      if (s > 1)
        cycles += kLaunchCycles + double(m) * double(n) * double(batch) * 4 * (s + 1) / (12.0 * machine.multiprocessors);
      if (!best || cycles < least)
        best = &c, least = cycles, slices = s;
    }
  }
  TileShape out = best->shape;
  out.slices = slices;
  if (is_tensor)
    out.depth /= p.element_bytes;
  // Stages for two blocks on a multiprocessor, of four at most; the largest tiles take all registers for one.
  int64_t stage = int64_t(out.rows + out.columns + 8) * out.depth * p.element_bytes;
  int64_t room = std::min(machine.block_shared_bytes, machine.shared_bytes / 2 - 1024);
  if (stage * 2 > room || (is_tensor && out.rows * out.columns > 128 * 128))
    room = machine.block_shared_bytes;
  out.stages = p.is_async && machine.has_async_copies ? int(std::clamp<int64_t>(room / stage, 2, 4)) : 2;
  return out;
}

} // namespace kiln::cuda
