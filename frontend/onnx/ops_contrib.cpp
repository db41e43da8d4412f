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

// The batch dims of [M, batch..., K] put first.
Result<Val> batch_first(OnnxNode &n, const Val &x, bool turn) {
  if (!turn || x.rank() < 3)
    return x;
  std::vector<int64_t> order;
  for (int64_t d = 1; d < x.rank() - 1; ++d)
    order.push_back(d);
  order.push_back(0);
  order.push_back(x.rank() - 1);
  return permute(n.emitter(), x, order);
}

Result<Val> fused_matmul(OnnxNode &n) {
  if (n.rank(0) < 2 || n.rank(1) < 2)
    return Error{"its operands must be matrices"};
  KILN_TRY(a_batched, batch_first(n, n.in(0), n.get_flag("transBatchA", false)));
  KILN_TRY(a, turned(n, a_batched, n.get_flag("transA", false)));
  KILN_TRY(b, batch_first(n, n.in(1), n.get_flag("transBatchB", false)));
  KILN_TRY(product, n.emit(Op::dot, {a, b}, {{"transpose_b", n.get_flag("transB", false)}}));
  double alpha = n.get_float("alpha", 1);
  if (alpha == 1)
    return product;
  return n.emit(Op::mul, {product, n.emitter().scalar(product.dtype(), alpha)});
}

Attrs last_axis(OnnxNode &n, int rank, double epsilon) {
  return {{"axis", attr_int(rank - 1)}, {"epsilon", n.get_float("epsilon", epsilon)}};
}

} // namespace

Status import_fused_matmul(OnnxNode &n) { return n.finish(fused_matmul(n)); }

Status import_fused_matmul_activation(OnnxNode &n) {
  KILN_TRY(product, fused_matmul(n));
  std::vector<double> params;
  for (const char *name : {"activation_alpha", "activation_beta"})
    if (n.has_attr(name))
      params.push_back(n.get_float(name, 0));
  n.ignore({"activation_gamma", "activation_axis"});
  return n.finish(activated(n, product, n.get_string("activation", ""), params));
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

// What embeddings end with: the norm of the sum, and how many positions a mask leaves for each batch.
static Status normalised_embedding(OnnxNode &n, const Val &sum, const Val &scale, const Val &bias, size_t mask_operand) {
  Emitter &e = n.emitter();
  KILN_TRY(y, n.emit(Op::layer_norm, {sum, scale, bias}, last_axis(n, sum.rank(), 1e-12)));
  n.set(0, y);
  if (!n.wants(1))
    return Unit{};
  if (n.has(mask_operand)) {
    KILN_TRY(mask, convert(e, n.in(mask_operand), DType::i32));
    KILN_TRY(count, n.emit(Op::reduce_sum, {mask}, {{"axes", attr_ints(std::vector<int64_t>{1})}, {"keepdims", false}}));
    n.set(1, count);
  } else {
    KILN_TRY(zeros, broadcast_to(e, e.scalar(DType::i32, 0), {n.shape(0)[0]}));
    n.set(1, zeros);
  }
  return Unit{};
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
  if (n.rank(3) != 2)
    return Error{fmt::format("its table of positions must be [P, E], not {}", n.in(3).type.text())};
  KILN_TRY(sum, n.emit(Op::gather, {n.in(2), n.in(0)}, {{"axis", attr_int(0)}}));
  KILN_TRY(positions, n.has(8) ? n.emit(Op::gather, {n.in(3), n.in(8)}, {{"axis", attr_int(0)}})
                               : slice_axis(e, n.in(3), 0, 0, n.shape(0)[1]));
  KILN_TRY(placed, n.emit(Op::add, {sum, positions}));
  sum = placed;
  if (n.has(1) && n.has(4)) {
    KILN_TRY(segments, n.emit(Op::gather, {n.in(4), n.in(1)}, {{"axis", attr_int(0)}}));
    KILN_TRY(all, n.emit(Op::add, {sum, segments}));
    sum = all;
  }
  n.set(2, sum);
  return normalised_embedding(n, sum, n.in(5), n.in(6), 7);
}

// The same with tables of codes, rows of which are looked up before they become numbers. Operands: ids,
// segments, tables of words, positions and segments, scale and bias of the norm, mask, and then scales
// and zero points of the five.
Status import_qembed_layer_normalization(OnnxNode &n) {
  Emitter &e = n.emitter();
  bool segments = n.has(1) && n.has(4) && n.has(10) && n.has(15);
  for (size_t i : {0, 2, 3, 5, 6, 8, 9, 11, 12, 13, 14, 16, 17})
    if (!n.has(i))
      return Error{fmt::format("its input {} is missing", i)};
  if (n.rank(0) != 2)
    return Error{fmt::format("its ids must be [B, L], not {}", n.in(0).type.text())};
  if (n.rank(3) != 2)
    return Error{fmt::format("its table of positions must be [P, E], not {}", n.in(3).type.text())};
  // Codes of the table t of the five.
  auto real = [&](const Val &codes, size_t t) -> Result<Val> {
    KILN_TRY(scale, reshape(e, n.in(8 + t), {}));
    KILN_TRY(zero, reshape(e, n.in(13 + t), {}));
    return n.emit(Op::dequantize, {codes, scale, zero}, {{"axis", attr_int(0)}});
  };
  KILN_TRY(words, n.emit(Op::gather, {n.in(2), n.in(0)}, {{"axis", attr_int(0)}}));
  KILN_TRY(sum, real(words, 0));
  KILN_TRY(places, slice_axis(e, n.in(3), 0, 0, n.shape(0)[1]));
  KILN_TRY(positions, real(places, 1));
  KILN_TRY(placed, n.emit(Op::add, {sum, positions}));
  sum = placed;
  if (segments) {
    KILN_TRY(rows, n.emit(Op::gather, {n.in(4), n.in(1)}, {{"axis", attr_int(0)}}));
    KILN_TRY(kinds, real(rows, 2));
    KILN_TRY(all, n.emit(Op::add, {sum, kinds}));
    sum = all;
  }
  KILN_TRY(scale, real(n.in(5), 3));
  KILN_TRY(bias, real(n.in(6), 4));
  return normalised_embedding(n, sum, scale, bias, 7);
}

} // namespace kiln::onnx
