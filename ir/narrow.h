// Element types of 8, 4 and 2 bits that are kept and moved but not computed with: floats of 8 and 4 bits,
// integers of 4 and 2. An element takes a byte of its own in memory; its low bits are the code, those above
// repeat the sign (i4, i2) or are 0 in what Kiln writes, and count for nothing in what it reads.
//
//   f8e4m3fn    1 sign, 4 exponent, 3 mantissa; no infinity, one NaN of each sign
//   f8e5m2      1, 5, 2; infinities and NaNs as IEEE has them
//   f8e4m3fnuz  1, 4, 3; f8e5m2fnuz 1, 5, 2: neither infinity nor -0, one NaN (0x80), a bias larger by 1
//   f8e8m0      8 bits of exponent: powers of two from 2^-127 to 2^127, 0xff is NaN; no sign, no 0
//   f4e2m1      1, 2, 1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives
//
// To a float: rounded once to nearest even, what is too large becomes the largest, infinities included; NaN
// stays NaN (0 in f4e2m1). To f8e8m0: the magnitude rounded up to a power of two. To an integer: floats are
// cut and saturate, integers wrap. The functions here say what that means, one element at a time; kernels
// do the same by arithmetic on bits (passes/kernel/expand_narrow.cpp).
#pragma once

#include "ir/tensor.h"

namespace kiln {

// How a narrow float is made. `greatest` and what follows it are codes without the sign.
struct NarrowFloat {
  DType dtype;
  int exponent_bits, mantissa_bits, bias;
  int greatest; // of the finite ones
  int nan;      // -1: none. With its sign where there is one; fnuz: the code of -0
  bool has_sign = true;
  bool has_infinity = false; // the code after `greatest`
  bool negative_zero = true;

  int sign_bit() const { return exponent_bits + mantissa_bits; }
  int magnitude_mask() const { return (1 << (exponent_bits + mantissa_bits)) - 1; }
};
// Nothing for dtypes that are no narrow floats.
const NarrowFloat *narrow_float(DType dtype);

// The dtype whose arithmetic is the storage's: i8 for i4 and i2, u8 for the other narrow ones, else itself.
DType storage_dtype(DType dtype);

// What a byte of memory means.
double narrow_value(DType dtype, uint8_t byte);
// The code alone, without the bits above it.
uint8_t narrow_code(DType dtype, uint8_t byte);
// The byte of a code.
uint8_t narrow_byte(DType dtype, uint8_t code);
// The byte that holds a value, by the rules above.
uint8_t to_narrow(DType dtype, double value);
uint8_t to_narrow(DType dtype, int64_t value);
uint8_t to_narrow(DType dtype, uint64_t value);

// Bytes that hold `count` elements in ONNX's packing: several a byte, the first in the low bits.
int64_t packed_bytes(DType dtype, int64_t count);
// `bytes` are as many as packed_bytes() says.
Tensor unpack_narrow(DType dtype, std::vector<int64_t> dims, std::span<const std::byte> bytes);

// Codes that a user has in an array of u8 (or i8: integers), as a tensor of a narrow dtype.
Result<Tensor> from_codes(const Tensor &codes, DType dtype);

} // namespace kiln
