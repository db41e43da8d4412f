// The reductions of a register tile: the order of their loops, and their steps in products of tiles.
#pragma once

#include "ir/kernel/kernel.h"
#include "passes/kernel/rewrite.h"

#include <functional>

namespace kiln {

bool is_innermost(const Stmt &loop);

// A perfect nest of reductions in the order in which the operands that move with `vector` lie in memory, the
// largest stride first, each without its body; `body` becomes that of the innermost. As they were where no such
// order is known.
std::vector<Stmt> ordered_reductions(const Stmt &loop, Symbol vector, std::vector<Stmt> &body);

// The rows of a product of tiles are contiguous along its steps, `dot_width` elements each: that reduction becomes
// the innermost. False where there is none.
bool row_steps_innermost(std::vector<Stmt> &loops, const std::vector<Stmt> &body, int64_t dot_width, Symbol vector);

// The steps of a loop in products of nearly equal depth, `largest` at most; `shifted` is the body at a step, `beside`
// what goes on beside a product of so many steps.
std::vector<Stmt> products_of_tiles(const Stmt &loop, int64_t largest,
                                    const std::function<std::vector<Stmt>(const Dim &)> &shifted,
                                    const std::function<std::vector<Stmt>(Symbol, int64_t)> &beside, Names &names);

} // namespace kiln
