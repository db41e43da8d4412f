// Neighbouring iterations of a loop by one thread, which loads and stores up to 16 bytes at a time.
#pragma once

#include "codegen/cuda/nest.h"

#include <set>

namespace kiln::cuda {

// All terms are multiples of `n`, whatever the symbols are.
bool is_multiple(const Dim &dim, int64_t n);

// How many iterations of `loop` a thread does at once: 1 where its body has more than lets, stores and asserts, where
// what it reads or writes does not move by one with the loop, or where addresses may not be aligned. Iterations that
// are left over in the end need `has_tail`. `accumulators` are a thread's own.
int vector_width(const Stmt &loop, bool has_tail, const std::set<Symbol> &accumulators, const NestContext &context);

// The body for `width` iterations, of which the loop's variable holds the first; the loop's step is what it was or
// `width`. What is past the end is left out, one by one where the end is no multiple of the width.
std::string vector_turn(const Stmt &loop, int width, int depth, const std::set<Symbol> &accumulators, const NestContext &context,
                        c::Helpers &helpers);

} // namespace kiln::cuda
