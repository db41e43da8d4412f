// Identities of elementwise ops.
#include "passes/graph/rules.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kiln {
namespace {

// x op identity -> x
template <int kIdentity>
ValueId drop_right(Match &m) {
  return m.is_splat(m.operand(1), kIdentity) ? m.same(m.operand(0)) : ValueId();
}
template <int kIdentity>
ValueId drop_left(Match &m) {
  return m.is_splat(m.operand(0), kIdentity) ? m.same(m.operand(1)) : ValueId();
}

ValueId pow_to(Match &m, double exponent, ValueId (*make)(Match &, ValueId x)) {
  bool fits =
      m.is_float_result() && m.is_splat(m.operand(1), exponent) && m.same(m.operand(0)).valid();
  return fits ? make(m, m.operand(0)) : ValueId();
}

bool is_power_of_two(double v) {
  int exponent;
  return std::isfinite(v) && v != 0 && std::abs(std::frexp(v, &exponent)) == 0.5 &&
         std::abs(exponent) < 100;
}

ValueId divide_by_power_of_two(Match &m) {
  auto c = m.splat(m.operand(1));
  if (!c || !m.is_float_result() || !is_power_of_two(*c) || !m.same(m.operand(0)).valid())
    return {};
  // 1/c is exact in f32 and f64; f16 has fewer exponents.
  if (dtype_bits(m.type().dtype) < 32)
    return {};
  return m.b(Op::mul, {m.operand(0), m.b.scalar(m.type().dtype, 1 / *c)});
}

ValueId clamp_of(Match &m, ValueId x, double lo, double hi) {
  return m.b(Op::clamp, {x}, {{"min", lo}, {"max", hi}});
}

struct Range {
  ValueId x;
  double lo, hi;
};
// relu and clamp are both clamps.
std::optional<Range> as_clamp(const Match &m, ValueId v) {
  if (!is_float(m.type(v).dtype))
    return std::nullopt;
  if (const Node *n = m.def(v, Op::relu))
    return Range{n->operands[0], 0, std::numeric_limits<double>::infinity()};
  if (const Node *n = m.def(v, Op::clamp))
    return Range{n->operands[0], n->attrs.get_float("min"), n->attrs.get_float("max")};
  return std::nullopt;
}

// clamp(clamp(x, a, b), c, d) -> clamp(x, clamp(a, c, d), clamp(b, c, d)) for a <= b, c <= d
ValueId merge_clamps(Match &m) {
  auto outer = as_clamp(m, m.result());
  auto inner = outer ? as_clamp(m, outer->x) : std::nullopt;
  if (!inner || !(inner->lo <= inner->hi) || !(outer->lo <= outer->hi))
    return {};
  return clamp_of(m, inner->x, std::clamp(inner->lo, outer->lo, outer->hi),
                  std::clamp(inner->hi, outer->lo, outer->hi));
}

ValueId clamp_by_constant(Match &m, bool upper) {
  for (int i = 0; i < 2; ++i) {
    auto c = m.splat(m.operand(1 - i));
    ValueId x = m.operand(i);
    if (!c || std::isnan(*c) || !m.is_float_result() || !m.same(x).valid())
      continue;
    double infinity = std::numeric_limits<double>::infinity();
    return upper ? clamp_of(m, x, -infinity, *c) : clamp_of(m, x, *c, infinity);
  }
  return {};
}

// Whether every value of `from` is one of `to`.
bool is_widening(DType from, DType to) {
  if (from == to)
    return true;
  if (is_float(from))
    return (to == DType::f64) || (to == DType::f32 && from != DType::f64);
  if (is_bool(from))
    return to != DType::f8e8m0; // powers of two, and so no 0
  if (is_integer(from) && is_integer(to))
    return dtype_kind(from) == dtype_kind(to)
               ? dtype_bits(from) <= dtype_bits(to)
               : is_unsigned_int(from) && dtype_bits(from) < dtype_bits(to);
  int mantissa = to == DType::f64 ? 53 : to == DType::f32 ? 24 : 0;
  return is_float(to) && dtype_bits(from) <= mantissa;
}

ValueId merge_converts(Match &m) {
  const Node *inner = m.def(m.operand(0), Op::convert);
  if (!inner)
    return {};
  ValueId x = inner->operands[0];
  if (!is_widening(m.type(x).dtype, m.type(m.operand(0)).dtype))
    return {};
  if (m.type(x).dtype == m.type().dtype)
    return x;
  // From the same value, once: integers that wrap do so by the width of what they come from.
  if (!is_float(m.type().dtype) && !is_widening(m.type(x).dtype, m.type().dtype))
    return {};
  return m.b(Op::convert, {x}, {{"dtype", m.type().dtype}});
}

ValueId choose(Match &m) {
  if (m.operand(1) == m.operand(2))
    return m.same(m.operand(1));
  auto c = m.splat(m.operand(0));
  return c ? m.same(m.operand(*c != 0 ? 1 : 2)) : ValueId();
}

ValueId subtract_constant(Match &m) {
  // Only of one element a channel or so: a table stays as it is.
  if (!m.is_float_result() || !m.is_constant(m.operand(1)) || m.is_constant(m.operand(0)))
    return {};
  return m.b(Op::add, {m.operand(0), m.b(Op::neg, {m.operand(1)})});
}

const Rule kRules[] = {
    {Op::add, "x + 0 = x", drop_right<0>},
    {Op::add, "0 + x = x", drop_left<0>},
    {Op::sub, "x - 0 = x", drop_right<0>},
    {Op::sub, "x - c = x + -c", subtract_constant},
    {Op::mul, "x * 1 = x", drop_right<1>},
    {Op::mul, "1 * x = x", drop_left<1>},
    {Op::div, "x / 1 = x", drop_right<1>},
    {Op::div, "x / 2^k = x * 2^-k", divide_by_power_of_two},
    {Op::div, "1 / x = reciprocal(x)",
     [](Match &m) {
       bool fits =
           m.is_float_result() && m.is_splat(m.operand(0), 1) && m.same(m.operand(1)).valid();
       return fits ? m.b(Op::reciprocal, {m.operand(1)}) : ValueId();
     }},
    {Op::reciprocal, "1 / sqrt(x) = rsqrt(x)",
     [](Match &m) {
       const Node *n = m.def(m.operand(0), Op::sqrt);
       return n ? m.b(Op::rsqrt, {n->operands[0]}) : ValueId();
     }},
    {Op::pow, "x^1 = x",
     [](Match &m) { return pow_to(m, 1, [](Match &, ValueId x) { return x; }); }},
    {Op::pow, "x^2 = square(x)",
     [](Match &m) {
       return pow_to(m, 2, [](Match &n, ValueId x) { return n.b(Op::square, {x}); });
     }},
    {Op::pow, "x^3 = x * square(x)",
     [](Match &m) {
       return pow_to(m, 3,
                     [](Match &n, ValueId x) { return n.b(Op::mul, {x, n.b(Op::square, {x})}); });
     }},
    {Op::pow, "x^0.5 = sqrt(x)",
     [](Match &m) {
       return pow_to(m, 0.5, [](Match &n, ValueId x) { return n.b(Op::sqrt, {x}); });
     }},
    {Op::pow, "x^-1 = reciprocal(x)",
     [](Match &m) {
       return pow_to(m, -1, [](Match &n, ValueId x) { return n.b(Op::reciprocal, {x}); });
     }},
    {Op::pow, "x^-0.5 = rsqrt(x)",
     [](Match &m) {
       return pow_to(m, -0.5, [](Match &n, ValueId x) { return n.b(Op::rsqrt, {x}); });
     }},
    {Op::mul, "x * x = square(x)",
     [](Match &m) {
       return m.operand(0) == m.operand(1) ? m.b(Op::square, {m.operand(0)}) : ValueId();
     }},
    {Op::mul, "(x * a) * b = x * (a * b)",
     [](Match &m) {
       const Node *n = m.def(m.operand(0), Op::mul);
       auto a = n ? m.splat(n->operands[1]) : std::nullopt, c = m.splat(m.operand(1));
       if (!a || !c || !m.is_float_result() || dtype_bits(m.type().dtype) < 32 ||
           m.type(n->operands[0]) != m.type())
         return ValueId();
       return m.b(Op::mul, {n->operands[0], m.b.scalar(m.type().dtype, *a * *c)});
     }},
    {Op::clamp, "clamp(clamp(x)) = clamp(x)", merge_clamps},
    {Op::relu, "relu(clamp(x)) = clamp(x)", merge_clamps},
    {Op::clamp, "clamp(x, 0, inf) = relu(x)",
     [](Match &m) {
       bool fits = m.is_float_result() && m.node().attrs.get_float("min") == 0 &&
                   m.node().attrs.get_float("max") == std::numeric_limits<double>::infinity();
       return fits ? m.b(Op::relu, {m.operand(0)}) : ValueId();
     }},
    {Op::maximum, "max(x, c) = clamp(x, c, inf)",
     [](Match &m) { return clamp_by_constant(m, false); }},
    {Op::minimum, "min(x, c) = clamp(x, -inf, c)",
     [](Match &m) { return clamp_by_constant(m, true); }},
    {Op::convert, "convert(x) = x for the same dtype",
     [](Match &m) { return m.same(m.operand(0)); }},
    {Op::convert, "convert(convert(x)) = convert(x) where the first loses nothing", merge_converts},
    {Op::where, "where(true, a, b) = a, where(c, a, a) = a", choose},
};

// Constants to the right, so that rules look in one place.
ValueId constant_to_the_right(Match &m) {
  if (m.operand_count() != 2 || !m.is_constant(m.operand(0)) || m.is_constant(m.operand(1)))
    return {};
  return m.b(m.node().op, {m.operand(1), m.operand(0)}, m.node().attrs);
}

const Node *same_op_below(Match &m) {
  const Node *inner = m.operand_count() == 1 ? m.def(m.operand(0), m.node().op) : nullptr;
  return inner && inner->attrs == m.node().attrs ? inner : nullptr;
}

// add(x, broadcast_to(y)) = add(x, y) where x has the shape already
ValueId drop_broadcast(Match &m) {
  std::vector<ValueId> operands = m.node().operands;
  for (size_t i = 0; i < operands.size(); ++i) {
    const Node *n = m.def(operands[i], Op::broadcast_to);
    bool other_full = false;
    for (size_t k = 0; k < operands.size(); ++k)
      other_full |= k != i && m.shape(operands[k]) == m.type().shape;
    if (!n || !other_full)
      continue;
    operands[i] = n->operands[0];
    return m.b(m.node().op, operands, m.node().attrs);
  }
  return {};
}

const TraitRule kTraitRules[] = {
    {kInvolution, "f(f(x)) = x",
     [](Match &m) {
       const Node *n = same_op_below(m);
       return n ? m.same(n->operands[0]) : ValueId();
     }},
    {kIdempotent, "f(f(x)) = f(x)",
     [](Match &m) { return same_op_below(m) ? m.same(m.operand(0)) : ValueId(); }},
    {kCommutative, "c op x = x op c", constant_to_the_right},
    {kElementwise, "f(x, broadcast_to(y)) = f(x, y)", drop_broadcast},
    {kElementwise, "f(reshape(dot(..)), c) = reshape(f(dot(..), c))", elementwise_before_view},
};

} // namespace

std::span<const Rule> arithmetic_rules() {
  return kRules;
}
std::span<const TraitRule> trait_rules() {
  return kTraitRules;
}

} // namespace kiln
