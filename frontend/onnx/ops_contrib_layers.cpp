// Norms, biases and small layers of com.microsoft, as optimised diffusion models and transformers carry
// them; and operators of that domain that are those of the default domain under another name.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::onnx {
namespace {

Result<Val> add(OnnxNode &n, const Val &a, const Val &b) { return n.emit(Op::add, {a, b}); }
Result<Val> mul(OnnxNode &n, const Val &a, const Val &b) { return n.emit(Op::mul, {a, b}); }

// x[N, H, W, C] or [N, C, H, W] normalised over groups of channels, in the wider of both types.
Result<Val> grouped_norm(OnnxNode &n, const Val &x, bool last) {
  Emitter &e = n.emitter();
  if (x.rank() != 4)
    return Error{fmt::format("its operand {} must have four dims", x.type.text())};
  int64_t groups = n.get_int("groups", 0), activation = n.get_int("activation", 0);
  if (groups < 1 || activation < 0 || activation > 1)
    return Error{fmt::format("'groups' is {} and 'activation' {}; groups are 1 or more, activations 0 and 1", groups, activation)};
  KILN_TRY(first, last ? permute(e, x, {0, 3, 1, 2}) : Result<Val>(x));
  DType t = dtype_bits(n.dtype(1)) > dtype_bits(x.dtype()) ? n.dtype(1) : x.dtype();
  KILN_TRY(typed, convert(e, first, t));
  KILN_TRY(scale, convert(e, n.in(1), t));
  KILN_TRY(bias, convert(e, n.in(2), t));
  KILN_TRY(y, n.emit(Op::group_norm, {typed, scale, bias}, {{"groups", attr_int(groups)}, {"epsilon", n.get_float("epsilon", 1e-5)}}));
  KILN_TRY(active, activation == 1 ? n.emit(Op::silu, {y}) : Result<Val>(y));
  KILN_TRY(narrow, convert(e, active, x.dtype()));
  return last ? permute(e, narrow, {0, 2, 3, 1}) : Result<Val>(narrow);
}

// [C] or [N, C] so that it broadcasts to x.
Result<Val> by_channel(OnnxNode &n, const Val &v, bool last) {
  if (v.rank() != 1 && v.rank() != 2 && v.rank() != 4)
    return Error{fmt::format("what it adds is {}, which must have one, two or four dims", v.type.text())};
  if (v.rank() == 4 || (v.rank() == 1 && last))
    return v;
  Dim batch = v.rank() == 2 ? v.dim(0) : Dim(1), channels = v.dim(v.rank() - 1);
  return reshape(n.emitter(), v, last ? Shape{batch, 1, 1, channels} : Shape{batch, channels, 1, 1});
}

} // namespace

Status import_as(OnnxNode &n, std::vector<Val> operands, Handler handler) {
  OnnxNode inner(n.importer(), n.view(), n.importer().opset(""), std::move(operands));
  KILN_RETURN_IF_ERROR(handler(inner));
  if (inner.attribute_error())
    return Error{*inner.attribute_error()};
  std::vector<std::string> unread = inner.unread_attributes();
  for (const AttributeView &a : n.view().attributes)
    if (std::find(unread.begin(), unread.end(), a.name) == unread.end())
      n.ignore({a.name});
  for (size_t i = 0; i < inner.outputs().size(); ++i)
    if (inner.outputs()[i])
      n.set(i, *inner.outputs()[i]);
  return Unit{};
}

Status import_group_norm(OnnxNode &n) {
  return n.finish(grouped_norm(n, n.in(0), n.get_flag("channels_last", true)));
}

Status import_skip_group_norm(OnnxNode &n) {
  bool last = n.get_flag("channels_last", true);
  Val sum = n.in(0);
  for (size_t i : {3, 4}) {
    if (!n.has(i))
      continue;
    KILN_TRY(part, by_channel(n, n.in(i), last));
    KILN_TRY(both, add(n, sum, part));
    sum = both;
  }
  n.set(1, sum);
  return n.finish(grouped_norm(n, sum, last));
}

