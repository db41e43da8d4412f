// resize: samples x at other sizes, as ONNX's Resize does.
//
// A result index i of a dim lies at a coordinate of x. Where the scale is a ratio of small integers, the
// coordinate is the exact fraction (a i + b) / c, so that ties round the same everywhere and, in code,
// indices are pure index arithmetic (i / 2 for a nearest neighbour of twice the size). Otherwise it is
// computed in f64, in the same order by ref and code.
#include "ir/ops/index_util.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_resize(InferContext &context) {
  const TensorType &x = context.operands[0];
  const Shape &sizes = context.attrs.get_dims("sizes");
  const auto &scales = context.attrs.get_floats("scales");
  if (sizes.size() != x.shape.size() || scales.size() != x.shape.size())
    return Error{fmt::format("'sizes' and 'scales' have {} and {} entries; {} takes {} of each",
                             sizes.size(), scales.size(), x.text(), x.rank())};
  KILN_RETURN_IF_ERROR(nonnegative_dims(context, sizes, "'sizes'"));
  KILN_RETURN_IF_ERROR(check_number(context, 0));
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (!std::isfinite(scales[d]) || scales[d] <= 0)
      return Error{fmt::format("the scale of dim {} is {}; it must be positive", d, scales[d])};
    // An element of the result needs one of x.
    if (!sizes[d].is_const(0) && !require_at_most(context, min(sizes[d], Dim(1)), x.shape[d]))
      return Error{fmt::format("dim {} is empty and cannot be resized to {}", d, sizes[d].text())};
  }
  KILN_RETURN_IF_ERROR(choice_attr(context.attrs, "mode", {"nearest", "linear", "cubic"}));
  KILN_RETURN_IF_ERROR(choice_attr(context.attrs, "coordinates",
                                   {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"}));
  KILN_RETURN_IF_ERROR(choice_attr(context.attrs, "rounding",
                                   {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}));
  return one_result(x.dtype, sizes);
}

enum class Mode { nearest, linear, cubic };
enum class Rounding { floor, ceil, prefer_floor, prefer_ceil };

Mode mode_of(const Attrs &attrs) {
  const std::string &mode = attrs.get_string("mode");
  return mode == "nearest" ? Mode::nearest : mode == "linear" ? Mode::linear : Mode::cubic;
}

Rounding rounding_of(const Attrs &attrs) {
  const std::string &rounding = attrs.get_string("rounding");
  return rounding == "floor"                ? Rounding::floor
         : rounding == "ceil"               ? Rounding::ceil
         : rounding == "round_prefer_floor" ? Rounding::prefer_floor
                                            : Rounding::prefer_ceil;
}

// Where the index i of a dim of the result lies in x: (i * a + b) / c where `exact`, else
// (i + shift) / scale - shift, or i * (size - 1) / (result size - 1) where the corners align.
struct Coordinate {
  bool identity = false; // the dim stays as it is
  bool exact = false;
  int64_t a = 1, b = 0, c = 1;
  double scale = 1, shift = 0;
  bool align_corners = false;
  Dim from, to; // sizes
};

// scale as p / q, where it is that to the precision of a float and q is small: 1/3 is meant by 0.33333334.
std::optional<std::pair<int64_t, int64_t>> small_ratio(double scale) {
  for (int64_t q = 1; q <= 64; ++q) {
    double p = std::round(scale * double(q));
    if (p >= 1 && p <= 65536 && float(p / double(q)) == float(scale))
      return std::pair{int64_t(p), q};
  }
  return std::nullopt;
}

Coordinate coordinate(const Attrs &attrs, const Shape &from, const Shape &to, size_t d) {
  const std::string &kind = attrs.get_string("coordinates");
  Coordinate out;
  out.scale = attrs.get_floats("scales")[d];
  out.from = from[d];
  out.to = to[d];
  out.identity = from[d] == to[d] && (out.scale == 1 || kind == "align_corners");
  out.align_corners = kind == "align_corners";
  bool half = kind == "half_pixel" || (kind == "pytorch_half_pixel" && !to[d].is_const(1));
  out.shift = half ? 0.5 : 0;
  if (out.identity)
    return out;
  if (to[d].is_const(1) && (out.align_corners || kind == "pytorch_half_pixel")) {
    out.exact = true;
    out.a = 0;
  } else if (out.align_corners) {
    constexpr int64_t kLargest = int64_t(1) << 30;
    out.exact = from[d].is_const() && to[d].is_const() && from[d].as_const() < kLargest &&
                to[d].as_const() < kLargest;
    if (out.exact) {
      out.a = from[d].as_const() - 1;
      out.c = to[d].as_const() - 1;
    }
  } else if (auto ratio = small_ratio(out.scale)) {
    auto [p, q] = *ratio;
    out.exact = true;
    // (i + 1/2) q/p - 1/2 = (2 q i + q - p) / (2 p)
    out.a = half ? 2 * q : q;
    out.b = half ? q - p : 0;
    out.c = half ? 2 * p : p;
  }
  return out;
}

// The nearest position to n / d, for d > 0.
template <typename T, typename FloorDiv>
T round_fraction(const T &n, const T &d, Rounding rounding, FloorDiv divide) {
  switch (rounding) {
  case Rounding::floor:
    return divide(n, d);
  case Rounding::ceil:
    return divide(n + d - T(1), d);
  case Rounding::prefer_floor: // ceil(x - 1/2)
    return divide(T(2) * n + d - T(1), T(2) * d);
  default: // floor(x + 1/2)
    return divide(T(2) * n + d, T(2) * d);
  }
}

// The weights of the cubic convolution for the positions -1, 0, 1, 2 from the one below, at fraction t
// (Keys 1981). F does arithmetic on double or on expressions.
template <typename T, typename Number>
std::vector<T> cubic_weights(const T &t, double a, Number number) {
  T one = number(1), near = one - t, c = number(a), c2 = number(a + 2), c3 = number(a + 3);
  // The outer ones as products: a (d^3 - 5 d^2 + 8 d - 4) = a (d - 1) (d - 2)^2, whose terms would cancel.
  return {c * t * near * near, (c2 * t - c3) * t * t + one, (c2 * near - c3) * near * near + one,
          c * near * t * t};
}

// One position of x and how much of it goes into the result.
struct Tap {
  int64_t position;
  double weight;
};

// Integers are cut off, so what lies at a whole number must not come out a little below it. Where the
// coordinates are fractions, the weights of a linear resize are counted in units of 1 / c and the sum,
// exact in f64, is divided once by `unit`, the product of the dims' c. Otherwise `slack` makes up for a
// sum that is a few units in the last place short.
bool counts(const Attrs &attrs, DType dtype, const Coordinate &where) {
  return !is_float(dtype) && mode_of(attrs) == Mode::linear && where.exact && !where.identity;
}

struct WholeNumbers {
  double unit = 1, slack = 1;
  WholeNumbers(const Attrs &attrs, DType dtype, const Shape &from, const Shape &to) {
    for (size_t d = 0; d < to.size() && !is_float(dtype); ++d)
      if (Coordinate where = coordinate(attrs, from, to, d); counts(attrs, dtype, where))
        unit *= double(where.c);
      else if (!where.identity)
        slack = 1 + 0x1p-46;
  }
};

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && a < 0); }

