// Dots: sums of a few neighbouring products, the contractions of kernel IR that machines have as one
// instruction. A dot is an fma of narrower operands. For the lanes i of the sum,
//
//   fma(a, b, sum)[i] = sum[i] + a[4i] * b[4i] + ... + a[4i + 3] * b[4i + 3]      a: u8, b: i8, sum: i32
//   fma(a, b, sum)[i] = fma(a[2i], b[2i], fma(a[2i + 1], b[2i + 1], sum[i]))      a, b: bf16, sum: f32
//
// The sum of integers wraps. That of floats rounds after each product, the odd one first, and takes
// denormals as zero. An operand of `width` lanes is the same few for every lane of the sum.
#pragma once

#include "ir/kernel/kernel.h"

namespace kiln {

// How many products a lane of such a sum takes; 0: these are no operands of a dot.
inline int dot_width(DType a, DType b, DType sum) {
  if (a == DType::u8 && b == DType::i8 && sum == DType::i32)
    return 4;
  return a == DType::bf16 && b == DType::bf16 && sum == DType::f32 ? 2 : 0;
}

// The width of an fma that is a dot; 0 for others.
inline int dot_width(const Expr &e) {
  return e.is(Expr::Kind::fma) && e.args.size() == 3
             ? dot_width(e.args[0].dtype, e.args[1].dtype, e.args[2].dtype)
             : 0;
}

// Whether a load of so many lanes may be an operand of dots whose sums have `lanes` lanes.
inline bool is_dot_load(const Expr &e, int lanes) {
  int width = e.dtype == DType::bf16 ? 2 : e.dtype == DType::u8 || e.dtype == DType::i8 ? 4 : 0;
  return e.is(Expr::Kind::load) && width > 0 && (e.lanes == width || e.lanes == width * lanes);
}

// Whether these may be the operands of a dot.
inline bool fits_dot(const Expr &a, const Expr &b, const Expr &sum) {
  int width = dot_width(a.dtype, b.dtype, sum.dtype);
  auto lanes_fit = [&](const Expr &e) { return e.lanes == width || e.lanes == width * sum.lanes; };
  return width > 0 && lanes_fit(a) && lanes_fit(b);
}

} // namespace kiln
