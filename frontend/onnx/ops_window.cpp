// Convolutions and pools: spatial attributes with their defaults, and automatic padding.
#include "frontend/onnx/ops.h"
#include "frontend/onnx/window.h"

#include <fmt/format.h>

namespace kiln::onnx {

Result<std::vector<int64_t>> spatial(OnnxNode &n, std::string_view name, size_t count, int64_t otherwise) {
  auto list = n.get_ints(name, std::vector<int64_t>(count, otherwise));
  if (list.size() != count)
    return Error{fmt::format("the attribute '{}' has {} entries; {} has {} spatial dims", name, list.size(),
                             n.in(0).type.text(), count)};
  return list;
}

Status check_positive(const std::vector<int64_t> &list, std::string_view name) {
  for (int64_t v : list)
    if (v <= 0 || v > (int64_t(1) << 31))
      return Error{fmt::format("the attribute '{}' holds {}", name, v)};
  return Unit{};
}

Result<Window> window_of(OnnxNode &n, std::vector<int64_t> kernel) {
  if (n.rank() < 3)
    return Error{fmt::format("its operand {} has no spatial dims", n.in(0).type.text())};
  size_t count = size_t(n.rank()) - 2;
  Window w;
  if (kernel.empty() && !n.has_attr("kernel_shape"))
    return Error{"the attribute 'kernel_shape' is missing"};
  KILN_TRY(declared, spatial(n, "kernel_shape", count, 1));
  if (kernel.empty())
    kernel = declared;
  else if (n.has_attr("kernel_shape") && kernel != declared)
    return Error{"the attribute 'kernel_shape' is not the shape of the weights"};
  w.kernel = kernel;
  KILN_TRY(stride, spatial(n, "strides", count, 1));
  KILN_TRY(dilation, spatial(n, "dilations", count, 1));
  w.stride = stride, w.dilation = dilation;
  KILN_RETURN_IF_ERROR(check_positive(w.kernel, "kernel_shape"));
  KILN_RETURN_IF_ERROR(check_positive(w.stride, "strides"));
  KILN_RETURN_IF_ERROR(check_positive(w.dilation, "dilations"));
  return w;
}

Status set_pads(OnnxNode &n, Window &w) {
  size_t count = w.kernel.size();
  std::string mode = n.get_string("auto_pad", "NOTSET");
  auto pads = n.get_ints("pads", std::vector<int64_t>(2 * count, 0));
  if (mode == "NOTSET" || mode.empty()) {
    if (pads.size() != 2 * count)
      return Error{fmt::format("the attribute 'pads' has {} entries; {} are needed", pads.size(), 2 * count)};
    w.pad.assign(pads.begin(), pads.end());
    return Unit{};
  }
  w.pad.assign(2 * count, 0);
  if (mode == "VALID")
    return Unit{};
  if (mode != "SAME_UPPER" && mode != "SAME_LOWER")
    return Error{fmt::format("the attribute 'auto_pad' is '{}'", mode)};
  for (size_t i = 0; i < count; ++i) {
    const Dim &size = n.in(0).dim(int(i) + 2);
    Dim out = ceildiv(size, w.stride[i]);
    Dim total = (out - Dim(1)) * Dim(w.stride[i]) + w.reach(i) - size;
    if (!total.is_const() || total.as_const() < 0)
      total = max(total, 0);
    Dim less = floordiv(total, 2);
    w.pad[i] = mode == "SAME_UPPER" ? less : total - less;
    w.pad[count + i] = total - w.pad[i];
  }
  return Unit{};
}

Attrs window_attrs(const Window &w) {
  return {{"stride", attr_ints(w.stride)}, {"pad", w.pad}, {"dilation", attr_ints(w.dilation)}};
}

namespace {

Result<std::vector<int64_t>> weight_kernel(const Val &x, const Val &w) {
  std::vector<int64_t> kernel;
  if (w.rank() != x.rank() || x.rank() < 3)
    return Error{fmt::format("{} cannot be convolved with weights {}", x.type.text(), w.type.text())};
  for (int i = 2; i < w.rank(); ++i) {
    if (!w.dim(i).is_const())
      return Error{fmt::format("the kernel sizes of {} must be known", w.type.text())};
    kernel.push_back(w.dim(i).as_const());
  }
  return kernel;
}

std::vector<Val> with_bias(OnnxNode &n) {
  std::vector<Val> out = {n.in(0), n.in(1)};
  if (n.has(2))
    out.push_back(n.in(2));
  return out;
}

// For ConvTranspose: pads such that the result has the given sizes.
Status set_transposed_pads(OnnxNode &n, Window &w, std::vector<int64_t> &output_padding) {
  size_t count = w.kernel.size();
  std::string mode = n.get_string("auto_pad", "NOTSET");
  bool same = mode == "SAME_UPPER" || mode == "SAME_LOWER";
  auto sizes = n.get_ints("output_shape");
  if (!same && !n.has_attr("output_shape"))
    return set_pads(n, w);
  n.ignore({"pads"});
  if (sizes.size() == count + 2) // some exporters give all dims
    sizes.erase(sizes.begin(), sizes.begin() + 2);
  if (n.has_attr("output_shape") && sizes.size() != count)
    return Error{fmt::format("the attribute 'output_shape' has {} entries; {} are needed", sizes.size(), count)};
  w.pad.assign(2 * count, 0);
  for (size_t i = 0; i < count; ++i) {
    const Dim &size = n.in(0).dim(int(i) + 2);
    Dim wanted = sizes.empty() ? size * Dim(w.stride[i]) : Dim(sizes[i]);
    Dim full = (size - Dim(1)) * Dim(w.stride[i]) + Dim(output_padding[i]) +
               Dim(w.kernel[i] - 1) * Dim(w.dilation[i]) + Dim(1);
    Dim total = full - wanted;
    if (total.is_const() && total.as_const() < 0)
      output_padding[i] -= total.as_const();
    if (!total.is_const() || total.as_const() < 0)
      total = max(total, 0);
    Dim less = floordiv(total, 2);
    w.pad[i] = mode == "SAME_UPPER" ? less : total - less;
    w.pad[count + i] = total - w.pad[i];
  }
  return Unit{};
}

Status pool(OnnxNode &n, Op op) {
  KILN_TRY(w, window_of(n, {}));
  KILN_RETURN_IF_ERROR(set_pads(n, w));
  Attrs attrs = window_attrs(w);
  attrs.set("kernel", attr_ints(w.kernel));
  attrs.set("ceil_mode", n.get_flag("ceil_mode", false));
  if (op == Op::avg_pool)
    attrs.set("count_include_pad", n.get_flag("count_include_pad", false));
  return n.finish(op, {n.in(0)}, std::move(attrs));
}

Status global_pool(OnnxNode &n, Op op) {
  std::vector<int> axes;
  for (int i = 2; i < n.rank(); ++i)
    axes.push_back(i);
  return n.finish(op, {n.in(0)}, {{"axes", attr_ints(axes)}, {"keepdims", true}});
}

} // namespace

Result<Val> convolve(OnnxNode &n, const std::vector<Val> &operands) {
  KILN_TRY(kernel, weight_kernel(operands.at(0), operands.at(1)));
  KILN_TRY(w, window_of(n, kernel));
  KILN_RETURN_IF_ERROR(set_pads(n, w));
  Attrs attrs = window_attrs(w);
  attrs.set("groups", attr_int(n.get_int("group", 1)));
  return n.emit(Op::conv, operands, std::move(attrs));
}

Status import_conv(OnnxNode &n) { return n.finish(convolve(n, with_bias(n))); }

Status import_conv_transpose(OnnxNode &n) {
  KILN_TRY(kernel, weight_kernel(n.in(0), n.in(1)));
  KILN_TRY(w, window_of(n, kernel));
  KILN_TRY(extra, spatial(n, "output_padding", w.kernel.size(), 0));
  KILN_RETURN_IF_ERROR(set_transposed_pads(n, w, extra));
  Attrs attrs = window_attrs(w);
  attrs.set("output_padding", attr_ints(extra));
  attrs.set("groups", attr_int(n.get_int("group", 1)));
  return n.finish(Op::conv_transpose, with_bias(n), std::move(attrs));
}

Status import_max_pool(OnnxNode &n) {
  if (n.wants(1))
    return max_pool_with_indices(n);
  n.ignore({"storage_order"}); // of the indices
  return pool(n, Op::max_pool);
}

Status import_average_pool(OnnxNode &n) { return pool(n, Op::avg_pool); }
Status import_global_average_pool(OnnxNode &n) { return global_pool(n, Op::reduce_mean); }
Status import_global_max_pool(OnnxNode &n) { return global_pool(n, Op::reduce_max); }

} // namespace kiln::onnx
