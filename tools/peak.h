// The machine's limits, measured: what a profile's percentages are of.
#pragma once

namespace kiln {

// GFLOP/s of one thread doing nothing but independent f32 FMAs at the widest vectors. Some milliseconds.
double measure_fma_peak();
// GB/s of one thread reading memory that no cache holds.
double measure_read_bandwidth();

} // namespace kiln
