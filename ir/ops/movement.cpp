// Ops that copy elements to other places, each result element from one operand element: the code form
// is the map from a result index to an operand index, so chains of them cost nothing once fused.
// reshape, pad and concat have files of their own.
#include "ir/ops/index_util.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_broadcast_to(InferContext &context) {
  const Shape &shape = context.attrs.get_dims("shape");
  KILN_RETURN_IF_ERROR(nonnegative_dims(context, shape, "'shape'"));
  KILN_RETURN_IF_ERROR(broadcasts_to(context, context.operands[0].shape, shape));
  return one_result(context.operands[0].dtype, shape);
}

Result<Types> infer_permute(InferContext &context) {
  const TensorType &x = context.operands[0];
  KILN_TRY(dims, axes_attr(context.attrs, "dims", x.rank()));
  if (int(dims.size()) != x.rank())
    return Error{fmt::format("'dims' lists {} axes of {}; it must list each of the {} once", dims.size(),
                             x.text(), x.rank())};
  Shape out;
  for (int d : dims)
    out.push_back(x.shape[size_t(d)]);
  return one_result(x.dtype, std::move(out));
}

Result<Types> infer_slice(InferContext &context) {
  const TensorType &x = context.operands[0];
  KILN_TRY(axes, axes_attr(context.attrs, "axes", x.rank()));
  const auto &starts = context.attrs.get_dims("starts"), &ends = context.attrs.get_dims("ends");
  KILN_TRY(steps, ints_attr(context.attrs, "steps"));
  if (starts.size() != axes.size() || ends.size() != axes.size() || steps.size() != axes.size())
    return Error{fmt::format("'axes', 'starts', 'ends' and 'steps' have {}, {}, {} and {} entries; they "
                             "must have the same number",
                             axes.size(), starts.size(), ends.size(), steps.size())};
  Shape out = x.shape;
  for (size_t i = 0; i < axes.size(); ++i) {
    const Dim &size = x.shape[size_t(axes[i])], &start = starts[i], &end = ends[i];
    int64_t step = steps[i];
    if (step == 0 || step == INT64_MIN)
      return Error{fmt::format("the step of axis {} is {}", axes[i], step)};
    bool forward = step > 0;
    Dim first = forward ? start : end + Dim(1), last = forward ? end : start + Dim(1);
    if (!require_at_most(context, 0, first) || !require_at_most(context, first, last) ||
        !require_at_most(context, last, size))
      return Error{fmt::format("axis {} has size {}; it cannot be sliced from {} to {} with step {} "
                               "(clamp the range to the axis first)",
                               axes[i], size.text(), start.text(), end.text(), step)};
    out[size_t(axes[i])] = ceildiv(last - first, forward ? step : -step);
  }
  return one_result(x.dtype, std::move(out));
}

Result<Types> infer_flip(InferContext &context) {
  KILN_RETURN_IF_ERROR(axes_attr(context.attrs, "axes", context.operands[0].rank()));
  return Types{context.operands[0]};
}

Result<std::vector<Tensor>> ref_broadcast_to(const RefContext &context) {
  const Tensor &x = *context.operands[0];
  auto own = row_major_strides(x.dims());
  size_t offset = context.results[0].shape.size() - own.size();
  std::vector<int64_t> strides(context.results[0].shape.size(), 0);
  for (size_t d = 0; d < own.size(); ++d)
    strides[offset + d] = x.dims()[d] == 1 ? 0 : own[d];
  return one_tensor(strided_copy(x, 0, strides, context.results[0]));
}

Result<std::vector<Tensor>> ref_permute(const RefContext &context) {
  const Tensor &x = *context.operands[0];
  auto own = row_major_strides(x.dims());
  std::vector<int64_t> strides;
  for (int d : axes_of(context.attrs, "dims", x.rank()))
    strides.push_back(own[size_t(d)]);
  return one_tensor(strided_copy(x, 0, strides, context.results[0]));
}

Result<std::vector<Tensor>> ref_slice(const RefContext &context) {
  const Tensor &x = *context.operands[0];
  auto strides = row_major_strides(x.dims());
  auto axes = axes_of(context.attrs, "axes", x.rank());
  KILN_TRY(starts, ints_attr(context.attrs, "starts"));
  KILN_TRY(steps, ints_attr(context.attrs, "steps"));
  int64_t base = 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    base += starts[i] * strides[size_t(axes[i])];
    strides[size_t(axes[i])] *= steps[i];
  }
  return one_tensor(strided_copy(x, base, strides, context.results[0]));
}

Result<std::vector<Tensor>> ref_flip(const RefContext &context) {
  const Tensor &x = *context.operands[0];
  auto strides = row_major_strides(x.dims());
  int64_t base = 0;
  for (int axis : axes_of(context.attrs, "axes", x.rank())) {
    base += (x.dims()[size_t(axis)] - 1) * strides[size_t(axis)];
    strides[size_t(axis)] *= -1;
  }
  return one_tensor(strided_copy(x, base, strides, context.results[0]));
}

Expr element_broadcast_to(LowerContext &context, int, std::span<const Dim> index) {
  const Shape &shape = context.operand_type(0).shape;
  std::vector<Dim> at;
  for (size_t d = 0; d < shape.size(); ++d)
    at.push_back(shape[d].is_const(1) ? Dim(0) : index[index.size() - shape.size() + d]);
  return context.operand(0, at);
}

Expr element_permute(LowerContext &context, int, std::span<const Dim> index) {
  std::vector<Dim> at(index.size());
  auto dims = axes_of(context.attrs(), "dims", int(index.size()));
  for (size_t d = 0; d < at.size(); ++d)
    at[size_t(dims[d])] = index[d];
  return context.operand(0, at);
}

