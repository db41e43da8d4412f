// Ops that write elements at indices held in a tensor into a copy of x. Updates are applied in row-major
// order, so that of two at one place the last wins, on every target.
#include "ir/ops/infer_util.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Status check_reduction(const InferContext &context) {
  KILN_TRY(reduction, choice_attr(context.attrs, "reduction", {"none", "add", "mul", "min", "max"}));
  if (reduction != "none" && is_bool(context.operands[0].dtype))
    return Error{fmt::format("reduction \"{}\" of bool: convert to u8 first", reduction)};
  return Unit{};
}

Result<Types> infer_scatter_elements(InferContext &context) {
  const TensorType &x = context.operands[0], &indices = context.operands[1];
  KILN_TRY(axis, axis_attr(context.attrs, "axis", x.rank()));
  KILN_RETURN_IF_ERROR(check_integer(context, 1));
  KILN_RETURN_IF_ERROR(check_rank(context, 1, x.rank()));
  KILN_RETURN_IF_ERROR(same_dtype(context, 0, 2));
  KILN_RETURN_IF_ERROR(equal_shapes(context, indices.shape, context.operands[2].shape,
                                    "shapes of the indices and the updates"));
  for (int d = 0; d < x.rank(); ++d)
    if (d != axis && !require_at_most(context, indices.shape[size_t(d)], x.shape[size_t(d)]))
      return Error{fmt::format("dim {} of the indices {} is larger than that of {}", d, indices.text(),
                               x.text())};
  KILN_RETURN_IF_ERROR(check_reduction(context));
  return Types{x};
}

Result<Types> infer_scatter_nd(InferContext &context) {
  const TensorType &x = context.operands[0], &indices = context.operands[1];
  KILN_RETURN_IF_ERROR(check_integer(context, 1));
  KILN_RETURN_IF_ERROR(check_rank_at_least(context, 0, 1));
  KILN_RETURN_IF_ERROR(check_rank_at_least(context, 1, 1));
  KILN_RETURN_IF_ERROR(same_dtype(context, 0, 2));
  auto depth = indices.shape.back().try_const();
  if (!depth || *depth < 1 || *depth > x.rank())
    return Error{fmt::format("the last dim of the indices {} is the number of dims of {} that are indexed: "
                             "it must be a number from 1 to {}",
                             indices.text(), x.text(), x.rank())};
  Shape expected(indices.shape.begin(), indices.shape.end() - 1);
  expected.insert(expected.end(), x.shape.begin() + *depth, x.shape.end());
  KILN_RETURN_IF_ERROR(equal_shapes(context, context.operands[2].shape, expected,
                                    "the shape of the updates against indices.shape[:-1] + the rest of x"));
  KILN_RETURN_IF_ERROR(check_reduction(context));
  return Types{x};
}

} // namespace

const OpDef op_scatter_elements{
    .name = "scatter_elements",
    .doc = "A copy of x where each update is put (or added, ...) at its own position with the index in place "
           "of the one along axis.",
    .min_operands = 3,
    .max_operands = 3,
    .attrs = {{"axis", AttrKind::integer}, {"reduction", AttrKind::string, Attr(std::string("none"))}},
    .infer = infer_scatter_elements,
};

const OpDef op_scatter_nd{
    .name = "scatter_nd",
    .doc = "A copy of x where slices are replaced by (or combined with) updates; the last dim of the indices "
           "holds the positions in the leading dims of x.",
    .min_operands = 3,
    .max_operands = 3,
    .attrs = {{"reduction", AttrKind::string, Attr(std::string("none"))}},
    .infer = infer_scatter_nd,
};

} // namespace kiln
