// Tensors and packages as text on a command line: written out for an input, shortened for an
// output.
#pragma once

#include <string>

#include "runtime/include/kiln/kiln.h"
#include "tools/npy_mini.h"

namespace kiln::tools {

// "2x3xf32=1,2,3,4,5,6", "f32=0.5" (a scalar), "4xi64=7" (one value fills all of it). Returns an
// empty string, or what is wrong.
std::string parse_tensor(const std::string &text, Tensor &tensor);

// "f32[2, 3] 1 2 3 4 5 6", with the middle left out where it is long.
std::string print_tensor(const Tensor &tensor);

// Entries with their inputs, outputs and dims, and variables, one a line.
std::string describe_module(const KilnApi &kiln, const KilnModule *module);

} // namespace kiln::tools
