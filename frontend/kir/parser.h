// Tokens to a syntax tree. A statement with an error is reported and left out; parsing goes on with the
// next, so that one run shows every mistake.
#pragma once

#include "frontend/kir/ast.h"

#include <string_view>

namespace kiln::kir {

// Depth of nested brackets, blocks and operators that is accepted.
inline constexpr int kMaxDepth = 160;

SourceFile parse_file(Symbol name, std::string_view text, Diagnostics &diagnostics);

} // namespace kiln::kir
