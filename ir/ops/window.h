// Windows that slide over the spatial dims of x[N, C, spatial...]: what conv, conv_transpose and
// the pools share. Tap k of the window at output position o reads x at o * stride + k * dilation -
// pad_lo.
#pragma once

#include "ir/ops/infer_util.h"

namespace kiln {

struct Window {
  std::vector<Dim> kernel, pad_lo, pad_hi;
  std::vector<int64_t> stride, dilation;

  size_t rank() const { return kernel.size(); }
  // The positions from a window's first tap to its last, both included.
  Dim extent(size_t d) const { return (kernel[d] - Dim(1)) * Dim(dilation[d]) + Dim(1); }
};

// From the attributes stride, pad (lo..., hi...) and dilation; checks that they fit together.
Result<Window> read_window(InferContext &context, std::vector<Dim> kernel);
// The same where infer has accepted the node.
Window known_window(const Attrs &attrs, std::vector<Dim> kernel);

// The result's spatial dims. With `ceil`, a last window that hangs over the end counts where it
// starts within the input or the padding before it.
Result<Shape> window_result(InferContext &context, const Window &w, std::span<const Dim> spatial,
                            bool ceil);

// The taps of dim d that read within [0, size) for the window at output position `at`, where windows read
// at most `past` elements behind the input's end.
struct TapRange {
  Dim begin, end;
};
TapRange inner_taps(const LowerContext &c, const Window &w, size_t d, const Dim &size, const Dim &at,
                    const Dim &past);
// How far the last window reads past the end of the input.
Dim overhang(const Window &w, size_t d, const Dim &size, const Dim &result);

// The same for concrete sizes.
struct ConcreteWindow {
  std::vector<int64_t> in, out, kernel, pad_lo, stride, dilation;
  int64_t taps() const;
  int64_t positions() const;
  int64_t in_count() const;
};
ConcreteWindow concrete_window(const Attrs &attrs, std::span<const int64_t> in,
                               std::span<const int64_t> kernel, std::span<const int64_t> out);

} // namespace kiln
