// reshape: the same elements in the same row-major order, in another shape.
//
// The general map is to linearise the result's index and split it again over the operand's dims. Where
// a run of result dims and a run of operand dims hold the same number of elements ([N, 12, 64] and
// [N, 768] do, twice), only that run is linearised, so that N stays an index of its own and strides can
// be read off.
#include "ir/ops/infer_util.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_reshape(InferContext &context) {
  const TensorType &x = context.operands[0];
  const Shape &shape = context.attrs.get_dims("shape");
  KILN_RETURN_IF_ERROR(nonnegative_dims(context, shape, "'shape'"));
  Dim from = element_count(x.shape), to = element_count(shape);
  if (!context.require_equal(from, to))
    return Error{fmt::format("{} has {} elements and {} has {}", shape_text(x.shape), from.text(),
                             shape_text(shape), to.text())};
  return one_result(x.dtype, shape);
}

} // namespace

const OpDef op_reshape{
    .name = "reshape",
    .doc = "The same elements in row-major order, in another shape of as many elements.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"shape", AttrKind::dims, std::nullopt, "all dims"}},
    .infer = infer_reshape,
    .traits = kMovement,
};

} // namespace kiln
