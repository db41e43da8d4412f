// Makes fusion nodes of groups and puts the block in an order in which every node follows what it
// uses.
#include "ir/clone.h"
#include "passes/graph/fusion_groups.h"
#include "passes/graph/rewrite.h"

#include <algorithm>
#include <queue>

namespace kiln {

bool BlockFuser::build() {
  std::vector<std::pair<int, NodeId>> fusions; // position of the last member, fusion
  for (size_t g = 0; g < groups_.size(); ++g) {
    if (groups_[g].members.size() < 2)
      continue;
    NodeId fusion = build_group(groups_[g]);
    fusions.emplace_back(int(g), fusion);
  }
  if (fusions.empty())
    return false;
  sort_block(fusions);
  return true;
}

NodeId BlockFuser::build_group(const Group &group) {
  Block region;
  std::vector<ValueId> captured, results;
  ValueMap map;
  GraphBuilder inside(module_, function_, region);
  for (int p : group.members) {
    Node n = node(p);
    for (ValueId operand : n.operands) {
      if (map.contains(operand))
        continue;
      const Node *d = function_.def(operand);
      if (d && d->op == Op::constant && element_count(function_.type(operand).shape).is_const(1)) {
        NodeId constant = function_.value(operand).def;
        KILN_CHECK(clone_node(inside, function_, constant, map).ok(), "a constant can be copied");
        continue;
      }
      Value value = function_.value(operand);
      map[operand] = function_.add_argument(region, value.type, value.name);
      captured.push_back(operand);
    }
    Status status = clone_node(inside, function_, block_.nodes[size_t(p)], map);
    KILN_CHECK(status.ok(), status.ok() ? "" : status.error().message);
    if (is_output(p, group.members))
      results.push_back(n.results[0]);
  }
  for (ValueId r : results)
    region.results.push_back(map.at(r));
  Block scratch;
  GraphBuilder outside(module_, function_, scratch);
  int place = *group.members.begin();
  for (int p : group.members)
    if (group.kind != Kind::elementwise && !is_scalar(p) && !is_view(node(p)))
      place = p;
  outside.set_location(node(place).location);
  std::vector<Block> regions;
  regions.push_back(std::move(region));
  auto emitted = outside.emit(Op::fusion, captured, {}, std::move(regions));
  KILN_CHECK(emitted.ok(), emitted.ok() ? "" : emitted.error().message);
  NodeId fusion = *emitted;
  for (size_t i = 0; i < results.size(); ++i) {
    ValueId fresh = function_.node(fusion).results[i];
    function_.value(fresh).name = function_.value(results[i]).name;
    replaced_.emplace_back(results[i], fresh);
  }
  return fusion;
}

// Kahn's algorithm over units (fusions and the nodes that stand alone); of those that are ready,
// the one whose last member came first.
void BlockFuser::sort_block(const std::vector<std::pair<int, NodeId>> &fusions) {
  size_t count = block_.nodes.size();
  std::vector<int> unit(count); // named by the position of its last member
  for (size_t p = 0; p < count; ++p) {
    int g = group_[p];
    unit[p] = g >= 0 ? *groups_[size_t(g)].members.rbegin() : int(p);
  }
  std::vector<std::set<int>> after(count);
  std::vector<int> pending(count);
  auto edge = [&](int from, int to) {
    from = unit[size_t(from)], to = unit[size_t(to)];
    if (from != to && after[size_t(from)].insert(to).second)
      ++pending[size_t(to)];
  };
  for (size_t p = 0; p < count; ++p) {
    for (int u : users_[p])
      edge(int(p), u);
    for (int u : effects_after_[p])
      edge(int(p), u);
  }
  std::vector<NodeId> node_of(count);
  for (size_t p = 0; p < count; ++p)
    node_of[p] = block_.nodes[p];
  for (auto [g, id] : fusions)
    node_of[size_t(*groups_[size_t(g)].members.rbegin())] = id;
  std::priority_queue<int, std::vector<int>, std::greater<>> ready;
  size_t units = 0;
  for (size_t p = 0; p < count; ++p) {
    if (unit[p] != int(p))
      continue;
    ++units;
    if (pending[p] == 0)
      ready.push(int(p));
  }
  std::vector<NodeId> order;
  while (!ready.empty()) {
    int p = ready.top();
    ready.pop();
    order.push_back(node_of[size_t(p)]);
    for (int next : after[size_t(p)])
      if (--pending[size_t(next)] == 0)
        ready.push(next);
  }
  KILN_CHECK(order.size() == units, "a fusion makes a cycle");
  for (const Group &group : groups_)
    if (group.members.size() > 1)
      for (int p : group.members)
        function_.node(block_.nodes[size_t(p)]).removed = true;
  block_.nodes = std::move(order);
}

} // namespace kiln
