// Products of matrices inside of a group's body, as in attention: the block's threads share the results, and every one
// keeps a small tile of sums in registers.
#pragma once

#include "codegen/cuda/nest.h"

#include <optional>

namespace kiln::cuda {

struct InnerPlace {
  int threads;
  int depth;                       // of the text
  const std::set<Symbol> &halves;  // buffers of the group that hold nothing but values of f16 or bf16
  int64_t stage_at = 0;            // shared memory that the product may use, from there on
  int64_t stage_bytes = 0;         // how much of it there is; then, how much is used
};

// Text to be run by all threads of a block, for a nest of parallel loops; nothing where it is no product or too small.
std::optional<std::string> try_inner_product(const Stmt &s, InnerPlace &place, const NestContext &context, c::Helpers &helpers);

// Whether a value is one of f16 or bf16, converted: then the tensor cores multiply it as it is.
bool is_half_valued(const Expr &e, const std::set<Symbol> &halves);

} // namespace kiln::cuda
