// GridSample, AffineGrid and DeformConv: elements between pixels.
//
// Positions, weights and what lies outside are computed once for all channels, one number for each point, and are what
// first kernels leave. A last one adds pixels up, one dim after the other: over vectors of channels where there are
// enough of them, whose pixels are then rows of a table [N pixels, C]; otherwise over vectors of points, each a gather.
#include "frontend/onnx/calc.h"
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

enum class Outside { zeros, border, reflection };

// One neighbour along a dim: its index, its weight (none: 1) and whether it exists (none: it does).
struct Tap {
  Num position, weight, inside;
  bool weighted = false, masked = false;
};

DType index_dtype(const Dim &count) {
  return count.is_const() && count.as_const() < (int64_t(1) << 31) ? DType::i32 : DType::i64;
}

// Mirrored at lo and hi as often as it takes.
Num reflect(const Num &x, const Num &lo, const Num &hi) {
  Calc &c = *x.calc;
  Num range = hi - lo;
  Num off = abs(x - lo);
  Num turns = floor(off / range);
  Num rest = off - turns * range;
  Num odd = equal(c.op(Op::remainder, {turns, c.number(turns.dtype(), 2)}), 1);
  Num out = where(odd, hi - rest, lo + rest);
  return where(range <= 0, lo, out); // one place to be
}

class Sampler {
public:
  // x: [N, C, spatial...].
  Sampler(const Num &x, std::string mode, Outside outside, bool align_corners)
      : x_(x), mode_(std::move(mode)), outside_(outside), align_(align_corners) {
    pixels_ = 1;
    for (int d = 2; d < x.rank(); ++d)
      pixels_ *= x.dim(d);
    flat_ = reshape(x, {x.dim(0), x.dim(1), pixels_});
    index_ = index_dtype(x.dim(0) * pixels_);
    DType dtype = x.dtype();
    sums_ = mode_ == "nearest" ? dtype : dtype == DType::f64 || dtype_bits(dtype) > 32 ? DType::f64 : DType::f32;
    if (is_integer(dtype) && dtype_bits(dtype) == 32)
      sums_ = DType::f64;
  }

  // [N, C, P] at positions [N, 1, P] in each spatial dim, in pixels.
  Num at(const std::vector<Num> &positions) {
    Dim points = positions[0].dim(2);
    if (!prefers_rows(points))
      return convert(sum(all_taps(positions), 0, nullptr), x_.dtype());
    return permute(reshape(rows_at(positions), {x_.dim(0), points, x_.dim(1)}), {0, 2, 1});
  }

  // The same as [N P, C].
  Num rows_at(const std::vector<Num> &positions) {
    Calc &c = *x_.calc;
    Dim points = positions[0].dim(2), all = x_.dim(0) * points;
    table_ = reshape(permute(flat_, {0, 2, 1}), {x_.dim(0) * pixels_, x_.dim(1)});
    std::vector<Num> columns;
    for (const Num &p : positions)
      columns.push_back(reshape(p, {all, 1}));
    Num first;
    bool many = !x_.dim(0).is_const(1);
    if (many)
      first = reshape(broadcast_to(c.iota(index_, {x_.dim(0), 1}) * c.size(index_, pixels_), {x_.dim(0), points}), {all, 1});
    first_ = many ? &first : nullptr;
    return convert(sum(all_taps(columns), 0, nullptr), x_.dtype());
  }

  // Whether there are channels for a vector, and points enough to turn the image for.
  bool prefers_rows(const Dim &points) const {
    constexpr int64_t kChannels = 8, kPixelsOfPoint = 4;
    auto channels = x_.dim(1).try_const(), pixels = pixels_.try_const(), count = points.try_const();
    return channels && *channels >= kChannels && (!pixels || !count || *pixels / kPixelsOfPoint <= *count);
  }

private:
  std::vector<std::vector<Tap>> all_taps(const std::vector<Num> &positions) const {
    std::vector<std::vector<Tap>> taps;
    for (size_t d = 0; d < positions.size(); ++d)
      taps.push_back(taps_of(positions[d], x_.dim(int(d) + 2)));
    return taps;
  }

  Num border(DType dtype, const Dim &size, bool upper) const {
    Calc &c = *x_.calc;
    if (!upper)
      return c.number(dtype, align_ ? 0 : -0.5);
    return c.size(dtype, size) - (align_ ? 1.0 : 0.5);
  }

