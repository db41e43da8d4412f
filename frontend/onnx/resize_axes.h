// Resize one axis at a time, for the forms that the op `resize` does not have: antialiasing, regions of
// interest, sizes that were rounded, and sizes whose ratio is not known.
#pragma once

#include "frontend/onnx/calc.h"

#include <cmath>
#include <limits>

namespace kiln::onnx {

inline constexpr double kOpenScale = std::numeric_limits<double>::quiet_NaN();

struct AxisResize {
  int axis = 0;
  Dim size; // of the result
  // The scale before sizes were rounded is up / down: exact where both are whole numbers. kOpenScale: it is the
  // ratio of the sizes, which only a run tells.
  double up = 1, down = 1;

  double scale() const { return up / down; }
  bool is_open() const { return std::isnan(up); }
};

struct ResizeOptions {
  std::string mode, coordinates, rounding;
  double cubic_a = -0.75, extrapolation = 0;
  bool exclude_outside = false, antialias = false;
  bool fractional_corners = false; // corners align with those of the size before rounding
};

// Resized along the axes. For tf_crop_and_resize `roi` holds all starts, then all ends.
Result<Val> resize_axes(Calc &c, const Val &x, const std::vector<AxisResize> &axes, const ResizeOptions &options,
                        const std::optional<Val> &roi);

} // namespace kiln::onnx
