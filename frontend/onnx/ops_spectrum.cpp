// The windows of spectra and the matrix of mel bands.
#include "frontend/onnx/calc.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/tensors.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

namespace kiln::onnx {
namespace {

constexpr int64_t kMaxMelElements = int64_t(1) << 24;

Result<DType> output_dtype(OnnxNode &n) {
  int64_t code = n.get_int("output_datatype", 1);
  auto dtype = dtype_from_onnx(code);
  if (!dtype || is_bool(*dtype))
    return Error{fmt::format("a result of {} is not supported", onnx_type_name(code))};
  return *dtype;
}

// a[0] + a[1] cos(t) + a[2] cos(2 t), with t once round the circle; computed in f64, once, where the size is known.
Status cosine_window(OnnxNode &n, std::vector<double> a) {
  KILN_TRY(sizes, n.dims_of(0, "size"));
  KILN_TRY(dtype, output_dtype(n));
  if (sizes.size() != 1 || (sizes[0].is_const() && sizes[0].as_const() < 0))
    return Error{"its size must be one number that is not negative"};
  bool periodic = n.get_flag("periodic", true);
  Calc c(n.emitter());
  Num steps = c.size(DType::f64, periodic ? sizes[0] : max(sizes[0] - Dim(1), 1));
  Num t = c.iota(DType::f64, {sizes[0]}) * (2 * std::numbers::pi) / steps;
  Num out = c.number(DType::f64, a[0]);
  for (size_t i = 1; i < a.size(); ++i)
    out = out + c.op(Op::cos, {t * double(i)}) * a[i];
  return n.finish(c.done(convert(out, dtype)));
}

Result<double> number_of(OnnxNode &n, size_t i, std::string_view what) {
  KILN_TRY(tensor, n.constant_of(i, what));
  if (tensor->count() != 1)
    return Error{fmt::format("its {} is {}, not one number", what, tensor->type().text())};
  return tensor->at_f64(0);
}

} // namespace

Status import_hann_window(OnnxNode &n) { return cosine_window(n, {0.5, -0.5}); }
Status import_hamming_window(OnnxNode &n) { return cosine_window(n, {25.0 / 46, -21.0 / 46}); }
Status import_blackman_window(OnnxNode &n) { return cosine_window(n, {0.42, -0.5, 0.08}); }

// [spectrogram bins, mel bins]: triangles whose corners are evenly spaced in mels.
Status import_mel_weight_matrix(OnnxNode &n) {
  KILN_TRY(bands, n.int_of(0, "number of mel bins"));
  KILN_TRY(length, n.int_of(1, "dft_length"));
  KILN_TRY(rate, n.int_of(2, "sample rate"));
  KILN_TRY(lowest, number_of(n, 3, "lower edge"));
  KILN_TRY(highest, number_of(n, 4, "upper edge"));
  KILN_TRY(dtype, output_dtype(n));
  if (bands < 0 || length < 0 || rate <= 0 || bands > (1 << 20) || length > (1 << 30) ||
      (length / 2 + 1) * bands > kMaxMelElements)
    return Error{fmt::format("{} bands of a transform of length {} at {} Hz are not supported", bands, length, rate)};
  auto mel = [](double hertz) { return 2595 * std::log10(1 + hertz / 700); };
  double low = mel(lowest), step = (mel(highest) - low) / double(bands + 2);
  int64_t bins = length / 2 + 1;
  std::vector<int64_t> corners;
  for (int64_t i = 0; i < bands + 2; ++i) {
    double hertz = 700 * (std::pow(10.0, (low + double(i) * step) / 2595) - 1);
    double bin = std::floor(double(length + 1) * hertz / double(rate));
    if (!(bin >= 0) || bin >= double(bins) || (i > 0 && bin < double(corners.back())))
      return Error{fmt::format("bands from {} to {} Hz do not lie in a transform of length {} at {} Hz", lowest, highest, length, rate)};
    corners.push_back(int64_t(bin));
  }
  Tensor out(dtype, {bins, bands});
  for (int64_t i = 0; i < bands; ++i) {
    int64_t left = corners[size_t(i)], center = corners[size_t(i) + 1], right = corners[size_t(i) + 2];
    for (int64_t j = left; j <= center; ++j)
      out.set_f64(j * bands + i, left == center ? 1 : double(j - left) / double(center - left));
    for (int64_t j = center; j < right; ++j)
      out.set_f64(j * bands + i, double(right - j) / double(right - center));
  }
  return n.finish(Result<Val>(n.emitter().constant(std::move(out))));
}

} // namespace kiln::onnx
