// What passes share that replace an operation by others: the new value of a statement, and the lets that it
// needs, in front of the statement.
#pragma once

#include "passes/kernel/math_builder.h"

#include <functional>

namespace kiln {

// `rewrite` changes an expression, args and all, wherever `needs` holds for it or for one below it. False if
// there is none.
bool expand_values(Kernel &kernel, const std::function<bool(const Expr &)> &needs,
                   const std::function<void(Expr &, MathBuilder &)> &rewrite);

} // namespace kiln
