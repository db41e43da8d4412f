// Fourier transforms of known lengths. Short ones are products with the matrix of the transform; a long
// one of length a * b is transforms of length a, a turn of each element, and transforms of length b
// (Cooley and Tukey 1965), down to lengths that are short or have no factors.
#include "frontend/onnx/calc.h"
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

namespace kiln::onnx {
namespace {

constexpr int64_t kShort = 1024;
constexpr int64_t kMaxMatrix = int64_t(1) << 24; // elements
constexpr int64_t kMaxLength = int64_t(1) << 24;

// cos and sin of k / n of a full turn, exact at the quarters.
std::pair<double, double> turn(int64_t k, int64_t n) {
  k %= n;
  double angle = 2 * std::numbers::pi * double(k) / double(n);
  double c = 4 * k == n || 4 * k == 3 * n ? 0 : std::cos(angle), s = 2 * k == n || k == 0 ? 0 : std::sin(angle);
  return {c, s};
}

// The number next to the root of n that divides it, or 1.
int64_t factor_of(int64_t n) {
  for (int64_t f = int64_t(std::sqrt(double(n))); f > 1; --f)
    if (n % f == 0)
      return f;
  return 1;
}

class Fourier {
public:
  Fourier(Calc &c, bool inverse) : c_(c), sign_(inverse ? 1 : -1) {}

  // [R, n, parts], with 1 part for real numbers, to [R, bins, 2]; not scaled.
  Num run(const Num &x, int64_t n, int64_t bins) {
    int64_t parts = x.dim(2).try_const().value_or(1), a = n > kShort ? factor_of(n) : 1, b = n / a;
    if (a == 1)
      return direct(x, n, parts, bins);
    // The element j1 * b + j2 goes to k1 + a * k2.
    Dim rows = x.dim(0);
    Num inner = permute(reshape(x, {rows, a, b, parts}), {0, 2, 1, 3});
    inner = reshape(run(reshape(inner, {rows * Dim(b), a, parts}), a, a), {rows, b, a, 2});
    inner = permute(turned(inner, a, b), {0, 2, 1, 3});
    Num outer = reshape(run(reshape(inner, {rows * Dim(a), b, 2}), b, b), {rows, a, b, 2});
    return slice(reshape(permute(outer, {0, 2, 1, 3}), {rows, n, 2}), 1, 0, bins);
  }

  // The real signal whose spectrum starts with x [R, n / 2 + 1, 2]: [R, n, 1]; not scaled.
  Num run_to_real(const Num &x, int64_t n) {
    int64_t bins = n / 2 + 1;
    if (n > kShort && factor_of(n) > 1) {
      // The rest is the first part mirrored, conjugate.
      Num conjugate = c_(c_.emitter().constant(pair(x.dtype(), 1, -1)));
      Num ends = x * c_(c_.emitter().constant(ends_mask(x.dtype(), n))); // whose imaginary part does not count
      Num mirrored = c_.op(Op::flip, {slice(ends, 1, 1, (n - 1) / 2)}, {{"axes", attr_ints(std::vector<int>{1})}}) * conjugate;
      return slice(run(c_.concat({ends, mirrored}, 1), n, n), 2, 0, 1);
    }
    Tensor matrix(x.dtype(), {bins * 2, n});
    for (int64_t k = 0; k < bins; ++k)
      for (int64_t i = 0; i < n; ++i) {
        auto [c, s] = turn(i * k, n);
        double twice = k == 0 || 2 * k == n ? 1 : 2;
        matrix.set_f64(2 * k * n + i, twice * c);
        matrix.set_f64((2 * k + 1) * n + i, k == 0 || 2 * k == n ? 0 : -twice * s);
      }
    Num flat = reshape(x, {x.dim(0), bins * 2});
    return reshape(c_.op(Op::dot, {flat, c_(c_.emitter().constant(std::move(matrix)))}), {x.dim(0), n, 1});
  }

private:
  static Tensor pair(DType dtype, double re, double im) {
    Tensor out(dtype, {2});
    out.set_f64(0, re), out.set_f64(1, im);
    return out;
  }
  static Tensor ends_mask(DType dtype, int64_t n) {
    Tensor out(dtype, {n / 2 + 1, 2});
    for (int64_t k = 0; k < n / 2 + 1; ++k)
      out.set_f64(2 * k, 1), out.set_f64(2 * k + 1, k == 0 || 2 * k == n ? 0 : 1);
    return out;
  }

