// What a loop carries need not be copied: its first value may lie where the loop keeps it, and a step that replaces
// some elements (a scatter into a carried tensor) writes only those.
//
//     ys = while(.., rows) { .. } do { .. next = scatter_nd(rows, [[i]], row); .. next }
//       ->  one row is written where `rows` lies
#include "ir/kernel/visit.h"
#include "ir/ops/op.h"
#include "passes/lower/kernel_lowering.h"
#include "passes/lower/plan_builder.h"

#include <algorithm>

namespace kiln {
namespace {

bool is_scatter(const Node &node) { return node.op == Op::scatter_nd || node.op == Op::scatter_elements; }

// The operand that a node's only result is a changed copy of; not valid for other nodes.
ValueId changed_operand(const Function &function, const Node &node) {
  if (is_scatter(node))
    return std::count(node.operands.begin(), node.operands.end(), node.operands[0]) == 1 ? node.operands[0] : ValueId();
  if (node.op != Op::fusion || node.results.size() != 1)
    return {};
  const Block &region = node.regions.at(0);
  const Node *root = function.def(region.results.at(0));
  if (!root || !is_scatter(*root))
    return {};
  auto arg = std::find(region.args.begin(), region.args.end(), root->operands[0]);
  if (arg == region.args.end())
    return {};
  int uses = 0;
  for (NodeId id : region.nodes)
    uses += int(std::count(function.node(id).operands.begin(), function.node(id).operands.end(), *arg));
  ValueId outer = node.operands[size_t(arg - region.args.begin())];
  return uses == 1 && std::count(node.operands.begin(), node.operands.end(), outer) == 1 ? outer : ValueId();
}

// for i, j, ..: to[f(i, j, ..)] = from[f(i, j, ..)]
bool is_copy(const Stmt &s, Symbol from, Symbol to) {
  if (s.is(Stmt::Kind::loop))
    return s.body.size() == 1 && is_copy(s.body[0], from, to);
  return s.is(Stmt::Kind::store) && s.name == to && s.value.is(Expr::Kind::load) && s.value.name == from &&
         s.value.index == s.index;
}

} // namespace

// Elements that stay are not written: both buffers are the same.
bool drop_copy(LoweredNode &lowered, ValueId from, ValueId to) {
  auto at = [&](ValueId v) { return size_t(std::find(lowered.values.begin(), lowered.values.end(), v) - lowered.values.begin()); };
  size_t source = at(from), result = at(to);
  Kernel &kernel = lowered.kernel;
  if (source == lowered.values.size() || result == lowered.values.size())
    return false;
  Symbol in = kernel.buffers[source].name, out = kernel.buffers[result].name;
  if (!std::erase_if(kernel.body, [&](const Stmt &s) { return is_copy(s, in, out); }))
    return false;
  bool read = false;
  visit_exprs(kernel.body, [&](Expr &e) { read |= e.is(Expr::Kind::load) && e.name == in; });
  KILN_CHECK(!read, "what is changed in place is read only to be copied");
  kernel.buffers[result].access = Access::inout;
  kernel.buffers.erase(kernel.buffers.begin() + std::ptrdiff_t(source));
  lowered.values.erase(lowered.values.begin() + std::ptrdiff_t(source));
  finish_kernel(kernel);
  return true;
}

void PlanBuilder::change_in_place(const Block &body, std::span<const int> carried) {
  for (size_t i = 0; i < carried.size(); ++i) {
    ValueId value = body.results[i];
    const Node *def = function_.def(value);
    for (; def && is_alias(function_, *def) && def->op == Op::reshape; def = function_.def(value))
      value = def->operands[0];
    if (!def || changed_operand(function_, *def) != body.args[i] || !function_.value(value).layout.is_row_major() ||
        !function_.value(body.args[i]).layout.is_row_major())
      continue;
    NodeId id = function_.value(value).def;
    // What the node reads beside it may be a view of the same memory.
    auto root = [&](ValueId v) {
      for (const Node *d = function_.def(v); d && (is_alias(function_, *d) || (d->op == Op::slice && piece_begin(function_, *d)));
           d = function_.def(v))
        v = d->operands[0];
      return v;
    };
    if (std::count_if(def->operands.begin(), def->operands.end(), [&](ValueId v) { return root(v) == body.args[i]; }) != 1)
      continue;
    if (last_use(body.args[i]) > node_order_[size_t(id)])
      continue;
    if (try_redirect(body.results[i], carried[i], body))
      changes_.emplace(id, body.args[i]);
  }
}

// Where the first value of a loop is an operand's that nobody else reads, its memory is the loop's.
int PlanBuilder::adopted(ValueId operand, ValueId result) {
  auto it = buffers_.find(operand);
  NodeId def = function_.value(operand).def;
  if (it == buffers_.end() || !def.valid() || destination_.contains(result) || destination_.contains(operand) ||
      part_of_.contains(operand))
    return -1;
  const PlanBuffer &buffer = plan_->buffers[size_t(it->second)];
  bool own = buffer.kind == PlanBuffer::Kind::arena && parent_[size_t(it->second)] < 0 && buffer.value == operand &&
             buffer.layout == function_.value(result).layout;
  if (uses_.empty())
    uses_ = function_.use_counts();
  bool here = std::find(block_->nodes.begin(), block_->nodes.end(), def) != block_->nodes.end();
  return own && here && uses_[size_t(operand)] == 1 ? it->second : -1;
}

} // namespace kiln
