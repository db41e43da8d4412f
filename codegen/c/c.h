// The `c` target: the same kernels as readable C99, for anything that has a C compiler.
//
// It translates naive kernels (as lowering makes them, scalar), so that what a person reads is the loop
// nest they would have written; the C compiler does the rest. Functions such as exp come from math.h.
// The file stands alone: it declares what it needs of runtime/entry_abi.h.
#pragma once

#include "ir/plan.h"

#include <cstddef>
#include <span>
#include <string>

namespace kiln::c {

struct COptions {
  // The weights section as an array in the file, kiln_<model>_weights; else the caller provides it in
  // the frame.
  std::span<const std::byte> weights = {};
};

// Functions kiln_<model>_run_<entry>(KilnFrame *) and kiln_<model>_plan_<entry>(dims, out).
Result<std::string> emit_c(const Program &program, const COptions &options = {});

} // namespace kiln::c
