// Fused operators of com.microsoft that exported and optimised transformers carry: they become what they
// were fused from, and the passes fuse that in their own way.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

Result<Val> plus(OnnxNode &n, const Val &x, size_t i) {
  if (!n.has(i))
    return x;
  return n.emit(Op::add, {x, n.in(i)});
}

Result<Val> turned(OnnxNode &n, const Val &x, bool turn) {
  if (!turn)
    return x;
  if (x.rank() < 2)
    return Error{fmt::format("{} cannot be transposed", x.type.text())};
  std::vector<int64_t> order;
  for (int d = 0; d < x.rank(); ++d)
    order.push_back(d);
  std::swap(order[order.size() - 1], order[order.size() - 2]);
  return permute(n.emitter(), x, order);
}

// The activation that a fused convolution or product names.
Result<Val> activated(OnnxNode &n, const Val &x, const std::string &name, const std::vector<double> &params) {
  auto param = [&](size_t i, double otherwise) { return i < params.size() ? params[i] : otherwise; };
  if (name.empty())
    return x;
  for (auto [known, op] : {std::pair("Relu", Op::relu), std::pair("Tanh", Op::tanh), std::pair("Sigmoid", Op::sigmoid)})
    if (name == known)
      return n.emit(op, {x});
  if (name == "LeakyRelu")
    return n.emit(Op::leaky_relu, {x}, {{"alpha", param(0, 0.01)}});
  if (name == "Clip")
    return n.emit(Op::clamp, {x}, {{"min", param(0, -3.4028234663852886e38)}, {"max", param(1, 3.4028234663852886e38)}});
  if (name == "HardSigmoid")
    return n.emit(Op::hard_sigmoid, {x}, {{"alpha", param(0, 0.2)}, {"beta", param(1, 0.5)}});
  return Error{fmt::format("its activation '{}' is not supported", name)};
}

Attrs last_axis(OnnxNode &n, int rank, double epsilon) {
  return {{"axis", attr_int(rank - 1)}, {"epsilon", n.get_float("epsilon", epsilon)}};
}

} // namespace

Status import_fused_matmul(OnnxNode &n) {
  if (n.get_flag("transBatchA", false) || n.get_flag("transBatchB", false))
    return Error{"transposed batch dims are not supported"};
  KILN_TRY(a, turned(n, n.in(0), n.get_flag("transA", false)));
  bool transposed = n.get_flag("transB", false);
  if (a.rank() < 2 || n.rank(1) < 2)
    return Error{"its operands must be matrices"};
  KILN_TRY(product, n.emit(Op::dot, {a, n.in(1)}, {{"transpose_b", transposed}}));
  double alpha = n.get_float("alpha", 1);
  if (alpha == 1)
    return n.finish(Result<Val>(product));
  return n.finish(Op::mul, {product, n.emitter().scalar(product.dtype(), alpha)});
}

Status import_fused_gemm(OnnxNode &n) {
  KILN_TRY(a, turned(n, n.in(0), n.get_flag("transA", false)));
  bool transposed = n.get_flag("transB", false);
  double alpha = n.get_float("alpha", 1), beta = n.get_float("beta", 1);
  KILN_TRY(product, n.emit(Op::dot, {a, n.in(1)}, {{"transpose_b", transposed}}));
  KILN_TRY(sum, n.emit(Op::mul, {product, n.emitter().scalar(product.dtype(), alpha)}));
  if (n.has(2)) {
    KILN_TRY(c, n.emit(Op::mul, {n.in(2), n.emitter().scalar(n.dtype(2), beta)}));
    KILN_TRY(both, n.emit(Op::add, {sum, c}));
    sum = both;
  }
  std::vector<double> params;
  for (const char *name : {"activation_alpha", "activation_beta"})
    if (n.has_attr(name))
      params.push_back(n.get_float(name, 0));
  return n.finish(activated(n, sum, n.get_string("activation", ""), params));
}

Status import_fused_conv(OnnxNode &n) {
  std::vector<Val> operands = {n.in(0), n.in(1)};
  if (n.has(2))
    operands.push_back(n.in(2));
  KILN_TRY(y, convolve(n, operands));
  KILN_TRY(sum, plus(n, y, 3));
  return n.finish(activated(n, sum, n.get_string("activation", ""), n.get_floats("activation_params")));
}

