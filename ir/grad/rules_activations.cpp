// Gradients of activation functions; at kinks as in PyTorch.
#include "ir/grad/rules.h"

#include <numbers>

namespace kiln::grad {
namespace {

using R = Rule &;

double real(R r, std::string_view name) { return r.attrs().get_float(name); }

// dy where the condition holds, else dy * slope.
void two_slopes(R r, Val condition, double yes, Val no) {
  Val first = yes == 1 ? r.dy() : r.dy() * yes;
  r.add(0, where(condition, first, no));
}

// dx = dy (Phi(x) + x phi(x)); of the approximation by tanh its own derivative.
void gelu_rule(R r) {
  Val x = r.x();
  if (r.attrs().get_string("approximate") == "tanh") {
    double k = std::numbers::sqrt2 * std::numbers::inv_sqrtpi, c = 0.044715;
    Val square = x.op(Op::square);
    Val t = (x * k * (square * c + 1)).op(Op::tanh);
    Val inner = (square * (3 * c) + 1) * k;
    r.add(0, r.dy() * (0.5 * (t + 1) + 0.5 * x * (1 - t.op(Op::square)) * inner));
    return;
  }
  Val cdf = 0.5 * ((x * (1 / std::numbers::sqrt2)).op(Op::erf) + 1);
  Val pdf = (x.op(Op::square) * -0.5).op(Op::exp) * (std::numbers::inv_sqrtpi / std::numbers::sqrt2);
  r.add(0, r.dy() * (cdf + x * pdf));
}

void silu_rule(R r) {
  Val s = r.x().op(Op::sigmoid);
  r.add(0, r.dy() * (s * (r.x() * (1 - s) + 1)));
}

void mish_rule(R r) {
  Val x = r.x(), t = x.op(Op::softplus).op(Op::tanh);
  r.add(0, r.dy() * (t + x * x.op(Op::sigmoid) * (1 - t.op(Op::square))));
}

// x > 0 ? scale * x : scale * alpha * (exp(x / width) - 1)
void exponential_rule(R r, double scale, double alpha, double width) {
  Val x = r.x();
  // exp of a large x is not used, but would become infinity times zero in further derivatives.
  Val low = where(greater(x, 0), x.number(0), x);
  Val slope = (width == 1 ? low : low / width).op(Op::exp) * (scale * alpha / width);
  two_slopes(r, greater(x, 0), scale, r.dy() * slope);
}

void clamp_rule(R r) {
  Val x = r.x();
  Val inside = x.op(Op::ge, {x.number(real(r, "min"))}).op(Op::logical_and, {x.op(Op::le, {x.number(real(r, "max"))})});
  two_slopes(r, inside, 1, r.dy().number(0));
}

void hard_sigmoid_rule(R r) {
  Val y = r.y();
  Val inside = greater(y, 0).op(Op::logical_and, {y.op(Op::lt, {y.number(1)})});
  two_slopes(r, inside, real(r, "alpha"), r.dy().number(0));
}

void hard_swish_rule(R r) {
  Val x = r.x(), middle = r.dy() * (x / 3 + 0.5);
  Val low = x.op(Op::le, {x.number(-3)}), high = x.op(Op::ge, {x.number(3)});
  r.add(0, where(low, r.dy().number(0), where(high, r.dy(), middle)));
}

void prelu_rule(R r) {
  Val positive = greater(r.x(0), 0);
  r.add(0, where(positive, r.dy(), r.dy() * r.x(1)));
  if (r.wants(1))
    r.add(1, where(positive, r.dy().number(0), r.dy() * r.x(0)));
}

const OpGrad kRules[] = {
    {Op::sigmoid, [](R r) { r.add(0, r.dy() * (r.y() * (1 - r.y()))); }},
    {Op::relu, [](R r) { two_slopes(r, greater(r.x(), 0), 1, r.dy().number(0)); }},
    {Op::gelu, gelu_rule},
    {Op::silu, silu_rule},
    {Op::mish, mish_rule},
    {Op::softplus, [](R r) { r.add(0, r.dy() * r.x().op(Op::sigmoid)); }},
    {Op::softsign, [](R r) { r.add(0, r.dy() / (r.x().op(Op::abs) + 1).op(Op::square)); }},
    {Op::elu, [](R r) { exponential_rule(r, 1, real(r, "alpha"), 1); }},
    {Op::selu, [](R r) { exponential_rule(r, real(r, "gamma"), real(r, "alpha"), 1); }},
    {Op::celu, [](R r) { exponential_rule(r, 1, real(r, "alpha"), real(r, "alpha")); }},
    {Op::leaky_relu, [](R r) { two_slopes(r, greater(r.x(), 0), 1, r.dy() * real(r, "alpha")); }},
    {Op::thresholded_relu,
     [](R r) { two_slopes(r, greater(r.x(), real(r, "alpha")), 1, r.dy().number(0)); }},
    {Op::hard_sigmoid, hard_sigmoid_rule},
    {Op::hard_swish, hard_swish_rule},
    {Op::clamp, clamp_rule},
    {Op::prelu, prelu_rule},
};

} // namespace

std::span<const OpGrad> activation_rules() { return kRules; }

} // namespace kiln::grad
