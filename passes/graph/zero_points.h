// Products of bytes whose zero points are subtracted first, as products of the bytes themselves.
#pragma once

#include "passes/pass.h"

namespace kiln {

// Of i32 sums, which wrap, so that nothing is rounded:
//
//   dot(i32(a) - za, i32(b) - zb)  ->  dot(i32(a), i32(b)) - za * sum(i32(b) - zb) - sum(i32(a)) * zb     GPUs: bytes on tensor cores
//   dot(x, w)                      ->  dot(x, w - c) + sum(x) * c        w: constants that fit 8 bits when moved by c
//   dot(i32(a) - za, w)            ->  dot(i32(u8(i32(a) + 128)) - (za + 128), w)                         a: i8, w: such constants
//
// The forms on the right are what integer_products and the fusions of GPUs take.
Changed split_zero_points(Module &module, Function &function, const PassFlags &flags);

} // namespace kiln
