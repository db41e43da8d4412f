#include "ir/ops/contraction.h"

#include "ir/ops/infer_util.h"

#include <algorithm>

namespace kiln {
namespace {

// Four rows of c at once, so that each element of b that is loaded serves four products.
template <typename A, int rows>
void product_rows(const A *a, const A *b, A *c, int64_t n, int64_t k) {
  constexpr int64_t kBlock = 256;
  for (int64_t j0 = 0; j0 < n; j0 += kBlock) {
    int64_t width = std::min(kBlock, n - j0);
    A acc[rows][kBlock] = {};
    for (int64_t p = 0; p < k; ++p) {
      const A *row = b + p * n + j0;
      A x[rows];
      for (int r = 0; r < rows; ++r)
        x[r] = a[r * k + p];
      for (int64_t j = 0; j < width; ++j)
        for (int r = 0; r < rows; ++r)
          acc[r][j] += x[r] * row[j];
    }
    for (int r = 0; r < rows; ++r)
      for (int64_t j = 0; j < width; ++j)
        c[r * n + j0 + j] += acc[r][j];
  }
}

// Calls visit(tap, p, offset of the element or -1) for every tap and position, positions innermost.
template <typename F>
void visit_taps(const ConcreteWindow &w, int64_t begin, int64_t end, const F &visit) {
  size_t rank = w.in.size(), last = rank - 1;
  auto strides = row_major_strides(w.in);
  std::vector<int64_t> k(rank), o(rank);
  for (int64_t tap = 0; tap < w.taps(); ++tap) {
    for (int64_t rest = tap, d = int64_t(rank); d-- > 0; rest /= w.kernel[size_t(d)])
      k[size_t(d)] = rest % w.kernel[size_t(d)];
    for (int64_t p = begin; p < end;) {
      for (int64_t rest = p, d = int64_t(rank); d-- > 0; rest /= w.out[size_t(d)])
        o[size_t(d)] = rest % w.out[size_t(d)];
      int64_t base = 0;
      bool inside = true;
      for (size_t d = 0; d < last; ++d) {
        int64_t i = o[d] * w.stride[d] + k[d] * w.dilation[d] - w.pad_lo[d];
        inside = inside && i >= 0 && i < w.in[d];
        base += i * strides[d];
      }
      int64_t run = std::min(end - p, w.out[last] - o[last]);
      int64_t i = o[last] * w.stride[last] + k[last] * w.dilation[last] - w.pad_lo[last];
      for (int64_t r = 0; r < run; ++r, ++p, i += w.stride[last])
        visit(tap, p, inside && i >= 0 && i < w.in[last] ? base + i : int64_t(-1));
    }
  }
}

} // namespace

Result<DType> contraction_dtype(const InferContext &context) {
  if (context.operands[0].dtype != DType::u8 || context.operands[1].dtype != DType::i8) {
    KILN_RETURN_IF_ERROR(same_dtype(context));
    return context.operands[0].dtype;
  }
  if (context.operands.size() > 2)
    KILN_RETURN_IF_ERROR(check_dtype(context, 2, context.operands[2].dtype == DType::i32,
                                     "i32, as the sums of products of u8 and i8 are"));
  return DType::i32;
}

template <typename A>
void accumulate_product(const A *a, const A *b, A *c, int64_t m, int64_t n, int64_t k) {
  int64_t i = 0;
  for (; i + 4 <= m; i += 4)
    product_rows<A, 4>(a + i * k, b, c + i * n, n, k);
  for (; i < m; ++i)
    product_rows<A, 1>(a + i * k, b, c + i * n, n, k);
}

template <typename A>
void gather_columns(const ConcreteWindow &w, const A *plane, int64_t begin, int64_t end,
                    A *columns) {
  int64_t width = end - begin;
  visit_taps(w, begin, end, [&](int64_t tap, int64_t p, int64_t offset) {
    columns[tap * width + p - begin] = offset < 0 ? A(0) : plane[offset];
  });
}

template <typename A>
void scatter_columns(const ConcreteWindow &w, const A *columns, int64_t begin, int64_t end,
                     A *plane) {
  int64_t width = end - begin;
  visit_taps(w, begin, end, [&](int64_t tap, int64_t p, int64_t offset) {
    if (offset >= 0)
      plane[offset] += columns[tap * width + p - begin];
  });
}

#define KILN_INSTANTIATE(A)                                                                        \
  template void accumulate_product<A>(const A *, const A *, A *, int64_t, int64_t, int64_t);       \
  template void gather_columns<A>(const ConcreteWindow &, const A *, int64_t, int64_t, A *);       \
  template void scatter_columns<A>(const ConcreteWindow &, const A *, int64_t, int64_t, A *);
KILN_INSTANTIATE(double)
KILN_INSTANTIATE(uint64_t)
#undef KILN_INSTANTIATE

} // namespace kiln
