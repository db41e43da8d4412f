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

struct MachineDesc {
  std::string name;      // "x86-64-v4", "aarch64", as in packages
  std::string triple;    // LLVM's
  std::string cpu;       // LLVM's, baseline for the level
  std::string features;  // LLVM's, e.g. "+avx512f,+avx512vl"
  int vector_bytes = 16; // widest vector worth using
  int vector_registers = 16;
  bool has_fma = false;
  bool has_masks = false;          // cheap masked loads and stores
  bool has_broadcast_operand = false; // memory broadcasts fold into arithmetic
  int64_t l1_bytes = 32 << 10;
  int64_t l2_bytes = 1 << 20;
  int fma_latency = 4, fma_per_cycle = 2; // how many independent accumulators hide latency
  int prefetch_steps = 8;    // of a reduction, ahead of which packed operands are asked for
  bool prefetch_next = true; // packed operands of the next tiles, into the second level

  int lanes(DType dtype) const { return vector_bytes / int(dtype_bytes(dtype)); }
};

// "host" and every name in machines(); nothing for others.
std::optional<MachineDesc> find_machine(std::string_view name);
std::vector<MachineDesc> cpu_machines(); // x86-64-v2, -v3, -v4, aarch64
MachineDesc host_machine();              // the best of them that this CPU runs

} // namespace kiln
