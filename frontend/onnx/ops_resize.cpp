// Resize and Upsample: sizes from scales or scales from sizes, for all forms since opset 7.
#include "frontend/onnx/ops.h"
#include "frontend/onnx/resize_axes.h"
#include "frontend/onnx/run_sizes.h"

#include <fmt/format.h>

#include <algorithm>
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
    if (out == 0 && *known > 0)
      return Error{fmt::format("a scale is {}, which leaves nothing of {}", scale, *known)};
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
  auto list = n.get_ints("axes");
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
    const Dim &from = n.shape()[axis];
    auto scale = scale_between(from, sizes[i]);
    out.sizes[axis] = sizes[i];
    if (scale) {
      out.scales[axis] = *scale;
      continue;
    }
    if ((from.is_const() && sizes[i].is_const()) || policy != "stretch")
      return scale.error();
    // Images and channels are not resized: what exporters write for them is the size that there was.
    if (axis < 2 && n.rank() > 2 && n.emitter().require_equal(from, sizes[i], "Resize"))
      out.sizes[axis] = from;
    else
      out.scales[axis] = kOpenScale;
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
    double resized = std::floor(one * double(*size) + 0.5);
    if (!(resized < double(kMaxElements)))
      return Error{fmt::format("its 'sizes' make axis {} as large as {}", axis, resized)};
    out.sizes[size_t(axis)] = int64_t(resized);
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

std::vector<AxisResize> axes_of(const Sizing &sizing, const std::vector<int> &axes) {
  std::vector<AxisResize> out;
  for (int axis : axes) {
    AxisResize to{axis, sizing.sizes[size_t(axis)], sizing.scales[size_t(axis)], 1};
    if (auto ratio = to.is_open() ? std::nullopt : fraction(to.up)) // ties are where they are meant to be
      to.up = double(ratio->first), to.down = double(ratio->second);
    out.push_back(to);
  }
  return out;
}

// Whether a size times its scale is not a whole number; unknown sizes have been checked to scale evenly.
bool rounded(const OnnxNode &n, const Sizing &sizing) {
  for (size_t i = 0; i < sizing.scales.size(); ++i) {
    auto a = n.shape()[i].try_const(), b = sizing.sizes[i].try_const();
    if (a && b ? float(double(*a) * sizing.scales[i]) != float(*b) : std::round(sizing.scales[i]) != sizing.scales[i])
      return true;
  }
  return false;
}

Status finish(OnnxNode &n, Sizing sizing, const std::vector<int> &axes, ResizeOptions options) {
  std::string &mode = options.mode, &coordinates = options.coordinates;
  if (mode == "bilinear" || mode == "trilinear")
    mode = "linear";
  if (mode != "nearest" && mode != "linear" && mode != "cubic")
    return Error{fmt::format("the attribute 'mode' is '{}'", mode)};
  static constexpr std::string_view kCoordinates[] = {"half_pixel",    "half_pixel_symmetric", "pytorch_half_pixel",   "asymmetric",
                                                      "align_corners", "tf_half_pixel_for_nn", "tf_crop_and_resize"};
  if (std::find(std::begin(kCoordinates), std::end(kCoordinates), coordinates) == std::end(kCoordinates))
    return Error{fmt::format("the attribute 'coordinate_transformation_mode' is '{}'", coordinates)};
  static constexpr std::string_view kRoundings[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};
  if (std::find(std::begin(kRoundings), std::end(kRoundings), options.rounding) == std::end(kRoundings))
    return Error{fmt::format("the attribute 'nearest_mode' is '{}'", options.rounding)};
  options.cubic_a = n.get_float("cubic_coeff_a", -0.75);
  options.exclude_outside = n.get_flag("exclude_outside", false);
  options.antialias = n.get_flag("antialias", false) && mode != "nearest";
  options.fractional_corners = n.opset() >= 19; // which defines the width before rounding
  bool shrinks = false, same = true, open = false;
  for (size_t i = 0; i < sizing.scales.size(); ++i) {
    open |= std::isnan(sizing.scales[i]);
    shrinks |= sizing.scales[i] < 1;
    same &= sizing.sizes[i] == n.shape()[i];
  }
  if (coordinates == "tf_crop_and_resize") {
    options.extrapolation = n.get_float("extrapolation_value", 0);
    if (empty(n, 1))
      return Error{"its region of interest (roi) is missing"};
    const Val &roi = n.in(1);
    if (!is_float(roi.dtype()) || roi.rank() != 1 || !n.emitter().require_equal(roi.dim(0), int64_t(2 * axes.size()), "Resize"))
      return Error{fmt::format("its roi is {}; it must be {} floats", roi.type.text(), 2 * axes.size())};
    Calc c(n.emitter());
    return n.finish(resize_axes(c, n.in(0), axes_of(sizing, axes), options, roi));
  }
  n.ignore({"extrapolation_value"});
  if (same)
    return n.finish(Result<Val>(n.in(0)));
  if (coordinates == "tf_half_pixel_for_nn" && mode == "nearest" && options.rounding == "floor") {
    // floor((i + 0.5) / scale) is the half pixel rounded up at ties.
    coordinates = "half_pixel";
    options.rounding = "round_prefer_ceil";
  }
  if (open && options.antialias)
    return Error{"antialiasing needs the ratio of the sizes; fix them with --dim or --shape"};
  if (coordinates == "half_pixel_symmetric" && !open && !rounded(n, sizing))
    coordinates = "half_pixel";
  if (open || (options.antialias && shrinks) || coordinates == "half_pixel_symmetric" || coordinates == "tf_half_pixel_for_nn" ||
      (coordinates == "align_corners" && options.fractional_corners && rounded(n, sizing))) {
    Calc c(n.emitter());
    return n.finish(resize_axes(c, n.in(0), axes_of(sizing, axes), options, std::nullopt));
  }
  return n.finish(Op::resize, {n.in(0)},
                  {{"sizes", sizing.sizes},
                   {"scales", sizing.scales},
                   {"mode", mode},
                   {"coordinates", coordinates},
                   {"rounding", options.rounding},
                   {"cubic_a", options.cubic_a},
                   {"exclude_outside", options.exclude_outside}});
}

