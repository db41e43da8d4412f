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

// pow(2, min(x, most) * factor) in f32 whose exponent is at most 127: the factor.
std::optional<double> power_of_two(const Expr &e) {
  auto is_number = [](const Expr &n) { return n.is(Expr::Kind::number); };
  if (!e.is(Expr::Kind::binary) || e.binary != BinaryOp::pow || e.dtype != DType::f32 || !is_number(e.args[0]) ||
      e.args[0].number != 2)
    return std::nullopt;
  const Expr &power = e.args[1];
  if (!power.is(Expr::Kind::binary) || power.binary != BinaryOp::mul || !is_number(power.args[1]))
    return std::nullopt;
  const Expr &x = power.args[0];
  double factor = power.args[1].number;
  bool bounded = x.is(Expr::Kind::binary) && x.binary == BinaryOp::min && is_number(x.args[1]) && factor > 0 &&
                 x.args[1].number * factor <= 127;
  return bounded ? std::optional(factor) : std::nullopt;
}

void expand(Expr &e, MathBuilder &b) {
  if (auto factor = power_of_two(e)) {
    Expr x = std::move(e.args[1].args[0]);
    expand(x, b);
    e = math_power_of_two_f32({std::move(x)}, *factor, b).e;
    return;
  }
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
