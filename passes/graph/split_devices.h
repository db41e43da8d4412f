// A function that computes on the processor and on a GPU, as parts that each compute on one of them.
#pragma once

#include "ir/placement.h"
#include "passes/pass.h"

namespace kiln {

// Appends the parts of an exported function to the module. The function itself stays, without its copies between
// devices: all of it on the processor. False after reporting errors.
bool split_devices(Module &module, size_t function, Diagnostics &diagnostics);

} // namespace kiln
