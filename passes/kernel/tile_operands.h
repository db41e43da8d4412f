// Operands that are made of what they load (weights of a few bits or of halves), computed once for all rows of a
// column group instead of once for every tile of rows:
//
//   for g parallel {
//     alloc made: f32[K*64] stack
//     for p { for k { for c in 0..16 { made[64*k + 16*p + c] = (float(words[...] >> ... & 15) - z) * s[...] } } }
//     for t parallel { ... acc = fma(a[...], made[...], acc) } }
//
// A few rows read weights faster as they are stored; from some tens on, the arithmetic is what counts. A mere conversion is no
// dearer than the way through memory.
//
// Operands that lie across the vector loop are copied the same way, one after the other.
#pragma once

#include "passes/kernel/tile_depth.h"

namespace kiln {

// The largest expressions in the reductions of a nest with panels that its rows share and that are no mere loads;
// none where there are few rows.
std::vector<Expr> made_operands(const TileNest &nest);

// Whether there are groups enough to share out, for the loop over a group's rows then is no other thread's.
bool pays_to_make(const TileNest &nest, const TileShape &shape, const MachineDesc &machine);

// Elements of an operand in one step of `reduction`, for one column; 1 for another one's.
int64_t steps_inside(const TileNest &nest, const Expr &operand, Symbol reduction);

// Statements that compute `nest.made` for the column group number `group`, in pieces `columns`; the nest's body reads what they
// leave. `first` stands for the group's first panel. `cut`: only a piece of the reduction; null.
std::vector<Stmt> make_operands(TileNest &nest, const std::vector<TilePiece> &columns, Symbol group, Symbol first, const DepthCut *cut, Names &names);

// Statements that copy `nest.packed` for a group of `width` columns; the nest's body reads the copies.
std::vector<Stmt> pack_operands(TileNest &nest, int64_t width, Symbol group, const DepthCut *cut, Names &names);

} // namespace kiln