  // A neighbour at `at`, a whole number. NaN becomes 0.
  Tap tap(const Num &at, const Dim &size) const {
    Calc &c = *x_.calc;
    Tap out;
    Num last = c.size(at.dtype(), size - Dim(1)), inner = at;
    if (outside_ == Outside::zeros) {
      out.inside = at >= 0 && at <= last;
      out.masked = true;
    } else if (outside_ == Outside::reflection) {
      // A pixel next to an edge that lies between pixels mirrors onto the edge's own.
      Num lo = border(at.dtype(), size, false), hi = border(at.dtype(), size, true);
      inner = where(at < lo || at > hi, c.op(Op::trunc, {reflect(at, lo, hi)}), at);
    }
    out.position = convert(min(max(inner, 0), last), index_);
    return out;
  }

  std::vector<Tap> taps_of(Num x, const Dim &size) const {
    Calc &c = *x_.calc;
    DType dtype = x.dtype();
    if (mode_ == "nearest")
      x = c.op(Op::round, {x});
    if (outside_ == Outside::border && mode_ != "cubic") { // where a position outside has a weight of its own
      x = min(max(x, 0), c.size(dtype, size - Dim(1)));
    } else if (outside_ == Outside::reflection) {
      Num lo = border(dtype, size, false), hi = border(dtype, size, true);
      x = where(x < lo || x > hi, reflect(x, lo, hi), x);
      if (mode_ == "nearest")
        x = c.op(Op::trunc, {x});
    }
    if (mode_ == "nearest")
      return {tap(x, size)};
    Num below = floor(x), t = convert(x - below, sums_);
    std::vector<Tap> out;
    std::vector<Num> weights;
    if (mode_ == "linear") {
      weights = {1.0 - t, t};
    } else {
      // Cubic convolution (Keys 1981) with a = -3/4.
      constexpr double a = -0.75;
      Num far = t + 1.0, near = 1.0 - t, other = 2.0 - t;
      weights = {((a * far - 5 * a) * far + 8 * a) * far - 4 * a, ((a + 2) * t - (a + 3)) * t * t + 1.0,
                 ((a + 2) * near - (a + 3)) * near * near + 1.0, ((a * other - 5 * a) * other + 8 * a) * other - 4 * a};
    }
    double first = mode_ == "linear" ? 0 : -1;
    for (size_t k = 0; k < weights.size(); ++k) {
      out.push_back(tap(below + (first + double(k)), size));
      out.back().weight = weights[k];
      out.back().weighted = true;
    }
    return out;
  }

  // The sum over the taps of dim d and of those after it; `base` is the index so far.
  Num sum(const std::vector<std::vector<Tap>> &taps, size_t d, const Num *base) const {
    if (d == taps.size() && table_) {
      Num index = reshape(first_ ? *first_ + *base : *base, {base->dim(0)});
      return convert(gather(*table_, index, 0), sums_);
    }
    if (d == taps.size()) {
      Num index = broadcast_to(*base, {base->dim(0), x_.dim(1), base->dim(2)});
      return convert(gather_elements(flat_, index, 2), sums_);
    }
    std::optional<Num> total;
    for (const Tap &tap : taps[d]) {
      Num index = tap.position;
      if (base)
        index = *base * x_.calc->size(index_, x_.dim(int(d) + 2)) + index;
      Num value = sum(taps, d + 1, &index);
      if (tap.masked)
        value = where(tap.inside, value, 0);
      if (tap.weighted)
        value = value * tap.weight;
      total = total ? *total + value : value;
    }
    return *total;
  }

  Num x_, flat_;
  std::optional<Num> table_;    // [N pixels, C]
  const Num *first_ = nullptr; // of each point's image, [N P, 1]
  std::string mode_;
  Outside outside_;
  bool align_;
  Dim pixels_;
  DType index_ = DType::i64, sums_ = DType::f32;
};

Num wide(const Num &x) { return convert(x, x.dtype() == DType::f64 ? DType::f64 : DType::f32); }

Status check_image(const OnnxNode &n, int spatial_rank) {
  if (n.rank() != spatial_rank + 2)
    return Error{fmt::format("its operand {} must have {} spatial dims", n.in(0).type.text(), spatial_rank)};
  for (int d = 2; d < n.rank(); ++d)
    if (n.in(0).dim(d).is_const(0))
      return Error{fmt::format("its operand {} has no pixels", n.in(0).type.text())};
  return Unit{};
}

struct DeformConv {
  int64_t kernel[2];
  std::vector<int64_t> stride, dilation, pads;
  int64_t groups, offset_groups, channels, outputs;
  Dim batch, size[2]; // of the result

