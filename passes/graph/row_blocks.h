// How a contraction and the reductions over its columns are computed together: a block of rows at a time, whose
// columns, all of them, lie in scratch memory between the product's tiles and what reduces them.
//
//   s = dot(x, w) + b; y = s / sum(s)   ->   for blocks of rows { s[.., ..] = dot(x, w) + b;  y = s / sum(s) }
#pragma once

#include "ir/type.h"

#include <optional>

namespace kiln {

struct RowBlocks {
  int dim = -1;     // of the result, cut into blocks; -1: it has one row
  int64_t rows = 1; // of a block; the last may have fewer
};

// For the result `space` of a contraction over `depth` elements, with as many of its second operand to be read for every
// block. Nothing where separate kernels are the better choice: rows that are too long, an operand that would be read
// again and again from far away, or one block that would keep one thread busy for long.
std::optional<RowBlocks> row_blocks(const Shape &space, const Dim &depth);

// What serves any matrix: blocks of a few rows.
RowBlocks few_rows(const Shape &space);

// Elements from one row of a block to the next: an odd number of panels, so that rows lie at different places in
// the cache.
int64_t padded_row(int64_t columns);

} // namespace kiln
