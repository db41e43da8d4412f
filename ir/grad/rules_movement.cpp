// Gradients of ops that only move elements: each moves them back, and adds up those that were copied.
#include "ir/grad/rules.h"

#include "ir/ops/infer_util.h"
#include "ir/placement.h"

#include <algorithm>

namespace kiln::grad {
namespace {

using R = Rule &;

Val flip(Val x, int axis) { return x.op(Op::flip, {}, {{"axes", std::vector<Dim>{axis}}}); }

void permute_rule(R r) {
  auto dims = axes_of(r.attrs(), "dims", r.x().rank());
  std::vector<int> back(dims.size());
  for (size_t d = 0; d < dims.size(); ++d)
    back[size_t(dims[d])] = int(d);
  r.add(0, permute(r.dy(), back));
}

// `x` along `axis` with step - 1 zeros after each element.
Val spread(Val x, size_t axis, int64_t step) {
  if (step == 1)
    return x;
  Shape apart = x.shape(), joined = x.shape();
  apart.insert(apart.begin() + std::ptrdiff_t(axis) + 1, 1);
  joined[axis] = joined[axis] * Dim(step);
  std::vector<Dim> lo(apart.size(), 0), hi(apart.size(), 0);
  hi[axis + 1] = step - 1;
  return reshape(pad(reshape(x, apart), lo, hi), joined);
}

// Zeros where the slice took nothing: elements are spread by the step, then padded to x's size.
void slice_rule(R r) {
  Shape shape = r.x().shape();
  auto axes = axes_of(r.attrs(), "axes", int(shape.size()));
  const auto &starts = r.attrs().get_dims("starts");
  auto steps = r.attrs().get_ints("steps");
  Val dx = r.dy();
  std::vector<Dim> lo(shape.size(), 0), hi(shape.size(), 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    size_t axis = size_t(axes[i]);
    Dim count = dx.shape()[axis], first = starts[i];
    int64_t step = steps[i];
    if (step < 0) {
      dx = flip(dx, int(axis));
      step = -step;
      first = starts[i] - (count - Dim(1)) * Dim(step);
    }
    // The last element has no zeros behind it: what is spread may be longer than x has room for.
    if (step > 1 && !count.is_const(0)) {
      dx = spread(dx, axis, step);
      dx = slice(dx, int(axis), 0, count * Dim(step) - Dim(step - 1));
      count = dx.shape()[axis];
    }
    if (count.is_const(0))
      first = 0;
    lo[axis] = first, hi[axis] = shape[axis] - first - count;
  }
  r.add(0, pad(dx, lo, hi));
}

// Of the padded elements along `axis`, those that are copies of elements of x go back to them.
Val unpad_copies(Val dy, size_t axis, const std::string &mode, const Dim &lo, const Dim &hi, const Dim &size) {
  int at = int(axis);
  Val inner = slice(dy, at, lo, lo + size);
  const bool wraps = mode == "wrap";
  auto put = [&](Val part, const Dim &begin) {
    std::vector<Dim> before(dy.shape().size(), 0), after = before;
    before[axis] = begin, after[axis] = size - begin - part.shape()[axis];
    inner = inner + pad(part, before, after);
  };
  // Whole copies of x, and parts of one at the ends. Symbolic amounts wrap at most once.
  auto put_wrapped = [&](Dim from, const Dim &to) {
    while (from.is_const() && to.is_const() && size.is_const() && from.as_const() < to.as_const()) {
      Dim begin = mod(from, size), end = from + min(to - from, size - begin);
      put(slice(dy, at, lo + from, lo + end), begin);
      from = end;
    }
    if (!(from - to).is_const(0))
      put(slice(dy, at, lo + from, lo + to), from.is_const(0) || (from - size).is_const(0) ? Dim(0) : size + from);
  };
  if (!lo.is_const(0)) {
    if (wraps)
      put_wrapped(-lo, 0);
    else if (Val part = slice(dy, at, 0, lo); mode == "edge")
      put(sum(part, {at}, true), 0);
    else
      put(flip(part, at), 1);
  }
  if (!hi.is_const(0)) {
    if (wraps)
      put_wrapped(size, size + hi);
    else if (Val part = slice(dy, at, lo + size, lo + size + hi); mode == "edge")
      put(sum(part, {at}, true), size - Dim(1));
    else
      put(flip(part, at), size - Dim(1) - hi);
  }
  return inner;
}

void pad_rule(R r) {
  Shape shape = r.x().shape();
  const auto &lo = r.attrs().get_dims("lo"), &hi = r.attrs().get_dims("hi");
  const std::string &mode = r.attrs().get_string("mode");
  Val dx = r.dy();
  for (size_t d = shape.size(); d-- > 0;) {
    // A negative amount crops: what was cropped gets zeros.
    auto negative = [](const Dim &v) { return v.is_const() && v.as_const() < 0; };
    Dim before = negative(lo[d]) ? Dim(0) : lo[d], after = negative(hi[d]) ? Dim(0) : hi[d];
    if (mode != "constant") {
      if (negative(lo[d]) || negative(hi[d]))
        return r.fail("it crops and repeats elements at once");
      dx = unpad_copies(dx, d, mode, before, after, shape[d]);
      continue;
    }
    Dim size = dx.shape()[d];
    dx = slice(dx, int(d), before, size - after);
    std::vector<Dim> back(shape.size(), 0), front(shape.size(), 0);
    front[d] = negative(lo[d]) ? -lo[d] : Dim(0), back[d] = negative(hi[d]) ? -hi[d] : Dim(0);
    dx = pad(dx, front, back);
  }
  r.add(0, dx);
}

void concat_rule(R r) {
  int axis = axis_of(r.attrs(), "axis", r.y().rank());
  Dim begin = 0;
  for (size_t i = 0; i < r.operands(); ++i) {
    Dim end = begin + r.x(i).shape()[size_t(axis)];
    if (r.wants(i))
      r.add(i, slice(r.dy(), axis, begin, end));
    begin = end;
  }
}

void trilu_rule(R r) {
  r.add(0, r.dy().op(Op::trilu, {}, {{"upper", r.attrs().get_bool("upper")}, {"k", r.attrs().get_dim("k")}}));
}

// Sums from the other side.
void cumsum_rule(R r) {
  r.add(0, r.dy().op(Op::cumsum, {},
                     {{"axis", r.attrs().get_dim("axis")},
                      {"exclusive", r.attrs().get_bool("exclusive")},
                      {"reverse", !r.attrs().get_bool("reverse")}}));
}

// Back to where x is.
void relayout_rule(R r) {
  Device from = is_device_copy(r.node()) ? placed_so_far(r.b().module(), r.b().function(), r.x().id).device : Device::free;
  bool stays = from == Device::free || device_name(from) == r.attrs().get_string("device");
  r.add(0, stays ? r.dy() : r.dy().op(Op::relayout, {}, {{"device", std::string(device_name(from))}}));
}

constexpr std::string_view kNoInput = "its operands are no floats";

const OpGrad kRules[] = {
    {Op::broadcast_to, [](R r) { r.add(0, r.dy()); }},
    {Op::reshape, [](R r) { r.add(0, reshape(r.dy(), r.x().shape())); }},
    {Op::permute, permute_rule},
    {Op::slice, slice_rule},
    {Op::pad, pad_rule},
    {Op::concat, concat_rule},
    {Op::flip, [](R r) { r.add(0, r.dy().op(Op::flip, {}, {{"axes", r.attrs().get_dims("axes")}})); }},
    {Op::stop_gradient, nullptr, "it is what keeps gradients out"},
    {Op::relayout, relayout_rule},
    {Op::trilu, trilu_rule},
    {Op::cumsum, cumsum_rule},
    {Op::iota, nullptr, kNoInput},
    {Op::random_bits, nullptr, kNoInput},
};

} // namespace

std::span<const OpGrad> movement_rules() { return kRules; }

} // namespace kiln::grad
