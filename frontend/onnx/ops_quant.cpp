// Quantisation: one scale for all, one for each position along an axis, or one for each block along it.
#include "frontend/onnx/cast.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/tensors.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

// The axis counts only where there is a scale for each position along it.
Result<Attr> quantized_axis(OnnxNode &n) {
  int64_t given = n.get_int("axis", 1);
  if (n.rank(1) == 0 || element_count(n.shape(1)).is_const(1))
    return attr_int(0);
  KILN_TRY(axis, n.axis(given, n.rank()));
  return attr_int(axis);
}

// A tensor with one element for all is a scalar in Kiln.
Result<Val> whole(OnnxNode &n, const Val &v) {
  return element_count(v.type.shape).is_const(1) ? reshape(n.emitter(), v, {}) : Result<Val>(v);
}

// A dtype that an attribute names, or `otherwise`.
Result<DType> dtype_attr(OnnxNode &n, std::string_view name, DType otherwise) {
  int64_t wanted = n.get_int(name, 0);
  auto known = dtype_from_onnx(wanted);
  if (wanted != 0 && !known)
    return Error{fmt::format("the type {} of '{}' is not supported", onnx_type_name(wanted), name)};
  return wanted != 0 ? *known : otherwise;
}

// Where blocks fill the axis, x itself gets a dim for them; else scales are repeated.
class Blocks {
public:
  static Result<Blocks> of(OnnxNode &n, int64_t size) {
    Blocks out;
    out.size_ = size;
    KILN_TRY(axis, n.axis(n.get_int("axis", 1), n.rank()));
    out.axis_ = axis;
    out.shape_ = n.shape();
    if (size < 0 || n.rank(1) != n.rank())
      return Error{fmt::format("block_size {} and scales of {} do not go with {}", size, n.in(1).type.text(),
                               n.in(0).type.text())};
    out.scales_ = n.shape(1);
    const Dim length = out.shape_[size_t(axis)];
    for (int d = 0; d < n.rank(); ++d) {
      const Dim &have = out.scales_[size_t(d)];
      Dim want = d == axis ? ceildiv(length, size) : out.shape_[size_t(d)];
      if (!n.emitter().require_equal(have, want, "scales for blocks"))
        return Error{fmt::format("scales of {} do not fit {} in blocks of {} along axis {}", n.in(1).type.text(),
                                 n.in(0).type.text(), size, axis)};
      out.scales_[size_t(d)] = want;
    }
    if (n.has(2) && n.shape(2) != n.shape(1))
      return Error{fmt::format("the zero points {} and the scales {} differ in shape", n.in(2).type.text(),
                               n.in(1).type.text())};
    out.fill_ = length.is_const() && length.as_const() % size == 0;
    return out;
  }

  bool fill() const { return fill_; }
  bool are_known() const { return scales_.size() > 1 && is_static(scales_) && is_static(shape_); }
  Result<Val> elements(Emitter &e, const Val &x) const { return fill_ ? reshape(e, x, split(size_)) : Result<Val>(x); }
  Result<Val> parameters(Emitter &e, const Val &v) const {
    KILN_TRY(column, reshape(e, v, split(1)));
    if (fill_)
      return column;
    KILN_TRY(repeated, broadcast_to(e, column, split(size_)));
    Shape joined = shape_;
    joined[size_t(axis_)] = scales_[size_t(axis_)] * Dim(size_);
    KILN_TRY(row, reshape(e, repeated, joined));
    return slice_axis(e, row, axis_, 0, shape_[size_t(axis_)]);
  }
  Result<Val> joined(Emitter &e, const Val &y) const { return fill_ ? reshape(e, y, shape_) : Result<Val>(y); }

private:
  // [..., blocks, size, ...]
  Shape split(int64_t size) const {
    Shape out = scales_;
    out.insert(out.begin() + axis_ + 1, Dim(size));
    return out;
  }

  int64_t size_ = 0;
  int axis_ = 0;
  bool fill_ = false;
  Shape shape_, scales_;
};

// Scales along the axis, for one of x's dims each.
Result<Val> along(OnnxNode &n, const Val &v, const Attr &axis) {
  if (v.rank() != 1)
    return v;
  Shape column(size_t(n.rank()), Dim(1));
  column[size_t(std::get<Dim>(axis).as_const())] = v.dim(0);
  return reshape(n.emitter(), v, column);
}

// saturate(round(x / scale) + zero)
Result<Val> quantized(OnnxNode &n, const Val &x, const Val &scale, const Val *zero, DType dtype, const CastRule &rule) {
  Emitter &e = n.emitter();
  DType wide = compute_dtype(scale.dtype());
  KILN_TRY(wide_x, convert(e, x, wide));
  KILN_TRY(wide_scale, convert(e, scale, wide));
  KILN_TRY(steps, e.emit(Op::div, {wide_x, wide_scale}));
  if (!holds_floats(dtype)) {
    KILN_TRY(whole_steps, e.emit(Op::round, {steps}));
    steps = whole_steps;
  }
  if (zero) {
    KILN_TRY(wide_zero, convert(e, *zero, wide));
    KILN_TRY(sum, e.emit(Op::add, {steps, wide_zero}));
    steps = sum;
  }
  // Integers saturate, where a cast would not.
  return holds_floats(dtype) ? cast(e, steps, dtype, rule) : convert(e, steps, dtype);
}

