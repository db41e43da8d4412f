// What the infer functions of many ops share: axes, attributes that must be known numbers, dtypes,
// numpy's broadcasting over symbolic dims, and error messages that name sizes and axis.
#pragma once

#include "ir/ops/op.h"

namespace kiln {

// Types of results: what an infer function returns for one result.
inline std::vector<TensorType> one_result(DType dtype, Shape shape) {
  return {TensorType{dtype, std::move(shape)}};
}

// -- attributes. A Dim that is not a number is the user's mistake here, never a KILN_CHECK.
Result<int64_t> int_attr(const Attrs &attrs, std::string_view name);
Result<std::vector<int64_t>> ints_attr(const Attrs &attrs, std::string_view name);
// As ints_attr, and exactly `count` of them, each at least `least`.
Result<std::vector<int64_t>> ints_attr(const Attrs &attrs, std::string_view name, size_t count,
                                       int64_t least);
// One of `allowed`.
Result<std::string> choice_attr(const Attrs &attrs, std::string_view name,
                                std::initializer_list<std::string_view> allowed);

// -- axes: -rank <= axis < rank, negative ones count from the end.
Result<int> normalise_axis(int64_t axis, int rank);
Result<int> axis_attr(const Attrs &attrs, std::string_view name, int rank);
// Each once, in the order given.
Result<std::vector<int>> axes_attr(const Attrs &attrs, std::string_view name, int rank);
// For code after infer has accepted the attributes.
int axis_of(const Attrs &attrs, std::string_view name, int rank);
std::vector<int> axes_of(const Attrs &attrs, std::string_view name, int rank);

// -- operands
Status same_dtype(const InferContext &context); // of all operands
Status same_dtype(const InferContext &context, int a, int b);
Status check_dtype(const InferContext &context, int operand, bool allowed, std::string_view what);
Status check_float(const InferContext &context, int operand);
// A number that is computed with: of any integer or float dtype but the narrow ones.
Status check_number(const InferContext &context, int operand);
Status check_integer(const InferContext &context, int operand);
Status check_rank(const InferContext &context, int operand, int rank);
Status check_rank_at_least(const InferContext &context, int operand, int rank);

// -- dims
// Equal, or required to be at run time; the error names both and says what they are.
Status equal_dims(InferContext &context, const Dim &a, const Dim &b, std::string_view what);
Status equal_shapes(InferContext &context, const Shape &a, const Shape &b, std::string_view what);
Status equal_types(InferContext &context, const TensorType &a, const TensorType &b,
                   std::string_view what);
// a <= b, or required to be at run time; false if a > b for certain.
bool require_at_most(InferContext &context, const Dim &a, const Dim &b);
// Sizes given as attributes: none below 0.
Status nonnegative_dims(InferContext &context, std::span<const Dim> dims, std::string_view what);
// numpy: aligned at the end; equal, or one of them 1. Two dims not known to be equal are required to
// be (a symbolic dim is never taken to be 1 at run time unless it is the constant 1).
Result<Shape> broadcast_shapes(InferContext &context, const Shape &a, const Shape &b);
Result<Shape> broadcast_operands(InferContext &context);
// An error where `from` does not broadcast to exactly `to`.
Status broadcasts_to(InferContext &context, const Shape &from, const Shape &to);

} // namespace kiln
