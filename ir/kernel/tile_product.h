// Products of tiles: the part of a register tile that machines with matrix registers have as one
// instruction. Dots (ir/kernel/dot.h) of bytes, or of two bf16, for all rows and columns of a tile and so
// many steps of its reduction, unrolled:
//
//   for k in 0..16 unroll {                                       depth
//     alloc col: i8x64[2] reg
//     for p in 0..2 unroll { col[p; x64] = b[64*k + 1024*p + .. ; x64] }
//     for r in 0..32 unroll {
//       let row: u8x4 = a[4*k + 512*r + .. ; x4]
//       for p in 0..2 unroll { sums[p + 2*r; x16] = fma(row, col[p; x64], sums[p + 2*r; x16]) } } }
//
// It is no kind of statement of its own, so that every other target and the interpreter need not know
// of it; the scheduler makes this form and targets recognise it. Sums of bytes are exact. Those of bf16 may be
// added up in any fixed order: machines keep sums of the even and of the odd products of a row, from zero on, and
// add both to what is there.
#pragma once

#include "ir/kernel/kernel.h"

namespace kiln {

// Fewer are no product: one takes as long, and vectors do them sooner.
constexpr int64_t kLeastProductRows = 4, kLeastProductDepth = 4;

struct TileProduct {
  Symbol sums;                              // x16[rows * columns], of row r and column p at p + columns * r
  DType dtype = DType::i32;                 // of the sums
  int64_t rows = 0, columns = 0, depth = 0; // depth in groups of four bytes
  Expr row;                                 // of the first row and step; a row's steps are contiguous
  Expr column;                              // of the first column and step
  Dim row_stride, column_stride, column_step; // from a row to the next, a column, a step of a column
};

// The unrolled loop as a product; nothing if it is anything else.
std::optional<TileProduct> tile_product(const Stmt &loop);

} // namespace kiln
