// What chains are made of: kernels one after the other, of which each needs for a block of its result (some
// channels, some rows) only a block of what the one before it makes. Shared by the pass that makes chains
// and by their lowering.
#pragma once

#include "ir/graph.h"

#include <optional>

namespace kiln {

// Places [stride * r + lo, stride * (r + n - 1) + hi) along a dim, for places [r, r + n) of something else.
struct Span {
  int64_t stride = 1, lo = 0, hi = 1;
  int64_t count(int64_t n) const { return stride * (n - 1) + hi - lo; }
};
// Of what `inner` says, what `outer` needs.
Span behind(const Span &outer, const Span &inner);

// What a kernel reads of an operand for a block of its result: rows and columns by spans, and the same
// channels or all of them.
struct Reach {
  Span rows, columns;
  bool all_channels = false;
};

// Whether a fusion is a chain: its region holds fusions, and ops that stand alone, one for each stage.
bool is_chain(const Node &node);

// Nothing where an operand's block is not of that form. The node is a kernel: a fusion or an op alone.
std::optional<Reach> reach_of(const Function &function, const Node &node, size_t operand);

} // namespace kiln
