// Slice, Split and Pad: ranges of axes, with numpy's clamping done here, where sizes may be symbols.
#include "frontend/onnx/calc.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/run_sizes.h"
#include "frontend/onnx/selection.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace kiln::onnx {
namespace {

// Bounds at or past these mean "to the end" in exported models.
constexpr int64_t kFar = int64_t(1) << 30;
constexpr int64_t kLongestStep = int64_t(1) << 50; // beyond any axis

bool nonnegative(const Dim &d) { return d.is_valid() && known_nonnegative(d, DimRanges()); }

// a <= b for all sizes. Knows of floor divisions in `a` that they are no larger than exact ones.
bool at_most(const Dim &a, const Dim &b) {
  if (nonnegative(b - a))
    return true;
  for (const DimTerm &term : a.terms()) {
    if (term.factors.size() != 1 || term.factors[0].kind != DimAtom::Kind::floordiv || term.coefficient <= 0)
      continue;
    const Dim &dividend = term.factors[0].args[0], &divisor = term.factors[0].args[1];
    if (!divisor.is_const() || divisor.as_const() <= 0)
      continue;
    Dim rest = a - Dim(term.coefficient) * floordiv(dividend, divisor);
    if (nonnegative((b - rest) * divisor - Dim(term.coefficient) * dividend))
      return true;
  }
  return false;
}

// A bound of a slice of an axis of `size`, clamped to [lo, hi] as numpy does. Bounds against symbolic
// sizes that are usually inside the axis are taken to be (the slice op requires it at run time); an end
// given as a plain number may well lie past a short axis and is clamped.
// Sizes that a run finds may be anything: all bounds are clamped then.
Dim clamp_bound(Dim bound, const Dim &size, const Dim &lo, const Dim &hi, bool is_end, bool found) {
  auto value = bound.try_const();
  if (value && *value >= kFar)
    return hi;
  if (value && *value <= -kFar)
    return lo;
  bool from_end = value ? *value < 0 : !nonnegative(bound) && nonnegative(-bound);
  if (from_end)
    bound += size;
  if (nonnegative(bound - hi))
    return hi;
  if (nonnegative(lo - bound))
    return lo;
  if (found)
    return max(min(bound, hi), lo);
  if (!from_end && is_end && !at_most(bound, hi) && !bound.is_const(1))
    return min(bound, hi);
  return bound;
}

struct Range {
  std::vector<RunInt> starts, ends, steps;
  std::vector<Dim> axes;
};

Result<Range> range_of(OnnxNode &n) {
  Range r;
  if (n.opset() < 10 && n.input_count() == 1) {
    auto known = [&](const std::vector<int64_t> &list) {
      std::vector<RunInt> out;
      for (int64_t v : list)
        out.push_back({Dim(v), number(n.emitter(), v)});
      return out;
    };
    r.starts = known(n.get_ints("starts"));
    r.ends = known(n.get_ints("ends"));
    auto axes = n.get_ints("axes");
    r.axes.assign(axes.begin(), axes.end());
  } else {
    if (!n.has(1) || !n.has(2))
      return Error{"its starts or ends are missing"};
    KILN_TRY(starts, run_ints(n, 1, "starts"));
    KILN_TRY(ends, run_ints(n, 2, "ends"));
    r.starts = starts, r.ends = ends;
    if (n.has(3)) {
      KILN_TRY(axes, n.dims_of(3, "axes"));
      r.axes = axes;
    }
    if (n.has(4)) {
      KILN_TRY(steps, run_ints(n, 4, "steps"));
      r.steps = steps;
    }
  }
  if (r.axes.empty())
    for (size_t i = 0; i < r.starts.size() && i < size_t(kMaxRank); ++i)
      r.axes.push_back(int64_t(i));
  if (r.steps.empty())
    r.steps.assign(r.axes.size(), {Dim(1), number(n.emitter(), 1)});
  if (r.starts.size() != r.axes.size() || r.ends.size() != r.axes.size() || r.steps.size() != r.axes.size())
    return Error{fmt::format("it has {} starts, {} ends, {} axes and {} steps", r.starts.size(),
                             r.ends.size(), r.axes.size(), r.steps.size())};
  for (RunInt &step : r.steps)
    if (auto by = step.known ? step.known->try_const() : std::nullopt; by && (*by > kLongestStep || *by < -kLongestStep)) {
      int64_t longest = *by > 0 ? kLongestStep : -kLongestStep;
      step = {Dim(longest), number(n.emitter(), longest)};
    }
  return r;
}

} // namespace

