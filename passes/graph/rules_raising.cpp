// Activations and norms that a model spells out in primitives, recognised whatever the order of
// their factors: a product is taken apart into a constant and powers of values, so that
//
//   0.5 * x * (1 + erf(x / sqrt(2)))     x * (0.5 * (1 + erf(x * 0.7071)))     (x * (1 + erf(..)))
//   / 2
//
// are one pattern.
#include "passes/graph/rules.h"

#include <algorithm>
#include <cmath>

namespace kiln {
namespace {

constexpr int kDepth = 6; // of a product

struct Product {
  double constant = 1;
  std::vector<std::pair<ValueId, int>> powers; // each value once

  int power(ValueId v) const {
    for (auto [value, power] : powers)
      if (value == v)
        return power;
    return 0;
  }
};

void multiply(const Match &m, Product &out, ValueId v, int power, int depth) {
  if (auto c = m.splat(v)) {
    out.constant *= std::pow(*c, power);
    return;
  }
  const Node *n = depth < kDepth ? m.def(v) : nullptr;
  if (n && n->op == Op::mul) {
    multiply(m, out, n->operands[0], power, depth + 1);
    return multiply(m, out, n->operands[1], power, depth + 1);
  }
  if (n && n->op == Op::div && m.splat(n->operands[1])) {
    out.constant /= std::pow(*m.splat(n->operands[1]), power);
    return multiply(m, out, n->operands[0], power, depth + 1);
  }
  if (n && n->op == Op::square)
    return multiply(m, out, n->operands[0], 2 * power, depth + 1);
  if (n && n->op == Op::pow)
    if (auto e = m.splat(n->operands[1]); e && (*e == 2 || *e == 3))
      return multiply(m, out, n->operands[0], int(*e) * power, depth + 1);
  for (auto &[value, p] : out.powers)
    if (value == v) {
      p += power;
      return;
    }
  out.powers.emplace_back(v, power);
}

Product product_of(const Match &m, ValueId v) {
  Product out;
  multiply(m, out, v, 1, 0);
  return out;
}

bool is_near(const Match &m, double value, double expected) {
  double tolerance = dtype_bits(m.type().dtype) < 32 ? 2e-3 : 1e-5;
  return std::abs(value - expected) <= tolerance * std::abs(expected);
}

// v = a + constant, in either order; the other operand.
std::optional<std::pair<ValueId, double>> plus_constant(const Match &m, ValueId v) {
  const Node *n = m.def(v, Op::add);
  if (!n)
    return std::nullopt;
  for (int i = 0; i < 2; ++i)
    if (auto c = m.splat(n->operands[size_t(i)]))
      return std::pair(n->operands[size_t(1 - i)], *c);
  return std::nullopt;
}

// x * (1 + erf(x / sqrt(2))) / 2
bool is_erf_gelu(const Match &m, ValueId x, ValueId other) {
  auto sum = plus_constant(m, other);
  const Node *erf = sum && sum->second == 1 ? m.def(sum->first, Op::erf) : nullptr;
  if (!erf)
    return false;
  Product arg = product_of(m, erf->operands[0]);
  return arg.powers.size() == 1 && arg.power(x) == 1 && is_near(m, arg.constant, std::sqrt(0.5));
}

// The cubic of the tanh form: sqrt(2 / pi) * (x + 0.044715 * x^3), or with x factored out.
bool is_gelu_cubic(const Match &m, ValueId x, ValueId v) {
  Product outer = product_of(m, v);
  if (!is_near(m, outer.constant, std::sqrt(2 / M_PI)))
    return false;
  for (auto [sum, power] : outer.powers) {
    const Node *add = power == 1 ? m.def(sum, Op::add) : nullptr;
    if (!add)
      continue;
    for (size_t i = 0; i < 2; ++i) {
      Product cube = product_of(m, add->operands[i]);
      if (!is_near(m, cube.constant, 0.044715) || cube.powers.size() != 1)
        continue;
      ValueId rest = add->operands[1 - i];
      if (outer.powers.size() == 1 && rest == x && cube.power(x) == 3)
        return true;
      if (outer.powers.size() == 2 && outer.power(x) == 1 && m.is_splat(rest, 1) &&
          cube.power(x) == 2)
        return true;
    }
  }
  return false;
}

ValueId raise_gelu(Match &m, const Product &p, ValueId x, ValueId other) {
  if (!is_near(m, p.constant, 0.5))
    return {};
  if (is_erf_gelu(m, x, other))
    return m.b(Op::gelu, {x});
  auto sum = plus_constant(m, other);
  const Node *tanh = sum && sum->second == 1 ? m.def(sum->first, Op::tanh) : nullptr;
  if (tanh && is_gelu_cubic(m, x, tanh->operands[0]))
    return m.b(Op::gelu, {x}, {{"approximate", std::string("tanh")}});
  return {};
}

// x * clamp(x + 3, 0, 6) / 6
bool is_hard_swish(const Match &m, const Product &p, ValueId x, ValueId other) {
  const Node *clamp = m.def(other, Op::clamp);
  if (!clamp || !is_near(m, p.constant, 1.0 / 6) || clamp->attrs.get_float("min") != 0 ||
      clamp->attrs.get_float("max") != 6)
    return false;
  auto sum = plus_constant(m, clamp->operands[0]);
  return sum && sum->first == x && sum->second == 3;
}

ValueId raise_product(Match &m) {
  if (!m.is_float_result())
    return {};
  Product p = product_of(m, m.result());
  if (p.powers.size() != 2 || p.powers[0].second != 1 || p.powers[1].second != 1)
    return {};
  for (size_t i = 0; i < 2; ++i) {
    ValueId x = p.powers[i].first, other = p.powers[1 - i].first;
    if (m.type(x) != m.type() || m.type(other) != m.type())
      continue;
    if (ValueId gelu = raise_gelu(m, p, x, other); gelu.valid())
      return gelu;
    if (is_hard_swish(m, p, x, other))
      return m.b(Op::hard_swish, {x});
    if (p.constant != 1)
      continue;
    const Node *n = m.def(other);
    if (!n)
      continue;
    if (n->op == Op::sigmoid && n->operands[0] == x)
      return m.b(Op::silu, {x});
    if (n->op == Op::hard_sigmoid && n->operands[0] == x &&
        is_near(m, n->attrs.get_float("alpha"), 1.0 / 6) && n->attrs.get_float("beta") == 0.5)
      return m.b(Op::hard_swish, {x});
    const Node *softplus = n->op == Op::tanh ? m.def(n->operands[0], Op::softplus) : nullptr;
    if (softplus && softplus->operands[0] == x)
      return m.b(Op::mish, {x});
  }
  return {};
}

// 1 / (1 + exp(-x)) = sigmoid(x)
ValueId raise_sigmoid(Match &m) {
  ValueId below = m.operand(0);
  if (m.node().op == Op::div) {
    if (!m.is_splat(m.operand(0), 1))
      return {};
    below = m.operand(1);
  }
  auto sum = plus_constant(m, below);
  const Node *exp = sum && sum->second == 1 ? m.def(sum->first, Op::exp) : nullptr;
  const Node *neg = exp ? m.def(exp->operands[0], Op::neg) : nullptr;
  if (!neg || !m.is_float_result() || m.type(neg->operands[0]) != m.type())
    return {};
  return m.b(Op::sigmoid, {neg->operands[0]});
}

// A mean over trailing axes that keeps its dims; its first axis.
std::optional<int64_t> trailing_mean(const Match &m, ValueId mean, ValueId of) {
  const Node *n = m.def(mean, Op::reduce_mean);
  if (!n || n->operands[0] != of || !n->attrs.get_bool("keepdims"))
    return std::nullopt;
  size_t rank = m.shape(of).size();
  auto axes = normal_axes(n->attrs, "axes", rank);
  std::sort(axes.begin(), axes.end());
  for (size_t i = 0; i < axes.size(); ++i)
    if (axes[i] != int64_t(rank - axes.size() + i))
      return std::nullopt;
  return axes.empty() ? std::nullopt : std::optional(axes[0]);
}

// d / sqrt(mean(d^2) + epsilon) with d = x - mean(x), as layer_norm(x); the sqrt may be a
// reciprocal one.
ValueId raise_layer_norm(Match &m) {
  for (int i = 0; i < (m.node().op == Op::mul ? 2 : 1); ++i) {
    ValueId centred = m.operand(i), scale = m.operand(1 - i);
    const Node *d = m.def(centred, Op::sub);
    const Node *root = m.def(scale, m.node().op == Op::mul ? Op::rsqrt : Op::sqrt);
    if (!d || !root || m.type(centred) != m.type())
      continue;
    auto sum = plus_constant(m, root->operands[0]);
    const Node *variance = sum ? m.def(sum->first, Op::reduce_mean) : nullptr;
    if (!variance || !(sum->second > 0))
      continue;
    Product square = product_of(m, variance->operands[0]);
    auto axis = trailing_mean(m, d->operands[1], d->operands[0]);
    auto axis2 = trailing_mean(m, sum->first, variance->operands[0]);
    if (!axis || axis != axis2 || square.constant != 1 || square.powers.size() != 1 ||
        square.power(centred) != 2)
      continue;
    return m.b(Op::layer_norm, {d->operands[0]}, {{"axis", Dim(*axis)}, {"epsilon", sum->second}});
  }
  return {};
}

const Rule kRules[] = {
    {Op::mul, "d * rsqrt(mean(d^2) + e) = layer_norm(x)", raise_layer_norm},
    {Op::div, "d / sqrt(mean(d^2) + e) = layer_norm(x)", raise_layer_norm},
    {Op::mul, "x * f(x) = gelu, silu, hard_swish, mish", raise_product},
    {Op::div, "x * f(x) / c = gelu, hard_swish", raise_product},
    {Op::div, "1 / (1 + exp(-x)) = sigmoid(x)", raise_sigmoid},
    {Op::reciprocal, "1 / (1 + exp(-x)) = sigmoid(x)", raise_sigmoid},
};

} // namespace

std::span<const Rule> raising_rules() {
  return kRules;
}

} // namespace kiln