Expr element_slice(LowerContext &context, int, std::span<const Dim> index) {
  std::vector<Dim> at(index.begin(), index.end());
  auto axes = axes_of(context.attrs(), "axes", int(index.size()));
  const auto &starts = context.attrs().get_dims("starts"), &steps = context.attrs().get_dims("steps");
  for (size_t i = 0; i < axes.size(); ++i) {
    Dim &d = at[size_t(axes[i])];
    d = starts[i] + steps[i] * d;
  }
  return context.operand(0, at);
}

Expr element_flip(LowerContext &context, int, std::span<const Dim> index) {
  std::vector<Dim> at(index.begin(), index.end());
  for (int axis : axes_of(context.attrs(), "axes", int(index.size())))
    at[size_t(axis)] = context.operand_type(0).shape[size_t(axis)] - Dim(1) - at[size_t(axis)];
  return context.operand(0, at);
}

OpSample sample(Shape shape, Attrs attrs, DType dtype = DType::f32) {
  return {{{dtype, std::move(shape)}}, std::move(attrs)};
}
using Dims = std::vector<Dim>;

} // namespace

const OpDef op_broadcast_to{
    .name = "broadcast_to",
    .doc = "Repeats x along dims of size 1 (or missing in front) so that it has the given shape.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"shape", AttrKind::dims}},
    .infer = infer_broadcast_to,
    .ref = ref_broadcast_to,
    .element = element_broadcast_to,
    .traits = kMovement | kIdempotent,
    .samples = {sample({3, 1}, {{"shape", Dims{2, 3, 4}}}), sample({}, {{"shape", Dims{2, 3}}}),
                sample({5}, {{"shape", Dims{1, 5}}}, DType::i8)},
    .tolerance = 0,
};

const OpDef op_permute{
    .name = "permute",
    .doc = "Reorders the dims: dim i of the result is dim dims[i] of x.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"dims", AttrKind::dims, std::nullopt, "each axis of x once"}},
    .infer = infer_permute,
    .ref = ref_permute,
    .element = element_permute,
    .traits = kMovement,
    .samples = {sample({2, 3, 4}, {{"dims", Dims{2, 0, 1}}}), sample({3, 5}, {{"dims", Dims{1, 0}}}, DType::f16),
                sample({2, 1, 3, 4}, {{"dims", Dims{0, 2, 3, 1}}}, DType::u8)},
    .tolerance = 0,
};

const OpDef op_slice{
    .name = "slice",
    .doc = "Takes every step-th element of some axes. Ranges are clamped to the axis already: from start up "
           "to end for a positive step; from start down to, not including, end for a negative one, where "
           "end is -1 to include element 0.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"axes", AttrKind::dims},
              {"starts", AttrKind::dims},
              {"ends", AttrKind::dims},
              {"steps", AttrKind::dims}},
    .infer = infer_slice,
    .ref = ref_slice,
    .element = element_slice,
    .traits = kMovement,
    .samples = {sample({5, 7}, {{"axes", Dims{1}}, {"starts", Dims{2}}, {"ends", Dims{6}}, {"steps", Dims{1}}}),
                sample({5, 7}, {{"axes", Dims{-2, 1}}, {"starts", Dims{0, 6}}, {"ends", Dims{5, -1}}, {"steps", Dims{2, -3}}}),
                sample({4, 2}, {{"axes", Dims{0}}, {"starts", Dims{1}}, {"ends", Dims{4}}, {"steps", Dims{2}}}, DType::i64)},
    .tolerance = 0,
};

const OpDef op_flip{
    .name = "flip",
    .doc = "Reverses the order of the elements along the axes.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"axes", AttrKind::dims}},
    .infer = infer_flip,
    .ref = ref_flip,
    .element = element_flip,
    .traits = kMovement | kInvolution,
    .samples = {sample({3, 4}, {{"axes", Dims{1}}}), sample({2, 3, 5}, {{"axes", Dims{0, -1}}}, DType::bf16)},
    .tolerance = 0,
};

const OpDef op_relayout{
    .name = "relayout",
    .doc = "x itself. The compiler puts it where two kernels want a value in different layouts. With a device, which a program "
           "writes as x.to(cuda), it is a copy on the processor (cpu) or on the GPU (cuda).",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"device", AttrKind::string, Attr(std::string())}},
    .infer = [](InferContext &context) -> Result<Types> {
      const std::string &device = context.attrs.get_string("device");
      if (!device.empty() && device != "cpu" && device != "cuda")
        return Error{"there is no device '" + device + "': values are on cpu or cuda"};
      return Types{context.operands[0]};
    },
    .ref = [](const RefContext &context) -> Result<std::vector<Tensor>> {
      return std::vector<Tensor>{*context.operands[0]};
    },
    .element = [](LowerContext &context, int, std::span<const Dim> index) { return context.operand(0, index); },
    .traits = kMovement | kNoFold,
    .samples = {sample({2, 3, 5}, {}), sample({}, {{"device", std::string("cpu")}}, DType::i32)},
    .tolerance = 0,
};

const OpDef op_stop_gradient{
    .name = "stop_gradient",
    .doc = "x; no gradient flows through it.",
    .min_operands = 1,
    .max_operands = 1,
    .infer = [](InferContext &context) -> Result<Types> { return Types{context.operands[0]}; },
    .ref = [](const RefContext &context) -> Result<std::vector<Tensor>> { return std::vector{*context.operands[0]}; },
    .decompose = [](GraphBuilder &, const Node &node) { return node.operands; },
    .samples = {sample({3, 2}, {}), sample({}, {}, DType::i32)},
    .tolerance = 0,
};

} // namespace kiln
