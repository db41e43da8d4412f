// Products that 128 threads issue together and the tensor cores read from shared memory themselves (wgmma, sm_90a):
// PTX ISA 9.7.15, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions".
//
// Both operands are told by 64-bit descriptors: where they begin and how their lines of 128 bytes follow each other
// (TileOperand::descriptor). They lie along the sum, or, where elements have 16 bits, across it. The sums stay in registers,
// spread over a warp's lanes as mma.sync spreads 16x8 of them.
#pragma once

#include "ir/dtype.h"

#include <cstdint>
#include <string>

namespace kiln::cuda {

struct WarpgroupProduct {
  DType a = DType::bf16, b = DType::bf16;
  int columns = 256;
  bool a_across = false, b_across = false;

  // The function void name(sum (&d)[columns / 8][4], uint64_t a, uint64_t b): d += a * b, for 32 bytes along the sum.
  std::string name() const;
};

// The 64 bits that describe an operand in shared memory but for its address: lines of 128 bytes with the swizzle of that size.
// `across`: the operand lies across the sum, 128 bytes of steps deep. The address, by 16, is added to them.
uint64_t warpgroup_descriptor(bool across);

// Whether a helper of a kernel has such a name, and its definition.
bool is_warpgroup_product(const std::string &helper);
std::string warpgroup_text(const std::string &helper);

} // namespace kiln::cuda
