// What a tile asks the caches for before it needs it: packed operands some steps ahead, what is added to the sums before they are
// computed, and, while the tiles of one column group are computed, the packed operand of the next group, a part in every round of
// the innermost reduction:
//
//   for g parallel { for t in 0..T parallel {                  column group, row tile
//     for k in 0..K step 4 serial {
//       ... b[P*K*16*g + 16*k + ...] ...
//       prefetch b[P*K*16*(g+1) + (t*K + k)*(P*16/T)], 2 } } }
//
// Weights come from memory once in a run, and the first row tile of a group would wait for them
// while all others find them in the cache: with this every tile pays the same small price, and the
// loads overlap with the arithmetic of all of them.
#pragma once

#include "passes/kernel/tile_depth.h"
#include "passes/kernel/tile_frame.h"

namespace kiln {

// A load of weights, or of what was laid in panels for this product before a loop.
bool is_packed(const Expr &e, const TileNest &nest, const Kernel &kernel);

// Weights stream through once for each tile: `operand`, one of a column, some steps of `loop` ahead.
std::vector<Stmt> prefetch_ahead(const Expr &operand, Symbol loop, const TileNest &nest, const TileShape &shape, const Kernel &kernel, const TileFrame &frame);

// What the statements behind the reductions of `body` add to the sums, a residual.
std::vector<Stmt> prefetch_added(const std::vector<Stmt> &body, const TileNest &nest, const TileShape &shape, const Kernel &kernel, const TileFrame &frame);

// Where a tile stands: symbols of the loops over groups and row tiles, and what a group holds.
struct TilePlace {
  Symbol tile;
  int64_t row_tiles = 1;
  Dim next_panel; // the first panel of the next group
  int64_t panels = 1;
  const DepthCut *cut = nullptr; // where the reduction is in pieces: the next piece is asked for
  std::vector<Stmt> reductions;  // around and including the innermost one, outermost first
};

// Prefetches of one round, `steps` of the innermost reduction, for `operand`, a load as the nest's body has
// it; none where the group's part of it is not one piece of memory of constant size.
std::vector<Stmt> prefetch_next_group(const Expr &operand, const TileNest &nest, int64_t steps, const TilePlace &place);

} // namespace kiln
