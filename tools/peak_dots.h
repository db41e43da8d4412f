// What one core reaches with dots of narrow operands, and nothing else to do.
#pragma once

#include "codegen/machine.h"

#include <cstdint>

namespace kiln {

// 10^9 multiplications and additions a second of one of package::KernelRecord's units, on code for `machine`, which runs here; 0
// where that has no such unit. `fma_gflops` is the same core's f32 multiply-adds: of processors whose dots are not timed, a dot
// takes as long as one.
double dot_rate(uint32_t unit, const MachineDesc &machine, double fma_gflops);

} // namespace kiln
