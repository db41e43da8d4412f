// Which element of an operand an element of the result comes from, as an expression: what decides
// whether a movement op costs nothing when the kernel that uses it reads through it.
#pragma once

#include "ir/graph.h"

#include <optional>
#include <span>

namespace kiln {

// A symbol for each dim of a shape (0 where its size is 1), and their ranges.
struct IndexSpace {
  std::vector<Dim> index;
  DimRanges ranges;
  std::vector<Symbol> symbols; // of the dims that are not of size 1
};
IndexSpace index_space(const Shape &shape);

// The index of operand `i` behind the result's element at `index`, for elementwise and movement
// ops; nothing where it is not one element or depends on data.
std::optional<std::vector<Dim>> operand_index(const Function &function, const Node &node, int i,
                                              std::span<const Dim> index, const DimRanges &ranges);

// Whether a dim is a constant plus a sum of strides times symbols of the space.
bool is_linear(const Dim &offset, const IndexSpace &space);

// Whether op moves elements without changing them and its operand index is an expression: reading
// through it costs index arithmetic only.
bool is_view(const Node &node);

// Whether a value is made of constants alone by ops on elements and movement, codes in words taken apart among them:
// weights of a few bits, which are not folded (fold.cpp) but unpacked as a product reads them (pack_weights.cpp).
bool unpacks(const Function &function, ValueId value);
bool is_made_of_constants(const Function &function, ValueId value);

// Whether a value is made of the numbers of its elements alone, as masks of late keys are: cheaper to make than to read.
bool is_made_of_indices(const Function &function, ValueId value);

// Sizes other than 1.
Shape squeezed(const Shape &shape);

} // namespace kiln