  int64_t taps() const { return kernel[0] * kernel[1]; }
  int64_t each() const { return channels / offset_groups; }
  int64_t depth() const { return channels / groups * taps(); }
  Dim parts() const { return batch * Dim(offset_groups); }
  Dim points() const { return size[0] * size[1]; }
};

// The attribute `name`: as many numbers as `otherwise` has.
Result<std::vector<int64_t>> spatial_list(OnnxNode &n, std::string_view name, std::vector<int64_t> otherwise) {
  size_t count = otherwise.size();
  auto out = n.get_ints(name, std::move(otherwise));
  bool pads = name == "pads";
  for (int64_t v : out)
    if (out.size() != count || v < (pads ? 0 : 1) || v > (int64_t(1) << 31))
      return Error{fmt::format("the attribute '{}' holds {}, of {} numbers", name, v, out.size())};
  if (out.size() != count)
    return Error{fmt::format("the attribute '{}' has {} entries; {} are needed", name, out.size(), count)};
  return out;
}

Result<DeformConv> read_deform_conv(OnnxNode &n) {
  const Val &w = n.in(1), &offset = n.in(2);
  if (w.rank() != 4 || offset.rank() != 4 || !w.dim(2).is_const() || !w.dim(3).is_const() || !w.dim(1).is_const() || !w.dim(0).is_const())
    return Error{fmt::format("its weights {} must have 4 known dims, and its offsets {} 4", w.type.text(), offset.type.text())};
  DeformConv out{{w.dim(2).as_const(), w.dim(3).as_const()}, {}, {}, {}, n.get_int("group", 1), n.get_int("offset_group", 1), 0,
                 w.dim(0).as_const(), n.in(0).dim(0), {}};
  KILN_TRY(declared, spatial_list(n, "kernel_shape", {out.kernel[0], out.kernel[1]}));
  KILN_TRY(stride, spatial_list(n, "strides", {1, 1}));
  KILN_TRY(dilation, spatial_list(n, "dilations", {1, 1}));
  KILN_TRY(pads, spatial_list(n, "pads", {0, 0, 0, 0}));
  auto channels = n.in(0).dim(1).try_const();
  if (declared[0] != out.kernel[0] || declared[1] != out.kernel[1])
    return Error{"the attribute 'kernel_shape' is not the shape of the weights"};
  if (out.groups < 1 || out.offset_groups < 1 || !channels || *channels % out.groups != 0 || *channels % out.offset_groups != 0 ||
      w.dim(1).as_const() != *channels / out.groups || out.outputs % out.groups != 0)
    return Error{fmt::format("weights {} with {} groups, {} of offsets, do not fit {}", w.type.text(), out.groups, out.offset_groups,
                             n.in(0).type.text())};
  for (size_t d = 0; d < 2; ++d) {
    out.size[d] = floordiv(n.in(0).dim(int(d) + 2) + Dim(pads[d] + pads[d + 2] - (out.kernel[d] - 1) * dilation[d] - 1), stride[d]) + Dim(1);
    if (!n.emitter().require_equal(out.size[d], offset.dim(int(d) + 2), "DeformConv"))
      return Error{fmt::format("its offsets are {}, but the result has {} places along spatial dim {}", offset.type.text(), out.size[d].text(), d)};
  }
  out.stride = std::move(stride), out.dilation = std::move(dilation), out.pads = std::move(pads);
  out.channels = *channels;
  return out;
}

// Whether input i, the offsets or the mask, is [N, planes, OH, OW].
Status check_planes(OnnxNode &n, const DeformConv &conv, size_t i, int64_t planes, std::string_view what) {
  auto is = [&](int axis, const Dim &size) { return n.emitter().require_equal(n.in(i).dim(axis), size, "DeformConv"); };
  if (n.rank(i) != 4 || !is(1, planes) || !is(0, conv.batch) || !is(2, conv.size[0]) || !is(3, conv.size[1]))
    return Error{fmt::format("its {} is {}; it must be [{}, {}, {}, {}]", what, n.in(i).type.text(), conv.batch.text(), planes,
                             conv.size[0].text(), conv.size[1].text())};
  return Unit{};
}

