// Free functions over traced tensors, named as the ops are.
#include "frontend/trace/trace.h"

#include "ir/ops/op.h"

#include <cmath>

namespace kiln::trace {

namespace {

Tensor run(Op op, std::vector<Operand> operands, Attrs attrs = {}) {
  for (const Operand &o : operands)
    if (!o.is_number && !o.tensor.ok())
      return {};
  for (const Operand &o : operands)
    if (!o.is_number)
      return o.tensor.tracer()->call(op, operands, std::move(attrs), operands[0].where);
  return {};
}

// Operands that may be left out, at the end.
void add_optional(std::vector<Operand> &operands, const Tensor &t, const Where &where) {
  if (t.ok())
    operands.emplace_back(t, where);
}

std::vector<Dim> pair(const std::array<int64_t, 2> &p) { return {Dim(p[0]), Dim(p[1])}; }
std::vector<Dim> pads(const std::array<int64_t, 2> &p) { return {Dim(p[0]), Dim(p[1]), Dim(p[0]), Dim(p[1])}; }

} // namespace

#define X(name)                                                                                             \
  Tensor name(Operand x) { return run(Op::name, {x}); }
KILN_TRACE_UNARY(X)
#undef X
#define X(name)                                                                                             \
  Tensor name(Operand a, Operand b) { return run(Op::name, {a, b}); }
KILN_TRACE_BINARY(X)
#undef X

Tensor where(Tensor condition, Operand a, Operand b) { return run(Op::where, {{condition, a.where}, a, b}); }
Tensor gelu(Operand x, bool tanh_approximation) {
  return run(Op::gelu, {x}, {{"approximate", std::string(tanh_approximation ? "tanh" : "none")}});
}
Tensor leaky_relu(Operand x, double alpha) { return run(Op::leaky_relu, {x}, {{"alpha", alpha}}); }
Tensor clamp(Operand x, double min, double max) { return run(Op::clamp, {x}, {{"min", min}, {"max", max}}); }
Tensor softmax(Operand x, int axis) { return run(Op::softmax, {x}, {{"axis", Dim(axis)}}); }
Tensor log_softmax(Operand x, int axis) { return run(Op::log_softmax, {x}, {{"axis", Dim(axis)}}); }

Tensor concat(std::vector<Tensor> xs, int axis, Where where) {
  std::vector<Operand> operands;
  for (const Tensor &x : xs)
    operands.emplace_back(x, where);
  return run(Op::concat, std::move(operands), {{"axis", Dim(axis)}});
}

Tensor gather(Operand x, Tensor indices, int axis) {
  return run(Op::gather, {x, {indices, x.where}}, {{"axis", Dim(axis)}});
}

Tensor matmul(Operand a, Operand b) { return run(Op::dot, {a, b}); }

Tensor linear(Operand x, Tensor weight, Tensor bias) {
  std::vector<Operand> operands{x, {weight, x.where}};
  add_optional(operands, bias, x.where);
  return run(Op::dot, std::move(operands), {{"transpose_b", true}});
}

Tensor conv2d(Operand x, Tensor weight, Tensor bias, Window2d window) {
  std::vector<Operand> operands{x, {weight, x.where}};
  add_optional(operands, bias, x.where);
  return run(Op::conv, std::move(operands),
             {{"stride", pair(window.stride)}, {"pad", pads(window.padding)}, {"dilation", pair(window.dilation)},
              {"groups", Dim(window.groups)}});
}

namespace {

Tensor pool(Op op, Operand x, std::array<int64_t, 2> kernel, const Window2d &window) {
  return run(op, {x},
             {{"kernel", pair(kernel)}, {"stride", pair(window.stride)}, {"pad", pads(window.padding)},
              {"dilation", pair(window.dilation)}});
}

} // namespace

Tensor max_pool2d(Operand x, std::array<int64_t, 2> kernel, Window2d window) {
  return pool(Op::max_pool, x, kernel, window);
}
Tensor avg_pool2d(Operand x, std::array<int64_t, 2> kernel, Window2d window) {
  return pool(Op::avg_pool, x, kernel, window);
}

Tensor layer_norm(Operand x, Tensor scale, Tensor bias, int axis, double epsilon) {
  return run(Op::layer_norm, {x, {scale, x.where}, {bias, x.where}}, {{"axis", Dim(axis)}, {"epsilon", epsilon}});
}
Tensor rms_norm(Operand x, Tensor scale, int axis, double epsilon) {
  return run(Op::rms_norm, {x, {scale, x.where}}, {{"axis", Dim(axis)}, {"epsilon", epsilon}});
}
Tensor batch_norm(Operand x, Tensor scale, Tensor bias, Tensor mean, Tensor var, double epsilon) {
  return run(Op::batch_norm, {x, {scale, x.where}, {bias, x.where}, {mean, x.where}, {var, x.where}},
             {{"epsilon", epsilon}});
}

Tensor attention(Operand q, Tensor k, Tensor v, Tensor mask, bool causal) {
  if (!q.tensor.ok())
    return {};
  auto size = q.tensor.rank() > 0 ? q.tensor.shape().back().try_const() : std::nullopt;
  if (!size || *size <= 0)
    return q.tensor.tracer()->fail(q.where, "attention: the size of a query (its last dim) must be a number");
  std::vector<Operand> operands{q, {k, q.where}, {v, q.where}};
  add_optional(operands, mask, q.where);
  return run(Op::attention, std::move(operands), {{"scale", 1.0 / std::sqrt(double(*size))}, {"causal", causal}});
}

} // namespace kiln::trace
