// What the iterations of a `threads` loop cost, as far as it depends on sizes that are only known when
// the kernel runs.
#pragma once

#include "codegen/machine.h"
#include "ir/kernel/kernel.h"

#include <functional>

namespace kiln::cpu {

// Cycles of less work than this are not worth waking threads for.
inline constexpr int64_t kLeastThreadCycles = 24000;

// Cycles of all iterations as a function of the symbols that `known` accepts; nothing where that does
// not depend on any of them, since the passes have decided then.
std::optional<Dim> thread_cycles(const Stmt &loop, const MachineDesc &machine,
                                 const std::function<bool(Symbol)> &known);

} // namespace kiln::cpu
