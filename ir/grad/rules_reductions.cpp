// Gradients of reductions: dy in the shape of the operand, times what one element does to the result.
#include "ir/grad/rules.h"

#include "ir/ops/infer_util.h"

namespace kiln::grad {
namespace {

using R = Rule &;

// A value of the result's shape with the reduced dims as 1, so that it broadcasts against x.
Val kept(R r, Val v) {
  Shape shape = r.x().shape();
  for (int axis : axes_of(r.attrs(), "axes", int(shape.size())))
    shape[size_t(axis)] = 1;
  return reshape(v, shape);
}

std::vector<Dim> reduced_axes(R r) {
  auto axes = axes_of(r.attrs(), "axes", r.x().rank());
  return {axes.begin(), axes.end()};
}

Val spread(R r, Val v) { return broadcast_to(kept(r, v), r.x().shape()); }

void mean_rule(R r) {
  Dim count = 1;
  for (int axis : axes_of(r.attrs(), "axes", r.x().rank()))
    count *= r.x().shape()[size_t(axis)];
  if (auto n = count.try_const())
    return r.add(0, spread(r, r.dy() / double(std::max<int64_t>(*n, 1))));
  // The mean of ones' gradient is 1 / count, whatever the count is in this run.
  Val ones = sum(broadcast_to(r.dy().number(1), r.x().shape()), reduced_axes(r), true);
  r.add(0, broadcast_to(kept(r, r.dy()) / ones, r.x().shape()));
}

// Equal extrema share, as in PyTorch's amax.
void extremum_rule(R r) {
  Val hit = r.x().op(Op::eq, {kept(r, r.y())}).op(Op::convert, {}, {{"dtype", r.dy().dtype()}});
  Val count = sum(hit, reduced_axes(r), true);
  r.add(0, hit * (kept(r, r.dy()) / count));
}

// The product of all others: y / x; where one element is 0 only that one has a slope.
void prod_rule(R r) {
  Val x = r.x(), zero = x.op(Op::eq, {x.number(0)});
  Val filled = where(zero, x.number(1), x);
  auto axes = reduced_axes(r);
  Val rest = filled.op(Op::reduce_prod, {}, {{"axes", axes}, {"keepdims", true}});
  Val zeros_here = zero.op(Op::convert, {}, {{"dtype", x.dtype()}});
  Val others = sum(zeros_here, axes, true) - zeros_here;
  Val none_else = others.op(Op::eq, {x.number(0)});
  r.add(0, where(none_else, kept(r, r.dy()) * (rest / filled), x.number(0)));
}

// x / |x|, and 0 where all elements are.
void l2_rule(R r) {
  Val y = kept(r, r.y());
  Val safe = where(y.op(Op::eq, {y.number(0)}), y.number(1), y);
  r.add(0, r.x() * (kept(r, r.dy()) / safe));
}

constexpr std::string_view kNotFloat = "its result is not a float";

const OpGrad kRules[] = {
    {Op::reduce_sum, [](R r) { r.add(0, spread(r, r.dy())); }},
    {Op::reduce_mean, mean_rule},
    {Op::reduce_max, extremum_rule},
    {Op::reduce_min, extremum_rule},
    {Op::reduce_prod, prod_rule},
    {Op::reduce_any, nullptr, kNotFloat},
    {Op::reduce_all, nullptr, kNotFloat},
    {Op::reduce_l1, [](R r) { r.add(0, r.x().op(Op::sign) * kept(r, r.dy())); }},
    {Op::reduce_l2, l2_rule},
    {Op::reduce_sum_square, [](R r) { r.add(0, r.x() * (kept(r, r.dy()) * 2)); }},
    {Op::reduce_log_sum_exp,
     [](R r) { r.add(0, (r.x() - kept(r, r.y())).op(Op::exp) * kept(r, r.dy())); }},
    {Op::argmax, nullptr, kNotFloat},
    {Op::argmin, nullptr, kNotFloat},
};

} // namespace

std::span<const OpGrad> reduction_rules() { return kRules; }

} // namespace kiln::grad
