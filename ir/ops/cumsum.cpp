// cumsum: sums of all elements up to each.
#include "ir/ops/infer_util.h"

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_cumsum(InferContext &context) {
  const TensorType &x = context.operands[0];
  KILN_RETURN_IF_ERROR(axis_attr(context.attrs, "axis", x.rank()));
  KILN_RETURN_IF_ERROR(check_dtype(context, 0, !is_bool(x.dtype), "a number; convert it first"));
  return Types{x};
}

} // namespace

const OpDef op_cumsum{
    .name = "cumsum",
    .doc = "Each element is the sum of those before it along axis and itself; without itself with exclusive, "
           "of those after it with reverse.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"axis", AttrKind::integer},
              {"exclusive", AttrKind::boolean, Attr(false)},
              {"reverse", AttrKind::boolean, Attr(false)}},
    .infer = infer_cumsum,
    .traits = kZeroPreserving,
};

} // namespace kiln
