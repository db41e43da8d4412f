// Products of matrices inside of a group's body, as in attention: the block's threads share the results, and every one
// keeps a small tile of sums in registers.
#pragma once

#include "codegen/cuda/nest.h"

#include <optional>

namespace kiln::cuda {

// `s`: a nest of parallel loops; `halves`: buffers of the group that hold nothing but values of f16 or bf16. Text at
// `depth`, to be run by all `threads` of a block; nothing where the nest is no product or too small for it.
std::optional<std::string> try_inner_product(const Stmt &s, int threads, int depth, const std::set<Symbol> &halves, const NestContext &context,
                                             c::Helpers &helpers);

// Whether a value is one of f16 or bf16, converted: then the tensor cores multiply it as it is.
bool is_half_valued(const Expr &e, const std::set<Symbol> &halves);

} // namespace kiln::cuda
