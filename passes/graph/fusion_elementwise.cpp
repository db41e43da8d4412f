// Elementwise groups: what reductions, contractions and copies have left. From the last node to the
// first, each joins the group of its users, where that does not compute anything twice.
#include "passes/graph/fusion_groups.h"

#include "ir/ops/op.h"

#include <algorithm>

namespace kiln {
namespace {

constexpr int64_t kLeastRow = 8; // elements that are worth a vector

// The index of the last dim that has more than one element.
Dim innermost(const Shape &shape, const std::vector<Dim> &index) {
  for (size_t i = shape.size(); i-- > 0;)
    if (!shape[i].is_const(1))
      return index[i];
  return 0;
}

} // namespace

// The one index, in terms of the group's results, at which members of the group read p's result.
std::optional<std::vector<Dim>> BlockFuser::index_in_group(int p, int g) const {
  std::optional<std::vector<Dim>> out;
  ValueId value = node(p).results[0];
  const Group &group = groups_[size_t(g)];
  for (int u : users(p)) {
    if (group_[size_t(u)] != g)
      continue;
    if (!index_[size_t(u)])
      return std::nullopt;
    const Node &user = node(u);
    for (size_t i = 0; i < user.operands.size(); ++i) {
      if (user.operands[i] != value)
        continue;
      auto index = operand_index(function_, user, int(i), *index_[size_t(u)], group.space.ranges);
      if (!index || (out && *out != *index))
        return std::nullopt;
      out = std::move(index);
    }
  }
  return out;
}

// Whether as many elements are computed, by what is known or what every run checks.
bool BlockFuser::same_size(const Shape &a, const Shape &b) const {
  auto same = [&](const Dim &x, const Dim &y) {
    return x == y || std::any_of(module_.constraints.begin(), module_.constraints.end(), [&](const auto &c) {
             return (c.a == x && c.b == y) || (c.a == y && c.b == x);
           });
  };
  return element_count(a) == element_count(b) || std::equal(a.begin(), a.end(), b.begin(), b.end(), same);
}

bool BlockFuser::reads_rows(int p) const {
  std::set<int> seen;
  std::vector<int> next = {p};
  while (!next.empty() && seen.size() < kMaxMembers) {
    int q = next.back();
    next.pop_back();
    if (!seen.insert(q).second)
      continue;
    const Node &n = node(q);
    if (n.op == Op::gather) {
      const Shape &rows = function_.type(n.operands[0]).shape;
      auto width = rows.empty() ? std::nullopt : rows.back().try_const();
      int64_t axis = n.attrs.get_int("axis");
      if (width && *width >= kLeastRow && axis != int64_t(rows.size()) - 1 && axis != -1)
        return true;
    } else if (is_scalar(q)) {
      for (ValueId operand : n.operands)
        if (int d = def(operand); d >= 0 && same_size(shape(d), shape(q)))
          next.push_back(d);
    }
  }
  return false;
}

bool BlockFuser::fits(int p, int g, bool *identity) {
  Group &group = groups_[size_t(g)];
  if (group.kind != Kind::elementwise || group.members.size() >= kMaxMembers)
    return false;
  auto index = index_in_group(p, g);
  if (!index)
    return false;
  const Node &n = node(p);
  // Rows are read and added up as rows; who wants them in another order turns the sums.
  if (!is_view(n) && innermost(shape(p), *index) != innermost(group.shape, group.space.index) && reads_rows(p))
    return false;
  if (is_view(n)) {
    auto inner = operand_index(function_, n, 0, *index, group.space.ranges);
    const Shape &source = function_.type(n.operands[0]).shape;
    if (!inner ||
        !is_linear(simplify(physical_offset(source, {}, *inner), group.space.ranges), group.space))
      return false;
  } else if (op_def(n.op).has(kExpensive) && !same_size(shape(p), group.shape)) {
    return false;
  }
  if (identity)
    *identity = shape(p) == group.shape && *index == group.space.index;
  index_[size_t(p)] = std::move(index);
  return true;
}

bool BlockFuser::join_users_group(int p) {
  if (escapes_[size_t(p)] || users(p).empty())
    return false;
  int g = group_[size_t(users(p)[0])];
  if (g < 0 ||
      !std::all_of(users(p).begin(), users(p).end(), [&](int u) { return group_[size_t(u)] == g; }))
    return false;
  if (!fits(p, g))
    return false;
  group_[size_t(p)] = g;
  groups_[size_t(g)].members.insert(p);
  return true;
}

// A node that others need too becomes a further result of the group, if it has the results' shape
// and nothing goes from it through those others back into the group.
bool BlockFuser::join_as_result(int p) {
  if (!is_scalar(p))
    return false;
  for (int u : users(p)) {
    int g = group_[size_t(u)];
    bool identity = false;
    if (g < 0 || groups_[size_t(g)].kind != Kind::elementwise ||
        groups_[size_t(g)].results >= kMaxResults || shape(p) != groups_[size_t(g)].shape ||
        !fits(p, g, &identity) || !identity)
      continue;
    std::set<int> members = groups_[size_t(g)].members;
    members.insert(p);
    if (!is_convex(members))
      continue;
    group_[size_t(p)] = g;
    groups_[size_t(g)].members.insert(p);
    ++groups_[size_t(g)].results;
    return true;
  }
  return false;
}

void BlockFuser::fuse_elementwise() {
  for (int p = int(block_.nodes.size()); p-- > 0;) {
    const OpDef &def = op_def(node(p).op);
    if (!is_free(p) || node(p).results.size() != 1 || !(def.scalar || def.element) ||
        def.has(kNoFold))
      continue;
    if (join_users_group(p) || join_as_result(p))
      continue;
    if (node(p).op == Op::reshape) // free on its own
      continue;
    int g = add_group(Kind::elementwise, {p});
    Group &group = groups_[size_t(g)];
    group.shape = shape(p);
    group.space = index_space(group.shape);
    group.results = 1;
    index_[size_t(p)] = group.space.index;
  }
}

} // namespace kiln
