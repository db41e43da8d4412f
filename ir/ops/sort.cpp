// sort and topk: both order a row with a comparison in which equal elements keep their order and NaN is
// larger than every number.
#include "ir/ops/infer_util.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_sort(InferContext &context) {
  const TensorType &x = context.operands[0];
  KILN_RETURN_IF_ERROR(axis_attr(context.attrs, "axis", x.rank()));
  return Types{x, {DType::i64, x.shape}};
}

Result<Types> infer_topk(InferContext &context) {
  const TensorType &x = context.operands[0];
  KILN_TRY(axis, axis_attr(context.attrs, "axis", x.rank()));
  const Dim &k = context.attrs.get_dim("k");
  KILN_RETURN_IF_ERROR(nonnegative_dims(context, {&k, 1}, "'k'"));
  const Dim &size = x.shape[size_t(axis)];
  if (!require_at_most(context, k, size))
    return Error{fmt::format("k is {}, but axis {} of {} has only {} elements", k.text(), axis, x.text(),
                             size.text())};
  Shape out = x.shape;
  out[size_t(axis)] = k;
  return Types{{x.dtype, out}, {DType::i64, out}};
}

} // namespace

const OpDef op_sort{
    .name = "sort",
    .doc = "Sorts along axis; results are the values and where they were. Stable; NaN comes last, with "
           "descending first.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"axis", AttrKind::integer}, {"descending", AttrKind::boolean, Attr(false)}},
    .infer = infer_sort,
    .traits = kExpensive,
};

const OpDef op_topk{
    .name = "topk",
    .doc = "The k largest (or smallest) elements along axis in order, and where they were; of equal ones "
           "the first is taken.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"k", AttrKind::integer},
              {"axis", AttrKind::integer, Attr(Dim(-1))},
              {"largest", AttrKind::boolean, Attr(true)}},
    .infer = infer_topk,
    .traits = kExpensive,
};

} // namespace kiln
