// Fourier transforms of known lengths, as products with the matrix of the transform.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

namespace kiln::onnx {
namespace {

constexpr int64_t kMaxMatrix = int64_t(1) << 24; // elements

// [length * parts, bins * 2]: from interleaved (real, imaginary) elements to interleaved results. `parts`
// is 1 for real input.
Result<Val> transform_matrix(Emitter &e, DType dtype, int64_t length, int64_t parts, int64_t bins, bool inverse) {
  if (length <= 0 || length > (1 << 20) || length * parts * bins * 2 > kMaxMatrix)
    return Error{fmt::format("a transform of length {} is too large", length)};
  Tensor out(dtype, {length * parts, bins * 2});
  double scale = inverse ? 1.0 / double(length) : 1.0, sign = inverse ? 1.0 : -1.0;
  for (int64_t i = 0; i < length; ++i)
    for (int64_t k = 0; k < bins; ++k) {
      double angle = 2 * std::numbers::pi * double(i * k % length) / double(length);
      double c = scale * std::cos(angle), s = scale * sign * std::sin(angle);
      for (int64_t part = 0; part < parts; ++part) {
        int64_t at = ((i * parts + part) * bins + k) * 2;
        out.set_f64(at, part == 0 ? c : -s);
        out.set_f64(at + 1, part == 0 ? s : c);
      }
    }
  return e.constant(std::move(out));
}

} // namespace

Status import_dft(OnnxNode &n) {
  Emitter &e = n.emitter();
  Val x = n.in(0);
  if (x.rank() < 2 || !is_float(x.dtype()))
    return Error{fmt::format("its operand {} must be floats with a last dim of 1 or 2", x.type.text())};
  int64_t given = n.opset() < 20 ? n.get_int("axis", 1) : -2;
  if (n.has(2)) {
    KILN_TRY(axis_input, n.int_of(2, "axis"));
    given = axis_input;
  }
  KILN_TRY(axis, n.axis(given, x.rank()));
  auto parts = x.dim(x.rank() - 1).try_const();
  if (axis == x.rank() - 1 || !parts || (*parts != 1 && *parts != 2))
    return Error{fmt::format("its operand {} must end in a dim of 1 or 2, which is not the axis", x.type.text())};
  auto size = x.dim(axis).try_const();
  int64_t length = size.value_or(0);
  if (n.has(1)) {
    KILN_TRY(wanted, n.int_of(1, "dft_length"));
    length = wanted;
  }
  if (!size || length <= 0)
    return Error{fmt::format("the length of its axis {} must be known; fix it with --dim or --shape", x.dim(axis).text())};
  bool inverse = n.get_flag("inverse", false), onesided = n.get_flag("onesided", false);
  if (inverse && onesided)
    return Error{"an inverse transform from one side is not supported"};
  int64_t bins = onesided ? length / 2 + 1 : length;
  KILN_TRY(matrix, transform_matrix(e, x.dtype(), length, *parts, bins, inverse));
  // The axis goes next to the last dim, and both become one.
  std::vector<int64_t> order, back(size_t(x.rank()));
  for (int i = 0; i < x.rank() - 1; ++i)
    if (i != axis)
      order.push_back(i);
  order.push_back(axis);
  order.push_back(x.rank() - 1);
  for (size_t i = 0; i < order.size(); ++i)
    back[size_t(order[i])] = int64_t(i);
  KILN_TRY(moved, permute(e, x, order));
  Val fitted = moved;
  if (length < *size) {
    KILN_TRY(cut, slice_axis(e, moved, x.rank() - 2, 0, length));
    fitted = cut;
  } else if (length > *size) {
    std::vector<Dim> lo(size_t(x.rank()), Dim(0)), hi = lo;
    hi[size_t(x.rank()) - 2] = length - *size;
    KILN_TRY(padded, e.emit(Op::pad, {moved}, {{"lo", lo}, {"hi", hi}}));
    fitted = padded;
  }
  Shape flat(fitted.type.shape.begin(), fitted.type.shape.end() - 2), result = flat;
  flat.push_back(length * *parts);
  result.push_back(bins);
  result.push_back(2);
  if (flat.size() < 2)
    flat.insert(flat.begin(), 1);
  KILN_TRY(rows, reshape(e, fitted, flat));
  KILN_TRY(product, e.emit(Op::dot, {rows, matrix}));
  KILN_TRY(apart, reshape(e, product, result));
  return n.finish(permute(e, apart, back));
}

// Frames of the signal times the window times the matrix: [batch, frames, bins, 2].
Status import_stft(OnnxNode &n) {
  Emitter &e = n.emitter();
  const Val &signal = n.in(0);
  if (!is_float(signal.dtype()) || signal.rank() < 2 || signal.rank() > 3)
    return Error{fmt::format("its signal {} must be floats [batch, length, 1]", signal.type.text())};
  if (signal.rank() == 3 && !signal.dim(2).is_const(1))
    return Error{"complex signals are not supported"};
  KILN_TRY(step, n.int_of(1, "frame_step"));
  Dim length;
  if (n.has(3)) {
    KILN_TRY(given, n.int_of(3, "frame_length"));
    length = given;
  } else if (n.has(2) && n.rank(2) == 1) {
    length = n.in(2).dim(0);
  } else {
    return Error{"it has neither a window nor a frame_length"};
  }
  if (!length.is_const() || length.as_const() <= 0 || step <= 0 || step > (1 << 30))
    return Error{fmt::format("frames of length {} with step {} are not supported", length.text(), step)};
  int64_t size = length.as_const(), bins = n.get_flag("onesided", true) ? size / 2 + 1 : size;
  KILN_TRY(matrix, transform_matrix(e, signal.dtype(), size, 1, bins, false));
  Dim frames = floordiv(signal.dim(1) - length, step) + Dim(1);
  Shape grid = {frames, size};
  KILN_TRY(frame, e.emit(Op::iota, {}, {{"shape", grid}, {"axis", Dim(0)}, {"dtype", DType::i64}}));
  KILN_TRY(place, e.emit(Op::iota, {}, {{"shape", grid}, {"axis", Dim(1)}, {"dtype", DType::i64}}));
  KILN_TRY(start, e.emit(Op::mul, {frame, e.constant(Tensor::scalar_i64(DType::i64, step))}));
  KILN_TRY(index, e.emit(Op::add, {start, place}));
  KILN_TRY(rows, reshape(e, signal, {signal.dim(0), signal.dim(1)}));
  KILN_TRY(cut, e.emit(Op::gather, {rows, index}, {{"axis", Dim(1)}}));
  Val windowed = cut;
  if (n.has(2)) {
    KILN_TRY(weighted, e.emit(Op::mul, {cut, n.in(2)}));
    windowed = weighted;
  }
  KILN_TRY(product, e.emit(Op::dot, {windowed, matrix}));
  return n.finish(reshape(e, product, {signal.dim(0), frames, bins, 2}));
}

} // namespace kiln::onnx
