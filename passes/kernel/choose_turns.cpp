// Whether nests that lowering marked (passes/lower/turns.cpp) go through their operands from the back in every other
// turn: only where these are about as large as the second cache. Smaller ones stay there in any order, and memory that
// is always read forwards is a little faster; tiles of several rows, which ask for the next group while they compute
// this one, always go forwards (tile_emit.cpp). Threads have a cache each and a part of the operand each.
#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"

#include <algorithm>

namespace kiln {
namespace {

constexpr double kLeastPart = 0.75; // of the second cache: beside them there are states and code
constexpr double kMostThreads = 1 << 20;

double bytes_read(const Kernel &kernel) {
  double sum = 0;
  for (const KernelBuffer &b : kernel.buffers)
    if (b.access == Access::in)
      sum += double(b.size.try_const().value_or(0)) * double(dtype_bytes(b.dtype));
  return sum;
}

} // namespace

bool choose_turns(Kernel &kernel, const MachineDesc &machine) {
  auto most_threads = int64_t(std::min(bytes_read(kernel) / (kLeastPart * double(machine.l2_bytes)), kMostThreads));
  bool changed = false;
  for (Stmt &s : kernel.body) {
    if (!s.is(Stmt::Kind::loop) || s.index.is_const(0))
      continue;
    if (most_threads == 0)
      s.index = 0;
    s.integer = most_threads;
    changed = true;
  }
  return changed;
}

} // namespace kiln
