// Statements as C. The cuda target prints the same text, but for how a trap leaves the function and how
// GPU axes become loops.
#pragma once

#include "codegen/c/expr.h"
#include "ir/kernel/scratch.h"

namespace kiln::c {

struct StmtStyle {
  std::string trap; // of an assert that fails, with {} for the trap's number: "frame->trap = {}; return;"
  const ScratchLayout *scratch = nullptr; // allocs that do not lie on the stack, if any
  std::string scratch_block;              // what they lie in: an expression of type uint8_t *
  std::string index_type = "int64_t";     // of loop variables
};

std::string c_body(const std::vector<Stmt> &body, int depth, const StmtStyle &style, Helpers &helpers);

} // namespace kiln::c
