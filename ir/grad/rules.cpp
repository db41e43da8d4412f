// Val's operators and the lookup of rules.
#include "ir/grad/rules.h"

#include "ir/ops/composite.h"

#include <array>

namespace kiln::grad {

Val Val::op(Op op, std::vector<Val> more, Attrs attrs) const {
  std::vector<ValueId> operands = {id};
  for (const Val &v : more)
    operands.push_back(v.id);
  return {b, (*b)(op, std::move(operands), std::move(attrs))};
}

Val operator+(Val a, Val b) { return a.op(Op::add, {b}); }
Val operator-(Val a, Val b) { return a.op(Op::sub, {b}); }
Val operator*(Val a, Val b) { return a.op(Op::mul, {b}); }
Val operator/(Val a, Val b) { return a.op(Op::div, {b}); }
Val operator-(Val a) { return a.op(Op::neg); }
Val operator+(Val a, double b) { return a + a.number(b); }
Val operator-(Val a, double b) { return a - a.number(b); }
Val operator-(double a, Val b) { return b.number(a) - b; }
Val operator*(Val a, double b) { return a * a.number(b); }
Val operator*(double a, Val b) { return b * a; }
Val operator/(Val a, double b) { return a / a.number(b); }
Val operator/(double a, Val b) { return b.number(a) / b; }
Val greater(Val a, double b) { return a.op(Op::gt, {a.number(b)}); }
Val where(Val condition, Val a, Val b) { return condition.op(Op::where, {a, b}); }

Val zeros(GraphBuilder &b, const TensorType &type) {
  return broadcast_to({&b, b.scalar(type.dtype, 0)}, type.shape);
}
Val zeros_like(Val x) { return zeros(*x.b, x.type()); }

Val broadcast_to(Val x, const Shape &shape) { return {x.b, broadcast(*x.b, x.id, shape)}; }
Val reshape(Val x, Shape shape) { return {x.b, reshape_to(*x.b, x.id, std::move(shape))}; }
Val permute(Val x, std::vector<int> dims) { return {x.b, permute_dims(*x.b, x.id, std::move(dims))}; }

Val sum(Val x, std::vector<Dim> axes, bool keepdims) {
  return axes.empty() ? x : x.op(Op::reduce_sum, {}, {{"axes", std::move(axes)}, {"keepdims", keepdims}});
}

Val pad(Val x, std::vector<Dim> lo, std::vector<Dim> hi) {
  auto none = [](const Dim &d) { return d.is_const(0); };
  if (std::all_of(lo.begin(), lo.end(), none) && std::all_of(hi.begin(), hi.end(), none))
    return x;
  return x.op(Op::pad, {}, {{"lo", std::move(lo)}, {"hi", std::move(hi)}});
}

Val slice(Val x, int axis, const Dim &begin, const Dim &end, int64_t step) {
  if (step == 1 && begin.is_const(0) && end == x.shape()[size_t(axis)])
    return x;
  return x.op(Op::slice, {},
              {{"axes", std::vector<Dim>{axis}},
               {"starts", std::vector<Dim>{begin}},
               {"ends", std::vector<Dim>{end}},
               {"steps", std::vector<Dim>{step}}});
}

Val sum_to(Val x, const Shape &shape) {
  Shape from = x.shape();
  if (from == shape)
    return x;
  size_t extra = from.size() - shape.size();
  std::vector<Dim> axes;
  for (size_t d = 0; d < from.size(); ++d)
    if (d < extra || (shape[d - extra].is_const(1) && !from[d].is_const(1)))
      axes.push_back(int64_t(d));
  return reshape(sum(x, std::move(axes), true), shape);
}

Rule::Rule(GraphBuilder &b, NodeId id, std::vector<ValueId> dys, std::function<bool(ValueId)> active,
           std::function<void(ValueId, Val)> add_to)
    : b_(b), id_(id), node_(b.function().node(id)), dys_(std::move(dys)), active_(std::move(active)),
      add_to_(std::move(add_to)) {}

Val Rule::dy(size_t i) {
  if (!dys_.at(i).valid())
    dys_[i] = zeros_like(y(i)).id;
  return {&b_, dys_[i]};
}

void Rule::add(size_t i, Val gradient) {
  if (!wants(i))
    return;
  TensorType type = x(i).type();
  if (gradient.shape() != type.shape)
    gradient = sum_to(gradient, type.shape);
  if (gradient.shape() != type.shape) // a size that is only known to be equal at run time
    gradient = reshape(gradient, type.shape);
  add_to_(node_.operands[i], gradient);
}

const OpGrad *find_rule(Op op) {
  static const auto table = [] {
    std::unordered_map<uint16_t, const OpGrad *> out;
    for (auto rules : {elementwise_rules(), activation_rules(), movement_rules(), index_rules(), reduction_rules(),
                       contraction_rules(), window_rules(), region_rules()})
      for (const OpGrad &rule : rules)
        KILN_CHECK(out.emplace(uint16_t(rule.op), &rule).second,
                   "two gradients of " + std::string(op_def(rule.op).name));
    return out;
  }();
  auto it = table.find(uint16_t(op));
  return it == table.end() ? nullptr : it->second;
}

} // namespace kiln::grad
