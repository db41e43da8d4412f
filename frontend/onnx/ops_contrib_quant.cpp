// Quantised operators of com.microsoft: the ordinary operator between dequantize and quantize, which is
// what passes look for.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

Result<Val> scalar(OnnxNode &n, size_t i) { return reshape(n.emitter(), n.in(i), {}); }

// Operand i with the scale and the zero point at s and s + 1; along the last dim where there are several.
Result<Val> dequantized(OnnxNode &n, size_t i, size_t s) {
  Val scale = n.in(s);
  bool whole = element_count(scale.type.shape).is_const(1);
  if (whole) {
    KILN_TRY(one, scalar(n, s));
    scale = one;
  }
  std::vector<Val> operands = {n.in(i), scale};
  if (n.has(s + 1)) {
    KILN_TRY(zero, whole ? scalar(n, s + 1) : Result<Val>(n.in(s + 1)));
    operands.push_back(zero);
  }
  return n.emit(Op::dequantize, operands, {{"axis", attr_int(whole ? 0 : n.rank(i) - 1)}});
}

// `like` gives the dtype where there is no zero point.
Result<Val> requantized(OnnxNode &n, const Val &x, size_t s, DType like) {
  KILN_TRY(scale, scalar(n, s));
  Val zero = n.emitter().scalar(like, 0);
  if (n.has(s + 1)) {
    KILN_TRY(given, scalar(n, s + 1));
    zero = given;
  }
  return n.emit(Op::quantize, {x, scale, zero}, {{"axis", attr_int(0)}, {"dtype", zero.dtype()}});
}

// A, A_scale, A_zero, B, B_scale, B_zero, C_scale, C_zero
Status binary(OnnxNode &n, Op op) {
  KILN_TRY(a, dequantized(n, 0, 1));
  KILN_TRY(b, dequantized(n, 3, 4));
  KILN_TRY(y, n.emit(op, {a, b}));
  return n.finish(requantized(n, y, 6, n.dtype(0)));
}

// X, X_scale, X_zero, Y_scale, Y_zero
Status unary(OnnxNode &n, Op op, Attrs attrs = {}) {
  KILN_TRY(x, dequantized(n, 0, 1));
  KILN_TRY(y, n.emit(op, {x}, std::move(attrs)));
  return n.finish(requantized(n, y, 3, n.dtype(0)));
}

} // namespace

Status import_qlinear_add(OnnxNode &n) { return binary(n, Op::add); }
Status import_qlinear_mul(OnnxNode &n) { return binary(n, Op::mul); }
Status import_qlinear_sigmoid(OnnxNode &n) { return unary(n, Op::sigmoid); }
Status import_qlinear_leaky_relu(OnnxNode &n) {
  return unary(n, Op::leaky_relu, {{"alpha", n.get_float("alpha", 0.01)}});
}
Status import_qlinear_softmax(OnnxNode &n) {
  int64_t opset = n.get_int("opset", 13);
  KILN_TRY(axis, n.axis(n.get_int("axis", -1), n.rank()));
  if (opset < 13 && axis != n.rank() - 1)
    return Error{"a softmax over several dims is not supported"};
  return unary(n, Op::softmax, {{"axis", attr_int(axis)}});
}

Status import_qlinear_global_average_pool(OnnxNode &n) {
  bool last = n.get_flag("channels_last", false);
  std::vector<int> axes;
  for (int d = last ? 1 : 2; d < n.rank() - (last ? 1 : 0); ++d)
    axes.push_back(d);
  return unary(n, Op::reduce_mean, {{"axes", attr_ints(axes)}, {"keepdims", true}});
}

// Y_scale, Y_zero, then X, X_scale, X_zero for each part.
Status import_qlinear_concat(OnnxNode &n) {
  if (n.input_count() < 5 || n.input_count() % 3 != 2)
    return Error{fmt::format("it has {} operands; two and then three for each part are needed", n.input_count())};
  std::vector<Val> parts;
  for (size_t i = 2; i < n.input_count(); i += 3) {
    KILN_TRY(part, dequantized(n, i, i + 1));
    parts.push_back(part);
  }
  KILN_TRY(axis, n.axis(n.get_int("axis", 0), n.rank(2)));
  KILN_TRY(y, n.emit(Op::concat, parts, {{"axis", attr_int(axis)}}));
  return n.finish(requantized(n, y, 0, n.dtype(2)));
}

