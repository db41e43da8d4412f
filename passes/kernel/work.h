// What a nest costs on one core, roughly: for choices that only need to be right within a factor of two,
// such as whether waking threads pays.
#pragma once

#include "codegen/machine.h"
#include "ir/kernel/kernel.h"

namespace kiln {

double cycles_of(const Stmt &s, const MachineDesc &machine);

} // namespace kiln
