// Every axis is a gather of the taps of each position, times their weights, and a sum over the taps.
// Positions and weights are constants wherever sizes and regions are known.
#include "frontend/onnx/resize_axes.h"

#include <fmt/format.h>

#include <cmath>

namespace kiln::onnx {
namespace {

constexpr DType kReal = DType::f64, kRegion = DType::f32;
constexpr int64_t kMaxTaps = 1 << 16; // of one position

class AxisResizer {
public:
  AxisResizer(Calc &c, const ResizeOptions &options) : c_(c), options_(options) {}

  Num run(const Num &x, const AxisResize &to, const std::optional<Num> &start, const std::optional<Num> &end) {
    Dim size = x.dim(to.axis);
    Num position = start ? in_region(to, size, *start, *end) : plain(to, size);
    Num out;
    if (options_.mode == "nearest") {
      Num at = min(max(nearest(position), 0), c_.size(kReal, size - Dim(1)));
      out = gather(x, convert(at, DType::i64), to.axis);
    } else {
      out = weighted(x, to, position);
    }
    if (!start)
      return out;
    Shape line(size_t(x.rank()), Dim(1));
    line[size_t(to.axis)] = to.size;
    Num outside = position < 0 || position > c_.size(kReal, size - Dim(1));
    return where(reshape(outside, line), options_.extrapolation, out);
  }

private:
  Num unscaled(const Num &x, const AxisResize &to, const Dim &size) {
    return to.is_open() ? x * c_.size(kReal, size) / c_.size(kReal, to.size) : x * to.down / to.up;
  }

  Num plain(const AxisResize &to, const Dim &size) {
    const std::string &kind = options_.coordinates;
    Num i = c_.iota(kReal, {to.size});
    if (kind == "align_corners") {
      Num corners = options_.fractional_corners && !to.is_open() ? c_.size(kReal, size) * to.scale() : c_.size(kReal, to.size);
      Num steps = corners - 1.0;
      return i * where(equal(steps, 0), 0, (c_.size(kReal, size) - 1.0) / steps);
    }
    if (kind == "asymmetric")
      return unscaled(i, to, size);
    Num half = unscaled(i + 0.5, to, size);
    if (kind == "tf_half_pixel_for_nn")
      return half;
    if (kind == "pytorch_half_pixel")
      return where(equal(c_.size(kReal, to.size), 1), 0, half - 0.5);
    if (kind == "half_pixel")
      return half - 0.5;
    // half_pixel_symmetric: the centers of both lie on each other.
    if (to.is_open()) // no size was rounded
      return half - 0.5;
    Num from = c_.size(kReal, size), adjustment = c_.size(kReal, to.size) / (from * to.scale());
    return from * 0.5 * (1.0 - adjustment) + half - 0.5;
  }

  // In single precision, in this order, so that the ends of a region are where other runtimes have them.
  Num in_region(const AxisResize &to, const Dim &size, const Num &start, const Num &end) {
    Num last = c_.size(kRegion, size - Dim(1)), steps = c_.size(kRegion, max(to.size - Dim(1), 1));
    Num many = start * last + c_.iota(kRegion, {to.size}) * (end - start) * last / steps;
    return convert(where(equal(c_.size(kRegion, to.size), 1), (start + end) * 0.5 * last, many), kReal);
  }

  Num nearest(const Num &x) {
    const std::string &rounding = options_.rounding;
    if (rounding == "floor")
      return floor(x);
    if (rounding == "ceil")
      return ceil(x);
    return rounding == "round_prefer_floor" ? ceil(x - 0.5) : floor(x + 0.5);
  }

  // The weight of a tap at a distance, in [0, 2).
  Num kernel(const Num &distance) {
    Num x = abs(distance);
    if (options_.mode == "linear")
      return max(1.0 - x, 0);
    // Cubic convolution (Keys 1981).
    double a = options_.cubic_a;
    Num near = ((a + 2) * x - (a + 3)) * x * x + 1.0, far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
    return where(x <= 1, near, where(x < 2, far, 0));
  }

  Num weighted(const Num &x, const AxisResize &to, const Num &position) {
    Dim size = x.dim(to.axis);
    double squeeze = options_.antialias ? std::min(to.scale(), 1.0) : 1.0, reach = options_.mode == "linear" ? 1 : 2;
    double first = std::floor(-reach / squeeze) + 1, count = 2 - 2 * first;
    if (!(count <= double(kMaxTaps)))
      c_.fail(fmt::format("a scale of {} needs {} elements for each of the result; at most {} are supported", to.scale(), count, kMaxTaps));
    int64_t taps = int64_t(count);
    Num below = floor(position), offset = c_.iota(kReal, {taps}) + first;
    Num t = reshape(position - below, {to.size, 1}), place = reshape(below, {to.size, 1}) + offset; // [size, taps]
    Num weight = kernel((offset - t) * squeeze);
    Num last = c_.size(kReal, size - Dim(1));
    if (options_.exclude_outside)
      weight = where(place >= 0 && place <= last, weight, 0);
    if (options_.exclude_outside || options_.antialias) {
      Num total = sum(weight, {1}, true);
      weight = weight / where(equal(total, 0), 1, total);
    }
    Num index = convert(min(max(place, 0), last), DType::i64);
    Shape shape(size_t(x.rank()) + 1, Dim(1));
    shape[size_t(to.axis)] = to.size;
    shape[size_t(to.axis) + 1] = taps;
    return sum(gather(x, index, to.axis) * reshape(convert(weight, x.dtype()), shape), {to.axis + 1});
  }

  Calc &c_;
  const ResizeOptions &options_;
};

} // namespace

Result<Val> resize_axes(Calc &c, const Val &x, const std::vector<AxisResize> &axes, const ResizeOptions &options,
                        const std::optional<Val> &roi) {
  for (const AxisResize &to : axes)
    if (x.dim(to.axis).is_const(0) && !to.size.is_const(0))
      return Error{fmt::format("dim {} is empty and cannot be resized to {}", to.axis, to.size.text())};
  DType dtype = x.dtype(), sums = options.mode == "nearest"                          ? dtype
                                  : dtype_bits(dtype) > 32 || dtype == DType::i32 || dtype == DType::u32 ? DType::f64
                                                                                                          : DType::f32;
  Num out = convert(c(x), sums);
  AxisResizer resizer(c, options);
  for (size_t i = 0; i < axes.size(); ++i) {
    if (!roi) {
      if (axes[i].scale() != 1 || axes[i].size != x.dim(axes[i].axis))
        out = resizer.run(out, axes[i], std::nullopt, std::nullopt);
      continue;
    }
    Num regions = convert(c(*roi), kRegion);
    auto edge = [&](size_t k) { return at(regions, 0, int64_t(k)); };
    Num start = edge(i), end = edge(axes.size() + i);
    bool whole = start.v.constant && end.v.constant && start.v.constant->at_f64(0) == 0 && end.v.constant->at_f64(0) == 1;
    if (!whole || axes[i].size != x.dim(axes[i].axis))
      out = resizer.run(out, axes[i], start, end);
  }
  if (is_integer(dtype) && options.antialias)
    out = c.op(Op::round, {out});
  return c.done(convert(out, dtype));
}

} // namespace kiln::onnx
