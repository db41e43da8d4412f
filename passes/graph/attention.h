// What makes an attention of two dots: scores = f(q k^T), a softmax over the keys, weights = g(softmax),
// out = weights v. f and g are elementwise (a scale, a mask, a guard against rows that see no key), and
// reshapes that regroup the dims before the last two may stand anywhere between.
//
//   s = dot(q, k, transpose_b) * c + mask;  e = exp(s - reduce_max(s));  y = dot(e / reduce_sum(e), v)
#pragma once

#include "ir/graph.h"

#include <optional>
#include <utility>

namespace kiln {

// Nodes from a value back to another, each with the operand through which the way goes.
using OperandPath = std::vector<std::pair<NodeId, int>>;

struct AttentionParts {
  NodeId keys_dot, values_dot;
  ValueId scores;      // what the softmax is of
  ValueId exponential; // exp(scores - max)
  ValueId maximum, sum;
  ValueId normalised; // exponential / sum
  ValueId weights;    // the left operand of values_dot
  OperandPath to_normalised; // from weights; empty where they are the same
  OperandPath to_dot;        // from scores to the result of keys_dot
  bool nan_to_zero = false;  // weights = where(is_nan(normalised), 0, normalised)
  std::vector<NodeId> softmax; // the nodes from the weights back to the maximum, all of them
};

// The attention whose last node is this dot, if it is one.
std::optional<AttentionParts> match_attention(const Module &module, const Function &function,
                                              NodeId values_dot);

} // namespace kiln
