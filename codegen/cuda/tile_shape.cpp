#include "codegen/cuda/tile_shape.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace kiln::cuda {
namespace {

// `cost`: of a multiplication in a tile of that shape, beside the largest: what it reads from shared and global memory
// for each one grows as tiles shrink.
struct Candidate {
  TileShape shape;
  double cost;
};

constexpr Candidate kScalarTiles[] = {
    {{128, 128, 8, 8, 8, 256}, 1},  {{128, 64, 16, 8, 4, 256}, 1.15}, {{64, 128, 16, 4, 8, 256}, 1.15}, {{64, 64, 16, 4, 4, 256}, 1.4}, {{32, 64, 16, 2, 4, 256}, 1.9},
    {{64, 32, 16, 4, 2, 256}, 1.9}, {{32, 32, 16, 2, 2, 256}, 2.6},  {{16, 64, 16, 1, 4, 256}, 3},    {{64, 16, 16, 4, 1, 256}, 3},
};
// The depth is in bytes.
constexpr Candidate kTensorTiles[] = {
    {{128, 256, 64, 64, 64, 256}, 0.95}, {{256, 128, 64, 64, 64, 256}, 0.95}, {{128, 128, 64, 64, 32, 256}, 1}, {{128, 64, 64, 32, 32, 256}, 1.2},
    {{64, 128, 64, 32, 32, 256}, 1.2},   {{64, 64, 64, 32, 32, 128}, 1.5},    {{32, 64, 64, 16, 32, 128}, 2},   {{64, 32, 64, 32, 16, 128}, 2},
    {{32, 32, 64, 16, 16, 128}, 2.6},
};

// Of f32 in two parts: sums of each eight steps lie in registers beside the whole ones. `cost` includes what splitting takes.
constexpr Candidate kSplitTiles[] = {
    {{128, 128, 128, 64, 32, 256}, 1}, {{128, 64, 64, 32, 32, 256}, 1.2}, {{64, 128, 64, 32, 32, 256}, 1.2}, {{64, 64, 64, 32, 32, 128}, 1.4},
    {{32, 64, 64, 16, 32, 128}, 2},   {{64, 32, 64, 32, 16, 128}, 2},    {{32, 32, 64, 16, 16, 128}, 2.6},
};

// Of warpgroups; `cost` for what comes from the second cache, which a multiprocessor gets some 32 bytes a cycle of. The sum
// moves by a line of 128 bytes, as the swizzle of the operands wants it.
constexpr Candidate kWarpgroupTiles[] = {
    {{128, 256, 128, 64, 256, 256}, 1},  {{256, 128, 128, 128, 128, 256}, 1.02}, {{128, 128, 128, 64, 128, 256}, 1.25}, {{64, 256, 128, 64, 256, 128}, 1.4},
    {{128, 64, 128, 64, 64, 256}, 1.7},  {{64, 128, 128, 64, 128, 128}, 1.7},    {{64, 64, 128, 64, 64, 128}, 2.2},
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
  struct Family {
    TileUnit unit;
    std::span<const Candidate> candidates;
    double rate; // products of a multiprocessor in a cycle
  };
  double bytes = p.element_bytes;
  std::vector<Family> families;
  if (!p.on_tensors)
    families = {{TileUnit::scalar, kScalarTiles, double(machine.fma_rate)}};
  else
    families = {{TileUnit::tensor, kTensorTiles, machine.tile_rate / bytes}};
  if (p.may_split)
    families.push_back({TileUnit::split, kSplitTiles, machine.tile_rate / bytes / 3});
  if (p.on_tensors && machine.warpgroup_rate > 0)
    families.push_back({TileUnit::warpgroup, kWarpgroupTiles, machine.warpgroup_rate / bytes});
  const Candidate *best = nullptr;
  double least = 0, each = 0;
  int slices = 1;
  TileUnit unit = TileUnit::scalar;
  for (const Family &family : families)
    for (const Candidate &c : family.candidates) {
      int64_t count = (m + c.shape.rows - 1) / c.shape.rows * ((n + c.shape.columns - 1) / c.shape.columns) * batch;
      double depth = family.unit == TileUnit::scalar ? c.shape.depth : c.shape.depth / bytes;
      for (int s = 1; s <= (p.may_slice ? kMostSlices : 1) && (s == 1 || k >= s * kLeastSlice); s *= 2) {
        // Each multiprocessor does its tiles side by side, so the one with most of them counts; a single one waits for
        // memory with nothing else to do.
        int64_t most = (count * s + machine.multiprocessors - 1) / machine.multiprocessors;
        double steps = std::ceil(double(k) / s / depth) * depth;
        double of_tile = c.shape.rows * c.shape.columns * steps * c.cost / family.rate + kTileCycles;
        double cycles = double(most) * (most == 1 ? 1.2 : 1) * of_tile;
        // Sums of slices are written and read again, some 12 bytes a cycle for each multiprocessor.
        if (s > 1)
          cycles += kLaunchCycles + double(m) * double(n) * double(batch) * 4 * (s + 1) / (12.0 * machine.multiprocessors);
        if (!best || cycles < least)
          best = &c, least = cycles, slices = s, unit = family.unit, each = of_tile;
      }
    }
  TileShape out = best->shape;
  out.slices = slices;
  out.unit = unit;
  out.cycles = each;
  if (unit != TileUnit::scalar)
    out.depth /= p.element_bytes;
  // Stages for two blocks on a multiprocessor, of four at most; the largest tiles take all registers for one.
  int64_t stage = int64_t(out.rows + out.columns + 8) * out.depth * p.element_bytes;
  int64_t room = std::min(machine.block_shared_bytes, machine.shared_bytes / 2 - 1024);
  bool is_alone = unit == TileUnit::split ? out.rows * out.columns > 128 * 64 : unit != TileUnit::scalar && out.rows * out.columns > 128 * 128;
  if (stage * 2 > room || is_alone)
    room = machine.block_shared_bytes;
  out.stages = p.is_async && machine.has_async_copies ? int(std::clamp<int64_t>(room / stage, 2, 4)) : 2;
  // Of warpgroups one stage is still multiplied while the next one is and others are copied.
  if (unit == TileUnit::warpgroup)
    out.stages = std::max(out.stages, 3);
  return out;
}

} // namespace kiln::cuda
