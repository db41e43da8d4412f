// Pools beyond the maximum and the mean, and what undoes pools and windows.
#include "frontend/onnx/calc.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/window.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace kiln::onnx {
namespace {

constexpr int64_t kMaxTaps = 1024; // of windows that are unrolled

Status check_taps(int64_t taps) {
  if (taps <= kMaxTaps)
    return Unit{};
  return Error{fmt::format("its window has {} elements; at most {} are supported", taps, kMaxTaps)};
}

// How many positions the window has along spatial dim i; the last one may hang over the end where `ceil`.
Dim positions(const Window &w, size_t i, const Dim &size, bool ceil) {
  Dim room = size + w.pad[i] + w.pad[w.rank() + i] - w.reach(i);
  Dim out = (ceil ? ceildiv(room, w.stride[i]) : floordiv(room, w.stride[i])) + Dim(1);
  return ceil ? min(out, ceildiv(size + w.pad[i], w.stride[i])) : out;
}

double lowest(DType dtype) {
  if (is_float(dtype))
    return -std::numeric_limits<double>::infinity();
  return is_signed_int(dtype) ? -std::ldexp(1, dtype_bits(dtype) - 1) : 0;
}

// The largest elements of windows along some dims, and where they lie in the plane as far as these dims
// tell.
struct Best {
  Num value;
  std::optional<Num> index;
};

// The same along dim d too, whose elements lie `step` apart. What is outside is never chosen; of equal
// elements the first is, and a NaN before all.
Best best_along(const Best &in, const Window &w, size_t d, const Dim &step, bool ceil) {
  Calc &c = *in.value.calc;
  int axis = int(d) + 2;
  Dim size = in.value.dim(axis), count = positions(w, d, size, ceil);
  std::vector<Dim> lo(size_t(in.value.rank()), Dim(0)), hi = lo;
  lo[size_t(axis)] = w.pad[d];
  hi[size_t(axis)] = max((count - Dim(1)) * Dim(w.stride[d]) + w.reach(d) - size - w.pad[d], 0);
  bool padded = !lo[size_t(axis)].is_const(0) || !hi[size_t(axis)].is_const(0);
  Num values = pad(in.value, lo, hi, lowest(in.value.dtype()));
  std::optional<Num> indices;
  if (in.index)
    indices = pad(*in.index, lo, hi);
  Shape line(size_t(in.value.rank()), Dim(1));
  line[size_t(axis)] = count;
  Num start = c.iota(DType::i64, {count}) * double(w.stride[d]) - c.size(DType::i64, w.pad[d]);
  std::optional<Best> best;
  std::optional<Num> found;
  for (int64_t k = 0; k < w.kernel[d]; ++k) {
    Num place = start + double(k * w.dilation[d]);
    Num inside = reshape(place >= 0 && place < c.size(DType::i64, size), line);
    Num index = reshape(place * c.size(DType::i64, step), line);
    if (indices)
      index = slice(*indices, axis, k * w.dilation[d], count, w.stride[d]) + index;
    Best tap{slice(values, axis, k * w.dilation[d], count, w.stride[d]), index};
    if (!best) {
      best = tap, found = inside;
      continue;
    }
    Num take = tap.value > best->value;
    if (is_float(tap.value.dtype()))
      take = take || (c.op(Op::is_nan, {tap.value}) && !c.op(Op::is_nan, {best->value}));
    if (padded) {
      take = take || (inside && !*found);
      found = *found || inside;
    }
    best = Best{where(take, tap.value, best->value), where(take, *tap.index, *best->index)};
  }
  return *best;
}

// |x|^p
Num power(const Num &x, double p) {
  Calc &c = *x.calc;
  if (p == 1)
    return abs(x);
  if (p == 2)
    return x * x;
  return c.op(Op::pow, {abs(x), c.number(x.dtype(), p)});
}

Num root(const Num &x, double p) {
  Calc &c = *x.calc;
  if (p == 1)
    return x;
  return p == 2 ? c.op(Op::sqrt, {x}) : c.op(Op::pow, {x, c.number(x.dtype(), 1 / p)});
}

// An integer since opset 2, a number before.
Result<double> norm_of(OnnxNode &n) {
  const AttributeView *given = n.find("p");
  double p = given && given->type == AttrType::f ? n.get_float("p", 2) : double(n.get_int("p", 2));
  if (!(p > 0))
    return Error{fmt::format("the attribute 'p' is {}; it must be positive", p)};
  return p;
}

DType sum_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

} // namespace

