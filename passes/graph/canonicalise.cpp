// Simplifies: applies the rules of rules_arithmetic.cpp, rules_movement.cpp and
// rules_contraction.cpp. raise recognises composites and activations that a model spells out in
// primitives (rules_raising.cpp); it stands before decompose, which takes composites apart in the
// form that fuses.
#include "passes/graph/rules.h"

namespace kiln {

int64_t normal_axis(const Dim &axis, size_t rank) {
  int64_t a = axis.as_const();
  return a < 0 ? a + int64_t(rank) : a;
}

std::vector<int64_t> normal_axes(const Attrs &attrs, std::string_view name, size_t rank) {
  std::vector<int64_t> out;
  for (const Dim &d : attrs.get_dims(name))
    out.push_back(normal_axis(d, rank));
  return out;
}

Changed apply_rules(Module &module, std::span<const std::span<const Rule>> tables,
                    bool with_trait_rules, bool unsafe) {
  std::map<Op, std::vector<const Rule *>> by_root;
  for (auto table : tables)
    for (const Rule &rule : table)
      if (!rule.unsafe || unsafe)
        by_root[rule.root].push_back(&rule);
  Changed changed = Changed::no;
  for (Function &function : module.functions) {
    Sweep sweep(module, function);
    changed |= sweep.run([&](Sweep &s, NodeId id) {
      if (s.fusion_depth() > 0 || s.node(id).results.size() != 1)
        return;
      Match m(s, id);
      ValueId to;
      const OpDef &def = op_def(s.node(id).op);
      if (with_trait_rules)
        for (const TraitRule &rule : trait_rules())
          if (!to.valid() && def.has(rule.trait))
            to = rule.rewrite(m);
      if (auto it = by_root.find(s.node(id).op); it != by_root.end())
        for (const Rule *rule : it->second)
          if (!to.valid())
            to = rule->rewrite(m);
      if (to.valid())
        s.replace(s.node(id).results[0], to);
    });
  }
  return changed;
}

Changed canonicalise(Module &module, PassContext &context) {
  const std::span<const Rule> tables[] = {arithmetic_rules(), movement_rules(),
                                          contraction_rules()};
  Changed changed = Changed::no;
  // Rules feed each other; what is left after a few sweeps is caught when the pass runs again.
  for (int round = 0; round < 4; ++round) {
    Changed once = apply_rules(module, tables, true, context.flags.unsafe_floats);
    if (once == Changed::no)
      break;
    changed = once;
    dce(module, context); // so that "used once" is true again
  }
  return changed;
}

Changed raise(Module &module, PassContext &context) {
  const std::span<const Rule> tables[] = {raising_rules()};
  Changed changed = apply_rules(module, tables, false, context.flags.unsafe_floats);
  if (changed == Changed::yes)
    dce(module, context);
  return changed;
}

} // namespace kiln