// A, A_scale, A_zero, B, B_scale, B_zero, C (i32), Y_scale, Y_zero
Status import_qgemm(OnnxNode &n) {
  KILN_TRY(a, dequantized(n, 0, 1));
  if (n.get_flag("transA", false)) {
    KILN_TRY(t, permute(n.emitter(), a, {1, 0}));
    a = t;
  }
  bool transposed = n.get_flag("transB", false);
  // Scales of B are for its columns, which are its rows where it is transposed.
  Val scale = n.in(4), zero = n.has(5) ? n.in(5) : n.emitter().scalar(n.dtype(3), 0);
  bool whole = element_count(scale.type.shape).is_const(1);
  if (whole)
    for (Val *v : {&scale, &zero}) {
      KILN_TRY(one, reshape(n.emitter(), *v, {}));
      *v = one;
    }
  KILN_TRY(b, n.emit(Op::dequantize, {n.in(3), scale, zero}, {{"axis", attr_int(whole || transposed ? 0 : 1)}}));
  KILN_TRY(product, n.emit(Op::dot, {a, b}, {{"transpose_b", transposed}}));
  double alpha = n.get_float("alpha", 1);
  Val y = product;
  if (n.has(6)) { // in units of both scales
    KILN_TRY(a_scale, scalar(n, 1));
    KILN_TRY(unit, n.emit(Op::mul, {a_scale, scale}));
    KILN_TRY(c, convert(n.emitter(), n.in(6), unit.dtype()));
    KILN_TRY(real, n.emit(Op::mul, {c, unit}));
    KILN_TRY(sum, n.emit(Op::add, {y, real}));
    y = sum;
  }
  if (alpha != 1) {
    KILN_TRY(scaled, n.emit(Op::mul, {y, n.emitter().scalar(y.dtype(), alpha)}));
    y = scaled;
  }
  if (!n.has(7))
    return n.finish(Result<Val>(y));
  return n.finish(requantized(n, y, 7, n.dtype(0)));
}

// A, B (integers), A_scale, B_scale, A_zero, B_zero, bias
Status import_matmul_integer_to_float(OnnxNode &n) {
  Val operands[2];
  for (size_t i : {0, 1}) {
    Val scale = n.in(2 + i);
    bool whole = element_count(scale.type.shape).is_const(1);
    std::vector<Val> list = {n.in(i), scale};
    if (n.has(4 + i))
      list.push_back(n.in(4 + i));
    if (whole)
      for (size_t k = 1; k < list.size(); ++k) {
        KILN_TRY(one, reshape(n.emitter(), list[k], {}));
        list[k] = one;
      }
    KILN_TRY(x, n.emit(Op::dequantize, list, {{"axis", attr_int(whole ? 0 : n.rank(i) - 1)}}));
    operands[i] = x;
  }
  KILN_TRY(product, n.emit(Op::dot, {operands[0], operands[1]}));
  if (!n.has(6))
    return n.finish(Result<Val>(product));
  return n.finish(Op::add, {product, n.in(6)});
}

// A (floats), B (integers), B_scale, B_zero, bias; A is rounded to 8 bits of its own range first.
Status import_dynamic_quantize_matmul(OnnxNode &n) {
  KILN_TRY(a, rounded_to_range(n, n.in(0)));
  KILN_TRY(b, dequantized(n, 1, 2));
  KILN_TRY(product, n.emit(Op::dot, {a, b}));
  if (!n.has(4))
    return n.finish(Result<Val>(product));
  return n.finish(Op::add, {product, n.in(4)});
}

// condition, X, X_scale, X_zero, Y, Y_scale, Y_zero, Z_scale, Z_zero
Status import_qlinear_where(OnnxNode &n) {
  KILN_TRY(x, dequantized(n, 1, 2));
  KILN_TRY(y, dequantized(n, 4, 5));
  KILN_TRY(z, n.emit(Op::where, {n.in(0), x, y}));
  return n.finish(requantized(n, z, 7, n.dtype(1)));
}

Status import_qlinear_reduce_mean(OnnxNode &n) {
  auto given = n.get_ints("axes");
  if (given.empty())
    for (int64_t d = 0; d < n.rank(); ++d)
      given.push_back(d);
  KILN_TRY(axes, n.axes(given, n.rank()));
  return unary(n, Op::reduce_mean, {{"axes", attr_ints(axes)}, {"keepdims", n.get_flag("keepdims", true)}});
}