std::vector<Tap> taps(const Attrs &attrs, DType dtype, const Coordinate &where, int64_t i) {
  if (where.identity)
    return {{i, 1}};
  int64_t size = where.from.as_const(), last = size - 1, n = where.a * i + where.b;
  double x = where.exact           ? double(n) / double(where.c)
             : where.align_corners ? double(i) * double(last) / double(where.to.as_const() - 1)
                                   : (double(i) + where.shift) / where.scale - where.shift;
  auto clamped = [&](int64_t p) { return std::clamp<int64_t>(p, 0, last); };
  Mode mode = mode_of(attrs);
  if (mode == Mode::nearest) {
    Rounding rounding = rounding_of(attrs);
    if (where.exact)
      return {{clamped(round_fraction<int64_t>(n, where.c, rounding, floor_div)), 1}};
    double p = rounding == Rounding::floor          ? std::floor(x)
               : rounding == Rounding::ceil         ? std::ceil(x)
               : rounding == Rounding::prefer_floor ? std::ceil(x - 0.5)
                                                    : std::floor(x + 0.5);
    return {{int64_t(std::clamp(p, 0.0, double(last))), 1}};
  }
  double below = where.exact ? double(floor_div(n, where.c)) : std::clamp(std::floor(x), -1.0, double(last));
  int64_t base = int64_t(below);
  if (counts(attrs, dtype, where)) {
    int64_t rest = n - base * where.c;
    return {{clamped(base), double(where.c - rest)}, {clamped(base + 1), double(rest)}};
  }
  double t = where.exact ? double(n - base * where.c) / double(where.c) : x - std::floor(x);
  if (mode == Mode::linear)
    return {{clamped(base), 1 - t}, {clamped(base + 1), t}};
  auto weights = cubic_weights<double>(t, attrs.get_float("cubic_a"), [](double v) { return v; });
  std::vector<Tap> out;
  double sum = 0;
  for (int64_t k = 0; k < 4; ++k) {
    int64_t p = base - 1 + k;
    bool outside = p < 0 || p > last;
    out.push_back({clamped(p), attrs.get_bool("exclude_outside") && outside ? 0 : weights[size_t(k)]});
    sum += out.back().weight;
  }
  if (attrs.get_bool("exclude_outside"))
    for (Tap &tap : out)
      tap.weight /= sum;
  return out;
}

