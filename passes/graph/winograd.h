// What the pass winograd would gain, for passes before it that choose between its form and another one.
#pragma once

#include "passes/pass.h"

namespace kiln {

// How many times faster than direct sums a convolution becomes by what context.flags allow; 1 where it
// stays as it is.
double winograd_gain(const Module &module, const Function &function, const Node &conv, const PassFlags &flags);

} // namespace kiln
