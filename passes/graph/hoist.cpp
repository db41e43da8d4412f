// What every turn of a loop would compute again is computed before it: contractions, reductions and expensive
// functions of captured values, with what they are made of. Cheap chains stay where they are, part of some kernel;
// so does what may trap or has an effect.
#include "passes/graph/rewrite.h"

#include "ir/ops/op.h"

#include <algorithm>
#include <unordered_set>

namespace kiln {
namespace {

class Hoister {
public:
  explicit Hoister(Function &function) : function_(function) {}

  Changed run() {
    block(function_.body);
    return changed_;
  }

private:
  // Inner loops first: what leaves one may leave those around it too.
  void block(Block &block) {
    for (size_t i = 0; i < block.nodes.size(); ++i) {
      NodeId id = block.nodes[i];
      bool loop = function_.node(id).op == Op::scan || function_.node(id).op == Op::while_;
      std::vector<NodeId> before;
      for (size_t r = 0; r < function_.node(id).regions.size(); ++r) {
        Block region = std::move(function_.node(id).regions[r]);
        this->block(region);
        if (loop)
          leave(region, before);
        function_.node(id).regions[r] = std::move(region);
      }
      changed_ |= Changed(!before.empty());
      block.nodes.insert(block.nodes.begin() + std::ptrdiff_t(i), before.begin(), before.end());
      i += before.size();
    }
  }

  void leave(Block &region, std::vector<NodeId> &before) {
    std::unordered_set<ValueId> varying(region.args.begin(), region.args.end());
    std::unordered_set<NodeId> leaving;
    std::unordered_set<Symbol> sizes; // that a turn finds
    for (NodeId id : region.nodes) {
      const Node &node = function_.node(id);
      if (node.op == Op::bind_size)
        sizes.insert(Symbol(node.attrs.get_string("symbol")));
      bool sized_by_turn = false;
      for_each_size(function_, node, [&](Symbol s) { sized_by_turn |= sizes.contains(s); });
      if (sized_by_turn || !is_invariant(node, varying))
        varying.insert(node.results.begin(), node.results.end());
    }
    for (size_t i = region.nodes.size(); i-- > 0;) {
      const Node &node = function_.node(region.nodes[i]);
      if (is_worth_it(node) && !varying.contains(node.results[0]))
        take(region, region.nodes[i], leaving);
    }
    std::erase_if(region.nodes, [&](NodeId id) {
      if (leaving.contains(id))
        before.push_back(id);
      return leaving.contains(id);
    });
  }

  bool is_invariant(const Node &node, const std::unordered_set<ValueId> &varying) const {
    const OpDef &def = op_def(node.op);
    // An index out of range is an error of the turn that reads it.
    bool total = def.has(kContraction) || def.has(kReduction) || (def.has(kElementwise) && !def.has(kTrapsOnZero)) ||
                 (def.has(kMovement) && node.operands.size() == 1) || node.op == Op::constant;
    return total && node.regions.empty() && !def.has(kSideEffect) && (!def.has(kNoFold) || node.op == Op::constant) &&
           std::none_of(node.operands.begin(), node.operands.end(), [&](ValueId v) { return varying.contains(v); });
  }

  static bool is_worth_it(const Node &node) {
    const OpDef &def = op_def(node.op);
    return def.has(kContraction) || def.has(kReduction) || def.has(kExpensive);
  }

  // A node and what of the region it reads.
  void take(const Block &region, NodeId id, std::unordered_set<NodeId> &leaving) const {
    if (!leaving.insert(id).second)
      return;
    for (ValueId v : function_.node(id).operands)
      if (NodeId def = function_.value(v).def; function_.def(v) && is_in(region, def))
        take(region, def, leaving);
  }
  static bool is_in(const Block &region, NodeId id) {
    return std::find(region.nodes.begin(), region.nodes.end(), id) != region.nodes.end();
  }

  Function &function_;
  Changed changed_ = Changed::no;
};

} // namespace

Changed hoist(Module &module, PassContext &) {
  Changed changed = Changed::no;
  for (Function &function : module.functions)
    changed |= Hoister(function).run();
  return changed;
}

} // namespace kiln
