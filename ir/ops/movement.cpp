// Ops that copy elements to other places, each result element from one operand element: the code form
// is the map from a result index to an operand index, so chains of them cost nothing once fused.
// reshape, pad and concat have files of their own.
#include "ir/ops/infer_util.h"

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

} // namespace

const OpDef op_broadcast_to{
    .name = "broadcast_to",
    .doc = "Repeats x along dims of size 1 (or missing in front) so that it has the given shape.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"shape", AttrKind::dims}},
    .infer = infer_broadcast_to,
    .traits = kMovement | kIdempotent,
};

const OpDef op_permute{
    .name = "permute",
    .doc = "Reorders the dims: dim i of the result is dim dims[i] of x.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"dims", AttrKind::dims, std::nullopt, "each axis of x once"}},
    .infer = infer_permute,
    .traits = kMovement,
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
    .traits = kMovement,
};

const OpDef op_flip{
    .name = "flip",
    .doc = "Reverses the order of the elements along the axes.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"axes", AttrKind::dims}},
    .infer = infer_flip,
    .traits = kMovement | kInvolution,
};

} // namespace kiln
