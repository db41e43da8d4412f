// RoiAlign and MaxRoiPool: regions of a map, each pooled to one size.
//
// The map is laid out with its channels innermost, so that a sample is a row of channels; indices and
// weights are computed once for all of them. Where the number of samples depends on the regions, a loop
// takes one sample of every bin at a time.
#include "frontend/onnx/calc.h"
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <limits>

namespace kiln::onnx {
namespace {

struct Regions {
  Num rows;  // [N * H * W, C]
  Num batch; // [R], i64: the first row of the region's image
  Dim height, width, count;
  int64_t out_height = 0, out_width = 0;
};

// The two neighbours of each position along a dim of the map, and their weights: [positions..., 2].
struct Neighbours {
  Num index, weight;
};

// Positions off the map by more than one have no weight; within, those off the edge are on it.
Neighbours neighbours(const Num &at, const Dim &size) {
  Calc &c = *at.calc;
  Num end = c.size(at.dtype(), size), last = end - 1.0;
  Num inside = at >= -1 && at <= end;
  Num clamped = min(max(at, 0), last), low = floor(clamped), high = min(low + 1.0, last);
  Num above = where(inside, clamped - low, 0), below = where(inside, 1.0 - (clamped - low), 0);
  Shape pair = at.shape();
  pair.push_back(1);
  int axis = at.rank();
  return {convert(c.concat({reshape(low, pair), reshape(high, pair)}, axis), DType::i64),
          c.concat({reshape(below, pair), reshape(above, pair)}, axis)};
}

// [..., C] of every combination of y [R, PH, 1, SY, 1, 2, 1] and x [R, 1, PW, 1, SX, 1, 2], weighted.
Num samples(const Regions &r, const Neighbours &y, const Neighbours &x) {
  Calc &c = *r.rows.calc;
  Num first = reshape(r.batch, {r.count, 1, 1, 1, 1, 1, 1});
  Num index = first + y.index * c.size(DType::i64, r.width) + x.index;
  Num weight = y.weight * x.weight;
  Shape shape = weight.shape();
  Dim taps = 1;
  for (int i = 3; i < weight.rank(); ++i)
    taps *= weight.dim(i);
  Shape flat = {r.count * Dim(r.out_height * r.out_width), taps};
  index = reshape(index, flat);
  flat.push_back(1);
  return convert(gather(r.rows, index, 0), weight.dtype()) * reshape(weight, flat);
}

Result<Regions> regions_of(OnnxNode &n, Calc &c, const Num &batch, const Dim &count) {
  if (n.rank() != 4 || !is_float(n.dtype()))
    return Error{fmt::format("its operand {} must be floats [N, C, H, W]", n.in(0).type.text())};
  Num x = c(n.in(0));
  Regions r;
  r.height = x.dim(2), r.width = x.dim(3), r.count = count;
  if (r.height.is_const(0) || r.width.is_const(0))
    return Error{fmt::format("its operand {} has no pixels", n.in(0).type.text())};
  r.rows = reshape(permute(x, {0, 2, 3, 1}), {x.dim(0) * r.height * r.width, x.dim(1)});
  r.batch = convert(batch, DType::i64) * c.size(DType::i64, r.height * r.width);
  return r;
}

// [R, PH * PW, C] as [R, C, PH, PW]
Num as_map(const Regions &r, const Num &pooled) {
  Dim channels = pooled.dim(pooled.rank() - 1);
  return permute(reshape(pooled, {r.count, r.out_height, r.out_width, channels}), {0, 3, 1, 2});
}

// What RoiAlign takes samples of: `ratio` of them along each dim of a bin, or, where that is 0, as many as the bin has pixels.
struct Samples {
  Regions regions;
  bool mean; // or the largest
  int64_t ratio;
  Num start[2], bin[2], grid[2]; // of each region, along y and along x
  int64_t bins[2];

