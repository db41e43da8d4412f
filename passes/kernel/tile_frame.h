// One register tile while its code is written: what it has of the rows and columns, the `unroll` loops over them, and where its
// accumulators lie.
//
//   for r in 0..6 unroll { for p in 0..2 unroll { for c in 0..2 unroll { acc[4*r + 2*p + c] ... } } }
#pragma once

#include "passes/kernel/tile_nest.h"

namespace kiln {

struct TileFrame {
  TileFrame() = default;
  // `first` of `rows` and `columns` is the tile's own.
  TileFrame(const TileNest &nest, const TileShape &shape, const TilePiece &rows, const TilePiece &columns, Names &names);

  TilePiece rows, columns;
  int64_t panels = 1, vectors = 1; // vectors: of each panel, or all of the columns where there are no panels
  Symbol row_var, panel_var, vector_var; // of the loops; none over a single one

  int64_t column_count() const { return panels * vectors; }
  Dim column() const; // the number of the column that the loops have come to
  Dim slot() const;   // the accumulator's
  std::vector<Stmt> over_panels(std::vector<Stmt> body) const;
  std::vector<Stmt> over_vectors(std::vector<Stmt> body) const; // of a panel
  std::vector<Stmt> over_columns(std::vector<Stmt> body) const { return over_panels(over_vectors(std::move(body))); }
  std::vector<Stmt> over_rows(std::vector<Stmt> body) const;

  // What the variables of the nest's loops over rows, panels and lanes are where the loops have come to; nothing for others.
  std::optional<Dim> position(const TileNest &nest, Symbol variable) const;
  // The first panel, or the value of the vector loop's variable in the first column where there are no panels.
  Dim first_column(const TileNest &nest) const;
};

inline std::vector<Stmt> wrap(Stmt s) {
  std::vector<Stmt> out;
  out.push_back(std::move(s));
  return out;
}
inline void append(std::vector<Stmt> &to, std::vector<Stmt> from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

} // namespace kiln
