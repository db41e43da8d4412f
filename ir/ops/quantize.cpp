// quantize and dequantize: between floats and codes (integers, or narrow floats) with a scale and a zero
// point, for the whole tensor or for each position along an axis.
#include "ir/ops/composite.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

// Integers of 32 bits or less, and narrow dtypes but for f8e8m0, which holds scales.
bool is_code(DType dtype) {
  return dtype != DType::f8e8m0 && (is_narrow(dtype) || (is_integer(dtype) && dtype_bits(dtype) <= 32));
}
constexpr std::string_view kCodes = "an integer dtype of 32 bits or less, an 8-bit float but f8e8m0, or f4e2m1";

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
  if (!is_code(dtype))
    return Error{fmt::format("'dtype' is {}; it must be {}", dtype_name(dtype), kCodes)};
  KILN_RETURN_IF_ERROR(check_dtype(context, 2, context.operands[2].dtype == dtype,
                                   fmt::format("{}, as 'dtype' says", dtype_name(dtype))));
  return one_result(dtype, context.operands[0].shape);
}

// One scale for each block: of x's rank, every size divides that of x.
bool has_blocks(const TensorType &x, const TensorType &scale) { return scale.rank() > 1 && scale.rank() == x.rank(); }

Status check_blocks(const InferContext &context) {
  const TensorType &x = context.operands[0], &scale = context.operands[1];
  for (size_t d = 0; d < x.shape.size(); ++d) {
    auto size = x.shape[d].try_const(), blocks = scale.shape[d].try_const();
    bool fits = x.shape[d] == scale.shape[d] || scale.shape[d].is_const(1) || (size && blocks && *blocks > 0 && *size % *blocks == 0);
    if (!fits)
      return Error{fmt::format("scales of {} are not those of blocks of {}: size {} does not divide into {}", scale.text(), x.text(),
                               x.shape[d].text(), scale.shape[d].text())};
  }
  return Unit{};
}

Result<Types> infer_dequantize(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_dtype(context, 0, is_code(context.operands[0].dtype), fmt::format("of {}", kCodes)));
  if (context.operands.size() > 2)
    KILN_RETURN_IF_ERROR(same_dtype(context, 0, 2));
  if (has_blocks(context.operands[0], context.operands[1])) {
    KILN_RETURN_IF_ERROR(check_float(context, 1));
    if (context.operands.size() > 2)
      KILN_RETURN_IF_ERROR(equal_shapes(context, context.operands[2].shape, context.operands[1].shape,
                                        "shapes of the zero point and the scale"));
    KILN_RETURN_IF_ERROR(check_blocks(context));
    return one_result(context.operands[1].dtype, context.operands[0].shape);
  }
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

// saturate(round(x / scale) + zero_point); the conversion saturates. To floats, it is what rounds.
std::vector<ValueId> decompose_quantize(GraphBuilder &b, const Node &node) {
  ValueId x = widen(b, node.operands[0]), scale = widen(b, spread(b, node, node.operands[1]));
  DType wide = b.type(x).dtype;
  ValueId zero = b(Op::convert, {spread(b, node, node.operands[2])}, {{"dtype", wide}});
  DType dtype = node.attrs.get_dtype("dtype");
  ValueId steps = b(Op::div, {x, scale});
  if (!holds_floats(dtype))
    steps = b(Op::round, {steps});
  return {b(Op::convert, {b(Op::add, {steps, zero})}, {{"dtype", dtype}})};
}

// With a scale and a zero point (perhaps none) that broadcast to x.
ValueId dequantized(GraphBuilder &b, ValueId x, ValueId scale, ValueId zero) {
  DType narrow_dtype = b.type(scale).dtype, wide = compute_dtype(narrow_dtype);
  DType code = b.type(x).dtype;
  DType difference = holds_floats(code) ? wide : dtype_bits(code) < 32 ? DType::i32 : DType::i64;
  if (zero.valid()) {
    x = b(Op::convert, {x}, {{"dtype", difference}});
    x = b(Op::sub, {x, b(Op::convert, {zero}, {{"dtype", difference}})});
  }
  return narrow(b, b(Op::mul, {b(Op::convert, {x}, {{"dtype", wide}}), widen(b, scale)}), narrow_dtype);
}

// x with a dim for the blocks of each dim that has several, and scales or zero points that broadcast to it.
struct Split {
  Shape whole, blocks;
  Split(const Shape &x, const Shape &scale) {
    for (size_t d = 0; d < x.size(); ++d) {
      bool splits = !(x[d] == scale[d]) && !scale[d].is_const(1);
      whole.push_back(splits ? scale[d] : x[d]);
      blocks.push_back(scale[d]);
      if (splits) {
        whole.push_back(floordiv(x[d], scale[d]));
        blocks.push_back(1);
      }
    }
  }
};

