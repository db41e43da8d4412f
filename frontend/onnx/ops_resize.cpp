// Resize and Upsample: sizes from scales or scales from sizes, for all forms since opset 7.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <cmath>

namespace kiln::onnx {
namespace {

struct Sizing {
  Shape sizes;
  std::vector<double> scales;
};

// The fraction with the smallest denominator that is the scale, as a float.
std::optional<std::pair<int64_t, int64_t>> fraction(double scale) {
  for (int64_t q = 1; q <= 256; ++q) {
    double p = std::round(scale * double(q));
    if (p > 0 && p < 1e9 && float(p / double(q)) == float(scale))
      return std::pair(int64_t(p), q);
  }
  return std::nullopt;
}

Result<Dim> scaled_size(const Dim &size, double scale) {
  if (!(scale > 0) || !(scale < 1e9))
    return Error{fmt::format("a scale is {}; it must be positive", scale)};
  if (auto known = size.try_const()) {
    // In single precision, as exporters and other runtimes have it: 10 * 0.7f is 7.
    double out = std::floor(double(float(*known) * float(scale)));
    return out < 9e15 ? Result<Dim>(Dim(int64_t(out))) : Error{"a size of the result is too large"};
  }
  auto ratio = fraction(scale);
  if (!ratio)
    return Error{fmt::format("the size {} cannot be scaled by {} while it is open; fix it with --dim",
                             size.text(), scale)};
  return floordiv(size * Dim(ratio->first), ratio->second);
}

Result<double> scale_between(const Dim &from, const Dim &to) {
  auto a = from.try_const(), b = to.try_const();
  if (a && b)
    return *a > 0 && *b > 0 ? Result<double>(double(*b) / double(*a))
                            : Error{fmt::format("{} cannot be resized to {}", *a, *b)};
  if (from == to)
    return 1.0;
  Dim times = floordiv(to, from), parts = floordiv(from, to);
  if (times.is_const() && times.as_const() > 0 && from * times == to)
    return double(times.as_const());
  if (parts.is_const() && parts.as_const() > 0 && to * parts == from)
    return 1.0 / double(parts.as_const());
  return Error{fmt::format("the ratio of the sizes {} and {} must be known; fix the sizes with --dim or --shape",
                           from.text(), to.text())};
}

Result<std::vector<int>> resized_axes(OnnxNode &n) {
  std::vector<int64_t> list = n.get_ints("axes");
  if (!n.has_attr("axes"))
    for (int i = 0; i < n.rank(); ++i)
      list.push_back(i);
  return n.axes(list, n.rank());
}

Status from_scales(OnnxNode &n, const std::vector<double> &scales, const std::vector<int> &axes, Sizing &out) {
  if (scales.size() != axes.size())
    return Error{fmt::format("it has {} scales for {} axes", scales.size(), axes.size())};
  for (size_t i = 0; i < axes.size(); ++i) {
    size_t axis = size_t(axes[i]);
    KILN_TRY(size, scaled_size(n.shape()[axis], scales[i]));
    out.sizes[axis] = size;
    out.scales[axis] = scales[i];
  }
  return Unit{};
}

Status from_sizes(OnnxNode &n, const std::vector<Dim> &sizes, const std::vector<int> &axes, Sizing &out) {
  if (sizes.size() != axes.size())
    return Error{fmt::format("it has {} sizes for {} axes", sizes.size(), axes.size())};
  std::string policy = n.get_string("keep_aspect_ratio_policy", "stretch");
  for (size_t i = 0; i < axes.size(); ++i) {
    size_t axis = size_t(axes[i]);
    KILN_TRY(scale, scale_between(n.shape()[axis], sizes[i]));
    out.sizes[axis] = sizes[i];
    out.scales[axis] = scale;
  }
  if (policy == "stretch" || axes.empty())
    return Unit{};
  if (policy != "not_larger" && policy != "not_smaller")
    return Error{fmt::format("the attribute 'keep_aspect_ratio_policy' is '{}'", policy)};
  double one = out.scales[size_t(axes[0])];
  for (int axis : axes)
    one = policy == "not_larger" ? std::min(one, out.scales[size_t(axis)]) : std::max(one, out.scales[size_t(axis)]);
  for (int axis : axes) {
    auto size = n.shape()[size_t(axis)].try_const();
    if (!size)
      return Error{"sizes that keep the aspect ratio need known sizes; fix them with --dim or --shape"};
    out.sizes[size_t(axis)] = int64_t(std::floor(one * double(*size) + 0.5));
    out.scales[size_t(axis)] = one;
  }
  return Unit{};
}

Result<std::vector<double>> constant_scales(OnnxNode &n, size_t i) {
  auto list = n.emitter().elements(n.in(i));
  std::vector<double> out;
  if (list) {
    for (const Element &e : *list) {
      if (!e.numerator.is_const())
        return Error{fmt::format("the scales must be constants, but one is ({}) / {}", e.numerator.text(), e.denominator)};
      out.push_back(double(e.numerator.as_const()) / double(e.denominator));
    }
    return out;
  }
  KILN_TRY(tensor, n.constant_of(i, "scales"));
  if (tensor->count() > kMaxRank)
    return Error{fmt::format("it has {} scales", tensor->count())};
  for (int64_t k = 0; k < tensor->count(); ++k)
    out.push_back(tensor->at_f64(k));
  return out;
}

bool empty(const OnnxNode &n, size_t i) { return !n.has(i) || element_count(n.shape(i)).is_const(0); }

Status finish(OnnxNode &n, Sizing sizing, std::string mode, std::string coordinates, std::string rounding) {
  if (mode == "bilinear" || mode == "trilinear")
    mode = "linear";
  if (mode != "nearest" && mode != "linear" && mode != "cubic")
    return Error{fmt::format("the attribute 'mode' is '{}'", mode)};
  bool shrinks = false, same = true;
  for (size_t i = 0; i < sizing.scales.size(); ++i) {
    shrinks |= sizing.scales[i] < 1;
    same &= sizing.sizes[i] == n.shape()[i];
  }
  if (n.get_flag("antialias", false) && shrinks && mode != "nearest")
    return Error{"antialias=1 is not supported for smaller sizes"};
  if (coordinates == "tf_half_pixel_for_nn") {
    // floor((i + 0.5) / scale) is the half pixel rounded up at ties.
    if (mode != "nearest" || rounding != "floor")
      return Error{"the coordinates tf_half_pixel_for_nn are supported for nearest with floor only"};
    coordinates = "half_pixel";
    rounding = "round_prefer_ceil";
  } else if (coordinates == "half_pixel_symmetric") {
    // Differs from half_pixel only where size * scale was rounded.
    for (size_t i = 0; i < sizing.scales.size(); ++i)
      if (auto a = n.shape()[i].try_const(), b = sizing.sizes[i].try_const();
          !a || !b || double(*a) * sizing.scales[i] != double(*b))
        return Error{"the coordinates half_pixel_symmetric need scales that give whole sizes"};
    coordinates = "half_pixel";
  }
  if (same)
    return n.finish(Result<Val>(n.in(0)));
  return n.finish(Op::resize, {n.in(0)},
                  {{"sizes", sizing.sizes},
                   {"scales", sizing.scales},
                   {"mode", mode},
                   {"coordinates", coordinates},
                   {"rounding", rounding},
                   {"cubic_a", n.get_float("cubic_coeff_a", -0.75)},
                   {"exclude_outside", n.get_flag("exclude_outside", false)}});
}

// Resize-10 and Upsample take the element before the position, or after it when shrinking.
std::string simple_rounding(const Sizing &sizing) {
  for (double s : sizing.scales)
    if (s < 1)
      return "ceil";
  return "floor";
}

} // namespace

Status import_resize(OnnxNode &n) {
  Sizing sizing{n.shape(), std::vector<double>(size_t(n.rank()), 1.0)};
  KILN_TRY(axes, resized_axes(n));
  if (n.opset() < 11) {
    if (!n.has(1))
      return Error{"its scales are missing"};
    KILN_TRY(scales, constant_scales(n, 1));
    KILN_RETURN_IF_ERROR(from_scales(n, scales, axes, sizing));
    std::string rounding = simple_rounding(sizing);
    return finish(n, std::move(sizing), n.get_string("mode", "nearest"), "asymmetric", rounding);
  }
  std::string coordinates = n.get_string("coordinate_transformation_mode", "half_pixel");
  if (coordinates == "tf_crop_and_resize")
    return Error{"the coordinates tf_crop_and_resize are not supported"};
  n.ignore({"extrapolation_value"});
  if (!empty(n, 3)) {
    KILN_TRY(sizes, n.dims_of(3, "sizes"));
    KILN_RETURN_IF_ERROR(from_sizes(n, sizes, axes, sizing));
  } else if (!empty(n, 2)) {
    KILN_TRY(scales, constant_scales(n, 2));
    KILN_RETURN_IF_ERROR(from_scales(n, scales, axes, sizing));
  } else {
    return Error{"it has neither scales nor sizes"};
  }
  n.ignore({"keep_aspect_ratio_policy"});
  return finish(n, std::move(sizing), n.get_string("mode", "nearest"), coordinates,
                n.get_string("nearest_mode", "round_prefer_floor"));
}

Status import_upsample(OnnxNode &n) {
  Sizing sizing{n.shape(), std::vector<double>(size_t(n.rank()), 1.0)};
  std::vector<double> scales = n.get_floats("scales");
  if (n.has(1)) {
    KILN_TRY(given, constant_scales(n, 1));
    scales = given;
  }
  KILN_TRY(axes, resized_axes(n));
  KILN_RETURN_IF_ERROR(from_scales(n, scales, axes, sizing));
  std::string rounding = simple_rounding(sizing);
  return finish(n, std::move(sizing), n.get_string("mode", "nearest"), "asymmetric", rounding);
}

} // namespace kiln::onnx
