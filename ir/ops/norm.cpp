// Normalisations: over trailing axes (layer_norm, rms_norm), with given statistics (batch_norm), over
// the space of each channel (instance_norm) or of groups of channels (group_norm), and across
// neighbouring channels (lrn).
#include "ir/ops/composite.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_trailing_norm(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_float(context, 0));
  KILN_RETURN_IF_ERROR(same_dtype(context));
  KILN_RETURN_IF_ERROR(axis_attr(context.attrs, "axis", context.operands[0].rank()));
  for (size_t i = 1; i < context.operands.size(); ++i)
    KILN_RETURN_IF_ERROR(broadcasts_to(context, context.operands[i].shape, context.operands[0].shape));
  return Types{context.operands[0]};
}

// x[N, C, ...] and an operand [C] for every other one.
Result<Types> infer_channel_norm(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_float(context, 0));
  KILN_RETURN_IF_ERROR(same_dtype(context));
  KILN_RETURN_IF_ERROR(check_rank_at_least(context, 0, 2));
  const Dim &channels = context.operands[0].shape[1];
  for (size_t i = 1; i < context.operands.size(); ++i) {
    KILN_RETURN_IF_ERROR(check_rank(context, int(i), 1));
    KILN_RETURN_IF_ERROR(equal_dims(context, context.operands[i].shape[0], channels,
                                    fmt::format("the size of operand {} and the channels (dim 1) of {}", i,
                                                context.operands[0].text())));
  }
  return Types{context.operands[0]};
}

Result<Types> infer_instance_norm(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_rank_at_least(context, 0, 3));
  return infer_channel_norm(context);
}

Result<Types> infer_group_norm(InferContext &context) {
  KILN_TRY(out, infer_channel_norm(context));
  KILN_TRY(groups, int_attr(context.attrs, "groups"));
  const Dim &channels = out[0].shape[1];
  if (groups < 1 || !context.require_equal(mod(channels, groups), 0))
    return Error{fmt::format("{} channels cannot be split into {} groups", channels.text(), groups)};
  return out;
}

Result<Types> infer_lrn(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_float(context, 0));
  KILN_RETURN_IF_ERROR(check_rank_at_least(context, 0, 2));
  KILN_TRY(size, int_attr(context.attrs, "size"));
  if (size < 1 || size > INT32_MAX)
    return Error{fmt::format("'size' is {}; it is the number of channels summed, 1 or more", size)};
  return Types{context.operands[0]};
}

ValueId epsilon_of(GraphBuilder &b, const Node &node, ValueId like) {
  return b.scalar(b.type(like).dtype, node.attrs.get_float("epsilon"));
}

// (x - mean) / sqrt(variance + epsilon) over the axes.
ValueId standardise(GraphBuilder &b, const Node &node, ValueId x, const std::vector<Dim> &axes) {
  ValueId centred = b(Op::sub, {x, reduce_keep(b, Op::reduce_mean, x, axes)});
  ValueId variance = reduce_keep(b, Op::reduce_mean, b(Op::square, {centred}), axes);
  ValueId inverse = b(Op::rsqrt, {b(Op::add, {variance, epsilon_of(b, node, x)})});
  return b(Op::mul, {centred, inverse});
}

std::vector<ValueId> decompose_layer_norm(GraphBuilder &b, const Node &node) {
  ValueId x = widen(b, node.operands[0]);
  int rank = b.type(x).rank();
  ValueId out = standardise(b, node, x, axes_from(axis_of(node.attrs, "axis", rank), rank));
  if (node.operands.size() > 1)
    out = b(Op::mul, {out, widen(b, node.operands[1])});
  if (node.operands.size() > 2)
    out = b(Op::add, {out, widen(b, node.operands[2])});
  return {narrow(b, out, b.type(node.operands[0]).dtype)};
}

// x / sqrt(mean(x^2) + epsilon) * scale
std::vector<ValueId> decompose_rms_norm(GraphBuilder &b, const Node &node) {
  ValueId x = widen(b, node.operands[0]);
  int rank = b.type(x).rank();
  auto axes = axes_from(axis_of(node.attrs, "axis", rank), rank);
  ValueId mean = reduce_keep(b, Op::reduce_mean, b(Op::square, {x}), axes);
  ValueId out = b(Op::mul, {x, b(Op::rsqrt, {b(Op::add, {mean, epsilon_of(b, node, x)})})});
  if (node.operands.size() > 1)
    out = b(Op::mul, {out, widen(b, node.operands[1])});
  return {narrow(b, out, b.type(node.operands[0]).dtype)};
}

