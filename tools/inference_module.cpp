// A trained model without its training: `train_step` and what it alone needs go, params become constants that the compiler
// may fold and pack.
#include "tools/training.h"

#include "passes/graph/rewrite.h"
#include "passes/pass.h"

#include <algorithm>

namespace kiln {

std::optional<Module> inference_module(Module module, const std::vector<std::pair<std::string, Tensor>> &values,
                                       const std::vector<std::string> &dropped) {
  for (Function &function : module.functions)
    if (std::find(dropped.begin(), dropped.end(), function.name) != dropped.end())
      function.exported = false;
  if (std::none_of(module.functions.begin(), module.functions.end(), [](const Function &f) { return f.exported; }))
    return std::nullopt;
  Diagnostics diagnostics;
  PassContext context(diagnostics);
  dce(module, context);
  for (Variable &variable : module.variables)
    for (const auto &[name, tensor] : values)
      if (name == variable.name)
        variable.initial = module.add_constant(tensor, name);
  freeze(module, context); // what is left of the variables is state
  std::vector<bool> used(module.variables.size());
  auto each_reference = [&](auto &&act) {
    for (Function &function : module.functions)
      for (Node &node : function.nodes)
        if (!node.removed)
          for (const auto &[name, attr] : node.attrs.all())
            if (const auto *id = std::get_if<VariableId>(&attr))
              act(node, name, *id);
  };
  each_reference([&](Node &, const std::string &, VariableId id) { used[size_t(id)] = true; });
  for (const auto &[symbol, id] : module.dim_variables)
    used[size_t(id)] = true;
  std::vector<VariableId> renumbered(module.variables.size());
  std::vector<Variable> kept;
  for (size_t v = 0; v < module.variables.size(); ++v) {
    if (!used[v])
      continue;
    renumbered[v] = VariableId(kept.size());
    kept.push_back(std::move(module.variables[v]));
  }
  module.variables = std::move(kept);
  std::vector<std::tuple<Node *, std::string, VariableId>> references;
  each_reference([&](Node &node, const std::string &name, VariableId id) { references.emplace_back(&node, name, renumbered[size_t(id)]); });
  for (auto &[node, name, id] : references)
    node->attrs.set(name, id);
  for (auto &[symbol, id] : module.dim_variables)
    id = renumbered[size_t(id)];
  return module;
}

} // namespace kiln
