// Gradients of contractions: other contractions. Of a convolution, with respect to the image, the
// transposed convolution with the same weights; with respect to the weights, the image convolved with the gradient of
// the result, batch and channels exchanging roles, stride and dilation too.
// Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (arXiv:1603.07285), chapter 4.
#include "ir/grad/rules.h"

#include "ir/ops/window.h"

#include <numeric>

namespace kiln::grad {
namespace {

using R = Rule &;

Val dot(Val a, Val b, bool transpose_b = false) { return a.op(Op::dot, {b}, {{"transpose_b", transpose_b}}); }

Val swap_last(Val x) {
  std::vector<int> dims(size_t(x.rank()));
  std::iota(dims.begin(), dims.end(), 0);
  std::swap(dims[dims.size() - 1], dims[dims.size() - 2]);
  return permute(x, dims);
}

// One matrix of all rows, for products with a matrix that has no batch dims.
Val rows(Val x) {
  Shape shape = x.shape();
  Dim count = 1;
  for (size_t d = 0; d + 1 < shape.size(); ++d)
    count *= shape[d];
  return reshape(x, {count, shape.back()});
}

void dot_rule(R r) {
  Val a = r.x(0), b = r.x(1), dy = r.dy();
  bool transposed = r.attrs().get_bool("transpose_b");
  if (r.wants(0))
    r.add(0, dot(dy, b, !transposed));
  if (r.wants(1)) {
    Val left = a, right = dy;
    if (b.rank() == 2 && a.rank() > 2)
      left = rows(a), right = rows(dy);
    r.add(1, transposed ? dot(swap_last(right), left) : dot(swap_last(left), right));
  }
  if (r.wants(2))
    r.add(2, dy);
}

// x[N, C, ...] as [C / groups, groups * N, ...]: channels as batch, and each group's images as channels.
Val by_channel(Val x, int64_t groups) {
  Shape shape = x.shape(), split = shape;
  split[1] = floordiv(shape[1], groups);
  split.insert(split.begin() + 1, groups);
  std::vector<int> dims = {2, 1, 0};
  for (int d = 3; d < int(split.size()); ++d)
    dims.push_back(d);
  Shape joined = shape;
  joined[0] = split[2], joined[1] = Dim(groups) * shape[0];
  return reshape(permute(reshape(x, split), dims), joined);
}

Val swap_first(Val x) {
  std::vector<int> dims(size_t(x.rank()));
  std::iota(dims.begin(), dims.end(), 0);
  std::swap(dims[0], dims[1]);
  return permute(x, dims);
}

// For each tap, the sum over images and positions o of image[o * stride + tap * dilation - pad] * part[o]:
// [C of part, C of image / groups, taps...].
Val tap_sums(R r, Val image, Val part, const Shape &taps) {
  int64_t groups = r.attrs().get_int("groups");
  Val sums = by_channel(image, groups).op(Op::conv, {swap_first(part)},
                                          {{"stride", r.attrs().get_dims("dilation")},
                                           {"dilation", r.attrs().get_dims("stride")},
                                           {"pad", r.attrs().get_dims("pad")},
                                           {"groups", Dim(groups)}});
  for (int d = 2; d < sums.rank(); ++d)
    sums = slice(sums, d, 0, taps[size_t(d)]);
  return swap_first(sums);
}

Val sum_but_channels(Val x) {
  std::vector<Dim> axes = {0};
  for (int d = 2; d < x.rank(); ++d)
    axes.push_back(d);
  return sum(x, axes, false);
}

void conv_rule(R r) {
  Val x = r.x(0), w = r.x(1), dy = r.dy();
  if (r.wants(0)) {
    Shape taps = w.shape();
    taps.erase(taps.begin(), taps.begin() + 2);
    Window window = known_window(r.attrs(), taps);
    r.add(0, window_transposed(dy, w, x.shape(), window, r.attrs().get_int("groups")));
  }
  if (r.wants(1))
    r.add(1, tap_sums(r, x, dy, w.shape()));
  if (r.wants(2))
    r.add(2, sum_but_channels(dy));
}

void conv_transpose_rule(R r) {
  Val x = r.x(0), w = r.x(1), dy = r.dy();
  if (r.wants(0)) {
    Val dx = dy.op(Op::conv, {w}, {{"stride", r.attrs().get_dims("stride")},
                                   {"dilation", r.attrs().get_dims("dilation")},
                                   {"pad", r.attrs().get_dims("pad")},
                                   {"groups", r.attrs().get_dim("groups")}});
    for (int d = 2; d < dx.rank(); ++d)
      dx = slice(dx, d, 0, x.shape()[size_t(d)]);
    r.add(0, dx);
  }
  if (r.wants(1))
    r.add(1, tap_sums(r, dy, x, w.shape()));
  if (r.wants(2))
    r.add(2, sum_but_channels(dy));
}

// dx = y (dy - sum(dy y))
void softmax_rule(R r) {
  Dim axis = r.attrs().get_dim("axis");
  Val part = r.dy() * r.y();
  r.add(0, part - r.y() * sum(part, {axis}, true));
}

// dx = dy - exp(y) sum(dy)
void log_softmax_rule(R r) {
  Dim axis = r.attrs().get_dim("axis");
  r.add(0, r.dy() - r.y().op(Op::exp) * sum(r.dy(), {axis}, true));
}

constexpr std::string_view kLate = "a pass makes it, after gradients are taken";
constexpr std::string_view kCodes = "its result is not a float; quantise after training";

const OpGrad kRules[] = {
    {Op::dot, dot_rule},
    {Op::conv, conv_rule},
    {Op::conv_transpose, conv_transpose_rule},
    {Op::softmax, softmax_rule},
    {Op::log_softmax, log_softmax_rule},
    {Op::winograd_weights, nullptr, kLate},
    {Op::winograd_conv, nullptr, kLate},
    {Op::quantize, nullptr, kCodes},
};

} // namespace

Val window_transposed(Val dy, Val w, const Shape &x, const Window &window, int64_t groups) {
  std::vector<Dim> stride(window.stride.begin(), window.stride.end());
  std::vector<Dim> dilation(window.dilation.begin(), window.dilation.end()), pad, extra;
  std::vector<Dim> pad_hi;
  for (size_t d = 0; d < window.rank(); ++d) {
    // What a convolution that gives x's size leaves over at the end, or lacks.
    Dim reach = (dy.shape()[d + 2] - Dim(1)) * Dim(window.stride[d]) + window.extent(d) - window.pad_lo[d];
    Dim over = reach - x[d + 2];
    bool known = over.is_const();
    pad.push_back(window.pad_lo[d]);
    pad_hi.push_back(known && over.as_const() > 0 ? over : Dim(0));
    extra.push_back(known ? (over.as_const() < 0 ? -over : Dim(0)) : Dim(window.stride[d] - 1));
  }
  pad.insert(pad.end(), pad_hi.begin(), pad_hi.end());
  Val dx = dy.op(Op::conv_transpose, {w}, {{"stride", stride}, {"dilation", dilation}, {"pad", pad},
                                           {"output_padding", extra}, {"groups", Dim(groups)}});
  for (int d = 2; d < dx.rank(); ++d)
    dx = slice(dx, d, 0, x[size_t(d)]);
  return dx;
}

std::span<const OpGrad> contraction_rules() { return kRules; }

} // namespace kiln::grad