// x * a + (bias - mean * a) with a = scale / sqrt(var + epsilon): a and the bias are [C], so they fold
// to constants in a model whose parameters are.
std::vector<ValueId> decompose_batch_norm(GraphBuilder &b, const Node &node) {
  std::vector<ValueId> in;
  for (ValueId operand : node.operands)
    in.push_back(widen(b, operand));
  ValueId a = b(Op::mul, {in[1], b(Op::rsqrt, {b(Op::add, {in[4], epsilon_of(b, node, in[4])})})});
  ValueId shift = b(Op::sub, {in[2], b(Op::mul, {in[3], a})});
  int rank = b.type(in[0]).rank();
  ValueId out = b(Op::add, {b(Op::mul, {in[0], along_axis(b, a, 1, rank)}), along_axis(b, shift, 1, rank)});
  return {narrow(b, out, b.type(node.operands[0]).dtype)};
}

ValueId scale_channels(GraphBuilder &b, const Node &node, ValueId x) {
  int rank = b.type(x).rank();
  ValueId scale = along_axis(b, widen(b, node.operands[1]), 1, rank);
  ValueId bias = along_axis(b, widen(b, node.operands[2]), 1, rank);
  return b(Op::add, {b(Op::mul, {x, scale}), bias});
}

std::vector<ValueId> decompose_instance_norm(GraphBuilder &b, const Node &node) {
  ValueId x = widen(b, node.operands[0]);
  ValueId out = scale_channels(b, node, standardise(b, node, x, axes_from(2, b.type(x).rank())));
  return {narrow(b, out, b.type(node.operands[0]).dtype)};
}

std::vector<ValueId> decompose_group_norm(GraphBuilder &b, const Node &node) {
  ValueId x = widen(b, node.operands[0]);
  Shape shape = b.type(x).shape;
  int64_t groups = node.attrs.get_int("groups");
  Shape grouped = {shape[0], groups, floordiv(shape[1], groups)};
  grouped.insert(grouped.end(), shape.begin() + 2, shape.end());
  ValueId split = reshape_to(b, x, grouped);
  ValueId normal = standardise(b, node, split, axes_from(2, int(grouped.size())));
  ValueId out = scale_channels(b, node, reshape_to(b, normal, shape));
  return {narrow(b, out, b.type(node.operands[0]).dtype)};
}

// x / (bias + alpha * m) ^ beta, where m, the sum of x^2 over `size` channels divided by size, is the
// average pool with zero padding of x^2 as [N, 1, C, rest].
std::vector<ValueId> decompose_lrn(GraphBuilder &b, const Node &node) {
  if (element_count(b.type(node.operands[0]).shape).is_const(0))
    return {node.operands[0]}; // no element, and no size that a window fits in
  ValueId x = widen(b, node.operands[0]);
  const TensorType type = b.type(x);
  int64_t size = node.attrs.get_int("size"), before = (size - 1) / 2;
  Dim rest = element_count(std::span(type.shape).subspan(2));
  ValueId flat = reshape_to(b, b(Op::square, {x}), {type.shape[0], 1, type.shape[1], rest});
  std::vector<Dim> ones = {1, 1}, pad = {before, 0, size - 1 - before, 0};
  bool may_be_none = !type.shape[1].is_const(); // a window needs room where there are no channels, too
  if (may_be_none) {
    flat = b(Op::pad, {flat}, {{"lo", std::vector<Dim>{0, 0, before, 0}}, {"hi", std::vector<Dim>{0, 0, size - before, 0}}});
    pad = {0, 0, 0, 0};
  }
  ValueId mean = b(Op::avg_pool, {flat}, {{"kernel", std::vector<Dim>{size, 1}},
                                          {"stride", ones},
                                          {"pad", pad},
                                          {"dilation", ones},
                                          {"ceil_mode", false},
                                          {"count_include_pad", true}});
  if (may_be_none)
    mean = slice_axis(b, mean, 2, 0, type.shape[1]);
  ValueId alpha = b.scalar(type.dtype, node.attrs.get_float("alpha"));
  ValueId bias = b.scalar(type.dtype, node.attrs.get_float("bias"));
  ValueId beta = b.scalar(type.dtype, node.attrs.get_float("beta"));
  ValueId base = b(Op::add, {b(Op::mul, {reshape_to(b, mean, type.shape), alpha}), bias});
  ValueId out = b(Op::div, {x, b(Op::pow, {base, beta})});
  return {narrow(b, out, b.type(node.operands[0]).dtype)};
}

TensorType f32(Shape shape) { return {DType::f32, std::move(shape)}; }

