// The window of a convolution or a pool as the attributes of a node give it.
#pragma once

#include "frontend/onnx/node.h"

namespace kiln::onnx {

struct Window {
  std::vector<int64_t> kernel, stride, dilation;
  std::vector<Dim> pad; // all lows, then all highs

  size_t rank() const { return kernel.size(); }
  // From the first element that a position reads to the last.
  Dim reach(size_t i) const { return Dim(kernel[i] - 1) * Dim(dilation[i]) + Dim(1); }
};

// A list of `count` numbers, one a spatial dim.
Result<std::vector<int64_t>> spatial(OnnxNode &n, std::string_view name, size_t count, int64_t otherwise);
Status check_positive(const std::vector<int64_t> &list, std::string_view name);
// All but the pads. `kernel` is that of the weights, or empty for pools, which must say it.
Result<Window> window_of(OnnxNode &n, std::vector<int64_t> kernel);
// The pads of a window that moves over the node's first operand, automatic ones included.
Status set_pads(OnnxNode &n, Window &w);
Attrs window_attrs(const Window &w);

} // namespace kiln::onnx
