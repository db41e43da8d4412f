// What composites share: decompositions that compute narrow floats in f32, and a ref that runs the
// decomposition.
#pragma once

#include "ir/ops/infer_util.h"

namespace kiln {

// x in the dtype its arithmetic is done in, and back.
ValueId widen(GraphBuilder &b, ValueId x);
ValueId narrow(GraphBuilder &b, ValueId x, DType dtype);
// A reduction over axes, keeping the dims.
ValueId reduce_keep(GraphBuilder &b, Op op, ValueId x, std::vector<Dim> axes);
// x[C] as [C, 1, ..., 1], so that it lies along dim `axis` of a tensor of rank `rank`.
ValueId along_axis(GraphBuilder &b, ValueId x, int axis, int rank);
ValueId reshape_to(GraphBuilder &b, ValueId x, Shape shape);
ValueId broadcast(GraphBuilder &b, ValueId x, const Shape &shape);
// x without / with the first `count` elements along `axis`: [begin, end).
ValueId slice_axis(GraphBuilder &b, ValueId x, int axis, const Dim &begin, const Dim &end);
ValueId permute_dims(GraphBuilder &b, ValueId x, std::vector<int> dims);
std::vector<Dim> axes_from(int first, int rank); // first, first + 1, ..., rank - 1

// Decomposes the op on the concrete operands and computes the result with the refs of what it is made
// of. With `exact`, float operands are taken to f64 first and results rounded once.
Result<std::vector<Tensor>> ref_by_decomposition(Op op, const RefContext &context, bool exact = true);

} // namespace kiln
