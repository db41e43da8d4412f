#include "ir/ops/window.h"

#include "ir/ops/ref_util.h"

#include <fmt/format.h>

namespace kiln {

Window known_window(const Attrs &attrs, std::vector<Dim> kernel) {
  Window w;
  size_t rank = kernel.size();
  const std::vector<Dim> &pad = attrs.get_dims("pad");
  w.kernel = std::move(kernel);
  w.pad_lo.assign(pad.begin(), pad.begin() + std::ptrdiff_t(rank));
  w.pad_hi.assign(pad.begin() + std::ptrdiff_t(rank), pad.end());
  w.stride = attrs.get_ints("stride");
  w.dilation = attrs.get_ints("dilation");
  return w;
}

Result<Window> read_window(InferContext &context, std::vector<Dim> kernel) {
  size_t rank = kernel.size();
  for (std::string_view name : {"stride", "dilation"})
    if (auto list = ints_attr(context.attrs, name, rank, 1); !list)
      return list.error();
  const std::vector<Dim> &pad = context.attrs.get_dims("pad");
  if (pad.size() != 2 * rank)
    return Error{
        fmt::format("'pad' has {} numbers; it takes {}, those before each dim, then those after",
                    pad.size(), 2 * rank)};
  KILN_RETURN_IF_ERROR(nonnegative_dims(context, pad, "'pad'"));
  for (const Dim &k : kernel)
    if (!k.is_valid() || (k.is_const() && k.as_const() < 1))
      return Error{fmt::format("the kernel is {}; each of its sizes must be at least 1",
                               shape_text(kernel))};
  return known_window(context.attrs, std::move(kernel));
}

Result<Shape> window_result(InferContext &context, const Window &w, std::span<const Dim> spatial,
                            bool ceil) {
  Shape out;
  for (size_t d = 0; d < w.rank(); ++d) {
    Dim padded = spatial[d] + w.pad_lo[d] + w.pad_hi[d];
    // A window of one element fits nowhere in a dim of none, and that is a result of none.
    if (!w.extent(d).is_const(1) && !require_at_most(context, w.extent(d), padded))
      return Error{fmt::format(
          "Kernel size can't be greater than actual input size: along spatial dim {} the "
          "kernel spans {} and the padded input {}",
          d, w.extent(d).text(), padded.text())};
    Dim room = padded - w.extent(d), stride = w.stride[d];
    if (ceil)
      out.push_back(min(ceildiv(room, stride) + Dim(1), ceildiv(spatial[d] + w.pad_lo[d], stride)));
    else
      out.push_back(floordiv(room, stride) + Dim(1));
  }
  return out;
}

TapRange inner_taps(const LowerContext &c, const Window &w, size_t d, const Dim &size, const Dim &at,
                    const Dim &past) {
  Dim start = at * Dim(w.stride[d]) - w.pad_lo[d];
  TapRange taps{0, w.kernel[d]};
  if (!w.pad_lo[d].is_const(0))
    taps.begin = c.simplified(max(0, ceildiv(-start, w.dilation[d])));
  if (!past.is_const(0))
    taps.end = c.simplified(min(w.kernel[d], ceildiv(size - start, w.dilation[d])));
  // With more padding than the window is long, a window may lie outside: it has no taps then, not
  // fewer than none.
  Dim length = w.kernel[d] * Dim(w.dilation[d]);
  if (!known_nonnegative(length - w.pad_lo[d], {}) || !known_nonnegative(length - past, {}))
    taps.end = c.simplified(max(taps.begin, taps.end));
  return taps;
}

Dim overhang(const Window &w, size_t d, const Dim &size, const Dim &result) {
  return (result - Dim(1)) * Dim(w.stride[d]) + w.extent(d) - w.pad_lo[d] - size;
}

int64_t ConcreteWindow::taps() const {
  return product(kernel);
}
int64_t ConcreteWindow::positions() const {
  return product(out);
}
int64_t ConcreteWindow::in_count() const {
  return product(in);
}

ConcreteWindow concrete_window(const Attrs &attrs, std::span<const int64_t> in,
                               std::span<const int64_t> kernel, std::span<const int64_t> out) {
  ConcreteWindow w;
  w.in.assign(in.begin(), in.end());
  w.out.assign(out.begin(), out.end());
  w.kernel.assign(kernel.begin(), kernel.end());
  w.pad_lo = attrs.get_ints("pad");
  w.pad_lo.resize(in.size());
  w.stride = attrs.get_ints("stride");
  w.dilation = attrs.get_ints("dilation");
  return w;
}

} // namespace kiln
