// The machine's limits, measured: what a profile's percentages are of.
#pragma once

#include <cstddef>

namespace kiln {

struct CacheSizes {
  size_t l2 = 0, l3 = 0; // bytes; common sizes where the system does not say
};
CacheSizes cache_sizes();

// What `threads` threads reach together while each does nothing else.
struct MachineLimits {
  double fma_gflops = 0;                              // independent f32 multiply-adds
  double l2_gbps = 0, l3_gbps = 0, memory_gbps = 0;   // reading data that lies there
};

// With vectors of at most `vector_bytes` for the arithmetic. Some tens of milliseconds.
MachineLimits measure_limits(int vector_bytes, int threads);

} // namespace kiln
