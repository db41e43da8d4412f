// A nest of parallel loops around an accumulation, taken apart: which loop becomes vector lanes,
// which loops are jammed into rows and columns of a register tile, and in what pieces each is cut.
//
//   for m parallel { for n.o parallel { for n.i in 0..16 parallel {      row m, panel n.o, vector
//   n.i
//     acc = 0; for k reduce { acc += a[m, k] * b[n.o, k, n.i] }; c[m, n] = acc }}}
#pragma once

#include "codegen/machine.h"
#include "passes/kernel/schedule.h"
#include "passes/kernel/vector_expr.h"

namespace kiln {

// Reductions of at most so many steps are unrolled whole.
constexpr int64_t kUnrollWhole = 8;

struct TileNest {
  std::vector<Stmt> loops; // outermost first, without bodies
  std::vector<Stmt> body;  // of the innermost
  size_t vector = 0;
  std::optional<size_t> row, panel;
  int lanes = 1;
  int64_t block = 0;               // trips of the vector loop at most; 0 if it is long or unknown
  bool has_scalar_operand = false; // a load in the reduction is the same in every column
  bool reuses_rows = false;        // a vector load in the reduction is the same in every row
  int accumulators = 1;
  int dot_width = 0;            // products that a lane of a dot takes; 0 where there is none
  bool as_products = false;     // to be written as products of tiles (ir/kernel/tile_product.h)
  bool splits_operands = false; // of dots, into two registers each
  // Operands that lie across the vector loop, copied so that they lie along it: x[n*K + k] to p[k*W
  // + n].
  std::vector<Expr> packed;
  std::optional<Stmt> packed_along; // the reduction (without body) along which they are copied
  std::vector<Expr> made; // operands that are computed once for all rows of a group (tile_operands.h)
  // Rows in front and behind in which the bounds of the reduction differ from row to row.
  int64_t border_lo = 0, border_hi = 0;

  const Stmt &vector_loop() const { return loops[vector]; }
  // The loop that says in which turns the groups come from the last on; null if there is none.
  const Stmt *turning() const {
    for (const Stmt &l : loops)
      if (!l.index.is_const(0))
        return &l;
    return nullptr;
  }
};

// Nothing if the body is no accumulation or no loop suits as vector.
std::optional<TileNest> find_tile_nest(const Stmt &outermost, const MachineDesc &machine,
                                       const DimRanges &ranges);

// A nest that is irregular near the ends of its innermost loop (a window at the edge of an image,
// padding by reflection), as nests for the ends and one for the middle; empty if it is not such a
// nest.
std::vector<Stmt> split_at_borders(const Stmt &outermost, const DimRanges &ranges);

// `count` tiles of `size` rows or columns each, the first of which is at `first`.
struct TilePiece {
  Dim first, count;
  int64_t size = 1;
  bool masked = false; // the last vector of the last column may be partly outside
  bool border = false;
};

struct TileShape {
  std::vector<TilePiece> rows, columns; // a column is a panel, or a vector where there is no panel
  int64_t vectors_per_column = 1;
  int64_t packed_width = 0;   // columns of a copied operand
  int64_t depth = 0;          // steps of the outermost reduction in a piece; 0: all
  Symbol cut;                 // that reduction
  int64_t unroll = 4;         // steps of the innermost reduction in a round
  int64_t product_depth = 0;  // steps in a product of tiles at most; 0: no products of tiles
  int64_t prefetch_steps = 0; // how many steps ahead a packed operand is asked for; 0: never
  bool prefetch_next = false; // the next column group's part of it, into the second level
};

TileShape choose_tile_shape(const TileNest &nest, const MachineDesc &machine,
                            const TileChoice &choice);

// The tiled nest; nothing if a statement has no vector form.
std::optional<Stmt> emit_tile_nest(const TileNest &nest, const TileShape &shape,
                                   const Kernel &kernel, const DimRanges &ranges, Names &names);

} // namespace kiln
