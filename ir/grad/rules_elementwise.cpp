// Gradients of arithmetic and elementary functions. x: the operand, y: the result, dy: its gradient.
// At points where a function has a kink the choice is PyTorch's.
#include "ir/grad/rules.h"

#include <numbers>

namespace kiln::grad {
namespace {

// dx = dy * f(x, y)
using R = Rule &;
void nothing(R) {} // constant almost everywhere

void div_rule(R r) {
  Val part = r.dy() / r.x(1);
  r.add(0, part);
  if (r.wants(1))
    r.add(1, -(part * r.y()));
}

// a's gradient with floor or trunc of the quotient held fixed.
template <Op round>
void remainder_rule(R r) {
  r.add(0, r.dy());
  if (r.wants(1))
    r.add(1, -(r.dy() * (r.x(0) / r.x(1)).op(round)));
}

// The exponent may be of another dtype. 0^0 and 0 * log 0 count as 0 in the derivatives.
void pow_rule(R r) {
  Val a = r.x(0), b = r.x(1);
  Val exponent = b.dtype() == a.dtype() ? b : b.op(Op::convert, {}, {{"dtype", a.dtype()}});
  if (r.wants(0)) {
    Val zero = exponent.op(Op::eq, {exponent.number(0)});
    Val slope = exponent * a.op(Op::pow, {exponent - 1});
    r.add(0, r.dy() * where(zero, a.number(0), slope));
  }
  if (r.wants(1)) {
    Val positive = greater(a, 0);
    Val log = where(positive, a, a.number(1)).op(Op::log);
    Val d = r.dy() * r.y() * log;
    r.add(1, b.dtype() == a.dtype() ? d : d.op(Op::convert, {}, {{"dtype", b.dtype()}}));
  }
}

// Equal operands share.
template <Op wins>
void extremum_rule(R r) {
  Val a = r.x(0), b = r.x(1), half = r.dy() * 0.5, none = r.dy().number(0);
  Val equal = a.op(Op::eq, {b});
  r.add(0, where(equal, half, where(a.op(wins, {b}), r.dy(), none)));
  r.add(1, where(equal, half, where(b.op(wins, {a}), r.dy(), none)));
}

void where_rule(R r) {
  Val none = r.dy().number(0);
  if (r.wants(1))
    r.add(1, where(r.x(0), r.dy(), none));
  if (r.wants(2))
    r.add(2, where(r.x(0), none, r.dy()));
}

void atan2_rule(R r) {
  Val part = r.dy() / (r.x(0).op(Op::square) + r.x(1).op(Op::square));
  r.add(0, part * r.x(1));
  if (r.wants(1))
    r.add(1, -(part * r.x(0)));
}

constexpr std::string_view kNotFloat = "its result is not a float";
constexpr double kTwoOverSqrtPi = 2 * std::numbers::inv_sqrtpi;

const OpGrad kRules[] = {
    {Op::neg, [](R r) { r.add(0, -r.dy()); }},
    {Op::abs, [](R r) { r.add(0, r.dy() * r.x().op(Op::sign)); }},
    {Op::sign, nothing},
    {Op::ceil, nothing},
    {Op::floor, nothing},
    {Op::round, nothing},
    {Op::trunc, nothing},
    {Op::sqrt, [](R r) { r.add(0, r.dy() * 0.5 / r.y()); }},
    {Op::rsqrt, [](R r) { r.add(0, r.dy() * -0.5 * r.y() / r.x()); }},
    {Op::reciprocal, [](R r) { r.add(0, -(r.dy() * r.y().op(Op::square))); }},
    {Op::square, [](R r) { r.add(0, r.dy() * (r.x() * 2)); }},
    {Op::exp, [](R r) { r.add(0, r.dy() * r.y()); }},
    {Op::expm1, [](R r) { r.add(0, r.dy() * (r.y() + 1)); }},
    {Op::log, [](R r) { r.add(0, r.dy() / r.x()); }},
    {Op::log1p, [](R r) { r.add(0, r.dy() / (r.x() + 1)); }},
    {Op::sin, [](R r) { r.add(0, r.dy() * r.x().op(Op::cos)); }},
    {Op::cos, [](R r) { r.add(0, -(r.dy() * r.x().op(Op::sin))); }},
    {Op::tan, [](R r) { r.add(0, r.dy() * (r.y().op(Op::square) + 1)); }},
    {Op::asin, [](R r) { r.add(0, r.dy() * (1 - r.x().op(Op::square)).op(Op::rsqrt)); }},
    {Op::acos, [](R r) { r.add(0, -(r.dy() * (1 - r.x().op(Op::square)).op(Op::rsqrt))); }},
    {Op::atan, [](R r) { r.add(0, r.dy() / (r.x().op(Op::square) + 1)); }},
    {Op::sinh, [](R r) { r.add(0, r.dy() * r.x().op(Op::cosh)); }},
    {Op::cosh, [](R r) { r.add(0, r.dy() * r.x().op(Op::sinh)); }},
    {Op::tanh, [](R r) { r.add(0, r.dy() * (1 - r.y().op(Op::square))); }},
    {Op::asinh, [](R r) { r.add(0, r.dy() * (r.x().op(Op::square) + 1).op(Op::rsqrt)); }},
    {Op::acosh, [](R r) { r.add(0, r.dy() * (r.x().op(Op::square) - 1).op(Op::rsqrt)); }},
    {Op::atanh, [](R r) { r.add(0, r.dy() / (1 - r.x().op(Op::square))); }},
    {Op::erf, [](R r) { r.add(0, r.dy() * ((-r.x().op(Op::square)).op(Op::exp) * kTwoOverSqrtPi)); }},
    {Op::convert, [](R r) { r.add(0, r.dy().op(Op::convert, {}, {{"dtype", r.x().dtype()}})); }},

    {Op::add, [](R r) { r.add(0, r.dy()), r.add(1, r.dy()); }},
    {Op::sub, [](R r) {
       r.add(0, r.dy());
       if (r.wants(1))
         r.add(1, -r.dy());
     }},
    {Op::mul, [](R r) {
       if (r.wants(0))
         r.add(0, r.dy() * r.x(1));
       if (r.wants(1))
         r.add(1, r.dy() * r.x(0));
     }},
    {Op::div, div_rule},
    {Op::remainder, remainder_rule<Op::floor>},
    {Op::fmod, remainder_rule<Op::trunc>},
    {Op::pow, pow_rule},
    {Op::minimum, extremum_rule<Op::lt>},
    {Op::maximum, extremum_rule<Op::gt>},
    {Op::atan2, atan2_rule},
    {Op::where, where_rule},

    {Op::bitcast, nullptr, "it takes the bits of one type for another's"},
    {Op::logical_not, nullptr, kNotFloat},
    {Op::bitwise_not, nullptr, kNotFloat},
    {Op::is_nan, nullptr, kNotFloat},
    {Op::is_inf, nullptr, kNotFloat},
    {Op::logical_and, nullptr, kNotFloat},
    {Op::logical_or, nullptr, kNotFloat},
    {Op::logical_xor, nullptr, kNotFloat},
    {Op::bitwise_and, nullptr, kNotFloat},
    {Op::bitwise_or, nullptr, kNotFloat},
    {Op::bitwise_xor, nullptr, kNotFloat},
    {Op::shift_left, nullptr, kNotFloat},
    {Op::shift_right, nullptr, kNotFloat},
    {Op::eq, nullptr, kNotFloat},
    {Op::ne, nullptr, kNotFloat},
    {Op::lt, nullptr, kNotFloat},
    {Op::le, nullptr, kNotFloat},
    {Op::gt, nullptr, kNotFloat},
    {Op::ge, nullptr, kNotFloat},
};

} // namespace

std::span<const OpGrad> elementwise_rules() { return kRules; }

} // namespace kiln::grad
