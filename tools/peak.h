// The machine's limits, measured: what a profile's percentages are of.
#pragma once

#include "codegen/machine.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace kiln {

struct CacheSizes {
  size_t l2 = 0, l3 = 0; // bytes; common sizes where the system does not say
};
CacheSizes cache_sizes();

// What `threads` threads reach together while each does nothing else.
struct MachineLimits {
  double fma_gflops = 0;                              // independent f32 multiply-adds
  double l2_gbps = 0, l3_gbps = 0, memory_gbps = 0;   // reading data that lies there
  std::array<double, 4> dot_gops{};                   // by bit of package::KernelRecord's units; 0 where none is wanted

  // Of what multiplies in a kernel: the fastest of its units, or f32 multiply-adds.
  double peak(uint32_t units) const;
};

// With the vectors and the dots of code for `machine`, which runs here; dots of those `units` alone. Some tens of milliseconds.
MachineLimits measure_limits(const MachineDesc &machine, uint32_t units, int threads);

} // namespace kiln