Result<std::vector<Tensor>> ref_resize(const RefContext &context) {
  const Tensor &x = *context.operands[0];
  const Shape &from = x.type().shape, &to = context.results[0].shape;
  Tensor out = make_tensor(context.results[0]);
  auto strides = row_major_strides(x.dims());
  std::vector<std::vector<std::vector<Tap>>> table(to.size()); // by dim, by index
  for (size_t d = 0; d < to.size(); ++d) {
    Coordinate where = coordinate(context.attrs, from, to, d);
    for (int64_t i = 0; i < out.dims()[d]; ++i)
      table[d].push_back(taps(context.attrs, x.dtype(), where, i));
  }
  bool copies = mode_of(context.attrs) == Mode::nearest;
  WholeNumbers whole(context.attrs, x.dtype(), from, to);
  for_each_index(out.dims(), [&](const std::vector<int64_t> &at, int64_t linear) {
    if (copies) {
      int64_t offset = 0;
      for (size_t d = 0; d < at.size(); ++d)
        offset += table[d][size_t(at[d])][0].position * strides[d];
      return copy_elements(x, offset, out, linear);
    }
    auto sum = [&](auto &self, size_t d, int64_t offset) -> double {
      if (d == at.size())
        return x.at_f64(offset);
      double total = 0;
      for (const Tap &tap : table[d][size_t(at[d])])
        total += tap.weight * self(self, d + 1, offset + tap.position * strides[d]);
      return total;
    };
    out.set_f64(linear, sum(sum, 0, 0) / whole.unit * whole.slack);
  });
  return one_tensor(std::move(out));
}

// -- code

// Arithmetic on expressions, so that cubic_weights() serves both.
struct Scalar {
  Expr e;
  friend Scalar operator+(const Scalar &a, const Scalar &b) { return {kb::add(a.e, b.e)}; }
  friend Scalar operator-(const Scalar &a, const Scalar &b) { return {kb::sub(a.e, b.e)}; }
  friend Scalar operator*(const Scalar &a, const Scalar &b) { return {kb::mul(a.e, b.e)}; }
};

struct ExprTap {
  Dim position;
  Expr weight; // kind none: 1
};

class Sampler {
public:
  Sampler(LowerContext &context, DType accumulator) : context_(context), dtype_(accumulator) {}

  std::vector<ExprTap> taps(const Coordinate &where, const Dim &i) {
    if (where.identity)
      return {{i, {}}};
    Mode mode = mode_of(context_.attrs());
    if (mode == Mode::nearest)
      return {{clamped(nearest(where, i), where.from), {}}};
    if (counts(context_.attrs(), context_.result_type(0).dtype, where)) {
      Dim n = Dim(where.a) * i + Dim(where.b), base = context_.simplified(floordiv(n, where.c));
      Expr rest = context_.bind(kb::convert(dtype_, kb::index(context_.simplified(mod(n, where.c)))));
      return {{clamped(base, where.from), kb::sub(kb::number(dtype_, double(where.c)), rest)},
              {clamped(base + Dim(1), where.from), rest}};
    }
    auto [base, fraction] = below(where, i);
    Scalar t{context_.bind(std::move(fraction))};
    if (mode == Mode::linear)
      return {{clamped(base, where.from), kb::sub(kb::number(dtype_, 1), t.e)},
              {clamped(base + Dim(1), where.from), t.e}};
    return cubic(where, base, t);
  }

private:
  Dim clamped(const Dim &position, const Dim &size) {
    return context_.simplified(max(min(position, size - Dim(1)), 0));
  }