// Window by window along each dim, last dim first: among equal elements that is the first in memory.
Status max_pool_with_indices(OnnxNode &n) {
  KILN_TRY(w, window_of(n, {}));
  KILN_RETURN_IF_ERROR(set_pads(n, w));
  bool ceil = n.get_flag("ceil_mode", false), columns = n.get_flag("storage_order", false);
  int64_t taps = 0;
  for (int64_t k : w.kernel)
    taps += k;
  KILN_RETURN_IF_ERROR(check_taps(taps));
  Attrs attrs = window_attrs(w);
  attrs.set("kernel", attr_ints(w.kernel));
  attrs.set("ceil_mode", ceil);
  KILN_TRY(values, n.emit(Op::max_pool, {n.in(0)}, attrs)); // which checks the window too
  Calc c(n.emitter());
  Num x = c(n.in(0));
  std::vector<Dim> steps(w.rank());
  Dim plane = 1;
  for (size_t i = 0; i < w.rank(); ++i) {
    size_t d = columns ? i : w.rank() - 1 - i;
    steps[d] = plane;
    plane *= x.dim(int(d) + 2);
  }
  Best best{x, std::nullopt};
  for (size_t d = w.rank(); d-- > 0;)
    best = best_along(best, w, d, steps[d], ceil);
  Shape outer(x.shape().size(), Dim(1));
  outer[0] = x.dim(0), outer[1] = x.dim(1);
  Num offset = reshape(c.iota(DType::i64, {x.dim(0) * x.dim(1)}), outer) * c.size(DType::i64, plane);
  KILN_TRY(indices, c.done(*best.index + offset));
  n.set(0, values);
  n.set(1, indices);
  return Unit{};
}

// Each element goes where it came from, in a plane of the size that the window came from.
Status import_max_unpool(OnnxNode &n) {
  KILN_TRY(w, window_of(n, {}));
  KILN_RETURN_IF_ERROR(set_pads(n, w));
  if (!is_integer(n.dtype(1)) || n.rank(1) != n.rank())
    return Error{fmt::format("its indices are {}; they must be integers of the shape of {}", n.in(1).type.text(), n.in(0).type.text())};
  Calc c(n.emitter());
  Num x = c(n.in(0)), indices = c(n.in(1));
  Shape plane = {x.dim(0), x.dim(1)};
  for (size_t d = 0; d < w.rank(); ++d)
    plane.push_back((x.dim(int(d) + 2) - Dim(1)) * Dim(w.stride[d]) + Dim(w.kernel[d]) - w.pad[d] - w.pad[w.rank() + d]);
  for (const Dim &d : plane)
    if (d.is_const() && d.as_const() < 0)
      return Error{fmt::format("the result would have a size of {}", d.text())};
  Dim count = element_count(plane), given = element_count(x.shape());
  Num zeros = broadcast_to(c.number(x.dtype(), 0), {count});
  Num out = c.op(Op::scatter_elements, {zeros, reshape(indices, {given}), reshape(x, {given})},
                 {{"axis", Dim(0)}, {"reduction", std::string("none")}});
  out = reshape(out, plane);
  if (n.has(2)) {
    KILN_TRY(sizes, n.dims_of(2, "output_shape"));
    if (sizes.size() != plane.size())
      return Error{fmt::format("its output shape has {} numbers; {} are needed", sizes.size(), plane.size())};
    std::vector<Dim> none(plane.size(), Dim(0)), more;
    for (size_t d = 0; d < plane.size(); ++d) {
      more.push_back(sizes[d] - plane[d]);
      if (more.back().is_const() && more.back().as_const() < 0)
        return Error{fmt::format("its output shape has {} along dim {}, where the windows need {}", sizes[d].text(), d, plane[d].text())};
    }
    out = pad(out, none, more);
  }
  return n.finish(c.done(out));
}

// The p-th root of the sum of |x|^p: elements of the padding are 0.
Status import_lp_pool(OnnxNode &n) {
  KILN_TRY(w, window_of(n, {}));
  KILN_RETURN_IF_ERROR(set_pads(n, w));
  KILN_TRY(p, norm_of(n));
  if (!is_float(n.dtype()))
    return Error{fmt::format("its operand must be floats, not {}", n.in(0).type.text())};
  bool ceil = n.get_flag("ceil_mode", false);
  Calc c(n.emitter());
  Num x = power(convert(c(n.in(0)), sum_dtype(n.dtype())), p);
  // The mean of padded windows times their size; what hangs over the end is padding too.
  std::vector<Dim> lo(size_t(n.rank()), Dim(0)), hi = lo;
  double taps = 1;
  for (size_t d = 0; d < w.rank(); ++d) {
    const Dim &size = n.in(0).dim(int(d) + 2);
    lo[d + 2] = w.pad[d];
    hi[d + 2] = w.pad[w.rank() + d];
    if (ceil)
      hi[d + 2] = max((positions(w, d, size, true) - Dim(1)) * Dim(w.stride[d]) + w.reach(d) - size - w.pad[d], 0);
    taps *= double(w.kernel[d]);
    w.pad[d] = w.pad[w.rank() + d] = 0;
  }
  Attrs attrs = window_attrs(w);
  attrs.set("kernel", attr_ints(w.kernel));
  Num mean = c.op(Op::avg_pool, {pad(x, lo, hi)}, std::move(attrs));
  return n.finish(c.done(convert(root(mean * taps, p), n.dtype())));
}

