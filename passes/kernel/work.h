// What a nest costs on one core, roughly: for choices that only need to be right within a factor of two,
// such as whether waking threads pays.
#pragma once

#include "codegen/machine.h"
#include "ir/kernel/kernel.h"

namespace kiln {

// Of a statement and all its rounds; of one evaluation of an expression; of storing a value, once it is there.
double cycles_of(const Stmt &s, const MachineDesc &machine);
double cycles_of(const Expr &e, const MachineDesc &machine);
double store_cycles(const Expr &value, const MachineDesc &machine);
// What a round of a loop adds to its body.
double round_cycles(const Stmt &loop);

} // namespace kiln
