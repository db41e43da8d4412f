#include "passes/kernel/tile_frame.h"

namespace kiln {
namespace {

std::vector<Stmt> unrolled(Symbol variable, int64_t count, std::vector<Stmt> body) {
  return variable.empty() ? body : wrap(kb::loop(variable, 0, count, LoopKind::unroll, std::move(body)));
}

Dim value_of(Symbol variable) { return variable.empty() ? Dim(0) : Dim::symbol(variable); }

} // namespace

TileFrame::TileFrame(const TileNest &nest, const TileShape &shape, const TilePiece &rows_, const TilePiece &columns_, Names &names)
    : rows(rows_), columns(columns_), panels(nest.panel ? columns_.size : 1), vectors(nest.panel ? shape.vectors_per_column : columns_.size) {
  row_var = rows.size > 1 ? names.fresh("r") : Symbol();
  panel_var = panels > 1 ? names.fresh("p") : Symbol();
  vector_var = vectors > 1 ? names.fresh("c") : Symbol();
}

Dim TileFrame::column() const { return value_of(panel_var) * Dim(vectors) + value_of(vector_var); }
Dim TileFrame::slot() const { return column() + value_of(row_var) * Dim(column_count()); }

std::vector<Stmt> TileFrame::over_panels(std::vector<Stmt> body) const { return unrolled(panel_var, panels, std::move(body)); }
std::vector<Stmt> TileFrame::over_vectors(std::vector<Stmt> body) const { return unrolled(vector_var, vectors, std::move(body)); }
std::vector<Stmt> TileFrame::over_rows(std::vector<Stmt> body) const { return unrolled(row_var, rows.size, std::move(body)); }

Dim TileFrame::first_column(const TileNest &nest) const {
  return nest.panel ? columns.first : nest.vector_loop().begin + columns.first * Dim(nest.lanes);
}

std::optional<Dim> TileFrame::position(const TileNest &nest, Symbol variable) const {
  if (variable == nest.vector_loop().name)
    return (nest.panel ? Dim(0) : first_column(nest)) + value_of(vector_var) * Dim(nest.lanes);
  if (nest.panel && variable == nest.loops[*nest.panel].name)
    return columns.first + value_of(panel_var);
  if (nest.row && variable == nest.loops[*nest.row].name)
    return rows.first + value_of(row_var);
  return std::nullopt;
}

} // namespace kiln
