// Convolutions and pools of com.microsoft whose activations have their channels last: the usual operators
// between two permutes, which the layout pass takes into its stride.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

Result<Val> channels_first(OnnxNode &n, const Val &x) {
  if (x.rank() < 3)
    return Error{fmt::format("{} has no spatial dims", x.type.text())};
  std::vector<int64_t> order = {0, x.rank() - 1};
  for (int64_t d = 1; d < x.rank() - 1; ++d)
    order.push_back(d);
  return permute(n.emitter(), x, order);
}

Result<Val> channels_last(OnnxNode &n, const Val &x) {
  std::vector<int64_t> order = {0};
  for (int64_t d = 2; d < x.rank(); ++d)
    order.push_back(d);
  order.push_back(1);
  return permute(n.emitter(), x, order);
}

// The handler on operands whose channels come first, where these are given with channels last.
Status turned(OnnxNode &n, std::initializer_list<size_t> which, Handler handler) {
  std::vector<Val> operands = n.inputs();
  for (size_t i : which) {
    if (!n.has(i))
      continue;
    KILN_TRY(first, channels_first(n, operands[i]));
    operands[i] = first;
  }
  KILN_RETURN_IF_ERROR(import_as(n, operands, handler));
  return n.finish(channels_last(n, *n.outputs()[0]));
}

} // namespace

Status import_nhwc_conv(OnnxNode &n) { return turned(n, {0}, import_conv); }
Status import_nhwc_fused_conv(OnnxNode &n) { return turned(n, {0, 3}, import_fused_conv); }
Status import_nhwc_max_pool(OnnxNode &n) { return turned(n, {0}, import_max_pool); }

Status import_contrib_qlinear_conv(OnnxNode &n) {
  if (!n.get_flag("channels_last", false))
    return import_as(n, n.inputs(), import_qlinear_conv);
  return turned(n, {0}, import_qlinear_conv);
}

// X, X_scale, X_zero, Y_scale, Y_zero
Status import_qlinear_average_pool(OnnxNode &n) {
  return n.get_flag("channels_last", false) ? turned(n, {0}, qlinear_average_pool) : qlinear_average_pool(n);
}

} // namespace kiln::onnx
