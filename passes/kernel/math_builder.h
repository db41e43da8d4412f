// A small language for writing functions over kernel IR: MathValue behaves as a number, `bind`
// names a value that is used more than once. Everything works for any number of lanes.
#pragma once

#include "passes/kernel/rewrite.h"

#include <initializer_list>
#include <limits>

namespace kiln {

struct MathValue {
  Expr e;
};

class MathBuilder {
public:
  MathBuilder(Names &names, std::vector<Stmt> &out) : names_(names), out_(out) {}

  MathValue bind(MathValue v) {
    if (v.e.is(Expr::Kind::var) || v.e.is(Expr::Kind::number))
      return v;
    Symbol name = names_.fresh("v");
    DType dtype = v.e.dtype;
    int lanes = v.e.lanes;
    out_.push_back(kb::let(name, std::move(v.e)));
    return {kb::var(name, dtype, lanes)};
  }
  Names &names() { return names_; }
  std::vector<Stmt> &out() { return out_; }

private:
  Names &names_;
  std::vector<Stmt> &out_;
};

inline Expr like(const MathValue &v, double x) {
  return kb::constant(v.e.dtype, x, v.e.lanes);
}
inline MathValue bits(const MathValue &v, int64_t x) {
  return {kb::integer(v.e.dtype, x, v.e.lanes)};
}

#define KILN_MATH_OPERATOR(symbol, op)                                                             \
  inline MathValue operator symbol(const MathValue &a, const MathValue &b) {                       \
    return {kb::binary(BinaryOp::op, a.e, b.e)};                                                   \
  }                                                                                                \
  inline MathValue operator symbol(const MathValue &a, double b) {                                 \
    return {kb::binary(BinaryOp::op, a.e, like(a, b))};                                            \
  }                                                                                                \
  inline MathValue operator symbol(double a, const MathValue &b) {                                 \
    return {kb::binary(BinaryOp::op, like(b, a), b.e)};                                            \
  }
KILN_MATH_OPERATOR(+, add)
KILN_MATH_OPERATOR(-, sub)
KILN_MATH_OPERATOR(*, mul)
KILN_MATH_OPERATOR(/, div)
KILN_MATH_OPERATOR(<, lt)
KILN_MATH_OPERATOR(<=, le)
KILN_MATH_OPERATOR(==, eq)
KILN_MATH_OPERATOR(&, bit_and)
KILN_MATH_OPERATOR(|, bit_or)
KILN_MATH_OPERATOR(^, bit_xor)
KILN_MATH_OPERATOR(<<, shl)
KILN_MATH_OPERATOR(>>, shr)
#undef KILN_MATH_OPERATOR

inline MathValue operator-(const MathValue &a) {
  return {kb::unary(UnaryOp::neg, a.e)};
}
inline MathValue fabs(const MathValue &a) {
  return {kb::unary(UnaryOp::abs, a.e)};
}
inline MathValue fsqrt(const MathValue &a) {
  return {kb::unary(UnaryOp::sqrt, a.e)};
}
inline MathValue fround(const MathValue &a) {
  return {kb::unary(UnaryOp::round, a.e)};
}
inline MathValue ftrunc(const MathValue &a) {
  return {kb::unary(UnaryOp::trunc, a.e)};
}
inline MathValue ffloor(const MathValue &a) {
  return {kb::unary(UnaryOp::floor, a.e)};
}
inline MathValue choose(const MathValue &c, const MathValue &a, const MathValue &b) {
  return {kb::select(c.e, a.e, b.e)};
}
inline MathValue choose(const MathValue &c, const MathValue &a, double b) {
  return {kb::select(c.e, a.e, like(a, b))};
}
inline MathValue choose(const MathValue &c, double a, const MathValue &b) {
  return {kb::select(c.e, like(b, a), b.e)};
}
inline MathValue fused(const MathValue &a, const MathValue &b, const MathValue &c) {
  return {kb::fma(a.e, b.e, c.e)};
}
inline MathValue fused(const MathValue &a, double b, const MathValue &c) {
  return {kb::fma(a.e, like(a, b), c.e)};
}
inline MathValue fused(const MathValue &a, double b, double c) {
  return {kb::fma(a.e, like(a, b), like(a, c))};
}
inline MathValue cast(DType dtype, const MathValue &a) {
  return {kb::convert(dtype, a.e)};
}
inline MathValue as_bits(DType dtype, const MathValue &a) {
  return {kb::bitcast(dtype, a.e)};
}

// c[0] + c[1] x + c[2] x^2 + ... by Horner's rule.
MathValue polynomial(const MathValue &x, std::initializer_list<double> c);
// The same in pairs, pairs of pairs, ... (Estrin): a few more operations, a much shorter chain of
// them.
MathValue polynomial_in_pairs(const MathValue &x, std::initializer_list<double> c, MathBuilder &b);

constexpr double kMathInf = std::numeric_limits<double>::infinity();
constexpr double kMathNan = std::numeric_limits<double>::quiet_NaN();

// x within [lo, hi]; NaN stays.
inline MathValue clamped(const MathValue &x, double lo, double hi) {
  MathValue up = choose(x < lo, lo, x);
  return choose(MathValue{like(x, hi)} < up, hi, up);
}

// The sign of s put on the non-negative a.
MathValue with_sign_of(const MathValue &a, const MathValue &s);

MathValue math_unary_f32(UnaryOp op, MathValue x, MathBuilder &b);
MathValue math_unary_f64(UnaryOp op, MathValue x, MathBuilder &b);
// x - trunc(x / y) * y, exactly; x and y are f64, `narrow` where they hold f32 values.
MathValue math_rem_f64(MathValue x, MathValue y, bool narrow, MathBuilder &b);
// `narrow`: the operands are f32, and so will be the result.
MathValue math_pow_f64(MathValue x, MathValue y, bool narrow, MathBuilder &b);
// 2^(x * factor), where x * factor <= 127, in f32: for weights that are at most 1. The error is at most 2.5 ulp near 1
// and grows with the exponent's, to 4e-8 of the result for each unit of it.
MathValue math_power_of_two_f32(MathValue x, double factor, MathBuilder &b);
// Of unsigned integers; wraps.
MathValue math_pow_integer(MathValue x, MathValue y, MathBuilder &b);
MathValue math_atan2_f64(MathValue y, MathValue x, MathBuilder &b);

} // namespace kiln