// Where the taps of all points are, along y and along x: [parts, 1, taps points], or points first.
std::vector<Num> deformed_positions(OnnxNode &n, Calc &c, const DeformConv &conv, bool points_first) {
  Num moved = reshape(wide(c(n.in(2))), {conv.parts(), conv.kernel[0], conv.kernel[1], 2, conv.size[0], conv.size[1]});
  DType dtype = moved.dtype();
  std::vector<Num> out;
  for (size_t d = 0; d < 2; ++d) {
    Shape tap_shape(5, Dim(1)), out_shape(5, Dim(1));
    tap_shape[d + 1] = conv.kernel[d];
    out_shape[d + 3] = conv.size[d];
    Num tap = reshape(c.iota(dtype, {conv.kernel[d]}), tap_shape) * double(conv.dilation[d]);
    Num place = reshape(c.iota(dtype, {conv.size[d]}), out_shape) * double(conv.stride[d]) - double(conv.pads[d]);
    Num all = at(moved, 3, int(d)) + tap + place;
    out.push_back(reshape(points_first ? permute(all, {0, 3, 4, 1, 2}) : all, {conv.parts(), 1, conv.points() * conv.taps()}));
  }
  return out;
}

// Pixels are rows of channels: [N, G, points, taps C/G] times [G, taps C/G, M/G].
Num deformed_rows(OnnxNode &n, Calc &c, const DeformConv &conv, Sampler &sampler) {
  int64_t inputs = conv.channels / conv.groups, outputs = conv.outputs / conv.groups;
  Num columns = sampler.rows_at(deformed_positions(n, c, conv, true));
  if (n.has(4)) {
    Num mask = permute(reshape(c(n.in(4)), {conv.parts(), conv.kernel[0], conv.kernel[1], conv.size[0], conv.size[1]}), {0, 3, 4, 1, 2});
    columns = columns * reshape(mask, {conv.parts() * conv.points() * conv.taps(), 1});
  }
  columns = reshape(columns, {conv.batch, conv.offset_groups, conv.points(), conv.taps(), conv.each()});
  if (conv.offset_groups > 1)
    columns = permute(columns, {0, 2, 3, 1, 4});
  columns = reshape(columns, {conv.batch, conv.points(), conv.taps(), conv.groups, inputs});
  if (conv.groups > 1)
    columns = permute(columns, {0, 3, 1, 2, 4});
  columns = reshape(columns, {conv.batch, conv.groups, conv.points(), conv.depth()});
  Num weights = permute(reshape(c(n.in(1)), {conv.groups, outputs, inputs, conv.taps()}), {0, 3, 2, 1});
  return permute(c.op(Op::dot, {columns, reshape(weights, {conv.groups, conv.depth(), outputs})}), {0, 1, 3, 2});
}

// Channels are planes: [N, G, C/G taps, points] under [G, M/G, C/G taps].
Num deformed_columns(OnnxNode &n, Calc &c, const DeformConv &conv, Sampler &sampler) {
  Num columns = sampler.at(deformed_positions(n, c, conv, false)); // [parts, each, taps points]
  if (n.has(4))
    columns = columns * reshape(c(n.in(4)), {conv.parts(), 1, conv.points() * conv.taps()});
  columns = reshape(columns, {conv.batch, conv.groups, conv.depth(), conv.points()});
  return c.op(Op::dot, {reshape(c(n.in(1)), {conv.groups, conv.outputs / conv.groups, conv.depth()}), columns});
}

} // namespace

Status import_grid_sample(OnnxNode &n) {
  if (n.rank() < 3 || n.rank(1) != n.rank() || !n.in(1).dim(n.rank() - 1).is_const(n.rank() - 2))
    return Error{fmt::format("its operand is {}: the grid must be [{}, ..., {}], not {}", n.in(0).type.text(),
                             n.rank() ? n.in(0).dim(0).text() : "N", std::max(n.rank() - 2, 1), n.in(1).type.text())};
  int spatial = n.rank() - 2;
  KILN_RETURN_IF_ERROR(check_image(n, spatial));
  if (!is_float(n.dtype(1)))
    return Error{fmt::format("its grid must be of floats, not {}", n.in(1).type.text())};
  std::string mode = n.get_string("mode", n.opset() < 20 ? "bilinear" : "linear");
  if (mode == "bilinear")
    mode = "linear";
  if (mode == "bicubic")
    mode = "cubic";
  if (mode != "nearest" && mode != "linear" && mode != "cubic")
    return Error{fmt::format("the attribute 'mode' is '{}'", mode)};
  std::string padding = n.get_string("padding_mode", "zeros");
  if (padding != "zeros" && padding != "border" && padding != "reflection")
    return Error{fmt::format("the attribute 'padding_mode' is '{}'", padding)};
  bool align = n.get_flag("align_corners", false);
  if (!n.emitter().require_equal(n.in(0).dim(0), n.in(1).dim(0), "GridSample"))
    return Error{fmt::format("its operand {} and its grid {} have batches of different size", n.in(0).type.text(),
                             n.in(1).type.text())};
  Calc c(n.emitter());
  Num x = c(n.in(0)), grid = wide(c(n.in(1)));
  bool flags = is_bool(x.dtype());
  if (flags && mode != "nearest")
    return Error{fmt::format("bools have no {} interpolation", mode)};
  if (flags)
    x = convert(x, DType::u8);
  Sampler sampler(x, mode,
                  padding == "zeros"    ? Outside::zeros
                  : padding == "border" ? Outside::border
                                        : Outside::reflection,
                  align);
  Shape result = {x.dim(0), x.dim(1)};
  Dim points = 1;
  for (int d = 1; d <= spatial; ++d) {
    result.push_back(grid.dim(d));
    points *= grid.dim(d);
  }
  Num rows = reshape(grid, {x.dim(0), 1, points, spatial});
  std::vector<Num> positions;
  for (int d = 0; d < spatial; ++d) {
    Num u = at(rows, 3, spatial - 1 - d), size = c.size(u.dtype(), x.dim(d + 2));
    positions.push_back(align ? (u + 1.0) * 0.5 * (size - 1.0) : ((u + 1.0) * size - 1.0) * 0.5);
  }
  Num out = reshape(sampler.at(positions), result);
  return n.finish(c.done(flags ? convert(out, DType::bool_) : out));
}