  // The coordinate in f64.
  Expr real(const Coordinate &where, const Dim &i) {
    auto number = [](double v) { return kb::number(DType::f64, v); };
    auto size = [](const Dim &d) { return kb::convert(DType::f64, kb::index(d)); };
    if (where.align_corners)
      return kb::div(kb::mul(size(i), size(where.from - Dim(1))), size(max(where.to - Dim(1), 1)));
    Expr x = kb::sub(kb::div(kb::add(size(i), number(where.shift)), number(where.scale)), number(where.shift));
    if (context_.attrs().get_string("coordinates") == "pytorch_half_pixel" && !where.to.is_const())
      x = kb::select(kb::eq(kb::index(where.to), kb::integer(DType::i64, 1)), number(0), x);
    return x;
  }

  Dim nearest(const Coordinate &where, const Dim &i) {
    Rounding rounding = rounding_of(context_.attrs());
    if (where.exact)
      return round_fraction<Dim>(Dim(where.a) * i + Dim(where.b), where.c, rounding,
                                 [](const Dim &a, const Dim &b) { return floordiv(a, b); });
    Expr x = real(where, i), half = kb::number(DType::f64, 0.5);
    Expr p = rounding == Rounding::floor          ? kb::unary(UnaryOp::floor, x)
             : rounding == Rounding::ceil         ? kb::unary(UnaryOp::ceil, x)
             : rounding == Rounding::prefer_floor ? kb::unary(UnaryOp::ceil, kb::sub(x, half))
                                                  : kb::unary(UnaryOp::floor, kb::add(x, half));
    Expr last = kb::index(where.from - Dim(1));
    Expr position = kb::max(kb::min(kb::convert(DType::i64, p), last), kb::integer(DType::i64, 0));
    return context_.bind_index(std::move(position), 0, where.from);
  }

  // The position below the coordinate (-1 or more) and how far above it the coordinate lies.
  std::pair<Dim, Expr> below(const Coordinate &where, const Dim &i) {
    if (where.exact) {
      Dim n = Dim(where.a) * i + Dim(where.b);
      Expr rest = kb::convert(dtype_, kb::index(context_.simplified(mod(n, where.c))));
      return {context_.simplified(floordiv(n, where.c)),
              kb::div(std::move(rest), kb::number(dtype_, double(where.c)))};
    }
    Expr x = context_.bind(real(where, i));
    Expr floor = context_.bind(kb::unary(UnaryOp::floor, x));
    // Symbols in indices are never negative: the position is one less than the symbol.
    Expr shifted = kb::min(kb::convert(DType::i64, kb::add(floor, kb::number(DType::f64, 1))),
                           kb::index(where.from));
    shifted = kb::max(std::move(shifted), kb::integer(DType::i64, 0));
    Dim base = context_.bind_index(std::move(shifted), 0, where.from + Dim(1)) - Dim(1);
    return {base, kb::convert(dtype_, kb::sub(x, floor))};
  }

  std::vector<ExprTap> cubic(const Coordinate &where, const Dim &base, const Scalar &t) {
    bool exclude = context_.attrs().get_bool("exclude_outside");
    auto weights = cubic_weights<Scalar>(t, context_.attrs().get_float("cubic_a"),
                                         [&](double v) { return Scalar{kb::number(dtype_, v)}; });
    std::vector<ExprTap> out;
    Expr sum;
    for (int64_t k = 0; k < 4; ++k) {
      Dim p = base + Dim(k - 1);
      Expr weight = weights[size_t(k)].e;
      if (exclude) {
        Expr at = kb::index(p);
        Expr inside = kb::logical_and(kb::le(kb::integer(DType::i64, 0), at), kb::lt(at, kb::index(where.from)));
        weight = kb::select(std::move(inside), std::move(weight), kb::number(dtype_, 0));
      }
      weight = context_.bind(std::move(weight));
      sum = k == 0 ? weight : kb::add(std::move(sum), weight);
      out.push_back({clamped(p, where.from), std::move(weight)});
    }
    if (!exclude)
      return out;
    sum = context_.bind(std::move(sum));
    for (ExprTap &tap : out)
      tap.weight = context_.bind(kb::div(std::move(tap.weight), sum));
    return out;
  }

