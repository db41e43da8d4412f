#include "passes/pipelines.h"

#include <vector>

namespace kiln {

bool run_graph_pipeline(Module &module, PassManager &manager, OptLevel level) {
  auto run = [&](std::string_view pass) { return manager.run(module, pass); };
  if (!run("inline-calls")) // every function stands alone: no calls are left
    return false;
  if (!run("dce")) // only exported functions are left
    return false;
  if (!run("place")) // what computes on one device has no copies between devices
    return false;

  if (level == OptLevel::o0) {
    std::erase(manager.context().native, Op::dequantize);
    return run("decompose"); // only primitives are left, and what the target has a kernel for
  }

  if (!run("freeze")) // weights of inference are constants, so that they can be folded and packed
    return false;
  constexpr std::string_view kSimplify[] = {"canonicalise", "fold", "cse", "dce"};
  if (!manager.run_until_stable(module, kSimplify, 4)) // composites are as simple as they get
    return false;
  manager.context().flags.blocked_layouts = level == OptLevel::o2;
  // What is quantised is computed so, where the target can.
  if (std::erase(manager.context().native, Op::dequantize) && !run("integer-products"))
    return false;
  if (!run("raise")) // what was a composite for its author is one again
    return false;
  if (!run("decompose")) // only primitives are left, and what the target has a kernel for
    return false;
  if (!manager.run_until_stable(module, kSimplify,
                                6)) // norms are folded into the weights before them
    return false;
  if (!run("compress-weights")) // constant weights are as small as the user wants them
    return false;
  if (!run("strides")) // convolutions make no pixels that nobody reads
    return false;
  if (level == OptLevel::o2 && !run("winograd")) // 3x3 convolutions have the form that is fastest for their size
    return false;
  if (!run("hoist")) // nothing dear is computed twice by a loop
    return false;
  if (!run("fuse")) // every node that is not structural is one kernel (or a reshape, which is none)
    return false;
  if (!run("layout")) // every value has a layout; where two kernels disagree stands a relayout
    return false;
  return level != OptLevel::o2 || manager.context().flags.gpu || run("chain"); // what stays in the cache is one kernel
}

} // namespace kiln