// rms_norm over groups of as many elements as the scale has, times the activated gate.
Status import_gated_rms_norm(OnnxNode &n) {
  Emitter &e = n.emitter();
  std::string activation = n.get_string("activation", "silu");
  if (activation != "silu" && activation != "swish" && activation != "sigmoid")
    return Error{fmt::format("'activation' is '{}'; there are silu, swish and sigmoid", activation)};
  auto width = n.rank() > 0 ? n.shape().back().try_const() : std::nullopt;
  auto size = n.rank(1) == 1 ? n.shape(1)[0].try_const() : std::nullopt;
  if (!width || !size || *size < 1 || *width % *size != 0 || n.shape(2) != n.shape(0))
    return Error{fmt::format("{} is not made of groups of {}", n.in(0).type.text(), n.in(1).type.text())};
  Shape shape = n.shape();
  shape.back() = *width / *size;
  shape.push_back(*size);
  Val wide[3];
  for (size_t i = 0; i < 3; ++i) {
    KILN_TRY(typed, convert(e, n.in(i), DType::f32));
    wide[i] = typed;
  }
  KILN_TRY(split, reshape(e, wide[0], shape));
  KILN_TRY(y, n.emit(Op::rms_norm, {split, wide[1]}, {{"axis", attr_int(n.rank())}, {"epsilon", n.get_float("epsilon", 1e-5)}}));
  KILN_TRY(whole, reshape(e, y, n.shape()));
  KILN_TRY(gate, n.emit(activation == "sigmoid" ? Op::sigmoid : Op::silu, {wide[2]}));
  KILN_TRY(out, mul(n, whole, gate));
  return n.finish(convert(e, out, n.dtype(0)));
}

Status import_bias_add(OnnxNode &n) {
  KILN_TRY(biased, add(n, n.in(0), n.in(1)));
  return n.finish(add(n, biased, n.in(2)));
}

// The left half of x + bias times gelu of the right half.
Status import_bias_split_gelu(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(x, add(n, n.in(0), n.in(1)));
  int last = x.rank() - 1;
  auto width = last < 0 ? std::nullopt : x.dim(last).try_const();
  if (!width || *width % 2 != 0)
    return Error{fmt::format("{} does not split into halves", x.type.text())};
  KILN_TRY(left, slice_axis(e, x, last, 0, *width / 2));
  KILN_TRY(right, slice_axis(e, x, last, *width / 2, *width / 2));
  KILN_TRY(gate, n.emit(Op::gelu, {right}, {{"approximate", std::string("none")}}));
  return n.finish(mul(n, left, gate));
}

// dropout(data + bias) + residual; operands data, bias, residual, ratio, training mode.
Status import_bias_dropout(OnnxNode &n) {
  KILN_TRY(x, add(n, n.in(0), n.in(1)));
  std::vector<Val> operands = {x, n.has(3) ? n.in(3) : Val{}, n.has(4) ? n.in(4) : Val{}};
  KILN_RETURN_IF_ERROR(import_as(n, operands, import_dropout));
  if (!n.has(2))
    return Unit{};
  return n.finish(add(n, *n.outputs()[0], n.in(2)));
}

Status import_gemm_fast_gelu(OnnxNode &n) {
  std::vector<Val> operands = {n.in(0), n.in(1)};
  if (n.has(2))
    operands.push_back(n.in(2));
  KILN_TRY(x, n.emit(Op::dot, operands));
  return n.finish(Op::gelu, {x}, {{"approximate", std::string("tanh")}});
}

// -- the default domain's operators under another name

Status import_contrib_pad(OnnxNode &n) { return import_as(n, n.inputs(), import_pad); }
Status import_contrib_quantize_linear(OnnxNode &n) { return import_as(n, n.inputs(), import_quantize_linear); }
Status import_contrib_dequantize_linear(OnnxNode &n) { return import_as(n, n.inputs(), import_dequantize_linear); }

Status import_contrib_range(OnnxNode &n) {
  std::vector<Val> operands = n.inputs();
  operands.resize(3);
  if (!n.has(2))
    operands[2] = n.emitter().scalar(n.dtype(0), 1);
  return import_as(n, operands, import_range);
}

Status import_contrib_linear_attention(OnnxNode &n) {
  if (n.get_int("state_window", 0) != 0)
    return Error{"a window of states (state_window) is not supported"};
  return import_linear_attention(n);
}

Status import_contrib_causal_conv_with_state(OnnxNode &n) {
  if (n.get_int("state_window", 0) != 0 || n.get_int("ndim", 1) != 1 || n.get_int("dilation", 1) != 1 || n.get_flag("channels_last", false))
    return Error{"state_window, ndim, dilation and channels_last are not supported other than by their defaults"};
  return import_causal_conv_with_state(n);
}