// grid[n, place..., i] = theta[n, i, :] times (x, y, (z,) 1) of the place
Status import_affine_grid(OnnxNode &n) {
  KILN_TRY(sizes, n.dims_of(1, "size"));
  int spatial = int(sizes.size()) - 2;
  if ((spatial != 2 && spatial != 3) || n.rank() != 3 || !n.in(0).dim(1).is_const(spatial) ||
      !n.in(0).dim(2).is_const(spatial + 1) || !is_float(n.dtype()))
    return Error{fmt::format("theta is {} and the size has {} numbers; they must be [N, 2, 3] and 4, or [N, 3, 4] and 5",
                             n.in(0).type.text(), sizes.size())};
  if (!n.emitter().require_equal(n.in(0).dim(0), sizes[0], "AffineGrid"))
    return Error{fmt::format("theta is {}, but the size is for {}", n.in(0).type.text(), sizes[0].text())};
  bool align = n.get_flag("align_corners", false);
  Calc c(n.emitter());
  Num theta = wide(c(n.in(0)));
  DType dtype = theta.dtype();
  Shape unit(size_t(spatial) + 2, Dim(1)), column = unit;
  column.front() = theta.dim(0);
  column.back() = spatial;
  auto coefficient = [&](int i) { return reshape(at(theta, 2, i), column); };
  Num out = coefficient(spatial);
  for (int d = 0; d < spatial; ++d) {
    const Dim &size = sizes[size_t(d) + 2];
    Shape shape = unit;
    shape[size_t(d) + 1] = size;
    Num i = c.iota(dtype, {size});
    Num at = align ? i * (c.number(dtype, 2) / c.size(dtype, max(size - Dim(1), 1))) - 1.0
                   : (i * 2.0 + 1.0) / c.size(dtype, size) - 1.0;
    out = out + coefficient(spatial - 1 - d) * reshape(at, shape);
  }
  return n.finish(c.done(convert(out, n.dtype())));
}

// Columns as a convolution has them, gathered from between pixels, times the weights.
Status import_deform_conv(OnnxNode &n) {
  KILN_RETURN_IF_ERROR(check_image(n, 2));
  KILN_TRY(conv, read_deform_conv(n));
  KILN_RETURN_IF_ERROR(check_planes(n, conv, 2, conv.offset_groups * conv.taps() * 2, "offset"));
  if (n.has(4))
    KILN_RETURN_IF_ERROR(check_planes(n, conv, 4, conv.offset_groups * conv.taps(), "mask"));
  Calc c(n.emitter());
  Num x = c(n.in(0));
  // The offset groups become part of the batch.
  Sampler sampler(reshape(x, {conv.parts(), conv.each(), x.dim(2), x.dim(3)}), "linear", Outside::zeros, true);
  Num out = sampler.prefers_rows(conv.points() * conv.taps()) ? deformed_rows(n, c, conv, sampler) : deformed_columns(n, c, conv, sampler);
  out = reshape(out, {conv.batch, conv.outputs, conv.size[0], conv.size[1]});
  if (n.has(3))
    out = out + reshape(c(n.in(3)), {conv.outputs, 1, 1});
  return n.finish(c.done(out));
}

} // namespace kiln::onnx
