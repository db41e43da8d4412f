// Removes nodes whose results nothing uses, and functions that are neither exported nor called.
// Side effects stay, and so does a node with one in a region. A size that a run finds stays where
// something that stays has it in its type or attributes.
#include "passes/graph/rewrite.h"

#include "ir/ops/op.h"

#include <algorithm>
#include <set>

namespace kiln {
namespace {

bool has_effect(const Function &function, NodeId id) {
  const Node &node = function.node(id);
  // Reading a variable is ordered with assigning it, but changes nothing.
  if (op_def(node.op).has(kSideEffect) && node.op != Op::read_variable && node.op != Op::bind_size)
    return true;
  for (const Block &region : node.regions)
    for (NodeId inner : region.nodes)
      if (has_effect(function, inner))
        return true;
  return false;
}

class Liveness {
public:
  explicit Liveness(Function &function) : function_(function), used_(function.values.size()) {}

  Changed run() {
    sweep(function_.body);
    return changed_;
  }

private:
  void use_all(const Block &block) {
    for (ValueId result : block.results)
      used_[size_t(result)] = true;
  }

  // Backwards, so that one sweep finds everything that is dead.
  void sweep(Block &block) {
    use_all(block);
    bool removed = false;
    for (size_t i = block.nodes.size(); i-- > 0;) {
      Node &node = function_.node(block.nodes[i]);
      bool live = has_effect(function_, block.nodes[i]) ||
                  std::any_of(node.results.begin(), node.results.end(),
                              [&](ValueId r) { return used_[size_t(r)]; }) ||
                  (node.op == Op::bind_size && sizes_.contains(Symbol(node.attrs.get_string("symbol"))));
      if (!live) {
        node.removed = removed = true;
        continue;
      }
      for_each_size(function_, node, [&](Symbol s) { sizes_.insert(s); });
      for (Block &region : node.regions)
        sweep(region);
      for (ValueId operand : node.operands)
        used_[size_t(operand)] = true;
    }
    if (!removed)
      return;
    changed_ = Changed::yes;
    std::erase_if(block.nodes, [&](NodeId id) { return function_.node(id).removed; });
  }

  Function &function_;
  std::vector<bool> used_;
  std::set<Symbol> sizes_; // that what is live mentions
  Changed changed_ = Changed::no;
};

Changed remove_unreachable_functions(Module &module) {
  std::vector<bool> live(module.functions.size());
  std::vector<size_t> work;
  auto mark = [&](size_t f) {
    if (!live[f])
      live[f] = true, work.push_back(f);
  };
  for (size_t f = 0; f < module.functions.size(); ++f)
    if (module.functions[f].exported)
      mark(f);
  while (!work.empty()) {
    const Function &function = module.functions[work.back()];
    work.pop_back();
    for_each_node(function, [&](NodeId id) {
      if (function.node(id).op == Op::call)
        mark(size_t(function.node(id).attrs.get_function("function")));
    });
  }
  if (std::all_of(live.begin(), live.end(), [](bool l) { return l; }))
    return Changed::no;

  std::vector<FunctionId> renumbered(module.functions.size());
  std::vector<Function> kept;
  for (size_t f = 0; f < module.functions.size(); ++f) {
    if (!live[f])
      continue;
    renumbered[f] = FunctionId(kept.size());
    kept.push_back(std::move(module.functions[f]));
  }
  module.functions = std::move(kept);
  for (Function &function : module.functions)
    for (Node &node : function.nodes)
      if (node.op == Op::call && !node.removed)
        node.attrs.set("function", renumbered[size_t(node.attrs.get_function("function"))]);
  return Changed::yes;
}

} // namespace

Changed dce(Module &module, PassContext &) {
  // A module of nothing but private functions is a fragment: all of it stays.
  Changed changed = Changed::no;
  if (std::any_of(module.functions.begin(), module.functions.end(),
                  [](const Function &f) { return f.exported; }))
    changed |= remove_unreachable_functions(module);
  for (Function &function : module.functions) {
    if (Liveness(function).run() == Changed::no)
      continue;
    changed = Changed::yes;
    function.compact();
  }
  return changed;
}

} // namespace kiln