Status import_expand_dims(OnnxNode &n) {
  KILN_TRY(given, n.int_of(1, "axis"));
  KILN_TRY(axis, n.axis(given, n.rank() + 1));
  Shape shape = n.shape();
  shape.insert(shape.begin() + axis, 1);
  return n.finish(reshape(n.emitter(), n.in(0), shape));
}

Status import_torch_embedding(OnnxNode &n) {
  return n.finish(Op::gather, {n.in(0), n.in(1)}, {{"axis", attr_int(0)}});
}

// -- small numerics

Status import_is_all_finite(OnnxNode &n) {
  bool nan_only = n.get_flag("isnan_only", false), inf_only = n.get_flag("isinf_only", false);
  if (nan_only && inf_only)
    return Error{"isnan_only and isinf_only exclude each other"};
  std::optional<Val> out;
  for (size_t i = 0; i < n.input_count(); ++i) {
    std::optional<Val> bad;
    for (Op op : {Op::is_nan, Op::is_inf}) {
      if (op == Op::is_nan ? inf_only : nan_only)
        continue;
      KILN_TRY(here, n.emit(op, {n.in(i)}));
      KILN_TRY(both, bad ? n.emit(Op::logical_or, {*bad, here}) : Result<Val>(here));
      bad = both;
    }
    std::vector<int> axes;
    for (int d = 0; d < n.rank(i); ++d)
      axes.push_back(d);
    KILN_TRY(any, n.emit(Op::reduce_any, {*bad}, {{"axes", attr_ints(axes)}, {"keepdims", false}}));
    KILN_TRY(fine, n.emit(Op::logical_not, {any}));
    KILN_TRY(all, out ? n.emit(Op::logical_and, {*out, fine}) : Result<Val>(fine));
    out = all;
  }
  return n.finish(Result<Val>(*out));
}

// Distances between the rows of a[M, N] and b[K, N].
Status import_cdist(OnnxNode &n) {
  std::string metric = n.get_string("metric", "sqeuclidean");
  if (metric != "sqeuclidean" && metric != "euclidean")
    return Error{fmt::format("the metric '{}' is not supported; there are euclidean and sqeuclidean", metric)};
  if (n.rank(0) != 2 || n.rank(1) != 2)
    return Error{fmt::format("its operands must be matrices, not {} and {}", n.in(0).type.text(), n.in(1).type.text())};
  KILN_TRY(a, reshape(n.emitter(), n.in(0), {n.shape(0)[0], 1, n.shape(0)[1]}));
  KILN_TRY(difference, n.emit(Op::sub, {a, n.in(1)}));
  KILN_TRY(sum, n.emit(Op::reduce_sum_square, {difference}, {{"axes", attr_ints(std::vector<int>{2})}, {"keepdims", false}}));
  if (metric == "sqeuclidean")
    return n.finish(Result<Val>(sum));
  return n.finish(Op::sqrt, {sum});
}

// Slices of `size` elements along a dim, every `step` elements, in a dim of their own at the end.
Status import_unfold_tensor(OnnxNode &n) {
  Emitter &e = n.emitter();
  int64_t size = n.get_int("size", 0), step = n.get_int("step", 1);
  KILN_TRY(axis, n.axis(n.get_int("dim", -1), n.rank()));
  auto length = n.in(0).dim(axis).try_const();
  if (!length || size < 1 || step < 1 || size > *length)
    return Error{fmt::format("slices of {} every {} do not fit {} along axis {}", size, step, n.in(0).type.text(), axis)};
  int64_t count = (*length - size) / step + 1;
  if (count > kMaxFoldElements / size)
    return Error{fmt::format("{} slices of {} are too many", count, size)};
  std::vector<int64_t> places;
  for (int64_t i = 0; i < count; ++i)
    for (int64_t k = 0; k < size; ++k)
      places.push_back(i * step + k);
  KILN_TRY(index, reshape(e, e.ints(places), {count, size}));
  KILN_TRY(slices, n.emit(Op::gather, {n.in(0), index}, {{"axis", attr_int(axis)}}));
  std::vector<int64_t> order;
  for (int64_t d = 0; d <= n.rank(); ++d)
    if (d != axis + 1)
      order.push_back(d);
  order.push_back(axis + 1);
  return n.finish(permute(e, slices, order));
}

} // namespace kiln::onnx
