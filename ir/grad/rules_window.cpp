// Gradients of pools and resizes.
#include "ir/grad/rules.h"

#include "ir/ops/window.h"

#include <limits>

namespace kiln::grad {
namespace {

using R = Rule &;

Window window_of(R r) { return known_window(r.attrs(), r.attrs().get_dims("kernel")); }

// How far the last window reaches beyond x, the padding before it included; at least 0.
Dim reach_past(const Window &w, size_t d, const Dim &size, const Dim &positions) {
  Dim over = (positions - Dim(1)) * Dim(w.stride[d]) + w.extent(d) - w.pad_lo[d] - size;
  return over.is_const() ? Dim(std::max<int64_t>(over.as_const(), 0)) : max(over, 0);
}

// [N, C, spatial...] as [N * C, 1, spatial...].
Val planes(Val x) {
  Shape shape = x.shape();
  shape[0] = shape[0] * shape[1], shape[1] = 1;
  return reshape(x, shape);
}

// The divisors, as the ratio of the sums over windows of ones to their means: whatever is counted, this tells.
Val divisors(R r, const Window &w) {
  Shape x = r.x().shape(), y = r.y().shape(), ones_shape = x, kernel = {1, 1};
  ones_shape[0] = ones_shape[1] = 1;
  Val ones = broadcast_to(r.dy().number(1), ones_shape);
  std::vector<Dim> pad(w.pad_lo), hi;
  for (size_t d = 0; d < w.rank(); ++d) {
    kernel.push_back(w.kernel[d]);
    pad.push_back(reach_past(w, d, x[d + 2], y[d + 2]));
  }
  Val taps = broadcast_to(r.dy().number(1), kernel);
  Val sums = ones.op(Op::conv, {taps}, {{"stride", r.attrs().get_dims("stride")},
                                        {"dilation", r.attrs().get_dims("dilation")}, {"pad", pad}});
  for (int d = 2; d < sums.rank(); ++d)
    sums = slice(sums, d, 0, y[size_t(d)]);
  Val means = ones.op(Op::avg_pool, {}, r.attrs());
  Val none = means.op(Op::eq, {means.number(0)}); // a window of padding alone
  return where(none, means.number(1), sums / where(none, means.number(1), means));
}

void avg_pool_rule(R r) {
  Window w = window_of(r);
  Shape kernel = {1, 1};
  kernel.insert(kernel.end(), w.kernel.begin(), w.kernel.end());
  Val taps = broadcast_to(r.dy().number(1), kernel);
  Shape x = r.x().shape(), flat = x;
  flat[0] = x[0] * x[1], flat[1] = 1;
  r.add(0, reshape(window_transposed(planes(r.dy() / divisors(r, w)), taps, flat, w, 1), x));
}

// Windows side by side: the number of each window's first greatest element, and then each element looks whether it is
// that one, in one pass over x.
void max_pool_of_tiles(R r, const Window &w) {
  Shape shape = r.x().shape(), out = r.y().shape(), covered = shape;
  std::vector<double> scales(shape.size(), 1);
  int64_t taps = 1;
  for (size_t d = 0; d < w.rank(); ++d) {
    covered[d + 2] = out[d + 2] * w.kernel[d];
    scales[d + 2] = double(w.kernel[d].as_const());
    taps *= w.kernel[d].as_const();
  }
  Val first = r.dy().number(double(taps));
  for (int64_t tap = taps; tap-- > 0;) {
    Val read = r.x();
    int64_t rest = tap;
    for (size_t d = w.rank(); d-- > 0;) {
      int64_t at = rest % w.kernel[d].as_const();
      rest /= w.kernel[d].as_const();
      read = slice(read, int(d) + 2, at, Dim(at) + (out[d + 2] - Dim(1)) * w.kernel[d] + Dim(1), w.kernel[d].as_const());
    }
    first = where(read.op(Op::eq, {r.y()}), r.dy().number(double(tap)), first);
  }
  // The number of an element within its window, as a sum over dims.
  Val place = r.dy().number(0);
  int64_t step = 1;
  for (size_t d = w.rank(); d-- > 0;) {
    int64_t size = w.kernel[d].as_const(), count = covered[d + 2].as_const();
    std::vector<int64_t> dims(shape.size(), 1);
    dims[d + 2] = count;
    Tensor along(r.dy().dtype(), dims);
    for (int64_t i = 0; i < count; ++i)
      along.set_f64(i, double(i % size * step));
    step *= size;
    Val part{&r.b(), r.b().constant(std::move(along))};
    place = d + 1 == w.rank() ? part : place + part;
  }
  auto spread = [&](Val v) {
    return v.op(Op::resize, {}, {{"sizes", covered}, {"scales", scales}, {"mode", "nearest"},
                                 {"coordinates", "asymmetric"}, {"rounding", "floor"}});
  };
  Val dx = where(spread(first).op(Op::eq, {place}), spread(r.dy()), r.dy().number(0));
  std::vector<Dim> lo(shape.size(), 0), hi;
  for (size_t d = 0; d < shape.size(); ++d)
    hi.push_back(shape[d] - covered[d]);
  if (covered != shape)
    dx = dx.op(Op::pad, {}, {{"lo", lo}, {"hi", hi}, {"value", 0.0}});
  r.add(0, dx);
}

bool are_tiles(R r, const Window &w) {
  Shape out = r.y().shape(), x = r.x().shape();
  int64_t taps = 1;
  for (size_t d = 0; d < w.rank(); ++d) {
    auto size = w.kernel[d].try_const(), count = out[d + 2].try_const(), from = x[d + 2].try_const();
    if (!size || !count || !from || *size != w.stride[d] || w.dilation[d] != 1 || w.pad_lo[d] != Dim(0) || *size * *count > *from)
      return false;
    taps *= *size;
  }
  return taps <= 64;
}

// Each window's gradient goes to its first greatest element. Tap by tap: the elements that the tap reads
// (a strided slice), those of them that won, and back by a transposed convolution with a kernel that has a 1 for each
// tap.
void max_pool_rule(R r) {
  Window w = window_of(r);
  if (are_tiles(r, w))
    return max_pool_of_tiles(r, w);
  Shape shape = r.x().shape(), out = r.y().shape();
  std::vector<Dim> lo(shape.size(), 0), hi(shape.size(), 0);
  int64_t taps = 1;
  Shape kernel = {0, 1};
  for (size_t d = 0; d < w.rank(); ++d) {
    auto size = w.kernel[d].try_const();
    if (!size)
      return r.fail("the size of its window is not a number");
    taps *= *size;
    kernel.push_back(w.kernel[d]);
    lo[d + 2] = w.pad_lo[d], hi[d + 2] = reach_past(w, d, shape[d + 2], out[d + 2]);
  }
  if (taps > 4096)
    return r.fail("its window has more than 4096 elements; reduce_max over the dims has one");
  kernel[0] = taps;
  double least = r.x().dtype() == DType::f16 ? -65504 : -std::numeric_limits<double>::infinity();
  Val x = r.x();
  Val padded = x.op(Op::pad, {}, {{"lo", lo}, {"hi", hi}, {"value", least}});
  Val dy = r.dy(), none = dy.number(0), taken;
  std::vector<Val> pieces;
  Shape plane = out;
  plane[0] = out[0] * out[1], plane[1] = 1;
  for (int64_t tap = 0; tap < taps; ++tap) {
    Val read = padded;
    int64_t rest = tap;
    for (size_t d = w.rank(); d-- > 0;) {
      int64_t at = rest % w.kernel[d].as_const() * w.dilation[d];
      rest /= w.kernel[d].as_const();
      read = slice(read, int(d) + 2, at, Dim(at) + (out[d + 2] - Dim(1)) * Dim(w.stride[d]) + Dim(1), w.stride[d]);
    }
    Val hit = read.op(Op::eq, {r.y()});
    Val first = tap == 0 ? hit : hit.op(Op::logical_and, {taken.op(Op::logical_not)});
    taken = tap == 0 ? hit : taken.op(Op::logical_or, {hit});
    pieces.push_back(reshape(where(first, dy, none), plane));
  }
  Val stacked = pieces[0];
  if (taps > 1)
    stacked = pieces[0].op(Op::concat, {pieces.begin() + 1, pieces.end()}, {{"axis", Dim(1)}});
  std::vector<int64_t> dims;
  for (const Dim &d : kernel)
    dims.push_back(d.as_const());
  Tensor places(dy.dtype(), dims);
  for (int64_t tap = 0; tap < taps; ++tap)
    for (int64_t k = 0; k < taps; ++k)
      places.set_f64(tap * taps + k, tap == k ? 1 : 0);
  Shape flat = shape;
  flat[0] = shape[0] * shape[1], flat[1] = 1;
  Val weights{&r.b(), r.b().constant(std::move(places))};
  r.add(0, reshape(window_transposed(stacked, weights, flat, w, 1), shape));
}

// A resize is linear and separable: resizing the identity gives the matrix of each dim.
void resize_rule(R r) {
  Shape from = r.x().shape(), to = r.y().shape();
  auto scales = r.attrs().get_floats("scales");
  Val dx = r.dy();
  for (size_t d = 0; d < from.size(); ++d) {
    if (from[d] == to[d] && scales[d] == 1)
      continue;
    auto index = [&](int64_t axis) {
      return Val{&r.b(), r.b()(Op::iota, {}, {{"shape", Shape{from[d], from[d]}}, {"axis", Dim(axis)}, {"dtype", DType::i64}})};
    };
    Val identity = index(0).op(Op::eq, {index(1)}).op(Op::convert, {}, {{"dtype", dx.dtype()}});
    Attrs attrs = r.attrs();
    attrs.set("sizes", Shape{to[d], from[d]});
    attrs.set("scales", std::vector<double>{scales[d], 1});
    Val matrix = identity.op(Op::resize, {}, attrs); // [to, from]
    std::vector<int> last, back(from.size());
    for (size_t k = 0; k < from.size(); ++k)
      if (k != d)
        last.push_back(int(k));
    last.push_back(int(d));
    for (size_t k = 0; k < from.size(); ++k)
      back[size_t(last[k])] = int(k);
    bool lone = from.size() == 1;
    Val moved = lone ? reshape(dx, {1, to[d]}) : permute(dx, last);
    Val product = moved.op(Op::dot, {matrix}, {{"transpose_b", false}});
    dx = lone ? reshape(product, {from[d]}) : permute(product, back);
  }
  r.add(0, dx);
}

const OpGrad kRules[] = {
    {Op::avg_pool, avg_pool_rule},
    {Op::max_pool, max_pool_rule},
    {Op::resize, resize_rule},
};

} // namespace

std::span<const OpGrad> window_rules() { return kRules; }

} // namespace kiln::grad