Status import_slice(OnnxNode &n) {
  KILN_TRY(range, range_of(n));
  std::vector<int64_t> named;
  for (const Dim &d : range.axes) {
    if (!d.is_const())
      return Error{"its axes must be constants"};
    named.push_back(d.as_const());
  }
  KILN_TRY(axes, n.axes(named, n.rank()));
  std::vector<Dim> starts, ends;
  std::vector<int> kept;
  std::vector<int64_t> steps;
  Val x = n.in(0);
  auto length = n.has(1) && n.has(2) ? constant_difference(n.emitter(), n.in(2), n.in(1)) : std::nullopt;
  for (size_t i = 0; i < axes.size(); ++i) {
    bool known = range.starts[i].known && range.ends[i].known && range.steps[i].known;
    if (known && range.steps[i].known->is_const())
      continue;
    KILN_TRY(part, slice_found(n, x, axes[i], range.starts[i], range.ends[i], range.steps[i],
                               axes.size() == 1 ? length : std::nullopt));
    x = part;
    range.starts[i].known = Dim(0), range.ends[i].known = x.dim(axes[i]), range.steps[i].known = Dim(1);
  }
  for (size_t i = 0; i < axes.size(); ++i) {
    const Dim size = x.dim(axes[i]);
    bool found = n.emitter().is_found(size) || n.emitter().is_found(*range.starts[i].known) ||
                 n.emitter().is_found(*range.ends[i].known);
    int64_t step = range.steps[i].known->as_const();
    Dim &range_start = *range.starts[i].known, &range_end = *range.ends[i].known;
    // Up to a size that is open, of an axis of 1: that one element, unless the size is 0.
    if (step == 1 && size.is_const(1) && !range_end.is_const() && nonnegative(range_end) &&
        n.emitter().require_equal(min(range_end, 1), 1, "Slice"))
      range_end = 1;
    if (step == 0)
      return Error{fmt::format("the step of axis {} is 0", axes[i])};
    Dim start, end;
    if (step > 0) {
      start = clamp_bound(range_start, size, 0, size, false, found);
      end = clamp_bound(range_end, size, 0, size, true, found);
      if (nonnegative(start - end))
        end = start;
      if (start.is_const(0) && end == size && step == 1)
        continue;
    } else {
      start = clamp_bound(range_start, size, -1, size - Dim(1), false, found);
      end = clamp_bound(range_end, size, -1, size - Dim(1), false, found);
      if (nonnegative(end - start))
        start = end = -1;
      if (start.is_const(-1)) { // nothing is taken
        start = end = 0;
        step = 1;
      }
    }
    kept.push_back(axes[i]);
    starts.push_back(start);
    ends.push_back(end);
    steps.push_back(step);
  }
  if (kept.empty())
    return n.finish(Result<Val>(x));
  return n.finish(Op::slice, {x},
                  {{"axes", attr_ints(kept)}, {"starts", starts}, {"ends", ends}, {"steps", attr_ints(steps)}});
}

Status import_split(OnnxNode &n) {
  KILN_TRY(axis, n.axis(n.get_int("axis", 0), n.rank()));
  const Dim &size = n.in(0).dim(axis);
  size_t count = n.output_count();
  std::vector<Dim> sizes;
  if (n.has(1) && n.opset() < 2 && is_float(n.dtype(1))) {
    KILN_TRY(numbers, n.constant_of(1, "sizes"));
    for (int64_t i = 0; i < numbers->count() && i <= int64_t(count); ++i)
      sizes.push_back(int64_t(std::clamp(numbers->at_f64(i), -1.0, 9e15)));
  } else if (n.has(1)) {
    KILN_TRY(list, run_ints(n, 1, "sizes"));
    for (const RunInt &r : list) {
      if (r.known) {
        sizes.push_back(*r.known);
        continue;
      }
      KILN_TRY(part, n.emitter().bind_size(r.value, size, "split"));
      sizes.push_back(part);
    }
  } else if (n.has_attr("split")) {
    auto list = n.get_ints("split");
    sizes.assign(list.begin(), list.end());
  } else {
    int64_t parts = n.get_int("num_outputs", int64_t(count));
    if (parts <= 0 || parts != int64_t(count))
      return Error{fmt::format("it splits into {} parts but has {} outputs", parts, count)};
    // The last part is smaller where the size does not divide (from opset 18 on).
    Dim part = ceildiv(size, parts), left = size;
    for (int64_t i = 0; i + 1 < parts; ++i) {
      sizes.push_back(part);
      left = left - part;
    }
    sizes.push_back(left);
  }
  if (sizes.size() != count)
    return Error{fmt::format("it has {} sizes and {} outputs", sizes.size(), count)};
  Dim total = 0;
  for (const Dim &s : sizes) {
    if (!s.is_valid() || (s.is_const() && s.as_const() < 0))
      return Error{fmt::format("it would split {} into a part of size {}", n.in(0).type.text(), s.text())};
    total += s;
  }
  if (!n.emitter().require_equal(total, size, "Split"))
    return Error{fmt::format("its sizes add up to {}, but axis {} of {} is {}", total.text(), axis,
                             n.in(0).type.text(), size.text())};
  Dim start = 0;
  for (size_t i = 0; i < count; ++i) {
    if (n.wants(i)) {
      KILN_TRY(part, slice_axis(n.emitter(), n.in(0), axis, start, sizes[i]));
      n.set(i, part);
    }
    start += sizes[i];
  }
  return Unit{};
}