// (x - zero) * scale
Result<Val> dequantized(OnnxNode &n, const Val &x, const Val &scale, const Val *zero) {
  Emitter &e = n.emitter();
  DType wide = compute_dtype(scale.dtype());
  Val steps = x;
  if (zero) {
    DType difference = holds_floats(x.dtype()) ? wide : dtype_bits(x.dtype()) < 32 ? DType::i32 : DType::i64;
    KILN_TRY(a, convert(e, x, difference));
    KILN_TRY(b, convert(e, *zero, difference));
    KILN_TRY(c, e.emit(Op::sub, {a, b}));
    steps = c;
  }
  KILN_TRY(real, convert(e, steps, wide));
  KILN_TRY(wide_scale, convert(e, scale, wide));
  KILN_TRY(product, e.emit(Op::mul, {real, wide_scale}));
  return convert(e, product, scale.dtype());
}

} // namespace

Status import_quantize_linear(OnnxNode &n) {
  Emitter &e = n.emitter();
  DType usual = is_float(n.dtype(1)) ? n.dtype(1) : is_float(n.dtype()) ? n.dtype() : DType::f32;
  KILN_TRY(precision, dtype_attr(n, "precision", usual));
  KILN_TRY(dtype, dtype_attr(n, "output_dtype", n.has(2) ? n.dtype(2) : DType::u8));
  if (n.has(2) && dtype != n.dtype(2))
    return Error{fmt::format("'output_dtype' is {}, but the zero point is {}", dtype_name(dtype), n.in(2).type.text())};
  if (!is_float(precision))
    return Error{fmt::format("'precision' is {}, no float type", dtype_name(precision))};
  KILN_TRY(rule, cast_rule(n));
  KILN_TRY(x, convert(e, n.in(0), precision));
  KILN_TRY(scale, convert(e, n.in(1), precision));
  if (int64_t size = n.get_int("block_size", 0); size != 0) {
    KILN_TRY(blocks, Blocks::of(n, size));
    KILN_TRY(elements, blocks.elements(e, x));
    KILN_TRY(scales, blocks.parameters(e, scale));
    Val zero;
    if (n.has(2)) {
      KILN_TRY(zeros, blocks.parameters(e, n.in(2)));
      zero = zeros;
    }
    KILN_TRY(y, quantized(n, elements, scales, n.has(2) ? &zero : nullptr, dtype, rule));
    return n.finish(blocks.joined(e, y));
  }
  KILN_TRY(axis, quantized_axis(n));
  KILN_TRY(scales, whole(n, scale));
  KILN_TRY(zero, n.has(2) ? whole(n, n.in(2)) : broadcast_to(e, e.scalar(dtype, 0), scales.type.shape));
  if (!rule.saturate && holds_floats(dtype)) {
    KILN_TRY(wide_scale, along(n, scales, axis));
    KILN_TRY(wide_zero, along(n, zero, axis));
    return n.finish(quantized(n, x, wide_scale, &wide_zero, dtype, rule));
  }
  return n.finish(Op::quantize, {x, scales, zero}, {{"axis", axis}, {"dtype", dtype}});
}

Status import_dequantize_linear(OnnxNode &n) {
  Emitter &e = n.emitter();
  if (!n.has_attr("output_dtype") && !is_float(n.dtype(1)))
    return Error{fmt::format("a scale of {} does not tell the result's type; 'output_dtype' is missing",
                             dtype_name(n.dtype(1)))};
  KILN_TRY(dtype, dtype_attr(n, "output_dtype", n.dtype(1)));
  KILN_TRY(scale, convert(e, n.in(1), dtype));
  if (int64_t size = n.get_int("block_size", 0); size != 0) {
    KILN_TRY(blocks, Blocks::of(n, size));
    if (blocks.fill() && blocks.are_known()) { // whole blocks: one op, so that weights may stay packed
      std::vector<Val> operands = {n.in(0), scale};
      if (n.has(2))
        operands.push_back(n.in(2));
      return n.finish(Op::dequantize, operands);
    }
    KILN_TRY(elements, blocks.elements(e, n.in(0)));
    KILN_TRY(scales, blocks.parameters(e, scale));
    Val zero;
    if (n.has(2)) {
      KILN_TRY(zeros, blocks.parameters(e, n.in(2)));
      zero = zeros;
    }
    KILN_TRY(y, dequantized(n, elements, scales, n.has(2) ? &zero : nullptr));
    return n.finish(blocks.joined(e, y));
  }
  KILN_TRY(axis, quantized_axis(n));
  KILN_TRY(scales, whole(n, scale));
  std::vector<Val> operands = {n.in(0), scales};
  if (n.has(2)) {
    KILN_TRY(zero, whole(n, n.in(2)));
    operands.push_back(zero);
  }
  return n.finish(Op::dequantize, operands, {{"axis", axis}});
}

} // namespace kiln::onnx
