// The bilinear algorithms F(m x m, 3 x 3) of Winograd's minimal filtering: m x m results of a 3 x 3
// convolution from (m + 2)^2 products instead of 9 m^2.
//
//   y = A' [ (G w G') * (B' d B) ] A
//
// Cook and Toom's construction over the points 0, +-p, (+-q,) and infinity. For m = 4 the points are
// +-5/8 and +-3/2: with the usual +-1 and +-2 the rounding error of f32 is twice as large (about
// four times that of the direct sum, against two), at the same number of operations.
#pragma once

#include "ir/ops/op.h"

#include <array>
#include <vector>

namespace kiln {

inline constexpr double kWinogradP = 0.625, kWinogradQ = 1.5;

// Matrices row by row; `tile` is 2 or 4.
struct WinogradMatrices {
  int64_t tile, points; // m and m + 2
  std::vector<std::vector<double>> input, weights, output;
};
const WinogradMatrices &winograd_matrices(int64_t tile);

// The same as code, on one row or column; intermediate values are named through `c`.
std::vector<Expr> winograd_input_row(LowerContext &c, int64_t tile, const std::vector<Expr> &d);
std::vector<Expr> winograd_output_row(LowerContext &c, int64_t tile, const std::vector<Expr> &m);
std::vector<Expr> winograd_weights_row(LowerContext &c, int64_t tile, const std::vector<Expr> &g);

} // namespace kiln
