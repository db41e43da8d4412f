// Reductions of a nest, as the forms split them over threads: what is updated, what a part begins with, and how two
// parts are joined.
#pragma once

#include "codegen/c/expr.h"
#include "ir/kernel/kernel.h"

#include <optional>
#include <string>
#include <vector>

namespace kiln::cuda {

// acc[0] = op(acc[0], term) with an op whose parts can be joined.
struct Update {
  Symbol acc;
  BinaryOp op = BinaryOp::add;
  DType dtype = DType::f32;
};

// The updates of a reduction whose innermost body has nothing but lets and updates of different accumulators; none
// where it has something else.
std::vector<Update> updates_of(const std::vector<Stmt> &body);
std::string identity_text(const Update &u);
// An expression of v_a and v_b.
std::string join_text(const Update &u, c::Helpers &helpers);

} // namespace kiln::cuda
