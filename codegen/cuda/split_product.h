// Products of f32 on tensor cores that multiply numbers of 11 bits (tf32), as exact as fused multiply-adds.
//
// Each number is big + small: big rounded to 11 bits, small what is left, of which the tensor cores take 11 bits in their turn. a * b is
// small * big + big * small + big * big then; what is missing is below 2^-22 of it (Ootomo and Yokota, "Recovering single precision accuracy from Tensor
// Cores while surpassing the FP32 theoretical peak performance", 2022). Tensor cores cut their sums off instead of rounding them (Fasi, Higham,
// Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021), which a long sum would feel. So they add up eight steps from zero at a time, and
// threads add that to the sum, rounding to the nearest.
//
// Infinities and numbers that are rounded to one have no small part: the sum is no finite number then. Such sums are computed again, step by
// step, by fused multiply-adds.
#pragma once

#include "codegen/cuda/product.h"

#include <string>

namespace kiln::cuda {

struct SplitProduct {
  const Product &product;
  const NestContext &context;
  int down, across; // groups of 16x8 sums of a warp: kiln_acc[down][across][4]
  int depth;        // steps in a stage
  // Values that have 11 bits as they are: their small parts are left out.
  bool rows_are_exact() const, columns_are_exact() const;

  // Multiplies a stage. `rows`: reads the fragment i of 16 rows into kiln_rows; `columns`: the fragment j of 16 columns into kiln_columns[j].
  std::string multiply(const std::string &rows, const std::string &columns) const;
  // Computes the sums that are no finite numbers again. `row`, `column`: of the thread's sum e in the group i, j.
  // `steps`: the limits of the sum that the block computes.
  std::string repair(const std::string &row, const std::string &column, const std::string &begin, const std::string &end, c::Helpers &helpers) const;
};

} // namespace kiln::cuda
