// Sums of products, as the tile form sees them: two operands, and the loops that each one knows.
#pragma once

#include "codegen/cuda/nest.h"
#include "codegen/cuda/rectangle.h"

#include <optional>
#include <vector>

namespace kiln::cuda {

using Loops = std::vector<const Stmt *>;

// What an operand is short of the rectangle of its loops.
struct OperandEdges {
  std::vector<Guard> guards; // where one does not hold, the operand counts as zero
  std::optional<Dim> count;  // of rows or columns, whose loops run further
};

struct Product {
  const Stmt *acc = nullptr, *init = nullptr;
  Expr a, b; // of rows and sum, of columns and sum; batch in both
  Loops batch, rows, columns, sum;
  std::vector<Stmt> after; // what is done with each sum
  DType dtype = DType::f32; // of the sums
  // What tensor cores multiply: the dtype of the loads that `a` and `b` are then; of bytes, that of `a`.
  std::optional<DType> narrow;
  bool is_exact = false; // f32 of halves and bytes, which lose nothing as tf32
  OperandEdges a_edges, b_edges;

  Dim count_rows() const { return a_edges.count.value_or(product_of(rows)); }
  Dim count_columns() const { return b_edges.count.value_or(product_of(columns)); }
};

// Gives the product, matched in the rectangle's nest, what the rectangle is not; false where no operand can have it.
bool take_edges(Product &p, const Rectangle &rectangle);

// `may_be_row`: loops over rows may be missing.
std::optional<Product> match_product(const Stmt &nest, bool may_be_row = false);
// Whether some load moves by one element with the loop.
bool moves_by_one(const Expr &e, Symbol loop);
// Makes `a` and `b` the loads of what tensor cores multiply, where they do.
void take_narrow(Product &p, const GpuMachine &machine);

} // namespace kiln::cuda
