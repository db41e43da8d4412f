// The walk: which nodes lie between `wrt` and `of`, and their rules in reverse order.
#include "ir/grad/rules.h"

#include "ir/clone.h"
#include "ir/ops/infer_util.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>

namespace kiln {
namespace grad {
namespace {

void captured_values(const Function &function, const Block &block, std::unordered_set<ValueId> inner,
                     std::vector<ValueId> &out, std::unordered_set<ValueId> &seen) {
  inner.insert(block.args.begin(), block.args.end());
  auto use = [&](ValueId v) {
    if (!inner.count(v) && seen.insert(v).second)
      out.push_back(v);
  };
  for (NodeId id : block.nodes) {
    const Node &node = function.node(id);
    for (ValueId v : node.operands)
      use(v);
    for (const Block &region : node.regions)
      captured_values(function, region, inner, out, seen);
    inner.insert(node.results.begin(), node.results.end());
  }
  for (ValueId v : block.results)
    use(v);
}

// Everything a node reads: operands and captures.
std::vector<ValueId> inputs(const Function &function, const Node &node) {
  std::vector<ValueId> out = node.operands;
  if (!node.regions.empty())
    for (ValueId v : captures(function, node))
      out.push_back(v);
  return out;
}

Result<std::vector<ValueId>> reversed(GraphBuilder &b, std::span<const ValueId> of,
                                      std::span<const ValueId> seeds, std::span<const ValueId> wrt,
                                      bool leaves, GradientUnits *units);

class Reverse {
public:
  // With `leaves`, gradients stop at `wrt`.
  Reverse(GraphBuilder &b, std::span<const ValueId> wrt, bool leaves, GradientUnits *units)
      : b_(b), function_(b.function()), wrt_(wrt.begin(), wrt.end()), leaves_(leaves), units_(units) {
    for (size_t i = 0; units && i < units->size(); ++i)
      for (ValueId v : (*units)[i].results)
        if (NodeId def = function_.value(v).def; def.valid())
          unit_of_[def.index] = &(*units)[i];
  }

  Result<std::vector<ValueId>> run(std::span<const ValueId> of, std::span<const ValueId> seeds,
                                   std::span<const ValueId> wrt, bool fill);

private:
  bool active(ValueId v) const { return active_.count(v) != 0; }
  void order_from(std::span<const ValueId> of);
  void find_active();
  bool expand_composites();
  bool expand_in_place(NodeId id);
  void add(ValueId v, Val gradient);
  const GradientUnit *unit_at(NodeId id) const {
    auto it = unit_of_.find(id.index);
    return it == unit_of_.end() ? nullptr : it->second;
  }
  // The node that stands for its unit, or itself.
  NodeId standing_for(NodeId id) const {
    const GradientUnit *unit = unit_at(id);
    return unit ? function_.value(unit->results[0]).def : id;
  }
  std::vector<ValueId> inputs_of(NodeId id) const {
    const GradientUnit *unit = unit_at(id);
    return unit ? unit->inputs : inputs(function_, function_.node(id));
  }
  std::vector<ValueId> results_of(NodeId id) const {
    const GradientUnit *unit = unit_at(id);
    return unit ? unit->results : function_.node(id).results;
  }
  Status backward(NodeId id);
  Status unit_backward(const GradientUnit &unit, const std::vector<ValueId> &dys);
  void copy_units(const GradientUnit &around, const ValueMap &values);
  bool holds_custom(const Node &node) const;
  Status expanded_backward(NodeId id, const std::vector<ValueId> &dys);
  Error refusal(const Node &node, std::string_view why) const;
  std::string path_from(const Node &node) const;

