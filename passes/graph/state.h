// Pairs of inputs and outputs that carry state from run to run become variables.
//
// A decoder that is exported with its cache takes `past` and gives `present`, and whoever runs it passes
// the one as the other. As a variable the cache stays where it is. There are two forms:
//
//   of one static shape    h = read_variable(@h); ...; assign(@h, present)
//   growing along an axis, past: [1, 4, P, 8] and present = concat(past, new, axis=2): [1, 4, P + n, 8]
//     dim P = 0..256 from P.length
//     state past: [256, 1, 4, 8]                     the axis that grows is outermost
//     assign(@past, permute(new), at=P)
//     present = permute(slice(read_variable(@past), axes=[0], starts=[0], ends=[P + n]))
//     assign(@P.length, P + n)
//
// The symbol P is then no longer told by an input: the runtime takes it from P.length.
#pragma once

#include "ir/graph.h"

namespace kiln {

struct StatePair {
  std::string past, present; // an input and an output
  int64_t capacity = 0;      // of an axis that grows; 0: the upper bound of its dim
};

struct StateOptions {
  bool find = false;         // pairs whose names say what they are: past.0.k and present.0.k
  int64_t capacity = 0;      // of those
  std::vector<StatePair> pairs;
};

// False where there were errors: names that do not exist, shapes that do not match.
bool make_state(Module &module, const StateOptions &options, Diagnostics &diagnostics);

} // namespace kiln
