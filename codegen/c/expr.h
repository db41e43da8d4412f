// Expressions and index arithmetic as C.
#pragma once

#include "ir/kernel/kernel.h"

#include <set>
#include <string>

namespace kiln::c {

// Helper functions that the emitted expressions call; the file defines those that are used.
using Helpers = std::set<std::string>;

std::string c_type(DType dtype);    // of a value: f16 and bf16 are stored as uint16_t
std::string c_name(Symbol symbol);  // a C identifier; different symbols of one kernel stay different
std::string c_dim(const Dim &dim, Helpers &helpers);
std::string c_expr(const Expr &expr, Helpers &helpers);
// The definition of a helper.
std::string helper_text(const std::string &name);

} // namespace kiln::c
