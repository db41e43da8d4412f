// dot4: sums of four neighbouring products, the one contraction of kernel IR that machines have as an
// instruction. It is an fma of narrower operands: for the lanes i of an i32 sum,
//
//   fma(a, b, sum)[i] = sum[i] + a[4i] * b[4i] + ... + a[4i + 3] * b[4i + 3]        a: u8, b: i8
//
// which wraps. An operand of four lanes is the same four for every lane of the sum.
#pragma once

#include "ir/kernel/kernel.h"

namespace kiln {

// Whether an fma is a dot4.
inline bool is_dot4(const Expr &e) {
  return e.is(Expr::Kind::fma) && e.args.size() == 3 && e.dtype == DType::i32 &&
         e.args[0].dtype == DType::u8;
}

// Whether these may be the operands of a dot4.
inline bool fits_dot4(const Expr &a, const Expr &b, const Expr &sum) {
  auto lanes_fit = [&](const Expr &e) { return e.lanes == 4 || e.lanes == 4 * sum.lanes; };
  return sum.dtype == DType::i32 && a.dtype == DType::u8 && b.dtype == DType::i8 && lanes_fit(a) &&
         lanes_fit(b);
}

} // namespace kiln
