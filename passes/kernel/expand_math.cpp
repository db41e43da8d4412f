// exp, tanh, sin, pow, ... become polynomials and bit operations, written in front of the statement
// that uses them. After this pass a kernel holds primitive operations only.
#include "passes/kernel/expand.h"
#include "passes/kernel/schedule.h"

namespace kiln {
namespace {

bool is_expanded(const Expr &e) {
  if (e.is(Expr::Kind::unary))
    return !is_primitive(e.unary);
  bool float_remainder = e.is(Expr::Kind::binary) && e.binary == BinaryOp::rem && is_float(e.dtype);
  return float_remainder || (e.is(Expr::Kind::binary) && !is_primitive(e.binary));
}

void expand(Expr &e, MathBuilder &b) {
  for (Expr &a : e.args)
    expand(a, b);
  if (!is_expanded(e))
    return;
  if (e.is(Expr::Kind::unary)) {
    MathValue x{std::move(e.args[0])};
    bool wide = x.e.dtype == DType::f64;
    e = (wide ? math_unary_f64(e.unary, x, b) : math_unary_f32(e.unary, x, b)).e;
  } else if (!is_float(e.dtype)) {
    MathValue x{std::move(e.args[0])}, y{std::move(e.args[1])};
    e = math_pow_integer(x, y, b).e;
  } else {
    DType dtype = e.dtype;
    MathValue x = cast(DType::f64, {std::move(e.args[0])});
    MathValue y = cast(DType::f64, {std::move(e.args[1])});
    MathValue r = e.binary == BinaryOp::pow ? math_pow_f64(x, y, dtype == DType::f32, b)
                  : e.binary == BinaryOp::atan2
                      ? math_atan2_f64(x, y, b)
                      : math_rem_f64(x, b.bind(y), dtype == DType::f32, b);
    e = cast(dtype, r).e;
  }
}

} // namespace

bool expand_math(Kernel &kernel, const MachineDesc &) {
  return expand_values(kernel, is_expanded, expand);
}

} // namespace kiln