OpSample trailing(std::vector<TensorType> operands, int64_t axis) {
  return {std::move(operands), {{"axis", Dim(axis)}, {"epsilon", 1e-5}}};
}

} // namespace

const OpDef op_layer_norm{
    .name = "layer_norm",
    .doc = "(x - mean) / sqrt(variance + epsilon) over the axes from `axis` on, times scale, plus bias; both "
           "broadcast to x.",
    .min_operands = 1,
    .max_operands = 3,
    .attrs = {{"axis", AttrKind::integer}, {"epsilon", AttrKind::real, Attr(1e-5)}},
    .infer = infer_trailing_norm,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::layer_norm, c); },
    .decompose = decompose_layer_norm,
    .samples = {trailing({f32({4, 16}), f32({16}), f32({16})}, -1),
                trailing({f32({2, 3, 5}), f32({3, 5})}, 1), trailing({f32({2, 7})}, 1)},
    .tolerance = 1e-4,
};

const OpDef op_rms_norm{
    .name = "rms_norm",
    .doc = "x / sqrt(mean(x^2) + epsilon) over the axes from `axis` on, times scale.",
    .min_operands = 1,
    .max_operands = 2,
    .attrs = {{"axis", AttrKind::integer}, {"epsilon", AttrKind::real}},
    .infer = infer_trailing_norm,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::rms_norm, c); },
    .decompose = decompose_rms_norm,
    .samples = {trailing({f32({4, 16}), f32({16})}, -1), trailing({f32({2, 3, 5})}, 1)},
    .tolerance = 1e-4,
};

const OpDef op_batch_norm{
    .name = "batch_norm",
    .doc = "(x - mean) / sqrt(var + epsilon) * scale + bias, each of the four with an element a channel (dim 1).",
    .min_operands = 5,
    .max_operands = 5,
    .attrs = {{"epsilon", AttrKind::real, Attr(1e-5)}},
    .infer = infer_channel_norm,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::batch_norm, c); },
    .decompose = decompose_batch_norm,
    .samples = {{{f32({2, 3, 4, 5}), f32({3}), f32({3}), f32({3}), f32({3})}, {}, 0.25, 2},
                {{f32({4, 6}), f32({6}), f32({6}), f32({6}), f32({6})}, {}, 0.25, 2}},
    .tolerance = 1e-4,
};

const OpDef op_instance_norm{
    .name = "instance_norm",
    .doc = "Normalises each channel of each item over its space, then times scale[C], plus bias[C].",
    .min_operands = 3,
    .max_operands = 3,
    .attrs = {{"epsilon", AttrKind::real, Attr(1e-5)}},
    .infer = infer_instance_norm,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::instance_norm, c); },
    .decompose = decompose_instance_norm,
    .samples = {{{f32({2, 3, 4, 5}), f32({3}), f32({3})}}, {{f32({1, 2, 9}), f32({2}), f32({2})}}},
    .tolerance = 1e-4,
};

const OpDef op_group_norm{
    .name = "group_norm",
    .doc = "Normalises each group of channels of each item, then times scale[C], plus bias[C].",
    .min_operands = 3,
    .max_operands = 3,
    .attrs = {{"groups", AttrKind::integer}, {"epsilon", AttrKind::real, Attr(1e-5)}},
    .infer = infer_group_norm,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::group_norm, c); },
    .decompose = decompose_group_norm,
    .samples = {{{f32({2, 6, 3, 3}), f32({6}), f32({6})}, {{"groups", Dim(3)}}}},
    .tolerance = 1e-4,
};

const OpDef op_lrn{
    .name = "lrn",
    .doc = "x / (bias + alpha / size * s)^beta, where s sums x^2 over `size` channels around each.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"size", AttrKind::integer},
              {"alpha", AttrKind::real},
              {"beta", AttrKind::real},
              {"bias", AttrKind::real}},
    .infer = infer_lrn,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::lrn, c); },
    .decompose = decompose_lrn,
    .samples = {{{f32({2, 7, 3, 2})}, {{"size", Dim(3)}, {"alpha", 1e-2}, {"beta", 0.75}, {"bias", 1.0}}},
                {{f32({1, 4, 5})}, {{"size", Dim(4)}, {"alpha", 0.5}, {"beta", 0.5}, {"bias", 2.0}}},
                {{f32({2, 3, 0})}, {{"size", Dim(3)}, {"alpha", 0.5}, {"beta", 0.5}, {"bias", 2.0}}}},
    .tolerance = 1e-4,
};

} // namespace kiln
