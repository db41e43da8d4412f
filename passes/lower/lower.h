// Lowering: from the graph to kernels and a plan. One node of a function's body (a fusion, or an op that
// was left alone) becomes one naive kernel; the plan says in which order they run and where every value
// lies. Nothing is tiled or vectorised here: that is the kernel passes' work.
//
//   y = fusion(x, w, b) { c = conv(x, w); d = add(c, b); relu(d) }
//     ->  for n, oc.o, oh, ow, oc.i { acc[0] = 0; for ic, kh, kw reduce { acc[0] = add(acc[0], mul(..)) }
//                                     y[..] = max(add(acc[0], b[..]), 0) }
#pragma once

#include "ir/plan.h"

namespace kiln {

// A kernel and the values its buffers hold: first what it reads, then what it writes.
struct LoweredNode {
  Kernel kernel;
  std::vector<ValueId> values; // one for each of kernel.buffers
};

struct LowerOptions {
  bool gpu = false; // parts of a kernel that share memory are small enough for a block of threads
};

// The node must not be structural (constants, control flow and variables are the plan's).
LoweredNode lower_node(const Module &module, const Function &function, NodeId node, const LowerOptions &options = {});

// All exported functions. Calls must have been inlined and composites decomposed; errors name the node.
bool lower_module(const Module &module, Program &program, Diagnostics &diagnostics, const LowerOptions &options = {});

} // namespace kiln
