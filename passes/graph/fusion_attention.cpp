// Attention as one kernel: the scores are never written to memory, they live in a block of rows that
// stays in the cache between the two products.
#include "passes/graph/attention.h"
#include "passes/graph/fusion_groups.h"

#include "ir/ops/op.h"
#include "passes/graph/rewrite.h"

#include <algorithm>

namespace kiln {
namespace {

constexpr int64_t kMinQueries = 4; // fewer are products of a matrix and a vector: nothing to keep
constexpr int64_t kMaxHead = 512;  // elements of a key or a value

bool at_least(const Dim &d, int64_t least) { return !d.is_const() || d.as_const() >= least; }
bool at_most(const Dim &d, int64_t most) { return d.is_const() && d.as_const() <= most; }

} // namespace

void BlockFuser::fuse_attention(int root) {
  auto parts = match_attention(module_, function_, block_.nodes[size_t(root)]);
  if (!parts)
    return;
  int first = def(function_.node(parts->keys_dot).results[0]);
  const Node &dot = function_.node(parts->keys_dot);
  if (first < 0 || !is_free(first) || dot.operands.size() != 2)
    return;
  const Shape &scores = function_.type(parts->scores).shape;
  const Dim &keys = scores.back(), &queries = scores[scores.size() - 2];
  // What stands between the softmax and the second dot must leave rows scalable at the end; rounding the
  // weights to f16 is left out; that to bf16 would show in the result, but a GPU rounds what it multiplies.
  auto keeps_ratios = [&](const std::pair<NodeId, int> &step) {
    const Node &n = function_.node(step.first);
    return n.op == Op::reshape || (n.op == Op::convert && is_float(function_.type(n.results[0]).dtype) &&
            (gpu_ || function_.type(n.results[0]).dtype != DType::bf16));
  };
  bool plain = parts->nan_to_zero ||
               std::all_of(parts->to_normalised.begin(), parts->to_normalised.end(), keeps_ratios);
  // A GPU shares the keys of few queries among blocks.
  if (!plain || !at_least(queries, gpu_ ? 1 : kMinQueries) || !at_least(keys, kMinQueries) ||
      !at_most(function_.type(dot.operands[0]).shape.back(), kMaxHead) ||
      !at_most(shape(root).back(), kMaxHead))
    return;

  std::set<int> members = grow_forward(
      root, 1, [&](int u) { return is_scalar(u) && shape(u) == shape(root); });
  std::set<int> epilogue = members;
  epilogue.erase(root);
  std::set<int> softmax, way;
  for (NodeId id : parts->softmax)
    softmax.insert(def(function_.node(id).results[0]));
  for (auto [id, operand] : parts->to_dot)
    way.insert(def(function_.node(id).results[0]));
  Dim count = element_count(scores);
  std::set<int> elementwise;
  grow_backward(members, [&](int p) {
    if (p == first || softmax.contains(p))
      return true;
    if (members.contains(first)) // operands of the dot are captured
      return false;
    // A GPU compares the numbers of queries and keys where it would read a mask made of them.
    bool before = way.contains(p) || (is_scalar(p) && element_count(shape(p)) == count) || (gpu_ && is_made_of_indices(function_, node(p).results[0]));
    if (before)
      elementwise.insert(p);
    return before;
  });
  auto inside = [&](const std::set<int> &nodes) {
    return std::all_of(nodes.begin(), nodes.end(), [&](int p) { return members.contains(p); });
  };
  if (!members.contains(first) || !inside(softmax) || !inside(way))
    return;
  absorb_views(members, epilogue);
  absorb_views(members, elementwise, 2);
  absorb_views(members, {first, root}, 2);
  add_group(Kind::attention, std::move(members));
}

} // namespace kiln
