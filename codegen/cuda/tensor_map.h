// Operands that the device copies by itself, a box at a time (tensor maps, 9.0 and newer): PTX ISA "Tensors" and
// "cp.async.bulk.tensor", and cuTensorMapEncodeTiled of the driver.
//
// A plain operand whose rows or columns are one axis of memory, whose sum is another one, and whose batch loops are further
// ones, is a tensor to the device: one thread asks for a box of it, which lands in lines of 128 bytes with the swizzle that
// warpgroups read, zeros where it is past the end. Nobody computes addresses, and nobody's registers hold what is under way.
#pragma once

#include "codegen/cuda/product.h"

#include <optional>
#include <string>
#include <vector>

namespace kiln::cuda {

struct MappedOperand {
  TensorMap map;
  std::vector<std::string> batch; // the variables of the axes behind the first two
};

// `own_box`, `sum_box`: how much of its rows or columns, and of the sum, a box has; `is_along`: whether the sum is the first
// axis. Nothing where the operand is no such tensor.
std::optional<MappedOperand> map_operand(const Expr &load, int element, const Loops &own, const Loops &sum, const Loops &batch, int own_box, int sum_box,
                                         bool is_along, const NestContext &context);

// The helper of kernels that copy so, and its definition: kiln_tensor_map, kiln_copy_box and the barriers kiln_ring_*.
inline constexpr std::string_view kTensorCopies = "kiln_tensor_copies";
extern const std::string_view kTensorCopiesText;

} // namespace kiln::cuda
