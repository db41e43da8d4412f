// What the iterations of a `threads` loop cost, as far as it depends on sizes that are only known when
// the kernel runs.
#pragma once

#include "codegen/machine.h"
#include "ir/kernel/kernel.h"

#include <functional>

namespace kiln::cpu {

// Estimated cycles of less work than this are not worth waking threads for where sizes are known when the code runs.
inline constexpr int64_t kLeastThreadCycles = 24000;
// And on hosts whose cores share no cache, so many cycles for each nanosecond that a hand-over (KilnFrame) takes more
// than where they do: what threads write for each other is as much dearer. Measured on such a host (550 ns), loops of 1.5
// and 5 us took twice as long on two threads as on one, and loops of 12 us as long.
inline constexpr int64_t kSharedCacheHandOver = 200, kCyclesPerHandOver = 180;
// In nanoseconds; a pool says no more.
inline constexpr int64_t kLongestHandOver = 20000;

// Of all iterations, as functions of the symbols that `known` accepts.
struct ThreadCycles {
  Dim estimated; // as the passes count (passes/kernel/work.h)
  Dim least;     // without what stays in registers
};
std::optional<ThreadCycles> thread_cycles(const Stmt &loop, const MachineDesc &machine,
                                          const std::function<bool(Symbol)> &known);

} // namespace kiln::cpu