  LowerContext &context_;
  DType dtype_;
};

Expr element_resize(LowerContext &context, int, std::span<const Dim> index) {
  const TensorType &x = context.operand_type(0), &result = context.result_type(0);
  DType dtype = compute_dtype(result.dtype);
  bool copies = mode_of(context.attrs()) == Mode::nearest;
  // Integers as the reference has them.
  DType accumulator = copies || is_float(dtype) ? dtype : DType::f64;
  Sampler sampler(context, accumulator);
  std::vector<std::vector<ExprTap>> taps;
  for (size_t d = 0; d < index.size(); ++d)
    taps.push_back(sampler.taps(coordinate(context.attrs(), x.shape, result.shape, d), index[d]));
  std::vector<Dim> at(index.begin(), index.end());
  std::function<Expr(size_t)> sum = [&](size_t d) -> Expr {
    if (d == at.size())
      return kb::convert(accumulator, context.operand(0, at));
    Expr total;
    for (const ExprTap &tap : taps[d]) {
      at[d] = tap.position;
      Expr term = sum(d + 1);
      if (!tap.weight.is(Expr::Kind::none))
        term = kb::mul(std::move(term), tap.weight);
      total = total.is(Expr::Kind::none) ? std::move(term) : kb::add(std::move(total), std::move(term));
    }
    return total;
  };
  Expr value = sum(0);
  if (WholeNumbers whole(context.attrs(), result.dtype, x.shape, result.shape); !copies) {
    if (whole.unit != 1)
      value = kb::div(std::move(value), kb::number(accumulator, whole.unit));
    if (whole.slack != 1)
      value = kb::mul(std::move(value), kb::number(accumulator, whole.slack));
  }
  return kb::convert(dtype, std::move(value));
}

OpSample sample(Shape shape, Shape sizes, std::string mode, std::string coordinates, std::string rounding,
                bool exclude = false) {
  std::vector<double> scales;
  for (size_t d = 0; d < shape.size(); ++d)
    scales.push_back(double(sizes[d].as_const()) / double(shape[d].as_const()));
  return {{{DType::f32, std::move(shape)}},
          {{"sizes", std::move(sizes)},
           {"scales", std::move(scales)},
           {"mode", std::move(mode)},
           {"coordinates", std::move(coordinates)},
           {"rounding", std::move(rounding)},
           {"exclude_outside", exclude}}};
}

} // namespace

const OpDef op_resize{
    .name = "resize",
    .doc = "Samples x at other sizes. `coordinates` says where in x a result element lies (with scale = "
           "result size / size), `mode` how it is made of those around, `rounding` which is the nearest.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"sizes", AttrKind::dims, std::nullopt, "all dims of the result"},
              {"scales", AttrKind::reals, std::nullopt, "one a dim; 1 for a dim that stays"},
              {"mode", AttrKind::string, Attr(std::string("nearest"))},
              {"coordinates", AttrKind::string, Attr(std::string("half_pixel"))},
              {"rounding", AttrKind::string, Attr(std::string("floor"))},
              {"cubic_a", AttrKind::real, Attr(-0.75)},
              {"exclude_outside", AttrKind::boolean, Attr(false)}},
    .infer = infer_resize,
    .ref = ref_resize,
    .element = element_resize,
    .traits = kExpensive,
    .samples = {sample({1, 2, 3, 4}, {1, 2, 6, 8}, "nearest", "asymmetric", "floor"),
                sample({1, 1, 4, 5}, {1, 1, 8, 10}, "nearest", "half_pixel", "round_prefer_floor"),
                sample({1, 1, 6, 7}, {1, 1, 4, 3}, "nearest", "half_pixel", "round_prefer_ceil"),
                sample({2, 5}, {2, 71}, "nearest", "align_corners", "ceil"),
                sample({1, 1, 3, 4}, {1, 1, 6, 6}, "linear", "half_pixel", "floor"),
                sample({1, 2, 5, 3}, {1, 2, 3, 7}, "linear", "align_corners", "floor"),
                sample({3, 67}, {3, 129}, "linear", "pytorch_half_pixel", "floor"),
                sample({1, 1, 4, 4}, {1, 1, 8, 7}, "cubic", "half_pixel", "floor"),
                sample({1, 5}, {1, 9}, "cubic", "asymmetric", "floor", true)},
};

} // namespace kiln
