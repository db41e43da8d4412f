// What multiplies in a scheduled kernel: which peak a profile holds it against.
#pragma once

#include "codegen/machine.h"
#include "ir/kernel/kernel.h"

namespace kiln {

// Flags of package::KernelRecord::units. None where all that multiplies are the lanes of plain vectors.
uint32_t multiplying_units(const Kernel &kernel, const MachineDesc &machine);

} // namespace kiln