Status import_bias_gelu(OnnxNode &n) {
  KILN_TRY(x, plus(n, n.in(0), 1));
  return n.finish(Op::gelu, {x}, {{"approximate", std::string("none")}});
}

Status import_fast_gelu(OnnxNode &n) {
  KILN_TRY(x, plus(n, n.in(0), 1));
  return n.finish(Op::gelu, {x}, {{"approximate", std::string("tanh")}});
}

Status import_quick_gelu(OnnxNode &n) {
  KILN_TRY(scaled, n.emit(Op::mul, {n.in(0), n.emitter().scalar(n.dtype(), n.get_float("alpha", 1.702))}));
  KILN_TRY(gate, n.emit(Op::sigmoid, {scaled}));
  return n.finish(Op::mul, {n.in(0), gate});
}

Status import_skip_layer_normalization(OnnxNode &n) {
  KILN_TRY(both, plus(n, n.in(0), 1));
  KILN_TRY(x, plus(n, both, 4));
  std::vector<Val> operands = {x, n.in(2)};
  if (n.has(3))
    operands.push_back(n.in(3));
  KILN_TRY(y, n.emit(Op::layer_norm, operands, last_axis(n, x.rank(), 1e-12)));
  n.set(0, y);
  if (n.wants(3))
    n.set(3, x);
  return Unit{};
}

Status import_skip_simplified_layer_normalization(OnnxNode &n) {
  KILN_TRY(both, plus(n, n.in(0), 1));
  KILN_TRY(x, plus(n, both, 3));
  KILN_TRY(y, n.emit(Op::rms_norm, {x, n.in(2)}, last_axis(n, x.rank(), 1e-12)));
  n.set(0, y);
  if (n.wants(3))
    n.set(3, x);
  return Unit{};
}

Status import_simplified_layer_normalization(OnnxNode &n) {
  n.ignore({"stash_type"});
  KILN_TRY(axis, n.axis(n.get_int("axis", -1), n.rank()));
  return n.finish(Op::rms_norm, {n.in(0), n.in(1)}, {{"axis", attr_int(axis)}, {"epsilon", n.get_float("epsilon", 1e-5)}});
}

// layer_norm(word[ids] + position[0..L] + segment[segments])
Status import_embed_layer_normalization(OnnxNode &n) {
  Emitter &e = n.emitter();
  n.ignore({"mask_index_type"});
  for (size_t i : {2, 3, 5, 6}) // 1, 4, 7 and 8 may be left out
    if (!n.has(i))
      return Error{fmt::format("its input {} is missing", i)};
  if (n.rank(0) != 2)
    return Error{fmt::format("its ids must be [B, L], not {}", n.in(0).type.text())};
  const Dim &batch = n.shape(0)[0], &length = n.shape(0)[1];
  KILN_TRY(sum, n.emit(Op::gather, {n.in(2), n.in(0)}, {{"axis", attr_int(0)}}));
  KILN_TRY(positions, n.has(8) ? n.emit(Op::gather, {n.in(3), n.in(8)}, {{"axis", attr_int(0)}})
                               : slice_axis(e, n.in(3), 0, 0, length));
  KILN_TRY(placed, n.emit(Op::add, {sum, positions}));
  sum = placed;
  if (n.has(1) && n.has(4)) {
    KILN_TRY(segments, n.emit(Op::gather, {n.in(4), n.in(1)}, {{"axis", attr_int(0)}}));
    KILN_TRY(all, n.emit(Op::add, {sum, segments}));
    sum = all;
  }
  KILN_TRY(y, n.emit(Op::layer_norm, {sum, n.in(5), n.in(6)}, last_axis(n, sum.rank(), 1e-12)));
  n.set(0, y);
  if (n.wants(1)) { // how many positions the mask leaves, for each batch
    if (n.has(7)) {
      KILN_TRY(mask, convert(e, n.in(7), DType::i32));
      KILN_TRY(count, n.emit(Op::reduce_sum, {mask}, {{"axes", attr_ints(std::vector<int64_t>{1})}, {"keepdims", false}}));
      n.set(1, count);
    } else {
      KILN_TRY(zeros, broadcast_to(e, e.scalar(DType::i32, 0), {batch}));
      n.set(1, zeros);
    }
  }
  if (n.wants(2))
    n.set(2, sum);
  return Unit{};
}

} // namespace kiln::onnx