Status qlinear_average_pool(OnnxNode &n) {
  KILN_TRY(x, dequantized(n, 0, 1));
  KILN_RETURN_IF_ERROR(import_as(n, {x}, import_average_pool));
  return n.finish(requantized(n, *n.outputs()[0], 3, n.dtype(0)));
}

// A, A_zero, B, B_zero: the product in i32
Status import_mul_integer(OnnxNode &n) {
  Val parts[2];
  for (size_t i : {0, 1}) {
    KILN_TRY(wide, convert(n.emitter(), n.in(2 * i), DType::i32));
    parts[i] = wide;
    if (!n.has(2 * i + 1))
      continue;
    KILN_TRY(zero, scalar(n, 2 * i + 1));
    KILN_TRY(point, convert(n.emitter(), zero, DType::i32));
    KILN_TRY(centred, n.emit(Op::sub, {wide, point}));
    parts[i] = centred;
  }
  return n.finish(Op::mul, {parts[0], parts[1]});
}

Status import_reduce_sum_integer(OnnxNode &n) {
  KILN_TRY(wide, convert(n.emitter(), n.in(0), is_unsigned_int(n.dtype(0)) ? DType::u32 : DType::i32));
  KILN_TRY(axes, n.axes(n.get_ints("axes"), n.rank()));
  return n.finish(Op::reduce_sum, {wide}, {{"axes", attr_ints(axes)}, {"keepdims", n.get_flag("keepdims", true)}});
}

Status import_matmul_integer16(OnnxNode &n) {
  DType t = is_unsigned_int(n.dtype(0)) && is_unsigned_int(n.dtype(1)) ? DType::u32 : DType::i32;
  KILN_TRY(a, convert(n.emitter(), n.in(0), t));
  KILN_TRY(b, convert(n.emitter(), n.in(1), t));
  return n.finish(Op::dot, {a, b});
}

// input, weights, bias, input scale, weight scale, mask, input zero, weight zero, past
Status import_qattention(OnnxNode &n) {
  Val operands[2];
  for (size_t i : {0, 1}) {
    Val scale = n.in(3 + i);
    bool whole = element_count(scale.type.shape).is_const(1);
    std::vector<Val> list = {n.in(i), scale};
    if (n.has(6 + i))
      list.push_back(n.in(6 + i));
    for (size_t k = 1; whole && k < list.size(); ++k) {
      KILN_TRY(one, reshape(n.emitter(), list[k], {}));
      list[k] = one;
    }
    KILN_TRY(x, n.emit(Op::dequantize, list, {{"axis", attr_int(whole ? 0 : n.rank(i) - 1)}}));
    operands[i] = x;
  }
  auto given = [&](size_t i) { return n.has(i) ? n.in(i) : Val{}; };
  return import_as(n, {operands[0], operands[1], n.in(2), given(5), given(8)}, import_contrib_attention);
}

// X, W and R (codes, [directions, inputs, 4 H]), B, lengths, h, c, P, and scale and zero point of W and R.
// The weights are what their codes say; activations are not rounded to codes of their range.
Status import_dynamic_quantize_lstm(OnnxNode &n) {
  Emitter &e = n.emitter();
  for (size_t i : {0, 1, 2, 8, 9, 10, 11})
    if (!n.has(i))
      return Error{fmt::format("its input {} is missing", i)};
  std::vector<Val> operands(n.inputs().begin(), n.inputs().begin() + 8);
  for (size_t i : {1, 2}) {
    if (n.rank(i) != 3)
      return Error{fmt::format("its weights {} must be [directions, inputs, 4 H]", n.in(i).type.text())};
    Val parts[2] = {n.in(6 + 2 * i), n.in(7 + 2 * i)};
    for (Val &part : parts) { // one for each direction, or for each direction and column
      bool columns = part.rank() == 2 && !part.dim(1).is_const(1);
      KILN_TRY(spread, reshape(e, part, {n.shape(i)[0], 1, columns ? n.shape(i)[2] : Dim(1)}));
      KILN_TRY(typed, convert(e, spread, n.dtype(0)));
      part = typed;
    }
    KILN_TRY(codes, convert(e, n.in(i), n.dtype(0)));
    KILN_TRY(centred, n.emit(Op::sub, {codes, parts[1]}));
    KILN_TRY(real, n.emit(Op::mul, {centred, parts[0]}));
    KILN_TRY(rows, permute(e, real, {0, 2, 1}));
    operands[i] = rows;
  }
  return import_as(n, operands, import_lstm);
}

} // namespace kiln::onnx
