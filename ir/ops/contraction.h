// What the reference forms of dot, conv and conv_transpose share: a matrix product fast enough that
// whole networks run through the interpreter, and the gathering of windows into columns.
//
// A: double for floats, uint64_t for integers (whose products wrap).
#pragma once

#include "ir/ops/ref_util.h"
#include "ir/ops/window.h"

namespace kiln {

// c[m, n] += a[m, k] * b[k, n], all dense and row-major.
template <typename A>
void accumulate_product(const A *a, const A *b, A *c, int64_t m, int64_t n, int64_t k);

// columns[tap, p - begin] = plane at tap of the window at position p, for p in [begin, end); 0
// outside.
template <typename A>
void gather_columns(const ConcreteWindow &w, const A *plane, int64_t begin, int64_t end,
                    A *columns);

// The reverse: plane at tap of position p += columns[tap, p - begin].
template <typename A>
void scatter_columns(const ConcreteWindow &w, const A *columns, int64_t begin, int64_t end,
                     A *plane);

// The dtype of a contraction of operands 0 and 1 plus operand 2: that of all of them, or i32 where u8
// meets i8.
Result<DType> contraction_dtype(const InferContext &context);

template <typename F>
Tensor with_contraction_type(DType dtype, F &&f) {
  return is_float(dtype) ? f.template operator()<double>() : f.template operator()<uint64_t>();
}

} // namespace kiln
