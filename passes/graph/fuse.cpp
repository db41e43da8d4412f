// Makes fusions (fuse.h says what they may be): first views are copied for each of their users, so
// that a kernel can read through its own; then every block is grouped; then the copies that found
// no kernel are merged again.
//
//   c = conv(x, w, b); y = relu(c)   ->   y = fusion(x, w, b) { c = conv(x, w, b); relu(c) }
#include "passes/graph/fuse.h"

#include "ir/ops/op.h"
#include "passes/graph/chain.h"
#include "ir/clone.h"
#include "passes/graph/fusion_groups.h"
#include "passes/graph/rewrite.h"

#include <algorithm>
#include <set>

namespace kiln {
namespace {

// Whether it hides elements of another operand, or may.
bool is_mask(const Node &node, size_t operand) { return node.op == Op::add || (node.op == Op::where && operand == 0); }

// A copy of each view for each user of it, before that user; for GPUs, of what products widen and of masks made of indices too.
Changed sink_views(Module &module, Function &function, bool gpu) {
  Changed changed = Changed::no;
  // From users to operands: one round for each view in a chain of them, and bounded.
  for (int round = 0; round < 8; ++round) {
    auto uses = function.use_counts();
    std::vector<bool> first(function.values.size(), true);
    Changed once = Changed::no;
    for_each_block(function, [&](Block &block) {
      for (size_t i = 0; i < block.nodes.size(); ++i) {
        NodeId id = block.nodes[i];
        if (function.node(id).op == Op::fusion)
          continue;
        for (size_t k = 0; k < function.node(id).operands.size(); ++k) {
          ValueId operand = function.node(id).operands[k];
          if (size_t(operand) >= uses.size() || uses[size_t(operand)] < 2)
            continue;
          const Node *def = function.def(operand);
          bool widens = def && gpu && widens_for_product(function, function.node(id), operand);
          bool counts = def && gpu && is_made_of_indices(function, operand) && (is_mask(function.node(id), k) || is_made_of_indices(function, function.node(id).results[0]));
          if (!def || (!is_view(*def) && !unpacks(function, operand) && !widens && !counts))
            continue;
          if (first[size_t(operand)] && !widens) { // the first use keeps the original
            first[size_t(operand)] = false;
            continue;
          }
          GraphBuilder b(module, function, block);
          b.set_position(block, i);
          ValueMap map;
          KILN_CHECK(clone_node(b, function, function.value(operand).def, map).ok(),
                     "it can be copied");
          function.node(id).operands[k] = map.at(operand);
          i = b.position();
          once = Changed::yes;
        }
      }
    });
    if (once == Changed::no)
      break;
    changed = once;
  }
  return changed;
}

void replace_all(Function &function, const std::vector<std::pair<ValueId, ValueId>> &pairs) {
  std::vector<ValueId> to(function.values.size());
  for (auto [from, by] : pairs)
    to[size_t(from)] = by;
  auto update = [&](ValueId &v) {
    if (to[size_t(v)].valid())
      v = to[size_t(v)];
  };
  for_each_block(function, [&](Block &block) {
    for (NodeId id : block.nodes)
      for (ValueId &operand : function.node(id).operands)
        update(operand);
    for (ValueId &result : block.results)
      update(result);
  });
}

// The second of two dots.
NodeId attention_root(const Function &function, const std::vector<NodeId> &inside) {
  NodeId last;
  int dots = 0;
  for (NodeId id : inside)
    if (function.node(id).op == Op::dot)
      last = id, ++dots;
  return dots == 2 ? last : NodeId();
}

// The last value through which everything that the results and reductions take of `from` goes, before any reduction.
ValueId held_value(const Function &function, const std::vector<NodeId> &inside, const std::vector<ValueId> &results, ValueId from) {
  std::vector<ValueId> ends = results, candidates;
  std::set<ValueId> before = {from}; // made of it without a reduction
  const Shape *space = nullptr;
  for (NodeId id : inside) {
    const Node &n = function.node(id);
    bool follows = std::any_of(n.operands.begin(), n.operands.end(), [&](ValueId v) { return before.contains(v); });
    if (op_def(n.op).has(kReduction) && op_def(n.op).reduce) {
      ends.insert(ends.end(), n.operands.begin(), n.operands.end());
      space = &function.type(n.operands[0]).shape;
    } else if (follows && n.results.size() == 1) {
      before.insert(n.results[0]);
    }
    for (ValueId v : n.results)
      if (before.contains(v))
        candidates.push_back(v);
  }
  auto passes_by = [&](ValueId held) {
    std::vector<ValueId> work = ends;
    std::set<ValueId> seen = {held};
    for (size_t i = 0; i < work.size(); ++i) {
      if (!seen.insert(work[i]).second)
        continue;
      if (work[i] == from)
        return true;
      const Node *def = function.def(work[i]);
      if (def && std::any_of(inside.begin(), inside.end(), [&](NodeId id) { return &function.node(id) == def; }))
        work.insert(work.end(), def->operands.begin(), def->operands.end());
    }
    return false;
  };
  KILN_CHECK(space, "rows are reduced");
  for (size_t i = candidates.size(); i-- > 0;)
    if (function.type(candidates[i]) == TensorType{DType::f32, *space} && !passes_by(candidates[i]))
      return candidates[i];
  KILN_CHECK(false, "a contraction's rows are held as one value");
}

} // namespace

int trailing_axes(const Function &function, const Node &reduction) {
  int rank = function.type(reduction.operands[0]).rank();
  const Attr *axes = reduction.attrs.find("axes");
  if (!axes)
    return 0;
  std::vector<bool> reduced(static_cast<size_t>(rank));
  int count = 0;
  for (const Dim &d : std::get<std::vector<Dim>>(*axes)) {
    int64_t a = d.as_const();
    a = a < 0 ? a + rank : a;
    if (a >= 0 && a < rank && !reduced[size_t(a)])
      reduced[size_t(a)] = true, ++count;
  }
  for (int d = rank - count; d < rank; ++d)
    if (!reduced[size_t(d)])
      return 0;
  return count;
}

FusionInfo describe_fusion(const Function &function, NodeId id) {
  const Node &node = function.node(id);
  std::vector<NodeId> inside = {id};
  std::vector<ValueId> results = node.results;
  if (node.op == Op::fusion) {
    inside = node.regions.at(0).nodes;
    results = node.regions.at(0).results;
  }
  FusionInfo info;
  if (is_chain(node)) {
    info.form = FusionForm::chain;
    return info;
  }
  KILN_CHECK(!results.empty() || node.op != Op::fusion, "a fusion has a result");
  int reductions = 0;
  if (NodeId root = attention_root(function, inside); root.valid()) {
    info.form = FusionForm::attention;
    info.root = root;
    info.space = function.type(function.node(root).results[0]).shape;
    return info;
  }
  for (NodeId i : inside) {
    const OpDef &def = op_def(function.node(i).op);
    if (def.lower) {
      KILN_CHECK(!info.root.valid(), "a fusion has one root");
      info.form = FusionForm::lower;
      info.root = i;
    } else if (def.reduce) {
      KILN_CHECK(info.form != FusionForm::lower, "a fusion has one root");
      if (!info.root.valid())
        info.root = i;
      info.form = FusionForm::reduce;
      reductions += def.has(kReduction);
      KILN_CHECK(reductions || info.root == i, "a fusion has one contraction");
    }
  }
  if (info.form == FusionForm::lower || results.empty())
    return info;
  info.space = function.type(results[0]).shape;
  if (info.form != FusionForm::reduce)
    return info;
  const Node &root = function.node(info.root);
  info.space = function.type(root.results[0]).shape;
  if (!reductions)
    return info;
  if (!op_def(root.op).has(kReduction)) {
    info.form = FusionForm::row_block;
    info.held = held_value(function, inside, results, root.results[0]);
    info.space = function.type(info.held).shape;
    info.reduced_dims = 1;
    return info;
  }
  const Shape &full = function.type(root.operands[0]).shape;
  bool back = std::any_of(results.begin(), results.end(), [&](ValueId r) {
    return squeezed(function.type(r).shape) != squeezed(info.space);
  });
  if (reductions > 1 || back) {
    info.form = FusionForm::rows;
    info.space = full;
    info.reduced_dims = trailing_axes(function, root);
    KILN_CHECK(info.reduced_dims > 0, "rows are reduced over trailing axes");
  }
  return info;
}

namespace {

// Before layouts are chosen, a relayout is what keeps a value that is computed a second time from being merged with the first
// (ir/grad): nothing merges them from here on.
Changed drop_relayouts(Module &module, Function &function) {
  return Sweep(module, function).run([](Sweep &s, NodeId id) {
    const Node &node = s.node(id);
    if (node.op != Op::relayout || !(s.function().value(node.results[0]).layout == s.function().value(node.operands[0]).layout))
      return;
    std::vector<ValueId> operands = node.operands;
    s.replace_results(id, operands);
  });
}

} // namespace

Changed fuse(Module &module, PassContext &context) {
  Changed changed = Changed::no;
  for (Function &function : module.functions) {
    Changed here = drop_relayouts(module, function);
    here |= sink_views(module, function, context.flags.gpu);
    std::vector<Block *> blocks = kernel_blocks(function);
    for (Block *block : blocks) {
      BlockFuser fuser(module, function, *block, context.flags.blocked_layouts, context.flags.gpu);
      if (!fuser.run())
        continue;
      replace_all(function, fuser.replaced());
      here = Changed::yes;
    }
    if (here == Changed::yes)
      function.compact();
    changed |= here;
  }
  if (changed == Changed::yes) {
    cse(module, context);
    dce(module, context);
  }
  return changed;
}

} // namespace kiln
