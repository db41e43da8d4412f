// Whether a machine has dot4 (ir/kernel/dot4.h) as an instruction of its widest vectors.
#pragma once

#include "codegen/machine.h"

namespace kiln {

inline bool has_dot4(const MachineDesc &machine) {
  return machine.features.find("+avx512vnni") != std::string::npos;
}

} // namespace kiln
