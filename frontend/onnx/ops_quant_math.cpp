// Operators on quantised operands. Those with scales become the ordinary operator between dequantize and
// quantize, which is what passes look for; those on plain integers subtract the zero points.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

// One element for all as a scalar; one for each position along `axis` shaped to broadcast there.
Result<Val> along(OnnxNode &n, const Val &v, int axis, int rank) {
  if (element_count(v.type.shape).is_const(1))
    return reshape(n.emitter(), v, {});
  if (v.rank() != 1 && rank > 0)
    return v; // already in a shape that broadcasts
  if (axis >= rank)
    return Error{fmt::format("a scale or zero point is {}, not one number", v.type.text())};
  Shape shape(size_t(rank), Dim(1));
  shape[size_t(axis)] = v.dim(0);
  return reshape(n.emitter(), v, shape);
}

Result<Val> dequantized(OnnxNode &n, size_t i, int axis) {
  Val x = n.in(i), scale = n.in(i + 1), zero = n.in(i + 2);
  for (Val *v : {&scale, &zero}) {
    if (element_count(v->type.shape).is_const(1)) {
      KILN_TRY(scalar, reshape(n.emitter(), *v, {}));
      *v = scalar;
    }
  }
  return n.emit(Op::dequantize, {x, scale, zero}, {{"axis", attr_int(axis)}});
}

Status quantized(OnnxNode &n, const Val &x, size_t scale, size_t zero) {
  KILN_TRY(s, along(n, n.in(scale), 0, 0));
  KILN_TRY(z, along(n, n.in(zero), 0, 0));
  return n.finish(Op::quantize, {x, s, z}, {{"axis", attr_int(0)}, {"dtype", n.dtype(zero)}});
}

// x - zero point in i32.
Result<Val> centred(OnnxNode &n, size_t i, size_t zero, int axis) {
  KILN_TRY(wide, convert(n.emitter(), n.in(i), DType::i32));
  if (!n.has(zero))
    return wide;
  KILN_TRY(point, convert(n.emitter(), n.in(zero), DType::i32));
  KILN_TRY(spread, along(n, point, axis, wide.rank()));
  return n.emit(Op::sub, {wide, spread});
}

} // namespace

Status import_qlinear_conv(OnnxNode &n) {
  KILN_TRY(x, dequantized(n, 0, 1));
  KILN_TRY(w, dequantized(n, 3, 0));
  std::vector<Val> operands = {x, w};
  if (n.has(8)) { // the bias is quantised with the product of the scales
    KILN_TRY(x_scale, along(n, n.in(1), 0, 0));
    KILN_TRY(w_scale, along(n, n.in(4), 0, 1));
    KILN_TRY(scale, n.emit(Op::mul, {x_scale, w_scale}));
    KILN_TRY(wide, convert(n.emitter(), n.in(8), scale.dtype()));
    KILN_TRY(bias, n.emit(Op::mul, {wide, scale}));
    operands.push_back(bias);
  }
  KILN_TRY(y, convolve(n, operands));
  return quantized(n, y, 6, 7);
}

Status import_qlinear_matmul(OnnxNode &n) {
  if (n.rank(0) < 2 || n.rank(3) < 2)
    return Error{"its operands must be matrices"};
  KILN_TRY(a, dequantized(n, 0, n.rank(0) - 2));
  KILN_TRY(b, dequantized(n, 3, n.rank(3) - 1));
  KILN_TRY(y, n.emit(Op::dot, {a, b}));
  return quantized(n, y, 6, 7);
}

Status import_matmul_integer(OnnxNode &n) {
  if (n.rank(0) < 2 || n.rank(1) < 2)
    return Error{"its operands must be matrices"};
  KILN_TRY(a, centred(n, 0, 2, n.rank(0) - 2));
  KILN_TRY(b, centred(n, 1, 3, n.rank(1) - 1));
  return n.finish(Op::dot, {a, b});
}

Status import_conv_integer(OnnxNode &n) {
  KILN_TRY(x, centred(n, 0, 2, 1));
  KILN_TRY(w, centred(n, 1, 3, 0));
  return n.finish(convolve(n, {x, w}));
}

namespace {

struct Range {
  Val scale, safe_scale, zero; // the second is 1 where the first is 0
};

// Scale and zero point such that [min(x, 0), max(x, 0)] fills u8.
Result<Range> range_of(OnnxNode &n, const Val &x) {
  Emitter &e = n.emitter();
  std::vector<int> axes;
  for (int i = 0; i < x.rank(); ++i)
    axes.push_back(i);
  Attrs all{{"axes", attr_ints(axes)}, {"keepdims", false}};
  Val zero = e.scalar(x.dtype(), 0), top = e.scalar(x.dtype(), 255);
  KILN_TRY(largest, n.emit(Op::reduce_max, {x}, all));
  KILN_TRY(smallest, n.emit(Op::reduce_min, {x}, all));
  KILN_TRY(hi, n.emit(Op::maximum, {largest, zero}));
  KILN_TRY(lo, n.emit(Op::minimum, {smallest, zero}));
  KILN_TRY(range, n.emit(Op::sub, {hi, lo}));
  KILN_TRY(scale, n.emit(Op::div, {range, top}));
  KILN_TRY(is_zero, n.emit(Op::eq, {scale, zero}));
  KILN_TRY(safe, n.emit(Op::where, {is_zero, e.scalar(x.dtype(), 1), scale}));
  KILN_TRY(minus, n.emit(Op::neg, {lo}));
  KILN_TRY(at, n.emit(Op::div, {minus, safe}));
  KILN_TRY(whole, n.emit(Op::round, {at}));
  KILN_TRY(limited, n.emit(Op::clamp, {whole}, {{"min", 0.0}, {"max", 255.0}}));
  KILN_TRY(point, convert(e, limited, DType::u8));
  return Range{scale, safe, point};
}

Result<Val> quantized_to(OnnxNode &n, const Val &x, const Range &range) {
  return n.emit(Op::quantize, {x, range.safe_scale, range.zero}, {{"axis", attr_int(0)}, {"dtype", DType::u8}});
}

} // namespace

Status import_dynamic_quantize_linear(OnnxNode &n) {
  KILN_TRY(range, range_of(n, n.in(0)));
  n.set(1, range.scale);
  n.set(2, range.zero);
  return n.finish(quantized_to(n, n.in(0), range));
}

Result<Val> rounded_to_range(OnnxNode &n, const Val &x) {
  KILN_TRY(range, range_of(n, x));
  KILN_TRY(codes, quantized_to(n, x, range));
  return n.emit(Op::dequantize, {codes, range.safe_scale, range.zero}, {{"axis", attr_int(0)}});
}

} // namespace kiln::onnx
