// quantize and dequantize: between floats and integers with a scale and a zero point, for the whole
// tensor or for each position along an axis.
#include "ir/ops/composite.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

bool is_whole(const TensorType &scale) {
  return scale.rank() == 0 || (scale.rank() == 1 && scale.shape[0].is_const(1));
}

// A scalar (or [1]), or one element for each position along the axis.
Status check_scale(InferContext &context) {
  const TensorType &x = context.operands[0], &scale = context.operands[1];
  KILN_RETURN_IF_ERROR(check_float(context, 1));
  if (context.operands.size() > 2)
    KILN_RETURN_IF_ERROR(equal_shapes(context, context.operands[2].shape, scale.shape,
                                      "shapes of the zero point and the scale"));
  if (is_whole(scale))
    return Unit{};
  KILN_RETURN_IF_ERROR(check_rank(context, 1, 1));
  KILN_TRY(axis, axis_attr(context.attrs, "axis", x.rank()));
  return equal_dims(context, scale.shape[0], x.shape[size_t(axis)],
                    fmt::format("the number of scales and the size of axis {} of {}", axis, x.text()));
}

Result<Types> infer_quantize(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_float(context, 0));
  KILN_RETURN_IF_ERROR(same_dtype(context, 0, 1));
  KILN_RETURN_IF_ERROR(check_scale(context));
  DType dtype = context.attrs.get_dtype("dtype");
  if (!is_integer(dtype) || dtype_bits(dtype) > 32)
    return Error{fmt::format("'dtype' is {}; it must be an integer dtype of 32 bits or less", dtype_name(dtype))};
  KILN_RETURN_IF_ERROR(check_dtype(context, 2, context.operands[2].dtype == dtype,
                                   fmt::format("{}, as 'dtype' says", dtype_name(dtype))));
  return one_result(dtype, context.operands[0].shape);
}

Result<Types> infer_dequantize(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_dtype(context, 0,
                                   is_integer(context.operands[0].dtype) &&
                                       dtype_bits(context.operands[0].dtype) <= 32,
                                   "of an integer dtype of 32 bits or less"));
  if (context.operands.size() > 2)
    KILN_RETURN_IF_ERROR(same_dtype(context, 0, 2));
  KILN_RETURN_IF_ERROR(check_scale(context));
  return one_result(context.operands[1].dtype, context.operands[0].shape);
}

// A scale or zero point shaped so that it broadcasts along the axis of x.
ValueId spread(GraphBuilder &b, const Node &node, ValueId v) {
  if (is_whole(b.type(v)))
    return b.type(v).rank() == 0 ? v : reshape_to(b, v, {});
  int rank = b.type(node.operands[0]).rank();
  return along_axis(b, v, axis_of(node.attrs, "axis", rank), rank);
}

// saturate(round(x / scale) + zero_point); the conversion saturates.
std::vector<ValueId> decompose_quantize(GraphBuilder &b, const Node &node) {
  ValueId x = widen(b, node.operands[0]), scale = widen(b, spread(b, node, node.operands[1]));
  DType wide = b.type(x).dtype;
  ValueId zero = b(Op::convert, {spread(b, node, node.operands[2])}, {{"dtype", wide}});
  ValueId rounded = b(Op::round, {b(Op::div, {x, scale})});
  return {b(Op::convert, {b(Op::add, {rounded, zero})}, {{"dtype", node.attrs.get_dtype("dtype")}})};
}

// (x - zero_point) * scale, the difference in integers.
std::vector<ValueId> decompose_dequantize(GraphBuilder &b, const Node &node) {
  DType narrow_dtype = b.type(node.operands[1]).dtype, wide = compute_dtype(narrow_dtype);
  DType difference = dtype_bits(b.type(node.operands[0]).dtype) < 32 ? DType::i32 : DType::i64;
  ValueId x = node.operands[0];
  if (node.operands.size() > 2) {
    x = b(Op::convert, {x}, {{"dtype", difference}});
    ValueId zero = b(Op::convert, {spread(b, node, node.operands[2])}, {{"dtype", difference}});
    x = b(Op::sub, {x, zero});
  }
  ValueId scale = widen(b, spread(b, node, node.operands[1]));
  return {narrow(b, b(Op::mul, {b(Op::convert, {x}, {{"dtype", wide}}), scale}), narrow_dtype)};
}

TensorType type(DType dtype, Shape shape) { return {dtype, std::move(shape)}; }

} // namespace

const OpDef op_quantize{
    .name = "quantize",
    .doc = "round(x / scale) + zero_point, ties to even, saturated to dtype. scale and zero_point are scalars "
           "or have one element for each position along axis.",
    .min_operands = 3,
    .max_operands = 3,
    .attrs = {{"axis", AttrKind::integer, Attr(Dim(1))}, {"dtype", AttrKind::dtype}},
    .infer = infer_quantize,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::quantize, c, false); },
    .decompose = decompose_quantize,
    .samples = {{{type(DType::f32, {4, 5}), type(DType::f32, {}), type(DType::u8, {})},
                 {{"dtype", DType::u8}}, 0.01, 3},
                {{type(DType::f32, {2, 3, 4}), type(DType::f32, {3}), type(DType::i8, {3})},
                 {{"dtype", DType::i8}, {"axis", Dim(1)}}, 0.01, 3}},
};

const OpDef op_dequantize{
    .name = "dequantize",
    .doc = "(x - zero_point) * scale, in the dtype of scale.",
    .min_operands = 2,
    .max_operands = 3,
    .attrs = {{"axis", AttrKind::integer, Attr(Dim(1))}},
    .infer = infer_dequantize,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::dequantize, c, false); },
    .decompose = decompose_dequantize,
    .samples = {{{type(DType::u8, {4, 5}), type(DType::f32, {}), type(DType::u8, {})}, {}, 0, 100},
                {{type(DType::i8, {2, 3, 4}), type(DType::f32, {3}), type(DType::i8, {3})}, {}, -100, 100},
                {{type(DType::i32, {2, 3}), type(DType::f32, {3})}, {}, -100, 100}},
};

} // namespace kiln
