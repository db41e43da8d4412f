// Ops that read elements at indices held in a tensor. Negative indices count from the end; one that is
// out of range traps.
#include "ir/ops/infer_util.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_gather(InferContext &context) {
  const TensorType &x = context.operands[0], &indices = context.operands[1];
  KILN_TRY(axis, axis_attr(context.attrs, "axis", x.rank()));
  KILN_RETURN_IF_ERROR(check_integer(context, 1));
  Shape out(x.shape.begin(), x.shape.begin() + axis);
  out.insert(out.end(), indices.shape.begin(), indices.shape.end());
  out.insert(out.end(), x.shape.begin() + axis + 1, x.shape.end());
  return one_result(x.dtype, std::move(out));
}

Result<Types> infer_gather_elements(InferContext &context) {
  const TensorType &x = context.operands[0], &indices = context.operands[1];
  KILN_TRY(axis, axis_attr(context.attrs, "axis", x.rank()));
  KILN_RETURN_IF_ERROR(check_integer(context, 1));
  KILN_RETURN_IF_ERROR(check_rank(context, 1, x.rank()));
  for (int d = 0; d < x.rank(); ++d)
    if (d != axis && !require_at_most(context, indices.shape[size_t(d)], x.shape[size_t(d)]))
      return Error{fmt::format("dim {} of the indices {} is larger than that of {}", d, indices.text(),
                               x.text())};
  return one_result(x.dtype, indices.shape);
}

Result<Types> infer_gather_nd(InferContext &context) {
  const TensorType &x = context.operands[0], &indices = context.operands[1];
  KILN_RETURN_IF_ERROR(check_integer(context, 1));
  KILN_RETURN_IF_ERROR(check_rank_at_least(context, 0, 1));
  KILN_RETURN_IF_ERROR(check_rank_at_least(context, 1, 1));
  KILN_TRY(batch, int_attr(context.attrs, "batch_dims"));
  if (batch < 0 || batch >= x.rank() || batch >= indices.rank())
    return Error{fmt::format("batch_dims is {}; with {} and indices {} it must be from 0 to {}", batch,
                             x.text(), indices.text(), std::min(x.rank(), indices.rank()) - 1)};
  auto depth = indices.shape.back().try_const();
  if (!depth || *depth < 1 || *depth > x.rank() - batch)
    return Error{fmt::format("the last dim of the indices {} is the number of dims of {} that are indexed: "
                             "it must be a number from 1 to {}",
                             indices.text(), x.text(), x.rank() - batch)};
  Shape out;
  for (size_t d = 0; d < size_t(batch); ++d) {
    KILN_RETURN_IF_ERROR(equal_dims(context, x.shape[d], indices.shape[d], "a batch dim"));
    out.push_back(x.shape[d]);
  }
  out.insert(out.end(), indices.shape.begin() + batch, indices.shape.end() - 1);
  out.insert(out.end(), x.shape.begin() + batch + *depth, x.shape.end());
  return one_result(x.dtype, std::move(out));
}

} // namespace

const OpDef op_gather{
    .name = "gather",
    .doc = "Slices of x along axis, at the indices: of shape x.shape[:axis] + indices.shape + "
           "x.shape[axis+1:]. Negative indices count from the end.",
    .min_operands = 2,
    .max_operands = 2,
    .attrs = {{"axis", AttrKind::integer}},
    .infer = infer_gather,
};

const OpDef op_gather_elements{
    .name = "gather_elements",
    .doc = "An element of x for each index: the index replaces the position along axis.",
    .min_operands = 2,
    .max_operands = 2,
    .attrs = {{"axis", AttrKind::integer}},
    .infer = infer_gather_elements,
};

const OpDef op_gather_nd{
    .name = "gather_nd",
    .doc = "The last dim of the indices holds positions in the dims of x after batch_dims, of which the rest "
           "is taken whole.",
    .min_operands = 2,
    .max_operands = 2,
    .attrs = {{"batch_dims", AttrKind::integer, Attr(Dim(0))}},
    .infer = infer_gather_nd,
};

} // namespace kiln
