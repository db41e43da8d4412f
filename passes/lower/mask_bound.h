// How far ahead of a query the keys lie that a constant mask lets it see.
#pragma once

#include "passes/graph/attention.h"

#include <functional>
#include <vector>

namespace kiln {

// The least r such that queries before e see no key at or after e + r, for any e, as far as constant
// masks between the first dot and the softmax show it: added numbers so low that exp() gives 0, or
// `where` with such a number. 0 for a causal mask; nothing where there is no such mask or it hides
// no key in that way. A hidden key counts as weight 0, whatever its values are.
std::optional<int64_t> mask_reach(const Module &module, const Function &function,
                                  const AttentionParts &parts,
                                  const std::function<ValueId(ValueId)> &resolve);

// A constant mask that hides the keys at and behind query + reach and no others: what it adds to them, or that it is the
// condition of a `where`. It need not be read.
struct BandMask {
  NodeId node;
  int operand = 0; // of the node: the mask
  int64_t reach = 0;
  bool is_condition = false, seen = true; // the condition's value for keys that are seen
  double hidden = 0;                      // what is added to the others
};
std::vector<BandMask> band_masks(const Module &module, const Function &function, const AttentionParts &parts, const std::function<ValueId(ValueId)> &resolve);

} // namespace kiln
