#include "passes/lower/lower.h"

#include "passes/lower/plan_builder.h"

namespace kiln {

bool lower_module(const Module &module, Program &program, Diagnostics &diagnostics, const LowerOptions &options) {
  program = {};
  program.name = module.name;
  ProgramBuilder builder(module, program, options);
  builder.place_variables();
  for (const Function &function : module.functions) {
    if (!function.exported)
      continue;
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