Status import_global_lp_pool(OnnxNode &n) {
  KILN_TRY(p, norm_of(n));
  if (n.rank() < 3 || !is_float(n.dtype()))
    return Error{fmt::format("its operand {} must be floats with spatial dims", n.in(0).type.text())};
  std::vector<int> axes;
  for (int d = 2; d < n.rank(); ++d)
    axes.push_back(d);
  Calc c(n.emitter());
  Num x = convert(c(n.in(0)), sum_dtype(n.dtype()));
  return n.finish(c.done(convert(root(sum(power(x, p), axes, true), p), n.dtype())));
}

// Adds the columns of a convolution to where its windows had them from: one plane for each element of the
// window, with its rows `stride` apart, and the sum of shifted planes.
Status import_col2im(OnnxNode &n) {
  KILN_TRY(image, n.dims_of(1, "image shape"));
  KILN_TRY(kernel, n.ints_of(2, "block shape"));
  size_t rank = image.size();
  if (n.rank() != 3 || rank == 0 || kernel.size() != rank)
    return Error{fmt::format("its operand {} must be [N, C, places], its image shape has {} dims and its blocks {}", n.in(0).type.text(),
                             rank, kernel.size())};
  Window w;
  w.kernel = kernel;
  KILN_TRY(stride, spatial(n, "strides", rank, 1));
  KILN_TRY(dilation, spatial(n, "dilations", rank, 1));
  w.stride = stride, w.dilation = dilation;
  KILN_RETURN_IF_ERROR(check_positive(w.kernel, "block_shape"));
  KILN_RETURN_IF_ERROR(check_positive(w.stride, "strides"));
  KILN_RETURN_IF_ERROR(check_positive(w.dilation, "dilations"));
  auto pads = n.get_ints("pads", std::vector<int64_t>(2 * rank, 0));
  if (pads.size() != 2 * rank)
    return Error{fmt::format("the attribute 'pads' has {} entries; {} are needed", pads.size(), 2 * rank)};
  for (int64_t v : pads)
    if (v < 0 || v > (int64_t(1) << 31))
      return Error{fmt::format("the attribute 'pads' holds {}", v)};
  w.pad.assign(pads.begin(), pads.end());
  int64_t taps = 1;
  for (int64_t k : w.kernel)
    taps = std::min(taps * std::min(k, kMaxTaps + 1), kMaxTaps + 1);
  KILN_RETURN_IF_ERROR(check_taps(taps));
  Dim places = 1;
  Shape counts;
  for (size_t d = 0; d < rank; ++d) {
    counts.push_back(positions(w, d, image[d], false));
    if (counts.back().is_const() && counts.back().as_const() < 1)
      return Error{fmt::format("no block of {} fits the padded size {} along dim {}", w.reach(d).text(),
                               (image[d] + w.pad[d] + w.pad[rank + d]).text(), d)};
    places *= counts.back();
  }
  if (!n.emitter().require_equal(places, n.in(0).dim(2), "Col2Im"))
    return Error{fmt::format("its operand {} should have {} places", n.in(0).type.text(), places.text())};
  Dim channels = floordiv(n.in(0).dim(1), taps);
  if (!n.emitter().require_equal(channels * Dim(taps), n.in(0).dim(1), "Col2Im"))
    return Error{fmt::format("the channels of {} are not a multiple of the {} elements of a block", n.in(0).type.text(), taps)};
  Calc c(n.emitter());
  // [N C, taps, places...], then `stride` apart: [N C, taps, places * stride...].
  Shape apart = {n.in(0).dim(0) * channels, taps}, spread = apart;
  std::vector<Dim> none(2 + 2 * rank, Dim(0)), gaps = none;
  for (size_t d = 0; d < rank; ++d) {
    apart.push_back(counts[d]);
    apart.push_back(1);
    gaps[2 + 2 * d + 1] = w.stride[d] - 1;
    spread.push_back(counts[d] * Dim(w.stride[d]));
  }
  Num planes = reshape(pad(reshape(c(n.in(0)), apart), none, gaps), spread);
  // Enough zeros around for every shift: the image starts at `pad` in the result of all windows.
  std::vector<Dim> lo(2 + rank, Dim(0)), hi = lo;
  for (size_t d = 0; d < rank; ++d) {
    lo[2 + d] = w.reach(d) - Dim(1);
    hi[2 + d] = max(image[d] + w.pad[d] - spread[2 + d], 0);
  }
  planes = pad(planes, lo, hi);
  std::optional<Num> out;
  for (int64_t k = 0; k < taps; ++k) {
    Num plane = at(planes, 1, k);
    int64_t rest = k;
    for (size_t d = rank; d-- > 0;) {
      int64_t tap = rest % w.kernel[d];
      rest /= w.kernel[d];
      plane = slice(plane, int(d) + 1, lo[2 + d] + w.pad[d] - Dim(tap * w.dilation[d]), image[d]);
    }
    out = out ? *out + plane : plane;
  }
  Shape result = {n.in(0).dim(0), channels};
  result.insert(result.end(), image.begin(), image.end());
  return n.finish(c.done(reshape(*out, result)));
}

} // namespace kiln::onnx
