// Makes variables that no function assigns into constants, which can then be folded and packed for
// the kernels. A training module keeps its parameters, since its train step (or its init) assigns
// them; so does a module compiled with writable parameters.
#include "passes/graph/rewrite.h"

#include "ir/ops/op.h"

namespace kiln {

Changed freeze(Module &module, PassContext &context) {
  if (context.flags.keep_params)
    return Changed::no;
  std::vector<bool> assigned(module.variables.size());
  for (const Function &function : module.functions)
    for_each_node(function, [&](NodeId id) {
      if (function.node(id).op == Op::assign)
        assigned[size_t(function.node(id).attrs.get_variable("variable"))] = true;
    });

  std::vector<ConstantId> constants(module.variables.size());
  auto constant_of = [&](size_t v) -> ConstantId {
    const Variable &variable = module.variables[v];
    if (variable.initial.valid())
      return variable.initial;
    if (constants[v].valid())
      return constants[v];
    std::vector<int64_t> dims;
    for (const Dim &d : variable.type.shape)
      dims.push_back(d.as_const());
    auto bytes = checked_bytes(variable.type.dtype, dims);
    if (bytes && *bytes <= context.limits.fold_bytes)
      constants[v] = module.add_constant(Tensor(variable.type.dtype, dims), variable.name);
    return constants[v];
  };

  Changed changed = Changed::no;
  for (Function &function : module.functions) {
    Sweep sweep(module, function);
    changed |= sweep.run([&](Sweep &s, NodeId id) {
      if (s.node(id).op != Op::read_variable)
        return;
      size_t v = size_t(s.node(id).attrs.get_variable("variable"));
      if (assigned[v])
        return;
      ConstantId constant = constant_of(v);
      if (!constant.valid())
        return;
      ValueId value = s.builder()(Op::constant, {}, {{"value", constant}});
      std::vector<ValueId> results = {value};
      s.replace_results(id, results);
    });
  }
  return changed;
}

} // namespace kiln
