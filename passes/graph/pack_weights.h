// Weights whose author keeps them in 8 bits or fewer stay so: products unpack them as they read.
#pragma once

#include "passes/pass.h"

#include <map>

namespace kiln {

// dot(x, dequantize(codes, s, z)) with codes that are constant and x in floats reads words of 32 bits with the codes
// of neighbouring rows. For integer_products, which has done what has codes on both sides.
Changed pack_weights(Module &module, Function &function);

// Weights of bf16 that a few rows are multiplied by in f32: two neighbouring rows of a column in a word, so that a vector is
// loaded once for two steps. Where there are many rows, what it takes to widen them counts less than longer steps.
class PairedWeights {
public:
  explicit PairedWeights(Module &module) : module_(module) {}
  // f32[K, N] of the constant bf16 weights of `dot`; nothing where they stay as they are.
  std::optional<ValueId> widened(GraphBuilder &b, const Node &dot, ConstantId weights);

private:
  Module &module_;
  std::map<std::pair<size_t, bool>, ConstantId> words_;
};

} // namespace kiln
