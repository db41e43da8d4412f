// Values made to fit: any value becomes one of another dtype and shape by conversions, permutes,
// reshapes, slices, pads and broadcasts, which is also how graphs come to be full of them.
#include "tests/fuzz/graph_maker.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kiln::fuzz {
namespace {

using Dims = std::vector<Dim>;

Dims all_of(int64_t value, size_t count) { return Dims(count, Dim(value)); }

} // namespace

std::optional<ValueId> GraphMaker::fit_range(ValueId from, const InputRange &range) {
  if (in_range(from, range))
    return from;
  DType dtype = type(from).dtype;
  ValueId x = from;
  if (is_float(dtype) && random_.chance(0.5)) {
    double lo = INFINITY, hi = -INFINITY;
    for (int64_t i = 0; i < value(x).count(); ++i)
      lo = std::min(lo, value(x).at_f64(i)), hi = std::max(hi, value(x).at_f64(i));
    if (std::isfinite(lo) && std::isfinite(hi) && hi > lo) {
      double scale = (range.hi - range.lo) / (hi - lo) * 0.99;
      ValueId a = new_constant(Tensor::scalar_f64(dtype, scale));
      ValueId b = new_constant(Tensor::scalar_f64(dtype, range.lo + (range.hi - range.lo) * 0.005 - lo * scale));
      auto product = emit1(Op::mul, {x, a});
      auto sum = product ? emit1(Op::add, {*product, b}) : std::nullopt;
      x = sum.value_or(x);
    }
  }
  if (!in_range(x, {range.lo, range.hi, false})) {
    auto clamped = emit1(Op::clamp, {x}, {{"min", range.lo}, {"max", range.hi}});
    if (!clamped)
      return std::nullopt;
    x = *clamped;
  }
  if (range.nonzero && is_integer(dtype) && !in_range(x, range)) {
    auto odd = emit1(Op::bitwise_or, {x, new_constant(Tensor::scalar_i64(dtype, 1))});
    if (!odd)
      return std::nullopt;
    x = *odd;
  }
  return x;
}

std::optional<ValueId> GraphMaker::fit_shape(ValueId from, const Sizes &sizes) {
  Sizes have = value(from).dims();
  if (have == sizes)
    return from;
  if (count_of(have) == 0 && count_of(sizes) != 0)
    return std::nullopt;
  // The value's own dims, where their sizes are those wanted.
  Dims named;
  for (int64_t s : sizes) {
    Dim d = s;
    for (size_t i = 0; i < have.size(); ++i)
      if (have[i] == s)
        d = type(from).shape[i];
    named.push_back(d);
  }
  Sizes a = have, b = sizes;
  std::sort(a.begin(), a.end()), std::sort(b.begin(), b.end());
  if (a == b && random_.chance(0.7)) {
    Dims order;
    std::vector<bool> used(have.size());
    for (int64_t s : sizes)
      for (size_t i = 0; i < have.size(); ++i)
        if (have[i] == s && !used[i]) {
          used[i] = true;
          order.push_back(int64_t(i));
          break;
        }
    return emit1(Op::permute, {from}, {{"dims", order}});
  }
  if (count_of(have) == count_of(sizes))
    return emit1(Op::reshape, {from}, {{"shape", named}});
  bool broadcasts = have.size() <= sizes.size();
  for (size_t i = 0; broadcasts && i < have.size(); ++i) {
    int64_t h = have[have.size() - 1 - i], s = sizes[sizes.size() - 1 - i];
    broadcasts = h == s || h == 1;
  }
  if (broadcasts && random_.chance(0.8))
    return emit1(Op::broadcast_to, {from}, {{"shape", named}});
  if (have.size() == sizes.size() && random_.chance(0.8)) {
    Dims axes, starts, ends, lo = all_of(0, have.size()), hi = lo;
    for (size_t d = 0; d < have.size(); ++d) {
      if (have[d] > sizes[d]) {
        int64_t start = random_.between(0, have[d] - sizes[d]);
        axes.push_back(int64_t(d)), starts.push_back(start), ends.push_back(start + sizes[d]);
      } else if (have[d] < sizes[d]) {
        int64_t left = random_.between(0, sizes[d] - have[d]);
        lo[d] = left, hi[d] = sizes[d] - have[d] - left;
      }
    }
    ValueId x = from;
    if (!axes.empty()) {
      auto cut = emit1(Op::slice, {x}, {{"axes", axes}, {"starts", starts}, {"ends", ends}, {"steps", all_of(1, axes.size())}});
      if (!cut)
        return std::nullopt;
      x = *cut;
    }
    if (value(x).dims() == sizes)
      return x;
    std::string mode = random_.chance(0.5) ? "constant" : "edge";
    return emit1(Op::pad, {x}, {{"lo", lo}, {"hi", hi}, {"mode", mode}, {"value", random_.uniform(-1, 1)}});
  }
  int64_t n = count_of(have), want = count_of(sizes);
  auto flat = have.size() == 1 ? std::optional(from) : emit1(Op::reshape, {from}, {{"shape", Dims{n}}});
  if (flat && n > want) {
    int64_t start = random_.between(0, n - want);
    flat = emit1(Op::slice, {*flat}, {{"axes", Dims{0}}, {"starts", Dims{start}}, {"ends", Dims{start + want}}, {"steps", Dims{1}}});
  } else if (flat) {
    flat = emit1(Op::pad, {*flat}, {{"lo", Dims{0}}, {"hi", Dims{want - n}}, {"mode", std::string("wrap")}, {"value", 0.0}});
  }
  return flat ? emit1(Op::reshape, {*flat}, {{"shape", Dims(sizes.begin(), sizes.end())}}) : std::nullopt;
}

