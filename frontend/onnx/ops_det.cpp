// Determinants, by elimination with the largest pivot of each column.
#include "frontend/onnx/calc.h"
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

// a: [B, n, n]. One step of a loop eliminates one column of all matrices.
Num eliminated(const Num &a, const Dim &batch, int64_t n) {
  Calc &c = *a.calc;
  Num rows = c.iota(DType::i64, {n}), one = broadcast_to(c.number(a.dtype(), 1), {batch});
  auto out = repeat(c(c.emitter().constant(Tensor::scalar_i64(DType::i64, n))), {a, one},
                    [&](const Num &k, const std::vector<Num> &carried) -> std::vector<Num> {
                      const Num &m = carried[0];
                      Num column = gather(m, k, 2); // [B, n]
                      Num size = where(rows >= k, abs(column), -1);
                      Num best = c.op(Op::argmax, {size}, {{"axis", Dim(1)}, {"keepdims", true}}); // [B, 1]
                      Num pivot = gather_elements(column, best, 1);
                      Num chosen = reshape(best, {batch, 1, 1});
                      Num from = gather_elements(m, broadcast_to(chosen, {batch, 1, n}), 1), to = gather(m, k, 1);
                      Num row = reshape(rows, {1, n, 1});
                      Num swapped = where(equal(row, k), from, where(equal(row, chosen), reshape(to, {batch, 1, n}), m));
                      Num factor = gather(swapped, k, 2) / pivot;
                      factor = where(rows > k && !equal(pivot, 0), factor, 0);
                      Num next = swapped - reshape(factor, {batch, n, 1}) * from;
                      Num sign = where(equal(best, k), c.number(a.dtype(), 1), -1.0);
                      return {next, carried[1] * reshape(pivot * sign, {batch})};
                    });
  return out[1];
}

} // namespace

Status import_det(OnnxNode &n) {
  if (n.rank() < 2 || !is_float(n.dtype()))
    return Error{fmt::format("its operand {} must be square matrices of floats", n.in(0).type.text())};
  auto size = n.in(0).dim(n.rank() - 1).try_const();
  if (!size || !n.in(0).dim(n.rank() - 2).is_const(*size))
    return Error{fmt::format("the matrices of {} must be square, of a known size", n.in(0).type.text())};
  Calc c(n.emitter());
  Shape outer = n.in(0).dims(0, n.rank() - 2);
  Dim batch = element_count(outer);
  Num a = reshape(convert(c(n.in(0)), n.dtype() == DType::f64 ? DType::f64 : DType::f32), {batch, *size, *size});
  auto entry = [&](int64_t i, int64_t j) { return at(at(a, 1, i), 1, j); };
  auto minor = [&](int64_t i, int64_t j) { // of rows 1 and 2 without column i and j
    return entry(1, i) * entry(2, j) - entry(1, j) * entry(2, i);
  };
  Num out;
  if (*size == 0)
    out = broadcast_to(c.number(a.dtype(), 1), {batch});
  else if (*size == 1)
    out = entry(0, 0);
  else if (*size == 2)
    out = entry(0, 0) * entry(1, 1) - entry(0, 1) * entry(1, 0);
  else if (*size == 3)
    out = entry(0, 0) * minor(1, 2) - entry(0, 1) * minor(0, 2) + entry(0, 2) * minor(0, 1);
  else
    out = eliminated(a, batch, *size);
  return n.finish(c.done(convert(reshape(out, outer), n.dtype())));
}

} // namespace kiln::onnx