  Num direct(const Num &x, int64_t n, int64_t parts, int64_t bins) {
    Tensor matrix(x.dtype(), {n * parts, bins * 2});
    for (int64_t i = 0; i < n; ++i)
      for (int64_t k = 0; k < bins; ++k) {
        auto [c, s] = turn(i * k, n);
        s *= sign_;
        for (int64_t part = 0; part < parts; ++part) {
          int64_t at = ((i * parts + part) * bins + k) * 2;
          matrix.set_f64(at, part == 0 ? c : -s);
          matrix.set_f64(at + 1, part == 0 ? s : c);
        }
      }
    Num flat = reshape(x, {x.dim(0), n * parts});
    return reshape(c_.op(Op::dot, {flat, c_(c_.emitter().constant(std::move(matrix)))}), {x.dim(0), bins, 2});
  }

  // Element [j2, k1] turned by j2 * k1 / (a * b).
  Num turned(const Num &x, int64_t a, int64_t b) {
    Tensor cosines(x.dtype(), {b, a, 1}), sines(x.dtype(), {b, a, 1});
    for (int64_t j = 0; j < b; ++j)
      for (int64_t k = 0; k < a; ++k) {
        auto [c, s] = turn(j * k, a * b);
        cosines.set_f64(j * a + k, c);
        sines.set_f64(j * a + k, sign_ * s);
      }
    Num c = c_(c_.emitter().constant(std::move(cosines))), s = c_(c_.emitter().constant(std::move(sines)));
    Num re = slice(x, 3, 0, 1), im = slice(x, 3, 1, 1);
    return c_.concat({re * c - im * s, re * s + im * c}, 3);
  }

