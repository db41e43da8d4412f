// The order of the passes. Read pipelines.cpp first.
#pragma once

#include "passes/pass_manager.h"

namespace kiln {

enum class OptLevel : uint8_t {
  o0, // what correctness needs: one kernel for each op, row-major
  o1, // simplified, fused, row-major
  o2, // and layouts
};

// From what a frontend makes to what passes/lower takes: every exported function is flat (no
// calls), made of primitives and fusions. False where it ended early: errors, or the pass to stop
// after.
bool run_graph_pipeline(Module &module, PassManager &manager, OptLevel level);

} // namespace kiln