ResizeOptions options_of(std::string mode, std::string coordinates, std::string rounding) {
  ResizeOptions out;
  out.mode = std::move(mode), out.coordinates = std::move(coordinates), out.rounding = std::move(rounding);
  return out;
}

// Resize-10 and Upsample take the element before the position, or after it along axes that shrink.
Status finish_simply(OnnxNode &n, Sizing sizing, const std::vector<int> &axes) {
  std::vector<int> shrinking, growing;
  for (int axis : axes)
    (sizing.scales[size_t(axis)] < 1 ? shrinking : growing).push_back(axis);
  ResizeOptions options = options_of(n.get_string("mode", "nearest"), "asymmetric", shrinking.empty() ? "floor" : "ceil");
  bool both = std::any_of(growing.begin(), growing.end(), [&](int axis) { return sizing.scales[size_t(axis)] != 1; });
  if (options.mode != "nearest" || shrinking.empty() || !both)
    return finish(n, std::move(sizing), axes, std::move(options));
  Calc c(n.emitter());
  KILN_TRY(smaller, resize_axes(c, n.in(0), axes_of(sizing, shrinking), options, std::nullopt));
  options.rounding = "floor";
  return n.finish(resize_axes(c, smaller, axes_of(sizing, growing), options, std::nullopt));
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
    return finish_simply(n, std::move(sizing), axes);
  }
  std::string coordinates = n.get_string("coordinate_transformation_mode", "half_pixel");
  if (!empty(n, 3)) {
    KILN_TRY(list, run_ints(n, 3, "sizes"));
    KILN_TRY(sizes, bind_free(n, list, "resized"));
    KILN_RETURN_IF_ERROR(from_sizes(n, sizes, axes, sizing));
  } else if (!empty(n, 2)) {
    KILN_TRY(scales, constant_scales(n, 2));
    KILN_RETURN_IF_ERROR(from_scales(n, scales, axes, sizing));
  } else {
    return Error{"it has neither scales nor sizes"};
  }
  n.ignore({"keep_aspect_ratio_policy"});
  return finish(n, std::move(sizing), axes,
                options_of(n.get_string("mode", "nearest"), coordinates, n.get_string("nearest_mode", "round_prefer_floor")));
}

Status import_upsample(OnnxNode &n) {
  Sizing sizing{n.shape(), std::vector<double>(size_t(n.rank()), 1.0)};
  std::vector<double> scales = n.get_floats("scales");
  if (n.opset() < 7) {
    KILN_RETURN_IF_ERROR(import_first_upsample(n, scales));
  } else if (n.has(1)) {
    KILN_TRY(given, constant_scales(n, 1));
    scales = given;
  }
  KILN_TRY(axes, resized_axes(n));
  KILN_RETURN_IF_ERROR(from_scales(n, scales, axes, sizing));
  return finish_simply(n, std::move(sizing), axes);
}

} // namespace kiln::onnx
