// Rows of weights that are made and used up span by span, as lowering leaves an attention for a GPU:
//
//   maximum = -inf; sum = 0; out = 0
//   for span { s = f(q k); m = max(maximum, s); w = exp(s - m); sum = sum * exp(maximum - m) + w; out = out * .. + w v }
//   y = g(out, sum)
//
// Queries, weights, sums and maxima stay in registers; only keys and values go through shared memory, the next span's while
// this one's are multiplied.
#pragma once

#include "codegen/cuda/product.h"

#include <optional>
#include <vector>

namespace kiln::cuda {

struct StreamedSoftmax {
  std::vector<Stmt> before;      // lets of a share
  const Stmt *span = nullptr;    // the loop over spans
  std::vector<Stmt> inside;      // lets of a span
  Product scores, values;        // q k, w v; rows, columns and the sum of `values` are one loop each, or no row loop
  Symbol sums, weighted;         // what the last step reads
  const Stmt *last_rows = nullptr; // loops of the last step; none where there is one row
  std::vector<Stmt> last;        // its lets, for a row
  const Stmt *last_columns = nullptr;
  int64_t rows = 0, keys = 0;    // the most of a share, of a span
};

// The body of a share, behind the loops `outer`.
std::optional<StreamedSoftmax> match_streamed_softmax(const std::vector<Stmt> &body);

// One launch; two where spans are shared by several blocks, whose parts the second one joins. None for other nests.
std::vector<GpuNest> try_emit_streamed_softmax(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, const NestContext &context);

} // namespace kiln::cuda
