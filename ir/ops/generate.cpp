// Elements computed from their own index: iota, one_hot, trilu.
#include "ir/ops/infer_util.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_iota(InferContext &context) {
  const Shape &shape = context.attrs.get_dims("shape");
  KILN_RETURN_IF_ERROR(nonnegative_dims(context, shape, "'shape'"));
  KILN_RETURN_IF_ERROR(axis_attr(context.attrs, "axis", int(shape.size())));
  DType dtype = context.attrs.get_dtype("dtype");
  if (is_bool(dtype))
    return Error{"an index does not fit in bool; give iota a number dtype"};
  return one_result(dtype, shape);
}

Result<Types> infer_one_hot(InferContext &context) {
  const TensorType &indices = context.operands[0], &values = context.operands[1];
  KILN_RETURN_IF_ERROR(check_integer(context, 0));
  if (values.rank() != 1 || !context.require_equal(values.shape[0], 2))
    return Error{fmt::format("operand 1 is {}; it must hold two values, off and on", values.text())};
  const Dim &depth = context.attrs.get_dim("depth");
  KILN_RETURN_IF_ERROR(nonnegative_dims(context, {&depth, 1}, "'depth'"));
  KILN_TRY(axis, axis_attr(context.attrs, "axis", indices.rank() + 1));
  Shape out = indices.shape;
  out.insert(out.begin() + axis, depth);
  return one_result(values.dtype, std::move(out));
}

Result<Types> infer_trilu(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_rank_at_least(context, 0, 2));
  if (!context.attrs.get_dim("k").is_valid())
    return Error{"'k' overflows"};
  return Types{context.operands[0]};
}

} // namespace

const OpDef op_iota{
    .name = "iota",
    .doc = "Each element is its index along axis.",
    .attrs = {{"shape", AttrKind::dims}, {"axis", AttrKind::integer}, {"dtype", AttrKind::dtype}},
    .infer = infer_iota,
};

const OpDef op_one_hot{
    .name = "one_hot",
    .doc = "A new axis of size depth that holds values[1] at the index and values[0] elsewhere. Negative "
           "indices count from the end; one out of range gives no values[1] at all.",
    .min_operands = 2,
    .max_operands = 2,
    .attrs = {{"depth", AttrKind::integer}, {"axis", AttrKind::integer, Attr(Dim(-1))}},
    .infer = infer_one_hot,
};

const OpDef op_trilu{
    .name = "trilu",
    .doc = "Keeps the upper (else the lower) triangle of the last two dims, from the k-th diagonal on, and "
           "puts 0 elsewhere.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"upper", AttrKind::boolean, Attr(true)}, {"k", AttrKind::integer, Attr(Dim(0))}},
    .infer = infer_trilu,
    .traits = kZeroPreserving,
};

} // namespace kiln
