// What chains are made of: kernels one after the other, of which each needs for a block of its result (some
// channels, some rows) only a block of what the one before it makes. Shared by the pass that makes chains
// and by their lowering.
#pragma once

#include "ir/graph.h"

#include <optional>

namespace kiln {

// Rows [stride * r + lo, stride * (r + n - 1) + hi) of a value, for rows [r, r + n) of another; or columns.
struct ReachOf {
  int64_t stride = 1, lo = 0, hi = 1;
  int64_t count(int64_t n) const { return stride * (n - 1) + hi - lo; }
  // What `earlier` reads of something for these rows of its result.
  ReachOf behind(const ReachOf &earlier) const;
};

// What a kernel reads of an operand for a block of its result, and whether it takes the same channels or all
// of them.
struct Reach {
  ReachOf rows, columns;
  bool all_channels = false;
};

// Whether a fusion is a chain: its region holds fusions, and ops that stand alone, one for each stage.
bool is_chain(const Node &node);

// Nothing where an operand's block is not of that form. The node is a kernel: a fusion or an op alone.
std::optional<Reach> reach_of(const Function &function, const Node &node, size_t operand);

} // namespace kiln