std::optional<ValueId> GraphMaker::fit(ValueId from, DType dtype, Sizes sizes) {
  auto convert = [&](ValueId x) {
    return type(x).dtype == dtype ? std::optional(x) : emit1(Op::convert, {x}, {{"dtype", dtype}});
  };
  bool first = random_.chance(0.5);
  std::optional<ValueId> x = from;
  if (first)
    x = convert(*x);
  if (x)
    x = fit_shape(*x, sizes);
  return x ? convert(*x) : std::nullopt;
}

// Slices, pads, reshapes, ... with sizes and positions drawn for the value at hand, symbolic ones included.
void GraphMaker::movement() {
  auto from = any_value();
  if (!from)
    return;
  const Shape shape = type(*from).shape; // a copy: values move when nodes are added
  const Sizes have = value(*from).dims();
  size_t rank = shape.size();
  switch (random_.below(7)) {
  case 0: {
    Dims order;
    for (size_t i = 0; i < rank; ++i)
      order.insert(order.begin() + random_.below(int64_t(i) + 1), Dim(int64_t(i)));
    emit(Op::permute, {*from}, {{"dims", order}});
    break;
  }
  case 1: {
    Shape to = shape;
    for (int64_t n = random_.between(1, 3); n > 0; --n) {
      size_t at = size_t(random_.below(int64_t(to.size()) + 1));
      switch (random_.below(3)) {
      case 0:
        to.insert(to.begin() + std::ptrdiff_t(at), Dim(1));
        break;
      case 1:
        if (at + 1 < to.size()) {
          to[at] *= to[at + 1];
          to.erase(to.begin() + std::ptrdiff_t(at) + 1);
        }
        break;
      default:
        for (int64_t f : {2, 3, 5})
          if (at < to.size() && to[at].is_const() && to[at].as_const() > f && to[at].as_const() % f == 0) {
            to[at] = to[at].as_const() / f;
            to.insert(to.begin() + std::ptrdiff_t(at), Dim(f));
            break;
          }
      }
    }
    if (to.size() <= 6)
      emit(Op::reshape, {*from}, {{"shape", to}});
    break;
  }
  case 2: {
    Dims axes, starts, ends, steps;
    for (size_t d = 0; d < rank; ++d) {
      if (random_.chance(0.4))
        continue;
      int64_t start = random_.below(have[d] + 1), step = random_.between(1, 3);
      Dim end = random_.chance(0.5) ? shape[d] : Dim(random_.between(start, have[d]));
      axes.push_back(int64_t(d));
      if (random_.chance(0.25) && have[d] > 0) {
        starts.push_back(shape[d] - Dim(1)), ends.push_back(random_.between(-1, have[d] - 1)), steps.push_back(-step);
      } else {
        starts.push_back(start), ends.push_back(end), steps.push_back(step);
      }
    }
    emit(Op::slice, {*from}, {{"axes", axes}, {"starts", starts}, {"ends", ends}, {"steps", steps}});
    break;
  }
  case 3: {
    static const std::vector<std::string> kModes = {"constant", "constant", "reflect", "edge", "wrap"};
    Dims lo, hi;
    for (size_t d = 0; d < rank; ++d)
      lo.push_back(random_.chance(0.5) ? 0 : random_.between(-1, 3)), hi.push_back(random_.chance(0.5) ? 0 : random_.between(-1, 3));
    emit(Op::pad, {*from}, {{"lo", lo}, {"hi", hi}, {"mode", random_.pick(kModes)}, {"value", random_.uniform(-2, 2)}});
    break;
  }
  case 4: {
    if (rank == 0)
      break;
    int64_t axis = random_.below(int64_t(rank));
    std::vector<ValueId> parts = {*from};
    for (int64_t n = random_.between(1, 2); n > 0; --n) {
      auto other = any_value();
      Sizes sizes = have;
      sizes[size_t(axis)] = random_.between(0, 5);
      auto fitted = other && random_.chance(0.6) ? fit(*other, type(*from).dtype, sizes) : std::optional(*from);
      if (fitted)
        parts.insert(parts.begin() + random_.below(int64_t(parts.size()) + 1), *fitted);
    }
    emit(Op::concat, parts, {{"axis", Dim(axis)}});
    break;
  }
  case 5: {
    Dims axes;
    for (size_t d = 0; d < rank; ++d)
      if (random_.chance(0.5))
        axes.push_back(int64_t(d));
    emit(Op::flip, {*from}, {{"axes", axes}});
    break;
  }
  default: {
    Shape to = shape;
    for (size_t d = 0; d < rank; ++d)
      if (shape[d].is_const(1) && random_.chance(0.7))
        to[d] = random_.one_of({0, 2, 3, 7, 16});
    for (int64_t n = random_.between(0, 2); n > 0; --n)
      to.insert(to.begin(), Dim(random_.between(1, 4)));
    emit(Op::broadcast_to, {*from}, {{"shape", to}});
  }
  }
}

} // namespace kiln::fuzz
