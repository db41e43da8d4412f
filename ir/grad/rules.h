// What gradient rules are written with. A rule sees a node with the gradients of its results (`dy`) and
// adds to those of its operands:
//
//   {Op::exp, [](Rule &r) { r.add(0, r.dy() * r.y()); }},
//
// Val is a value with operators, so that rules read like the formulas they are.
#pragma once

#include "ir/grad/grad.h"
#include "ir/ops/op.h"
#include "ir/ops/window.h"

#include <functional>
#include <optional>
#include <string_view>
#include <unordered_map>

namespace kiln::grad {

struct Val {
  GraphBuilder *b = nullptr;
  ValueId id;

  // Copies: adding nodes moves what references would point to.
  TensorType type() const { return b->type(id); }
  Shape shape() const { return b->type(id).shape; }
  int rank() const { return type().rank(); }
  DType dtype() const { return type().dtype; }
  Val number(double value) const { return {b, b->scalar(dtype(), value)}; }
  Val op(Op op, std::vector<Val> more = {}, Attrs attrs = {}) const;
};

Val operator+(Val a, Val b);
Val operator-(Val a, Val b);
Val operator*(Val a, Val b);
Val operator/(Val a, Val b);
Val operator-(Val a);
Val operator+(Val a, double b);
Val operator-(Val a, double b);
Val operator-(double a, Val b);
Val operator*(Val a, double b);
Val operator*(double a, Val b);
Val operator/(Val a, double b);
Val operator/(double a, Val b);
Val greater(Val a, double b); // -> bool
Val where(Val condition, Val a, Val b);
Val zeros(GraphBuilder &b, const TensorType &type);
Val zeros_like(Val x);

Val broadcast_to(Val x, const Shape &shape);
Val reshape(Val x, Shape shape);
Val permute(Val x, std::vector<int> dims);
Val sum(Val x, std::vector<Dim> axes, bool keepdims);
Val pad(Val x, std::vector<Dim> lo, std::vector<Dim> hi);
Val slice(Val x, int axis, const Dim &begin, const Dim &end, int64_t step = 1);
// The sum over what broadcasting repeated: x in the shape that was broadcast to x's.
Val sum_to(Val x, const Shape &shape);

// What a convolution with `w` reads, from the gradient of what it wrote: dy[N, M, ...] and
// w[M, C / groups, taps...] to x's shape [N, C, ...].
Val window_transposed(Val dy, Val w, const Shape &x, const Window &window, int64_t groups);

class Rule {
public:
  // `add_to(i, gradient)` takes what belongs to operand i; `captured` is for ops with regions.
  Rule(GraphBuilder &b, NodeId id, std::vector<ValueId> dys,
       std::function<bool(ValueId)> active, std::function<void(ValueId, Val)> add_to);

  GraphBuilder &b() { return b_; }
  NodeId id() const { return id_; }
  const Node &node() const { return node_; }
  const Attrs &attrs() const { return node_.attrs; }
  size_t operands() const { return node_.operands.size(); }
  Val x(size_t i = 0) { return {&b_, node_.operands.at(i)}; }
  Val y(size_t i = 0) { return {&b_, node_.results.at(i)}; }
  // The gradient of a result: zeros where nothing was added to it.
  Val dy(size_t i = 0);
  bool has_dy(size_t i) const { return dys_.at(i).valid(); }
  // Whether operand i's gradient is asked for.
  bool wants(size_t i) const { return i < node_.operands.size() && active_(node_.operands[i]); }
  bool wants(ValueId value) const { return active_(value); }
  // Adds to operand i's gradient, summed to its shape where it was broadcast.
  void add(size_t i, Val gradient);
  void add_to(ValueId value, Val gradient) { add_to_(value, gradient); }

  void fail(std::string why) { error_ = std::move(why); }
  const std::string &error() const { return error_; }

private:
  GraphBuilder &b_;
  NodeId id_;
  Node node_; // a copy, since the function grows
  std::vector<ValueId> dys_;
  std::function<bool(ValueId)> active_;
  std::function<void(ValueId, Val)> add_to_;
  std::string error_;
};

struct OpGrad {
  Op op;
  void (*rule)(Rule &) = nullptr;
  std::string_view none = ""; // why there is no gradient, for an error
};

// The rule of an op; null for those that are expanded.
const OpGrad *find_rule(Op op);

// The tables, by family.
std::span<const OpGrad> elementwise_rules();
std::span<const OpGrad> activation_rules();
std::span<const OpGrad> movement_rules();
std::span<const OpGrad> index_rules();
std::span<const OpGrad> reduction_rules();
std::span<const OpGrad> contraction_rules();
std::span<const OpGrad> window_rules();
std::span<const OpGrad> region_rules();

// For rules of regions: gradients of `of` with respect to `wrt`, taking `wrt` and whatever else lies outside of the
// builder's block as given. Nothing where a value does not depend on any.
Result<std::vector<ValueId>> inner_gradient(GraphBuilder &b, std::span<const ValueId> of,
                                            std::span<const ValueId> seeds,
                                            std::span<const ValueId> wrt);
// What the regions of a node use from outside, in order of first use.
std::vector<ValueId> captures(const Function &function, const Node &node);

} // namespace kiln::grad