  Calc &c_;
  double sign_;
};

Status check_length(int64_t length, int64_t parts, int64_t bins) {
  int64_t direct = length;
  while (direct > kShort && factor_of(direct) > 1)
    direct = direct / factor_of(direct);
  int64_t wide = direct == length ? bins : direct;
  if (length <= 0 || length > kMaxLength || direct * parts * wide * 2 > kMaxMatrix)
    return Error{fmt::format("a transform of length {} is not supported; lengths with small factors are, up to {}", length, kMaxLength)};
  return Unit{};
}

DType sum_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

// Cut, or with zeros behind, to `length` along the axis.
Num fitted(const Num &x, int axis, const Dim &size, int64_t length) {
  if (!size.is_const() || size.as_const() >= length)
    return slice(x, axis, 0, length);
  std::vector<Dim> lo(size_t(x.rank()), Dim(0)), hi = lo;
  hi[size_t(axis)] = length - size.as_const();
  return pad(x, lo, hi);
}

} // namespace

Status import_dft(OnnxNode &n) {
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
  bool inverse = n.get_flag("inverse", false), onesided = n.get_flag("onesided", false), to_real = inverse && onesided;
  auto size = x.dim(axis).try_const();
  if (!size)
    return Error{fmt::format("the length of its axis {} must be known; fix it with --dim or --shape", x.dim(axis).text())};
  int64_t length = to_real ? 2 * (*size - 1) : *size;
  if (n.has(1)) {
    KILN_TRY(wanted, n.int_of(1, "dft_length"));
    length = wanted;
  }
  int64_t bins = onesided ? length / 2 + 1 : length, taken = to_real ? bins : length;
  KILN_RETURN_IF_ERROR(check_length(length, to_real ? 2 : *parts, bins));
  // The axis goes next to the last dim.
  std::vector<int64_t> order, back(size_t(x.rank()));
  for (int i = 0; i < x.rank() - 1; ++i)
    if (i != axis)
      order.push_back(i);
  order.push_back(axis);
  order.push_back(x.rank() - 1);
  for (size_t i = 0; i < order.size(); ++i)
    back[size_t(order[i])] = int64_t(i);
  Calc c(n.emitter());
  Num moved = fitted(permute(convert(c(x), sum_dtype(x.dtype())), order), x.rank() - 2, *size, taken);
  Shape result = moved.v.dims(0, moved.rank() - 2);
  Dim rows = element_count(result);
  Num flat = reshape(moved, {rows, taken, *parts}), out;
  Fourier fourier(c, inverse);
  if (to_real) {
    if (*parts == 1)
      flat = pad(flat, {0, 0, 0}, {0, 0, 1});
    out = fourier.run_to_real(flat, length);
  } else {
    out = fourier.run(flat, length, bins);
  }
  if (inverse)
    out = out * (1.0 / double(length));
  result.push_back(to_real ? length : bins);
  result.push_back(to_real ? 1 : 2);
  return n.finish(c.done(convert(permute(reshape(out, result), back), x.dtype())));
}

// Frames of the signal times the window, transformed: [batch, frames, bins, 2].
Status import_stft(OnnxNode &n) {
  const Val &signal = n.in(0);
  auto parts = signal.rank() == 3 ? signal.dim(2).try_const() : std::optional<int64_t>(signal.rank() == 2 ? 1 : 0);
  if (!is_float(signal.dtype()) || !parts || (*parts != 1 && *parts != 2))
    return Error{fmt::format("its signal {} must be floats [batch, length, 1 or 2]", signal.type.text())};
  KILN_TRY(step, n.int_of(1, "frame_step"));
  Dim length = signal.dim(1);
  if (n.has(2) && n.rank(2) != 1)
    return Error{fmt::format("its window is {}; it must have one dim", n.in(2).type.text())};
  if (n.has(3)) {
    KILN_TRY(given, n.int_of(3, "frame_length"));
    length = given;
  } else if (n.has(2)) {
    length = n.in(2).dim(0);
  }
  if (!length.is_const() || length.as_const() <= 0 || step <= 0 || step > (1 << 30))
    return Error{fmt::format("frames of length {} with step {} are not supported", length.text(), step)};
  if (n.has(2) && !n.emitter().require_equal(n.in(2).dim(0), length, "STFT"))
    return Error{fmt::format("its window is {}, but frames have {} elements", n.in(2).type.text(), length.text())};
  bool onesided = n.get_flag("onesided", true);
  if (onesided && *parts == 2)
    return Error{"the transform of a complex signal has two sides: set onesided to 0"};
  int64_t size = length.as_const(), bins = onesided ? size / 2 + 1 : size;
  KILN_RETURN_IF_ERROR(check_length(size, *parts, bins));
  Dim frames = floordiv(signal.dim(1) - length, step) + Dim(1);
  if (frames.is_const() && frames.as_const() < 1)
    return Error{fmt::format("its signal {} is shorter than a frame of {}", signal.type.text(), size)};
  Calc c(n.emitter());
  Num index = reshape(c.iota(DType::i64, {frames}), {frames, 1}) * double(step) + c.iota(DType::i64, {size});
  Num x = reshape(convert(c(signal), sum_dtype(signal.dtype())), {signal.dim(0), signal.dim(1), *parts});
  Num cut = gather(x, index, 1); // [batch, frames, size, parts]
  if (n.has(2))
    cut = cut * reshape(convert(c(n.in(2)), x.dtype()), {size, 1});
  Num out = Fourier(c, false).run(reshape(cut, {signal.dim(0) * frames, size, *parts}), size, bins);
  return n.finish(c.done(convert(reshape(out, {signal.dim(0), frames, bins, 2}), signal.dtype())));
}

} // namespace kiln::onnx
