// One op of the table on one of its samples, as a module that can go through any pipeline: what the
// tests that derive from the op table start from.
#pragma once

#include "ir/graph.h"
#include "ir/ops/op.h"

namespace kiln::test {

// A module with one exported function `f`: the sample's operands as arguments, the op, its results.
Result<Module> sample_module(Op op, const OpSample &sample);
// Inputs for it, the same in every run.
std::vector<Tensor> sample_inputs(const OpSample &sample, uint64_t seed = 1);

// The sample with a symbol for every size above 1, the same for equal sizes; constants where an op
// needs to know a size are left to its infer to refuse.
OpSample symbolic(const OpSample &sample);

// The naive kernel that the module's one op lowers to, run as it is written.
Result<std::vector<Tensor>> run_kernel(const Module &module, const std::vector<Tensor> &inputs);

// "" where `got` is as near to `want` as the op allows in that dtype; else what differs, worst
// first.
std::string compare(const OpDef &def, const Tensor &got, const Tensor &want);

// "conv(f32[2, 3, 7, 5], f32[4, 3, 3, 3])", for messages.
std::string sample_text(Op op, const OpSample &sample);

} // namespace kiln::test
