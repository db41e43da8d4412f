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
#pragma once

#include "passes/kernel/tile_nest.h"

namespace kiln {

// The largest expressions in the reductions of a nest with panels that its rows share and that are no mere loads;
// none where there are few rows.
std::vector<Expr> made_operands(const TileNest &nest);

// Whether there are groups enough to share out, for the loop over a group's rows then is no other thread's.
bool pays_to_make(const TileNest &nest, const TileShape &shape, const MachineDesc &machine);

// Elements of an operand in one step of `reduction`, for one column; 1 for another one's.
int64_t steps_inside(const TileNest &nest, const Expr &operand, Symbol reduction);

// How one of them lies in the memory that it is written to.
struct MadeOperand {
  Expr value;
  Symbol buffer, first; // `first` stands for the group's first panel
  struct Step {
    Symbol name;
    Dim begin;
    int64_t trips;
    Dim count; // of trips in a piece
  };
  std::vector<Step> steps; // reductions, outermost first
  int64_t width = 0;       // columns of a group

  int64_t elements() const;
  Expr load(const TileNest &nest) const;
  // Fills it for `panels` panels from `base` on.
  std::vector<Stmt> fill(const TileNest &nest, const Dim &base, int64_t panels, Names &names) const;
};

} // namespace kiln