  Num pool(const Num &values) const { return mean ? sum(values, {1}) : largest(values, {1}); }
};

// Samples number i of dim d in each bin; `i` is [R or 1, samples].
Neighbours samples_along(const Samples &s, int d, const Num &i) {
  const Regions &r = s.regions;
  Dim steps = i.dim(1);
  Shape column = {r.count, 1, 1}, number = {i.dim(0), 1, steps};
  Num place = reshape(i.calc->iota(i.dtype(), {s.bins[d]}), {1, s.bins[d], 1});
  Num each = s.ratio ? s.grid[d] : reshape(max(s.grid[d], 1), column);
  Num at = reshape(s.start[d], column) + place * reshape(s.bin[d], column) +
           (reshape(i, number) + 0.5) * (reshape(s.bin[d], column) / each);
  Neighbours out = neighbours(at, d == 0 ? r.height : r.width);
  Shape shape = d == 0 ? Shape{r.count, s.bins[0], 1, steps, 1, 2, 1} : Shape{r.count, 1, s.bins[1], 1, steps, 1, 2};
  return Neighbours{reshape(out.index, shape), reshape(out.weight, shape)};
}

// [R PH PW, C], of the same number of samples in all bins.
Num align_fixed(const Samples &s, Calc &c, DType dtype) {
  Num i = reshape(c.iota(dtype, {s.ratio}), {1, s.ratio});
  Num out = s.pool(samples(s.regions, samples_along(s, 0, i), samples_along(s, 1, i)));
  return s.mean ? out * (1.0 / double(s.ratio * s.ratio)) : out;
}

// The same, of as many samples as the bins of each region have pixels.
Num align_by_pixels(OnnxNode &n, const Samples &s, Calc &c, DType dtype) {
  const Regions &r = s.regions;
  Num columns = convert(max(s.grid[1], 1), DType::i64), counts = convert(s.grid[0] * s.grid[1], DType::i64); // [R]
  Num most = largest(c.concat({counts, c(n.emitter().ints({0}))}, 0), {0});
  Shape all = {r.count * Dim(r.out_height * r.out_width), n.in(0).dim(1)}, column = {r.count, 1, 1};
  Num none = broadcast_to(c.number(dtype, s.mean ? 0 : -std::numeric_limits<double>::infinity()), all);
  auto sums = repeat(most, {none}, [&](const Num &k, const std::vector<Num> &carried) -> std::vector<Num> {
    Num row = (k - c.op(Op::remainder, {k, columns})) / columns, rest = k - row * columns;
    auto number = [&](const Num &i) { return reshape(convert(i, dtype), {r.count, 1}); };
    Num value = s.pool(samples(r, samples_along(s, 0, number(row)), samples_along(s, 1, number(rest))));
    Num grouped = reshape(carried[0], {r.count, r.out_height * r.out_width, all[1]});
    value = reshape(value, grouped.shape());
    Num next = where(reshape(k < counts, column), s.mean ? grouped + value : max(grouped, value), grouped);
    return {reshape(next, all)};
  });
  Num out = reshape(sums[0], {r.count, r.out_height * r.out_width, all[1]});
  return s.mean ? out / reshape(convert(max(counts, 1), dtype), column) : where(reshape(equal(counts, 0), column), 0, out);
}

} // namespace

Status import_roi_align(OnnxNode &n) {
  const Val &rois = n.in(1), &indices = n.in(2);
  if (rois.rank() != 2 || !rois.dim(1).is_const(4) || indices.rank() != 1 || !is_integer(indices.dtype()) ||
      !is_float(rois.dtype()) || !n.emitter().require_equal(rois.dim(0), indices.dim(0), "RoiAlign"))
    return Error{fmt::format("its regions are {} of images {}; they must be [R, 4] and [R]", rois.type.text(), indices.type.text())};
  std::string mode = n.get_string("mode", "avg");
  if (mode != "avg" && mode != "max")
    return Error{fmt::format("the attribute 'mode' is '{}'", mode)};
  std::string coordinates = n.get_string("coordinate_transformation_mode", n.opset() < 16 ? "output_half_pixel" : "half_pixel");
  if (coordinates != "half_pixel" && coordinates != "output_half_pixel")
    return Error{fmt::format("the attribute 'coordinate_transformation_mode' is '{}'", coordinates)};
  bool half = coordinates == "half_pixel";
  Calc c(n.emitter());
  KILN_TRY(r, regions_of(n, c, c(indices), rois.dim(0)));
  r.out_height = n.get_int("output_height", 1), r.out_width = n.get_int("output_width", 1);
  for (int64_t v : {r.out_height, r.out_width})
    if (v < 1 || v > (1 << 20))
      return Error{fmt::format("each region is pooled to {} x {}", r.out_height, r.out_width)};
  Samples s{r, mode == "avg", n.get_int("sampling_ratio", 0), {}, {}, {}, {r.out_height, r.out_width}};
  if (s.ratio < 0 || s.ratio > 1024)
    return Error{fmt::format("the attribute 'sampling_ratio' is {}", s.ratio)};
  DType dtype = n.dtype() == DType::f64 ? DType::f64 : DType::f32;
  Num boxes = convert(c(rois), dtype) * n.get_float("spatial_scale", 1.0) - (half ? 0.5 : 0.0);
  for (int d = 0; d < 2; ++d) {
    s.start[d] = at(boxes, 1, 1 - d);
    Num size = at(boxes, 1, 3 - d) - s.start[d];
    if (!half)
      size = max(size, 1);
    s.bin[d] = size / double(s.bins[d]);
    // More samples than the map has pixels tell nothing new: regions far larger than the map end here.
    s.grid[d] = s.ratio ? c.number(dtype, double(s.ratio)) : min(max(ceil(s.bin[d]), 0), c.size(dtype, (d == 0 ? r.height : r.width) + Dim(1)));
  }
  Num out = s.ratio ? align_fixed(s, c, dtype) : align_by_pixels(n, s, c, dtype);
  return n.finish(c.done(convert(as_map(r, out), n.dtype())));
}

// regions [R, 5]: image, x1, y1, x2, y2, in pixels with both ends; bins overlap where they do not divide.
Status import_max_roi_pool(OnnxNode &n) {
  const Val &rois = n.in(1);
  auto bins = n.get_ints("pooled_shape");
  if (rois.rank() != 2 || !rois.dim(1).is_const(5) || !is_float(rois.dtype()))
    return Error{fmt::format("its regions are {}; they must be floats [R, 5]", rois.type.text())};
  if (bins.size() != 2 || bins[0] < 1 || bins[1] < 1 || bins[0] > (1 << 20) || bins[1] > (1 << 20))
    return Error{"the attribute 'pooled_shape' must be two positive numbers"};
  double scale = n.get_float("spatial_scale", 1.0);
  DType dtype = n.dtype() == DType::f64 ? DType::f64 : DType::f32;
  Calc c(n.emitter());
  Num boxes = convert(c(rois), dtype);
  KILN_TRY(r, regions_of(n, c, at(boxes, 1, 0), rois.dim(0)));
  r.out_height = bins[0], r.out_width = bins[1];
  Dim sizes[2] = {r.height, r.width};
  Num first[2], length[2]; // [R, PH, 1] and [R, 1, PW], i64
  for (int d = 0; d < 2; ++d) {
    auto away = [](const Num &x) { // ties away from zero
      return where(x < 0, ceil(x - 0.5), floor(x + 0.5));
    };
    Num start = away(at(boxes, 1, 2 - d) * scale), end = away(at(boxes, 1, 4 - d) * scale);
    Num each = reshape(max(end - start + 1.0, 1) / double(bins[d]), {r.count, 1});
    Num i = reshape(c.iota(dtype, {bins[d]}), {1, bins[d]}), size = c.size(dtype, sizes[d]);
    Num shift = reshape(start, {r.count, 1});
    Num low = min(max(floor(i * each) + shift, 0), size), high = min(max(ceil((i + 1.0) * each) + shift, 0), size);
    Shape shape = {r.count, d == 0 ? bins[0] : 1, d == 1 ? bins[1] : 1};
    first[d] = reshape(convert(low, DType::i64), shape);
    length[d] = reshape(convert(max(high - low, 0), DType::i64), shape);
  }
  Shape grid = {r.count, bins[0], bins[1]};
  Dim channels = n.in(0).dim(1);
  Num counts = length[0] * length[1], columns = max(length[1], 1), width = c.size(DType::i64, r.width);
  Num most = largest(c.concat({reshape(counts, {r.count * Dim(bins[0] * bins[1])}), c(n.emitter().ints({0}))}, 0), {0});
  Shape all = {r.count, bins[0], bins[1], channels}, flags = {r.count, bins[0], bins[1], 1};
  Num none = broadcast_to(c.number(n.dtype(), -std::numeric_limits<double>::infinity()), all);
  auto best = repeat(most, {none}, [&](const Num &k, const std::vector<Num> &carried) -> std::vector<Num> {
    Num row = (k - c.op(Op::remainder, {k, columns})) / columns, rest = k - row * columns;
    Num inside = k < counts;
    Num index = where(inside, (first[0] + row) * width + first[1] + rest + reshape(r.batch, {r.count, 1, 1}), 0);
    Num value = gather(r.rows, index, 0);
    return {where(reshape(inside, flags), max(carried[0], value), carried[0])};
  });
  Num out = where(reshape(equal(counts, 0), flags), 0, best[0]);
  return n.finish(c.done(permute(out, {0, 3, 1, 2})));
}

} // namespace kiln::onnx
