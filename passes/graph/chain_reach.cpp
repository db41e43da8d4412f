#include "passes/graph/chain.h"

#include "ir/ops/op.h"
#include "ir/ops/window.h"
#include "passes/graph/index_map.h"

#include <algorithm>
#include <set>

namespace kiln {
namespace {

constexpr size_t kRowDim = 2;

bool include(ReachOf &all, const ReachOf &one) {
  all.lo = std::min(all.lo, one.lo);
  all.hi = std::max(all.hi, one.hi);
  return all.stride == one.stride;
}

void include(std::optional<Reach> &all, const Reach &one, bool &sound) {
  if (!all) {
    all = one;
    return;
  }
  sound = include(all->rows, one.rows) && sound;
  sound = include(all->columns, one.columns) && sound;
  all->all_channels |= one.all_channels;
}

// A convolution or pool over its operand 0.
std::optional<Reach> window_reach(const Function &function, const Node &root) {
  bool conv = root.op == Op::conv;
  const Shape &x = function.type(root.operands[0]).shape;
  std::vector<Dim> kernel;
  if (conv) {
    const Shape &w = function.type(root.operands[1]).shape;
    kernel.assign(w.begin() + 2, w.end());
  } else {
    kernel = root.attrs.get_dims("kernel");
  }
  if (kernel.empty() || !is_static(kernel) || !is_static(root.attrs.get_dims("pad")))
    return std::nullopt;
  Window w = known_window(root.attrs, kernel);
  auto along = [&](size_t d) {
    int64_t lo = -w.pad_lo[d].as_const();
    return ReachOf{w.stride[d], lo, lo + w.extent(d).as_const()};
  };
  Reach reach;
  reach.rows = along(0);
  if (kernel.size() > 1)
    reach.columns = along(1);
  if (conv) {
    const Shape &weight = function.type(root.operands[1]).shape;
    const Dim &groups = root.attrs.get_dim("groups");
    reach.all_channels = !(groups == x[1] && weight[0] == x[1]);
  }
  return reach;
}

bool is_window(const Node &node) {
  return node.op == Op::conv || node.op == Op::max_pool || node.op == Op::avg_pool;
}

// Whether an op alone reads its operand where it writes its result.
bool keeps_places(const Function &function, const Node &node, size_t operand) {
  const Shape &shape = function.type(node.results[0]).shape;
  if (function.type(node.operands[operand]).shape != shape)
    return false;
  IndexSpace space = index_space(shape);
  auto index = operand_index(function, node, int(operand), space.index, space.ranges);
  return index && *index == space.index;
}

} // namespace

bool is_chain(const Node &node) {
  return node.op == Op::fusion && !node.attrs.get_dims("block").empty() && !node.regions.empty();
}

ReachOf ReachOf::behind(const ReachOf &earlier) const {
  return {stride * earlier.stride, earlier.stride * lo + earlier.lo, earlier.stride * (hi - 1) + earlier.hi};
}

std::optional<Reach> reach_of(const Function &function, const Node &node, size_t operand) {
  if (node.results.size() != 1 || function.type(node.results[0]).shape.size() <= kRowDim)
    return std::nullopt;
  const Shape &shape = function.type(node.results[0]).shape;
  std::vector<const Node *> inside{&node};
  ValueId value = node.operands[operand];
  if (node.op == Op::fusion) {
    if (is_chain(node))
      return std::nullopt;
    inside.clear();
    for (NodeId id : node.regions[0].nodes)
      inside.push_back(&function.node(id));
    value = node.regions[0].args[operand];
  }
  std::optional<Reach> out;
  bool sound = true;
  std::set<ValueId> derived{value};
  for (const Node *n : inside) {
    const OpDef &def = op_def(n->op);
    for (size_t i = 0; i < n->operands.size(); ++i) {
      if (!derived.contains(n->operands[i]))
        continue;
      bool first = n->operands[i] == value;
      std::optional<Reach> one;
      if (is_window(*n) && i == 0 && first)
        one = window_reach(function, *n);
      else if ((def.scalar || (def.element && n == &node)) && keeps_places(function, *n, i))
        one = Reach();
      // What follows has the result's shape.
      if (!one || n->results.size() != 1 || function.type(n->results[0]).shape != shape)
        return std::nullopt;
      if (first)
        include(out, *one, sound);
      derived.insert(n->results[0]);
    }
  }
  return sound ? out : std::nullopt;
}

} // namespace kiln
