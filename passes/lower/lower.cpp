#include "passes/lower/lower.h"

#include "ir/placement.h"
#include "passes/lower/plan_builder.h"

#include <algorithm>

namespace kiln {

bool lower_module(const Module &module, Program &program, Diagnostics &diagnostics, const LowerOptions &options) {
  program = {};
  program.name = module.name;
  ProgramBuilder builder(module, program, options);
  builder.place_variables();
  bool has_twins = std::any_of(module.functions.begin(), module.functions.end(),
                               [](const Function &f) { return f.exported && is_gpu_twin(f.name); });
  for (const Function &function : module.functions) {
    if (!function.exported)
      continue;
    builder.set_options({options.gpu && (!has_twins || is_gpu_twin(function.name))});
    Plan plan;
    if (!PlanBuilder(builder, function, diagnostics).build(plan))
      return false;
    program.entries.push_back(std::move(plan));
  }
  if (!merge_forms(program.entries, diagnostics))
    return false;
  if (program.entries.empty() && !diagnostics.has_errors())
    diagnostics.error({}, "the model exports no function")
        .notes.push_back("write `export func name(...)` for each function that the package should have");
  return !diagnostics.has_errors();
}

} // namespace kiln
