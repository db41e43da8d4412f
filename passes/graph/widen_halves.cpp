#include "passes/graph/widen_halves.h"

#include "passes/graph/pack_weights.h"
#include "passes/graph/rewrite.h"

#include <algorithm>

namespace kiln {
namespace {

bool is_half(const TensorType &type) { return type.dtype == DType::f16 || type.dtype == DType::bf16; }

// Whether its kernel is made of pairs: as in the layouts of weights.
bool has_pairs(const Function &function, const Node &node, const PassFlags &flags) {
  const TensorType &w = function.type(node.operands[1]);
  if (!flags.bf16_dots || w.dtype != DType::bf16)
    return false;
  if (node.op == Op::conv) {
    auto inputs = w.shape[1].try_const();
    return node.attrs.get_dim("groups").is_const(1) && inputs && *inputs >= 8 && *inputs % 2 == 0;
  }
  auto depth = w.shape[size_t(w.rank() - (node.attrs.get_bool("transpose_b") ? 1 : 2))].try_const();
  return depth && *depth % 2 == 0;
}

// Whether enough rows read the second operand, an activation, that converting it for each of them counts.
bool has_rows(const Function &function, const Node &node) {
  constexpr int64_t kLeastRows = 8;
  const TensorType &x = function.type(node.operands[0]), &y = function.type(node.operands[1]);
  return node.op == Op::dot && x.rank() >= 2 && y.rank() >= 2 && x.shape[size_t(x.rank() - 2)].try_const().value_or(kLeastRows) >= kLeastRows;
}

} // namespace

Changed widen_halves(Module &module, const PassFlags &flags) {
  Changed changed = Changed::no;
  if (flags.gpu)
    return changed;
  PairedWeights pairs(module);
  for (Function &function : module.functions)
    changed |= Sweep(module, function).run([&](Sweep &s, NodeId id) {
      const Node node = s.node(id);
      if ((node.op != Op::conv && node.op != Op::dot) || s.fusion_depth() > 0)
        return;
      auto half = [&](ValueId v) { return is_half(function.type(v)); };
      if (!half(node.results[0]) || !std::all_of(node.operands.begin(), node.operands.end(), half))
        return;
      const bool has_weights = constant_tensor(module, function, node.operands[1]) != nullptr;
      if (has_weights ? function.type(node.operands[1]).rank() < 2 || has_pairs(function, node, flags) : !has_rows(function, node))
        return;
      GraphBuilder &b = s.builder();
      std::vector<ValueId> operands;
      for (ValueId v : node.operands)
        operands.push_back(b(Op::convert, {v}, {{"dtype", DType::f32}}));
      Attrs attrs = node.attrs;
      auto wide = has_weights ? pairs.widened(b, node, function.def(node.operands[1])->attrs.get_constant("value")) : std::nullopt;
      if (wide) {
        operands[1] = *wide;
        attrs.set("transpose_b", false);
      }
      ValueId sum = b(node.op, operands, attrs);
      std::vector<ValueId> results{
          b(Op::convert, {sum}, {{"dtype", function.type(node.results[0]).dtype}})};
      s.replace_results(id, results);
    });
  return changed;
}

} // namespace kiln
