// A contraction whose columns are reduced by the kernel after it (a classifier's softmax, the norm behind a product)
// becomes one kernel with it, where a block of rows of all columns fits in scratch memory.
#include "passes/graph/fusion_groups.h"
#include "passes/graph/row_blocks.h"

#include "ir/ops/op.h"
#include "passes/graph/rewrite.h"

#include <algorithm>

namespace kiln {

void BlockFuser::join_rows() {
  for (size_t g = 0; g < groups_.size(); ++g)
    if (groups_[g].kind == Kind::rows && !gpu_)
      join_contraction(int(g));
}

// The group of rows `g` and the contraction that makes what it reduces.
void BlockFuser::join_contraction(int g) {
  const std::set<int> &rows = groups_[size_t(g)].members;
  auto first = std::find_if(rows.begin(), rows.end(), [&](int p) { return op_def(node(p).op).has(kReduction); });
  if (first == rows.end() || trailing_axes(function_, node(*first)) != 1)
    return;
  const TensorType &space = function_.type(node(*first).operands[0]);
  for (int p : rows)
    for (ValueId v : node(p).operands) {
      int maker = def(v), c = maker < 0 ? -1 : group_[size_t(maker)];
      if (c < 0 || groups_[size_t(c)].kind != Kind::contraction || !(function_.type(v) == space) || space.dtype != DType::f32)
        continue;
      const std::set<int> &before = groups_[size_t(c)].members;
      if (!feeds_rows(*std::find_if(before.begin(), before.end(), [&](int q) { return op_def(node(q).op).reduce; }), space))
        continue;
      std::set<int> members = rows;
      members.insert(before.begin(), before.end());
      if (members.size() > kMaxMembers || output_count(members) > kMaxResults || !is_convex(members))
        continue;
      for (int q : before)
        group_[size_t(q)] = g;
      groups_[size_t(c)].members.clear();
      groups_[size_t(g)].members = std::move(members);
      return;
    }
}

// A matrix product whose second operand every block can read where it lies, or as panels.
bool BlockFuser::feeds_rows(int root, const TensorType &space) const {
  const Node &n = node(root);
  if (n.op != Op::dot || shape(root).back() != space.shape.back())
    return false;
  const Shape &left = function_.type(n.operands[0]).shape;
  const Node *second = function_.def(n.operands[1]);
  bool is_constant = second && second->op == Op::constant;
  bool plain = is_constant || (!n.attrs.get_bool("transpose_b") && !unpacks(function_, n.operands[1]));
  return plain && function_.type(n.operands[1]).dtype == DType::f32 && function_.type(n.operands[0]).dtype == DType::f32 &&
         row_blocks(space.shape, left.back()).has_value();
}

} // namespace kiln