// (x - zero_point) * scale, the difference of integers in integers.
std::vector<ValueId> decompose_dequantize(GraphBuilder &b, const Node &node) {
  if (has_blocks(b.type(node.operands[0]), b.type(node.operands[1]))) {
    const Shape shape = b.type(node.operands[0]).shape;
    Split split(shape, b.type(node.operands[1]).shape);
    ValueId x = reshape_to(b, node.operands[0], split.whole), scale = reshape_to(b, node.operands[1], split.blocks);
    ValueId zero = node.operands.size() > 2 ? reshape_to(b, node.operands[2], split.blocks) : ValueId();
    return {reshape_to(b, dequantized(b, x, scale, zero), shape)};
  }
  ValueId zero = node.operands.size() > 2 ? spread(b, node, node.operands[2]) : ValueId();
  return {dequantized(b, node.operands[0], spread(b, node, node.operands[1]), zero)};
}

TensorType type(DType dtype, Shape shape) { return {dtype, std::move(shape)}; }

} // namespace

const OpDef op_quantize{
    .name = "quantize",
    .doc = "round(x / scale) + zero_point, ties to even, saturated to dtype; to a narrow float, rounded to one "
           "of its values. scale and zero_point are scalars or have one element for each position along axis.",
    .min_operands = 3,
    .max_operands = 3,
    .attrs = {{"axis", AttrKind::integer, Attr(Dim(1))}, {"dtype", AttrKind::dtype}},
    .infer = infer_quantize,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::quantize, c, false); },
    .decompose = decompose_quantize,
    .samples = {{{type(DType::f32, {4, 5}), type(DType::f32, {}), type(DType::u8, {})},
                 {{"dtype", DType::u8}}, 0.01, 3},
                {{type(DType::f32, {2, 3, 4}), type(DType::f32, {3}), type(DType::i8, {3})},
                 {{"dtype", DType::i8}, {"axis", Dim(1)}}, 0.01, 3},
                {{type(DType::f32, {4, 5}), type(DType::f32, {5}), type(DType::i4, {5})},
                 {{"dtype", DType::i4}, {"axis", Dim(1)}}, 0.01, 3},
                {{type(DType::f32, {4, 5}), type(DType::f32, {}), type(DType::u2, {})},
                 {{"dtype", DType::u2}}, 0.01, 3},
                {{type(DType::f32, {4, 5}), type(DType::f32, {}), type(DType::f8e4m3fn, {})},
                 {{"dtype", DType::f8e4m3fn}}, 0.01, 3},
                {{type(DType::f16, {4, 5}), type(DType::f16, {}), type(DType::f4e2m1, {})},
                 {{"dtype", DType::f4e2m1}}, 0.01, 3}},
};

const OpDef op_dequantize{
    .name = "dequantize",
    .doc = "(x - zero_point) * scale, in the dtype of scale. scale and zero_point are scalars, or have one element for each "
           "position along axis, or are of x's rank and have one for each block: each of their sizes divides x's.",
    .min_operands = 2,
    .max_operands = 3,
    .attrs = {{"axis", AttrKind::integer, Attr(Dim(1))}},
    .infer = infer_dequantize,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::dequantize, c, false); },
    .decompose = decompose_dequantize,
    .samples = {{{type(DType::u8, {4, 5}), type(DType::f32, {}), type(DType::u8, {})}, {}, 0, 100},
                {{type(DType::i8, {2, 3, 4}), type(DType::f32, {3}), type(DType::i8, {3})}, {}, -100, 100},
                {{type(DType::i32, {2, 3}), type(DType::f32, {3})}, {}, -100, 100},
                {{type(DType::u4, {4, 5}), type(DType::f32, {}), type(DType::u4, {})}, {}, 0, 15},
                {{type(DType::i2, {4, 5}), type(DType::f32, {5}), type(DType::i2, {5})}, {}, -2, 1},
                {{type(DType::u4, {8, 5}), type(DType::f32, {2, 5}), type(DType::u4, {2, 5})}, {}, 0, 15},
                {{type(DType::i8, {2, 6, 9}), type(DType::f16, {1, 6, 3})}, {}, -9, 9},
                {{type(DType::f8e5m2, {4, 5}), type(DType::f16, {}), type(DType::f8e5m2, {})}, {}, -9, 9},
                {{type(DType::f4e2m1, {4, 5}), type(DType::f32, {5})}, {}, -9, 9}},
};

} // namespace kiln