// The middle of each named axis where it is longer than asked for, with zeros around where it is shorter; of
// an odd rest the larger half is at the end.
Status import_center_crop_pad(OnnxNode &n) {
  KILN_TRY(sizes, n.dims_of(1, "shape"));
  auto named = n.get_ints("axes");
  if (!n.has_attr("axes"))
    for (int i = 0; i < n.rank(); ++i)
      named.push_back(i);
  KILN_TRY(axes, n.axes(named, n.rank()));
  if (axes.size() != sizes.size())
    return Error{fmt::format("its shape has {} numbers for {} axes", sizes.size(), axes.size())};
  Calc c(n.emitter());
  Num x = c(n.in(0));
  std::vector<Dim> lo(size_t(n.rank()), Dim(0)), hi = lo;
  for (size_t i = 0; i < axes.size(); ++i) {
    const Dim size = x.dim(axes[i]), &wanted = sizes[i];
    if (wanted.is_const() && wanted.as_const() < 0)
      return Error{fmt::format("its shape holds {}", wanted.text())};
    x = slice(x, axes[i], floordiv(max(size - wanted, 0), 2), min(size, wanted));
    Dim missing = max(wanted - size, 0);
    lo[size_t(axes[i])] = floordiv(missing, 2);
    hi[size_t(axes[i])] = missing - floordiv(missing, 2);
  }
  return n.finish(c.done(pad(x, lo, hi)));
}

Status import_pad(OnnxNode &n) {
  Val x = n.in(0);
  std::vector<Dim> pads;
  double value = 0;
  std::optional<Val> computed;
  if (n.opset() < 11) {
    auto list = n.has_attr("paddings") ? n.get_ints("paddings") : n.get_ints("pads");
    pads.assign(list.begin(), list.end());
    value = n.get_float("value", 0);
  } else {
    if (!n.has(1))
      return Error{"its pads are missing"};
    KILN_TRY(list, run_ints(n, 1, "pads"));
    KILN_TRY(amounts, bind_free(n, list, "pad"));
    pads = amounts;
    if (n.has(2)) {
      if (!element_count(n.shape(2)).is_const(1))
        return Error{fmt::format("its value is {}, not one number", n.in(2).type.text())};
      // 64-bit integers do not all fit an attribute, which is a double.
      if (n.in(2).constant && (is_float(x.dtype()) || std::abs(n.in(2).constant->at_f64(0)) < 0x1p53))
        value = n.in(2).constant->at_f64(0);
      else
        computed = n.in(2);
    }
  }
  std::vector<int> axes;
  for (int i = 0; i < x.rank(); ++i)
    axes.push_back(i);
  if (n.has(3)) {
    KILN_TRY(list, n.ints_of(3, "axes"));
    KILN_TRY(named, n.axes(list, x.rank()));
    axes = named;
  }
  if (pads.size() != 2 * axes.size())
    return Error{fmt::format("it has {} pads for {} axes of {}; two for each are needed", pads.size(),
                             axes.size(), x.type.text())};
  std::vector<Dim> lo(size_t(x.rank()), Dim(0)), hi = lo;
  bool nothing = true;
  for (size_t i = 0; i < axes.size(); ++i) {
    lo[size_t(axes[i])] = pads[i];
    hi[size_t(axes[i])] = pads[i + axes.size()];
    nothing &= pads[i].is_const(0) && pads[i + axes.size()].is_const(0);
  }
  std::string mode = n.get_string("mode", "constant");
  if (nothing)
    return n.finish(Result<Val>(x));
  // What is cut off is cut off first: it is neither mirrored nor repeated.
  for (int i = 0; i < x.rank() && mode != "constant"; ++i) {
    Dim &before = lo[size_t(i)], &after = hi[size_t(i)];
    auto cut = [](Dim &by) { return by.is_const() && by.as_const() < 0 ? -std::exchange(by, Dim(0)) : Dim(0); };
    Dim first = cut(before), last = cut(after);
    KILN_TRY(rest, slice_axis(n.emitter(), x, i, first, x.dim(i) - first - last));
    x = rest;
  }
  auto padded = [&](const Val &what, double with) {
    return n.emit(Op::pad, {what}, {{"lo", lo}, {"hi", hi}, {"mode", mode}, {"value", with}});
  };
  if (!computed || mode != "constant")
    return n.finish(padded(x, value));
  // A value known at run time only: pad a mask too, and choose.
  Emitter &e = n.emitter();
  KILN_TRY(out, padded(x, 0));
  KILN_TRY(ones, broadcast_to(e, e.scalar(DType::bool_, 1), x.type.shape));
  KILN_TRY(inside, padded(ones, 0));
  KILN_TRY(number, reshape(e, *computed, {}));
  return n.finish(Op::where, {inside, out, number});
}

} // namespace kiln::onnx
