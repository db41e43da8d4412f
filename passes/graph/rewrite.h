// What passes over the graph share: walking nested blocks, and rewriting nodes in one sweep.
//
// A sweep visits each node after those before it, with operands that are up to date, and may put
// new nodes before it and replace its results. Replacements reach later nodes as the sweep meets
// them, so that a sweep is linear in the size of the function however much it rewrites.
#pragma once

#include "passes/pass.h"

#include <functional>

namespace kiln {

// Every block of a function, outer before inner.
void for_each_block(Function &function, const std::function<void(Block &)> &visit);
// Blocks whose nodes become kernels, outer before inner: all but those of fusions.
std::vector<Block *> kernel_blocks(Function &function);
// Every node, regions' nodes after the node that has them.
void for_each_node(const Function &function, const std::function<void(NodeId)> &visit);
// The same for one block.
void for_each_node(const Function &function, const Block &block,
                   const std::function<void(NodeId)> &visit);

// Every symbol in the types of a node's results, of its regions' arguments and in its attributes (not what
// stands in the regions).
void for_each_size(const Function &function, const Node &node, const std::function<void(Symbol)> &visit);

// Of one dtype and rank, and no size certainly differs. Sizes that a module requires to be equal may be
// written in two ways.
bool may_be_equal(const TensorType &a, const TensorType &b);

class Sweep {
public:
  Sweep(Module &module, Function &function);

  // Calls `visit` for every node, regions' nodes before the node that has them.
  Changed run(const std::function<void(Sweep &, NodeId)> &visit);

  Module &module() { return module_; }
  Function &function() { return function_; }
  const Node &node(NodeId id) const { return function_.node(id); }
  // Emits before the node being visited, with its location.
  GraphBuilder &builder() { return builder_; }
  // Uses of `from` after this node become uses of `to`, which takes its name if it has none. The
  // node is removed when all of its results are replaced.
  void replace(ValueId from, ValueId to);
  void replace_results(NodeId node, std::span<const ValueId> to);
  // Removes the node; its results must be unused or replaced.
  void remove(NodeId node);
  // Says that the visitor changed the node itself.
  void mark_changed() { changed_ = Changed::yes; }
  ValueId resolve(ValueId value);
  // Uses at the start of the sweep; 0 for values made since.
  int uses(ValueId value) const { return size_t(value) < uses_.size() ? uses_[size_t(value)] : 0; }
  // How many fusion regions are around the node being visited.
  int fusion_depth() const { return fusion_depth_; }

private:
  void run_block(Block &block, const std::function<void(Sweep &, NodeId)> &visit);

  Module &module_;
  Function &function_;
  GraphBuilder builder_;
  std::vector<ValueId> replacement_;
  std::vector<int> uses_;
  Changed changed_ = Changed::no;
  int fusion_depth_ = 0;
};

// The constant's tensor; null where the value is not a constant.
const Tensor *constant_tensor(const Module &module, const Function &function, ValueId value);
// The one number that every element of a constant is; nothing where it has several or none.
std::optional<double> splat_value(const Module &module, const Function &function, ValueId value);

} // namespace kiln
