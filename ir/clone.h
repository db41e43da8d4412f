// Copies of nodes in another place: inlining, duplication into fusions, unrolled regions.
#pragma once

#include "ir/graph.h"

#include <unordered_map>

namespace kiln {

using ValueMap = std::unordered_map<ValueId, ValueId>;
using DimMap = std::unordered_map<Symbol, Dim>;

// Types and attributes with symbols replaced.
TensorType substituted(const TensorType &type, const DimMap &dims);
Attrs substituted(const Attrs &attrs, const DimMap &dims);

// Emits copies of the nodes of `block`, which may be of another function, through `b`. Operands are
// looked up in `values`, those that are missing are taken to be visible in the new place; results
// are added to it. An error is a type that does not fit after substitution.
Status clone_nodes(GraphBuilder &b, const Function &from, const Block &block, ValueMap &values,
                   const DimMap &dims = {});
// One node.
Status clone_node(GraphBuilder &b, const Function &from, NodeId node, ValueMap &values,
                  const DimMap &dims = {});

} // namespace kiln
