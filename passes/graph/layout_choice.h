// Which convolutions work on rows of pixels instead of blocks of channels: a choice by cost over a whole block of
// kernels.
//
// Blocks fill a vector's lanes with output channels, rows with pixels. Eight channels in lanes of sixteen leave half of
// the machine unused, 28 pixels an eighth; but where a convolution differs from its neighbours, what lies between them is
// copied from one layout to the other, unless it reads rows and writes blocks, which costs nothing (the other way round would
// scatter). So what each kernel reads and what it writes is of one kind of two, both have a cost in cycles for every
// convolution (codegen/layout_costs.h), and every value whose reader is of another kind than its maker costs its copy. The
// cheapest choice is a minimum cut.
#pragma once

#include "passes/graph/layout_roles.h"
#include "passes/pass.h"

#include <map>

namespace kiln {

// Those that are not of the form `blocks`.
std::map<NodeId, ConvForm> conv_forms(const Module &module, const Function &function, const Block &block,
                                      const std::map<NodeId, KernelWants> &wants, const PassFlags &flags);

} // namespace kiln
