// MachineDesc: what schedules need to know of a target. Kernel passes choose tiles, vector widths and
// prefetch distances from these numbers; no pass asks for the target's name.
#pragma once

#include "ir/dtype.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kiln {

// What sums four neighbouring products of u8 and i8 (ir/kernel/dot.h).
enum class ByteDots : uint8_t {
  none,     // the four one by one
  pairs,    // twice two products of i16
  vnni,     // vpdpbusd
  signed_,  // sdot: of i8 and i8, so of the codes - 128
  mixed,    // usdot
};

struct MachineDesc {
  std::string name;      // "x86-64-v4", "aarch64", as in packages
  std::string triple;    // LLVM's
  std::string cpu;       // LLVM's, baseline for the level
  std::string features;  // LLVM's, e.g. "+avx512f,+avx512vl"
  int vector_bytes = 16; // widest vector worth using
  int vector_registers = 16;
  bool has_fma = false;
  bool has_masks = false;          // cheap masked loads and stores
  bool has_float_masks = false;    // cheap masked loads of elements of 32 bits, the mask being a constant
  bool has_broadcast_operand = false; // memory broadcasts fold into arithmetic
  ByteDots byte_dots = ByteDots::none;
  bool has_bf16_dots = false; // vdpbf16ps
  // Matrix registers (ir/kernel/tile_product.h), and which dots they multiply; no rows: there are none.
  int tile_rows = 0, tile_row_bytes = 0, tile_count = 0;
  bool has_byte_tiles = false, has_bf16_tiles = false;
  // Between products and between loads of whole tiles, as Intel's optimization reference manual has it of AMX
  // (TDPBUSD and TDPBF16PS 16 cycles, TILELOADD 8).
  int tile_product_cycles = 16, tile_load_cycles = 8;
  int64_t l1_bytes = 32 << 10;
  int64_t l2_bytes = 1 << 20;
  int fma_latency = 4, fma_per_cycle = 2; // how many independent accumulators hide latency
  int prefetch_steps = 8;    // of a reduction, ahead of which packed operands are asked for
  bool prefetch_next = true; // packed operands of the next tiles, into the second level

  int lanes(DType dtype) const { return vector_bytes / int(dtype_bytes(dtype)); }
  // Products of bytes that it adds in the time of one of f32, as measured of register tiles.
  double byte_dot_rate() const {
    if (has_byte_tiles) // of whole tiles
      return double(tile_rows * (tile_row_bytes / 4) * tile_row_bytes) / tile_product_cycles /
             (fma_per_cycle * lanes(DType::f32));
    return byte_dots == ByteDots::vnni || byte_dots == ByteDots::mixed ? 4 : 1.3;
  }
};

// "host" and every name in machines(); nothing for others.
std::optional<MachineDesc> find_machine(std::string_view name);
std::vector<MachineDesc> cpu_machines(); // x86-64-v2, -v3, -v4, aarch64 and what extends them
bool runs_here(const MachineDesc &machine);
MachineDesc host_machine(); // the best of them that this CPU runs

// Whether the target is an x86-64 one.
bool is_x86(const MachineDesc &machine);

} // namespace kiln
