// Quantised operators of com.microsoft: the ordinary operator between dequantize and quantize, which is
// what passes look for; and weights of a few bits, which are unpacked while the model is read.
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

// A[..., K] times the transpose of B[N, K], whose elements have 2, 4 or 8 bits; each block of a row has
// a scale and a zero point (half of the range where there is none).
Status import_matmul_nbits(OnnxNode &n) {
  int64_t k = n.get_int("K", 0), rows = n.get_int("N", 0), bits = n.get_int("bits", 4), block = n.get_int("block_size", 0);
  n.ignore({"accuracy_level"});
  if (k < 1 || rows < 1 || block < 1 || (bits != 2 && bits != 4 && bits != 8))
    return Error{fmt::format("K {}, N {}, bits {} and block_size {} do not go together", k, rows, bits, block)};
  if (n.has(4))
    return Error{"groups by index (g_idx) are not supported"};
  KILN_TRY(packed, n.constant_of(1, "weights"));
  KILN_TRY(scales, n.constant_of(2, "scales"));
  int64_t blocks = (k + block - 1) / block, per_byte = 8 / bits, in_block = (block * bits + 7) / 8;
  int64_t zero_bytes = (blocks * bits + 7) / 8, count = 0;
  if (__builtin_mul_overflow(rows, k, &count) || count > (int64_t(1) << 33))
    return Error{fmt::format("{} x {} weights are too many", rows, k)};
  if (packed->dtype() != DType::u8 || packed->count() != rows * blocks * in_block || scales->count() != rows * blocks)
    return Error{fmt::format("{} packed bytes and {} scales are not those of {} rows of {} blocks", packed->count(),
                             scales->count(), rows, blocks)};
  const Tensor *zeros = nullptr;
  if (n.has(3)) {
    KILN_TRY(given, n.constant_of(3, "zero points"));
    zeros = given;
    bool fits = zeros->dtype() == DType::u8 ? zeros->count() == rows * zero_bytes : zeros->count() == rows * blocks;
    if (!fits)
      return Error{fmt::format("{} zero points are not those of {} rows of {} blocks", zeros->count(), rows, blocks)};
  }
  int64_t mask = (int64_t(1) << bits) - 1;
  auto field = [&](const uint8_t *bytes, int64_t i) {
    return double(bytes[i / per_byte] >> (i % per_byte * bits) & mask);
  };
  Tensor weights(DType::f32, {rows, k});
  float *out = weights.data<float>();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t b = 0; b < blocks; ++b) {
      double zero = double(int64_t(1) << (bits - 1)), scale = scales->at_f64(r * blocks + b);
      if (zeros)
        zero = zeros->dtype() == DType::u8 ? field(zeros->data<uint8_t>() + r * zero_bytes, b) : zeros->at_f64(r * blocks + b);
      const uint8_t *bytes = packed->data<uint8_t>() + (r * blocks + b) * in_block;
      for (int64_t i = 0; i < block && b * block + i < k; ++i)
        out[r * k + b * block + i] = float((field(bytes, i) - zero) * scale);
    }
  KILN_TRY(b, convert(n.emitter(), n.emitter().constant(std::move(weights)), n.dtype(0)));
  KILN_TRY(product, n.emit(Op::dot, {n.in(0), b}, {{"transpose_b", true}}));
  if (!n.has(5))
    return n.finish(Result<Val>(product));
  return n.finish(Op::add, {product, n.in(5)});
}

} // namespace kiln::onnx