  GraphBuilder &b_;
  Function &function_;
  std::unordered_set<ValueId> wrt_;
  std::vector<ValueId> of_;
  bool leaves_;
  GradientUnits *units_;
  std::unordered_map<int32_t, const GradientUnit *> unit_of_; // by the nodes of their results
  std::vector<NodeId> order_; // operands before users
  std::unordered_set<ValueId> active_; // floats that depend on one of wrt
  std::unordered_map<ValueId, ValueId> gradients_;
};

// Depth first without recursion: graphs may be deep.
void Reverse::order_from(std::span<const ValueId> of) {
  order_.clear();
  std::unordered_map<int32_t, bool> done; // seen, then placed
  std::vector<NodeId> stack;
  auto push = [&](ValueId v) {
    if (leaves_ && wrt_.count(v))
      return;
    NodeId def = function_.value(v).def;
    if (def.valid())
      def = standing_for(def);
    if (def.valid() && !done.count(def.index))
      stack.push_back(def);
  };
  for (ValueId v : of)
    push(v);
  while (!stack.empty()) {
    NodeId id = stack.back();
    auto [it, fresh] = done.try_emplace(id.index, false);
    if (!fresh) {
      stack.pop_back();
      if (!it->second)
        it->second = true, order_.push_back(id);
      continue;
    }
    for (ValueId v : inputs_of(id))
      push(v);
  }
}

void Reverse::find_active() {
  active_.clear();
  active_.insert(wrt_.begin(), wrt_.end());
  for (NodeId id : order_) {
    auto in = inputs_of(id);
    if (std::none_of(in.begin(), in.end(), [&](ValueId v) { return active(v); }))
      continue;
    if (function_.node(id).op == Op::stop_gradient && !unit_at(id))
      continue;
    for (ValueId v : results_of(id))
      if (is_float(function_.type(v).dtype))
        active_.insert(v);
  }
}

// Replaces a composite by what it decomposes into, keeping the ids of its results, so that the forward
// values exist once. Only in the block that grows: what lies around it stays as it is.
bool Reverse::expand_in_place(NodeId id) {
  Block *block = &b_.block();
  auto found = std::find(block->nodes.begin(), block->nodes.end(), id);
  if (found == block->nodes.end())
    return false;
  size_t at = size_t(found - block->nodes.begin());
  Node node = function_.node(id);
  size_t first = function_.nodes.size();
  GraphBuilder inside(b_.module(), function_, *block);
  inside.set_position(*block, at);
  inside.set_location(node.location);
  std::vector<ValueId> fresh = op_def(node.op).decompose(inside, node);
  for (size_t i = 0; i < fresh.size(); ++i) {
    const Value &value = function_.value(fresh[i]);
    bool own = value.def.valid() && size_t(value.def) >= first;
    bool twice = std::find(fresh.begin(), fresh.begin() + std::ptrdiff_t(i), fresh[i]) !=
                 fresh.begin() + std::ptrdiff_t(i);
    if (!own || twice)
      fresh[i] = inside(Op::reshape, {fresh[i]}, {{"shape", Shape(value.type.shape)}});
  }
  for (size_t i = 0; i < fresh.size(); ++i) {
    Value &now = function_.value(fresh[i]), &kept = function_.value(node.results[i]);
    kept.def = now.def, kept.result = now.result, kept.type = now.type;
    function_.node(now.def).results[size_t(now.result)] = node.results[i];
    for (size_t n = first; n < function_.nodes.size(); ++n) {
      Node &user = function_.nodes[n];
      std::replace(user.operands.begin(), user.operands.end(), fresh[i], node.results[i]);
      for (Block &region : user.regions)
        std::replace(region.results.begin(), region.results.end(), fresh[i], node.results[i]);
    }
  }
  size_t end = inside.position();
  block->nodes.erase(block->nodes.begin() + std::ptrdiff_t(end));
  function_.node(id).removed = true;
  if (b_.position() != SIZE_MAX)
    b_.set_position(*block, b_.position() + (end - at) - 1);
  return true;
}

bool Reverse::expand_composites() {
  bool any = false;
  for (NodeId id : order_) {
    const Node &node = function_.node(id);
    if (unit_at(id))
      continue;
    bool used = std::any_of(node.results.begin(), node.results.end(), [&](ValueId v) { return active(v); });
    if (used && !find_rule(node.op) && op_def(node.op).decompose)
      any |= expand_in_place(id);
  }
  return any;
}

void Reverse::add(ValueId v, Val gradient) {
  auto [it, first] = gradients_.emplace(v, gradient.id);
  if (!first)
    it->second = (Val{&b_, it->second} + gradient).id;
}

// The ops between a node and what is differentiated, as a shortest way: "; it goes on through mul ('h') and reduce_mean ('loss')".
std::string Reverse::path_from(const Node &node) const {
  std::unordered_map<ValueId, NodeId> next; // the node through which a value goes on
  std::unordered_map<int32_t, int> left;    // ops from a node to the end
  for (ValueId v : of_)
    if (NodeId def = function_.value(v).def; def.valid())
      left.emplace(def.index, 0);
  for (size_t i = order_.size(); i-- > 0;) {
    auto it = left.find(order_[i].index);
    if (it == left.end())
      continue;
    int here = it->second;
    for (ValueId v : inputs_of(order_[i])) {
      NodeId def = function_.value(v).def;
      if (!def.valid() || !active(v))
        continue;
      auto [at, fresh] = left.emplace(def.index, here + 1);
      if (fresh || at->second > here + 1)
        at->second = here + 1, next[function_.node(def).results[0]] = order_[i];
    }
  }
  constexpr int kShown = 6;
  std::string text;
  int shown = 0;
  for (const Node *at = &node; !at->results.empty();) {
    auto it = next.find(at->results[0]);
    if (it == next.end())
      break;
    at = &function_.node(it->second);
    if (++shown > kShown)
      return text + ", ...";
    std::string name = at->results.empty() ? "" : function_.value(at->results[0]).name;
    text += fmt::format("{}{}{}", shown == 1 ? "; it goes on through " : ", ", op_def(at->op).name, name.empty() ? "" : " ('" + name + "')");
  }
  return text;
}

Error Reverse::refusal(const Node &node, std::string_view why) const {
  std::string name = node.results.empty() ? "" : function_.value(node.results[0]).name;
  std::string text = fmt::format("{}{} has no gradient: {}", op_def(node.op).name,
                                 name.empty() ? "" : " ('" + name + "')", why);
  if (!node.location.file.empty())
    text += fmt::format("; it stands at {}", node.location.text());
  text += path_from(node);
  return Error{text + "; stop_gradient(x) keeps gradients from it"};
}

// The parts of a composite that stands in a block out of reach are computed again here.
Status Reverse::expanded_backward(NodeId id, const std::vector<ValueId> &dys) {
  Node node = function_.node(id);
  std::vector<ValueId> results = op_def(node.op).decompose(b_, node), of, seeds, wrt;
  for (size_t i = 0; i < results.size(); ++i)
    if (dys[i].valid())
      of.push_back(results[i]), seeds.push_back(dys[i]);
  for (ValueId v : node.operands)
    if (active(v) && std::find(wrt.begin(), wrt.end(), v) == wrt.end())
      wrt.push_back(v);
  KILN_TRY(parts, inner_gradient(b_, of, seeds, wrt));
  for (size_t i = 0; i < wrt.size(); ++i)
    if (parts[i].valid())
      add(wrt[i], {&b_, parts[i]});
  return Unit{};
}

// Sizes that a region finds mean nothing in the copies that gradients make of it.
bool finds_sizes(const Function &function, const Node &node) {
  for (const Block &region : node.regions)
    for (NodeId id : region.nodes)
      if (function.node(id).op == Op::bind_size || finds_sizes(function, function.node(id)))
        return true;
  return false;
}

// Units within a unit whose nodes were copied exist in the copy as well; the copy itself is none, for its values are used at once.
void Reverse::copy_units(const GradientUnit &around, const ValueMap &values) {
  size_t count = units_->size();
  for (size_t i = 0; i < count; ++i) {
    GradientUnit unit = (*units_)[i];
    bool inside = std::all_of(unit.nodes.begin(), unit.nodes.end(), [&](NodeId id) {
      return std::find(around.nodes.begin(), around.nodes.end(), id) != around.nodes.end();
    });
    if (!inside || (!unit.custom && unit.nodes.size() == around.nodes.size()))
      continue;
    for (auto *list : {&unit.inputs, &unit.results})
      for (ValueId &v : *list)
        if (auto it = values.find(v); it != values.end())
          v = it->second;
    std::vector<NodeId> nodes;
    for (NodeId id : std::exchange(unit.nodes, {}))
      if (const Node &node = function_.node(id); !node.results.empty())
        if (auto it = values.find(node.results[0]); it != values.end())
          unit.nodes.push_back(function_.value(it->second).def);
    units_->push_back(std::move(unit));
  }
}

Status Reverse::unit_backward(const GradientUnit &unit, const std::vector<ValueId> &dys) {
  if (unit.custom) {
    std::vector<ValueId> seeds = dys;
    for (size_t i = 0; i < seeds.size(); ++i)
      if (!seeds[i].valid())
        seeds[i] = zeros_like({&b_, unit.results[i]}).id;
    KILN_TRY(parts, unit.custom(b_, unit.inputs, seeds));
    for (size_t i = 0; i < unit.inputs.size(); ++i)
      if (parts[i].valid() && active(unit.inputs[i]))
        add(unit.inputs[i], {&b_, parts[i]});
    return Unit{};
  }
  ValueMap values;
  std::vector<ValueId> of, seeds, wrt, places;
  for (ValueId v : unit.inputs) {
    const Node *def = function_.def(v);
    if (!def || (def->op != Op::constant && def->op != Op::read_variable))
      values[v] = b_(Op::relayout, {v}); // params and constants are there anyway
    if (active(v))
      wrt.push_back(v), places.push_back(values.contains(v) ? values.at(v) : v);
  }
  // What it assigns has been assigned, and what it read may have changed since.
  for (NodeId id : unit.nodes)
    if (Op op = function_.node(id).op; op != Op::assign && op != Op::read_variable)
      KILN_RETURN_IF_ERROR(clone_node(b_, function_, id, values));
  copy_units(unit, values);
  for (size_t i = 0; i < unit.results.size(); ++i)
    if (dys[i].valid())
      of.push_back(values.at(unit.results[i])), seeds.push_back(dys[i]);
  KILN_TRY(parts, reversed(b_, of, seeds, places, true, units_));
  for (size_t i = 0; i < wrt.size(); ++i)
    if (parts[i].valid())
      add(wrt[i], {&b_, parts[i]});
  return Unit{};
}

// A function with a gradient of its own, within the regions of a node that is differentiated as a whole.
bool Reverse::holds_custom(const Node &node) const {
  for (const Block &region : node.regions)
    for (NodeId id : region.nodes) {
      if (const GradientUnit *unit = unit_at(id); unit && unit->custom)
        return true;
      if (holds_custom(function_.node(id)))
        return true;
    }
  return false;
}

Status Reverse::backward(NodeId id) {
  std::vector<ValueId> dys;
  bool any = false;
  for (ValueId v : results_of(id)) {
    auto it = gradients_.find(v);
    bool has = it != gradients_.end() && active(v) && !(leaves_ && wrt_.count(v));
    dys.push_back(has ? it->second : ValueId());
    any |= has;
  }
  auto in = inputs_of(id);
  if (!any || std::none_of(in.begin(), in.end(), [&](ValueId v) { return active(v); }))
    return Unit{};
  b_.set_location(function_.node(id).location);
  if (const GradientUnit *unit = unit_at(id))
    return unit_backward(GradientUnit(*unit), dys);
  const Node &node = function_.node(id);
  const OpGrad *rule = find_rule(node.op);
  if (!rule && op_def(node.op).decompose)
    return expanded_backward(id, dys);
  if (!rule)
    return refusal(node, "there is no rule for it");
  if (!rule->none.empty())
    return refusal(node, rule->none);
  if (finds_sizes(function_, node))
    return refusal(node, "it finds sizes in its data");
  if (units_ && holds_custom(node))
    return refusal(node, "it runs a function with a gradient of its own; take that function's gradient within the loop, or move it out");
  Rule context(b_, id, std::move(dys), [this](ValueId v) { return active(v); },
               [this](ValueId v, Val gradient) { add(v, gradient); });
  rule->rule(context);
  if (!context.error().empty())
    return refusal(function_.node(id), context.error());
  return Unit{};
}

Result<std::vector<ValueId>> Reverse::run(std::span<const ValueId> of, std::span<const ValueId> seeds,
                                          std::span<const ValueId> wrt, bool fill) {
  Location outer = b_.location();
  of_.assign(of.begin(), of.end());
  constexpr int kDeepest = 16;
  for (int round = 0;; ++round) {
    KILN_CHECK(round < kDeepest, "ops decompose into each other without end");
    order_from(of);
    find_active();
    if (!expand_composites())
      break;
  }
  for (size_t i = 0; i < of.size(); ++i)
    if (active(of[i]))
      add(of[i], {&b_, seeds[i]});
  for (size_t i = order_.size(); i-- > 0;)
    KILN_RETURN_IF_ERROR(backward(order_[i]));
  b_.set_location(outer);
  std::vector<ValueId> out;
  for (ValueId v : wrt) {
    auto it = gradients_.find(v);
    if (it != gradients_.end())
      out.push_back(it->second);
    else
      out.push_back(fill ? zeros_like({&b_, v}).id : ValueId());
  }
  return out;
}

Result<std::vector<ValueId>> reversed(GraphBuilder &b, std::span<const ValueId> of,
                                      std::span<const ValueId> seeds, std::span<const ValueId> wrt,
                                      bool leaves, GradientUnits *units) {
  KILN_CHECK(of.size() == seeds.size(), "a seed for each value");
  for (auto list : {of, wrt})
    for (ValueId v : list)
      if (!is_float(b.type(v).dtype))
        return Error{fmt::format("only floats have gradients, not {}", b.type(v).text())};
  return Reverse(b, wrt, leaves, units).run(of, seeds, wrt, !leaves);
}

} // namespace

std::vector<ValueId> captures(const Function &function, const Node &node) {
  std::vector<ValueId> out;
  std::unordered_set<ValueId> seen;
  for (const Block &region : node.regions)
    captured_values(function, region, {}, out, seen);
  return out;
}

Result<std::vector<ValueId>> inner_gradient(GraphBuilder &b, std::span<const ValueId> of,
                                            std::span<const ValueId> seeds,
                                            std::span<const ValueId> wrt) {
  return reversed(b, of, seeds, wrt, true, nullptr);
}

} // namespace grad

Result<std::vector<ValueId>> reverse_gradient(GraphBuilder &b, std::span<const ValueId> of,
                                              std::span<const ValueId> seeds,
                                              std::span<const ValueId> wrt, GradientUnits *units) {
  return grad::reversed(b, of, seeds, wrt, false, units);
}

Result<std::vector<ValueId>> gradient(GraphBuilder &b, ValueId loss, std::span<const ValueId> wrt, GradientUnits *units) {
  const TensorType &type = b.type(loss);
  if (type.rank() != 0)
    return Error{fmt::format("the gradient of {}: a loss is one number; reduce it with sum() or mean(), or use vjp()",
                             type.text())};
  ValueId seed = b.scalar(type.dtype, 1), of[] = {loss}, seeds[] = {seed};
  return reverse_gradient(b, of, seeds, wrt, units);
}

Result<std::vector<ValueId>> forward_gradient(GraphBuilder &b, std::span<const ValueId> of,
                                              std::span<const ValueId> wrt,
                                              std::span<const ValueId> tangents, GradientUnits *units) {
  std::vector<ValueId> seeds;
  for (ValueId v : of)
    seeds.push_back(grad::zeros_like({&b, v}).id);
  KILN_TRY(products, reverse_gradient(b, of, seeds, wrt, units));
  return reverse_gradient(b, products, tangents, seeds, units);
}

} // namespace kiln
