// The fuse pass on one block: which nodes become one kernel (fusion_groups.cpp,
// fusion_attention.cpp, fusion_elementwise.cpp) and the fusion nodes made of them (fusion_build.cpp).
//
// Nodes are named by their position in the block. A group whose values are used outside at one
// place only (its single result) can never be part of a cycle; for groups with more results, what
// follows them is searched before they are made.
#pragma once

#include "passes/graph/fuse.h"
#include "passes/graph/index_map.h"

#include <functional>
#include <set>

namespace kiln {

constexpr size_t kMaxMembers = 96; // of a group: bounds the size of a kernel

class BlockFuser {
public:
  // With `merge_heads`, the layout pass runs later and puts the heads of an attention side by side. With `gpu`, an attention
  // may round the exponentials of scores to the operands' type instead of the weights.
  BlockFuser(Module &module, Function &function, Block &block, bool merge_heads, bool gpu);
  // True if it made a fusion; uses of the values in replaced() are then to be replaced.
  bool run();
  const std::vector<std::pair<ValueId, ValueId>> &replaced() const { return replaced_; }

private:
  enum class Kind : uint8_t { attention, contraction, rows, reduction, lower, elementwise };
  struct Group {
    Kind kind;
    std::set<int> members;
    // elementwise only
    IndexSpace space = {};
    Shape shape = {};
    size_t results = 0;
  };

  // fusion_groups.cpp
  const Node &node(int p) const { return function_.node(block_.nodes[size_t(p)]); }
  const Shape &shape(int p) const { return function_.type(node(p).results[0]).shape; }
  int def(ValueId value) const; // position in this block, or -1
  const std::vector<int> &users(int p) const { return users_[size_t(p)]; }
  bool is_free(int p) const { return group_[size_t(p)] < 0; }
  bool is_scalar(int p) const;
  bool is_output(int p, const std::set<int> &members) const;
  size_t output_count(const std::set<int> &members) const;
  bool used_only_in(int p, const std::set<int> &members) const;
  bool is_convex(const std::set<int> &members);
  bool is_unit_reshape(int p) const;
  bool is_widening(int p) const;
  void index_block();
  int add_group(Kind kind, std::set<int> members);

  // From the root on, the nodes that `joins` accepts, as long as results stay within the limit.
  std::set<int> grow_forward(int root, size_t max_results, const std::function<bool(int)> &joins);
  void grow_backward(std::set<int> &members, const std::function<bool(int)> &joins);
  void absorb_weights(std::set<int> &members, int root);
  void absorb_operands(std::set<int> &members, int root);
  void absorb_dot_views(std::set<int> &members, int root);
  // `inner`: the last dims of a reader's operand in whose index offsets must be linear; all if 0.
  void absorb_views(std::set<int> &members, const std::set<int> &readers, size_t inner = 0);
  void fuse_contraction(int root);
  void fuse_rows(int root);
  void fuse_reduction(int root);
  void fuse_epilogue(int root);
  void fuse_lower(int root);

  // fusion_attention.cpp
  void fuse_attention(int root);

  // fusion_rows.cpp
  void join_rows();
  void join_contraction(int g);
  bool feeds_rows(int root, const TensorType &space) const;

  // fusion_elementwise.cpp
  void fuse_elementwise();
  bool join_users_group(int p);
  bool join_as_result(int p);
  bool same_size(const Shape &a, const Shape &b) const;
  // Whether what p makes comes, element by element, from rows that a gather reads.
  bool reads_rows(int p) const;
  bool fits(int p, int g, bool *identity = nullptr);
  std::optional<std::vector<Dim>> index_in_group(int p, int g) const;

  // fusion_build.cpp
  bool build();
  NodeId build_group(const Group &group);
  void sort_block(const std::vector<std::pair<int, NodeId>> &fusions);

  Module &module_;
  Function &function_;
  Block &block_;
  bool merge_heads_, gpu_;
  std::vector<int> position_;           // by value
  std::vector<std::vector<int>> users_; // by position: users of its results, each once, sorted
  std::vector<std::vector<int>> effects_after_; // by position: the next node with a side effect
  std::vector<bool> escapes_;                   // by position: a result of the block
  std::vector<std::vector<ValueId>> inputs_;    // by position: operands, and what regions capture
  std::vector<int> group_;                      // by position; -1: none
  std::vector<Group> groups_;
  std::vector<std::pair<ValueId, ValueId>> replaced_;
  std::vector<int> seen_; // by position: the search that met it last
  int epoch_ = 0;
  std::vector<std::optional<std::vector<Dim>>> index_; // by position, in an elementwise group
};

// Whether a dot or conv reads an operand through a convert of halves to f32 or of bytes to i32.
bool widens_for_product(const Function &function, const Node &product, ValueId operand);
// Whether a node, or one in its regions, must keep its place among others of the kind.
bool has_ordered_effect(const Function &function, const Node &node);

} // namespace kiln
