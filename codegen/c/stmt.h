// Statements as C. The cuda target prints the same text, but for how a trap leaves the function and how
// GPU axes become loops.
#pragma once

#include "codegen/c/expr.h"

namespace kiln::c {

struct StmtStyle {
  std::string trap; // of an assert that fails, with {} for the trap's number: "frame->trap = {}; return;"
};

std::string c_body(const std::vector<Stmt> &body, int depth, const StmtStyle &style, Helpers &helpers);

} // namespace kiln::c
