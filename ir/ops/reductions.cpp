// Reductions over axes of one operand.
#include "ir/ops/elementwise.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kiln {
namespace {

using namespace elementwise;

constexpr double kInf = std::numeric_limits<double>::infinity();

bool contains(const std::vector<int> &axes, int axis) {
  return std::find(axes.begin(), axes.end(), axis) != axes.end();
}

// -- infer
template <unsigned kinds>
InferResult infer(InferContext &c) {
  KILN_RETURN_IF_ERROR(check_kinds(c, 0, kinds));
  const TensorType &x = c.operands[0];
  KILN_TRY(axes, axes_attr(c.attrs, "axes", x.rank()));
  bool keepdims = c.attrs.get_bool("keepdims");
  Shape shape;
  for (int i = 0; i < x.rank(); ++i) {
    if (!contains(axes, i))
      shape.push_back(x.shape[size_t(i)]);
    else if (keepdims)
      shape.push_back(1);
  }
  return one_result(x.dtype, std::move(shape));
}

// -- ref
// The operand as rows of reduced elements: where each result starts, and where its elements lie
// from there. Innermost dims come last in both.
struct Walk {
  std::vector<int64_t> outer_dims, outer_strides, inner_dims, inner_strides;
  int64_t outer = 1, inner = 1;
};

Walk walk_of(const Tensor &x, const std::vector<int> &axes) {
  Walk w;
  auto strides = row_major_strides(x.dims());
  for (int i = 0; i < x.rank(); ++i) {
    bool reduced = contains(axes, i);
    auto &dims = reduced ? w.inner_dims : w.outer_dims;
    auto &steps = reduced ? w.inner_strides : w.outer_strides;
    int64_t d = x.dims()[size_t(i)], stride = strides[size_t(i)];
    (reduced ? w.inner : w.outer) *= d;
    // Neighbours that step as one are one.
    if (!dims.empty() && steps.back() == stride * d) {
      dims.back() *= d;
      steps.back() = stride;
    } else {
      dims.push_back(d);
      steps.push_back(stride);
    }
  }
  return w;
}

// Offsets of all combinations of indices, in row-major order.
std::vector<int64_t> offsets(const std::vector<int64_t> &dims,
                             const std::vector<int64_t> &strides) {
  std::vector<int64_t> out{0};
  for (size_t d = 0; d < dims.size(); ++d) {
    std::vector<int64_t> next;
    next.reserve(out.size() * size_t(dims[d]));
    for (int64_t base : out)
      for (int64_t i = 0; i < dims[d]; ++i)
        next.push_back(base + i * strides[d]);
    out = std::move(next);
  }
  return out;
}

// finish(fold of step over the elements, how many there are) for each result.
template <typename W, typename Step, typename Finish>
Tensor fold(const RefContext &c, W init, const Step &step, const Finish &finish) {
  const Tensor &x = *c.operands[0];
  Walk w = walk_of(x, axes_of(c.attrs, "axes", c.operands[0]->rank()));
  Tensor out = make_tensor(c.results[0]);
  if (out.count() == 0)
    return out;
  auto values = widen_all<W>(x);
  auto starts = offsets(w.outer_dims, w.outer_strides);
  std::vector<W> results(starts.size());
  if (w.inner == 0) {
    std::fill(results.begin(), results.end(), finish(init, int64_t(0)));
  } else {
    int64_t run = w.inner_dims.empty() ? 1 : w.inner_dims.back();
    int64_t stride = w.inner_dims.empty() ? 1 : w.inner_strides.back();
    auto rows = w.inner_dims.empty()
                    ? std::vector<int64_t>{0}
                    : offsets({w.inner_dims.begin(), w.inner_dims.end() - 1}, w.inner_strides);
    for (size_t r = 0; r < starts.size(); ++r) {
      W acc = init;
      for (int64_t row : rows) {
        const W *p = values.data() + starts[r] + row;
        for (int64_t i = 0; i < run; ++i)
          acc = step(acc, p[i * stride]);
      }
      results[r] = finish(acc, w.inner);
    }
  }
  narrow(results.data(), 0, out.count(), out);
  return out;
}

constexpr auto kAdd = [](auto a, auto b) {
  if constexpr (std::is_same_v<decltype(a), double>)
    return a + b;
  else
    return decltype(a)(uint64_t(a) + uint64_t(b));
};
constexpr auto kMul = [](auto a, auto b) {
  if constexpr (std::is_same_v<decltype(a), double>)
    return a * b;
  else
    return decltype(a)(uint64_t(a) * uint64_t(b));
};
constexpr auto kSumAbs = [](auto a, auto b) {
  using T = decltype(a);
  return kAdd(a, b < T(0) ? T(0) - b : b);
};
constexpr auto kSumSquare = [](auto a, auto b) { return kAdd(a, kMul(b, b)); };
constexpr auto kMax = [](auto a, auto b) {
  if constexpr (std::is_same_v<decltype(a), double>)
    if (std::isnan(a) || std::isnan(b))
      return a + b;
  return a < b ? b : a;
};
constexpr auto kMin = [](auto a, auto b) {
  if constexpr (std::is_same_v<decltype(a), double>)
    if (std::isnan(a) || std::isnan(b))
      return a + b;
  return b < a ? b : a;
};
constexpr auto kAny = [](int64_t a, int64_t b) { return a | b; };
constexpr auto kAll = [](int64_t a, int64_t b) { return a & b; };
constexpr auto kSame = [](auto acc, int64_t) { return acc; };
constexpr auto kMean = [](double acc, int64_t n) { return acc / double(n); };
constexpr auto kRoot = [](double acc, int64_t) { return std::sqrt(acc); };

// What a fold of a dtype starts from.
enum class Start { zero, one, least, greatest };

double start_value(DType dtype, Start start) {
  switch (start) {
  case Start::zero:
    return 0;
  case Start::one:
    return 1;
  case Start::least:
    return is_float(dtype) ? -kInf : -std::ldexp(1, 63);
  default:
    return is_float(dtype) ? kInf : std::ldexp(1, 64);
  }
}

template <Start start, auto step, auto finish, bool floats_only = false>
Result<std::vector<Tensor>> ref_fold(const RefContext &c) {
  DType dtype = c.operands[0]->dtype();
  double init = start_value(dtype, start);
  std::vector<Tensor> out;
  if constexpr (floats_only) {
    out.push_back(fold<double>(c, init, step, finish));
  } else {
    out.push_back(with_wide_type(dtype, [&]<typename W>() {
      W first = std::is_same_v<W, double> ? W(init) : W(Tensor::scalar_f64(dtype, init).at_i64(0));
      return fold<W>(c, first, step, finish);
    }));
  }
  return out;
}

// Shifted by the largest element, so that it cannot overflow.
Result<std::vector<Tensor>> log_sum_exp_ref(const RefContext &c) {
  const Tensor &x = *c.operands[0];
  Walk w = walk_of(x, axes_of(c.attrs, "axes", c.operands[0]->rank()));
  Tensor out = make_tensor(c.results[0]);
  auto values = widen_all<double>(x);
  auto starts = offsets(w.outer_dims, w.outer_strides),
       inner = offsets(w.inner_dims, w.inner_strides);
  for (int64_t r = 0; r < out.count(); ++r) {
    double peak = -kInf, sum = 0;
    for (int64_t i : inner)
      peak = kMax(peak, values[size_t(starts[size_t(r)] + i)]);
    double shift = std::isfinite(peak) ? peak : 0;
    for (int64_t i : inner)
      sum += std::exp(values[size_t(starts[size_t(r)] + i)] - shift);
    out.set_f64(r, std::log(sum) + shift);
  }
  return std::vector{std::move(out)};
}

std::vector<ValueId> log_sum_exp_decompose(GraphBuilder &b, const Node &node) {
  ValueId x = node.operands[0];
  const Attr &axes = *node.attrs.find("axes");
  DType dtype = b.type(x).dtype;
  ValueId peak = b(Op::reduce_max, {x}, {{"axes", axes}, {"keepdims", true}});
  ValueId finite = b(Op::lt, {b(Op::abs, {peak}), b.scalar(dtype, kInf)});
  ValueId shift = b(Op::where, {finite, peak, b.scalar(dtype, 0)});
  ValueId sum = b(Op::reduce_sum, {b(Op::exp, {b(Op::sub, {x, shift})})},
                  {{"axes", axes}, {"keepdims", true}});
  ValueId out = b(Op::add, {b(Op::log, {sum}), shift});
  const Shape &wanted = b.type(node.results[0]).shape;
  if (wanted.size() != b.type(out).shape.size())
    out = b(Op::reshape, {out}, {{"shape", std::vector<Dim>(wanted)}});
  return {out};
}

// -- code
struct Axes {
  std::vector<ReduceSpec::Axis> loops;
  std::vector<Dim> index; // of the operand
  Dim count = 1;
};

Axes axes_of_reduction(LowerContext &c, std::span<const Dim> index) {
  const Shape &shape = c.operand_type(0).shape;
  std::vector<int> axes = axes_of(c.attrs(), "axes", int(shape.size()));
  bool keepdims = c.attrs().get_bool("keepdims");
  Axes out;
  size_t from = 0;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (!contains(axes, int(i))) {
      out.index.push_back(index[from++]);
      continue;
    }
    from += keepdims ? 1 : 0;
    out.count *= shape[i];
    if (shape[i].is_const(1)) {
      out.index.push_back(0);
      continue;
    }
    Symbol var = fresh_symbol("r");
    out.loops.push_back({var, 0, shape[i]});
    out.index.push_back(Dim::symbol(var));
  }
  return out;
}

Expr start_expr(DType dtype, Start start) {
  double value = start_value(dtype, start);
  return is_float(dtype) ? kb::number(dtype, value)
                         : kb::integer(dtype, Tensor::scalar_f64(dtype, value).at_i64(0));
}

enum class Term { plain, absolute, square };
enum class Finish { none, mean, root };

template <BinaryOp combine, Start start, Term term = Term::plain, Finish finish = Finish::none>
ReduceSpec reduce_over(LowerContext &c, std::span<const Dim> index) {
  Axes axes = axes_of_reduction(c, index);
  ReduceSpec spec;
  spec.axes = axes.loops;
  spec.combine = combine;
  spec.accumulator = compute_dtype(c.operand_type(0).dtype);
  spec.init = start_expr(spec.accumulator, start);
  spec.term = [at = axes.index](LowerContext &lc) {
    Expr x = lc.operand(0, at);
    if (term == Term::absolute)
      return is_unsigned_int(x.dtype) ? x : kb::unary(UnaryOp::abs, std::move(x));
    if (term == Term::square) {
      Expr bound = lc.bind(std::move(x));
      return kb::mul(bound, bound);
    }
    return x;
  };
  if (finish == Finish::mean)
    spec.finish = [count = axes.count](Expr acc) {
      DType dtype = acc.dtype;
      Expr n = count.is_const() ? kb::number(dtype, double(count.as_const()))
                                : kb::convert(dtype, kb::index(count));
      return kb::div(std::move(acc), std::move(n));
    };
  if (finish == Finish::root)
    spec.finish = [](Expr acc) { return kb::unary(UnaryOp::sqrt, std::move(acc)); };
  return spec;
}

// -- samples
std::vector<OpSample> samples(unsigned kinds, double lo = -2, double hi = 2) {
  std::vector<OpSample> out;
  auto add = [&](DType dtype, Shape shape, std::vector<Dim> axes, bool keepdims) {
    OpSample s{
        {{dtype, std::move(shape)}}, {{"axes", std::move(axes)}, {"keepdims", keepdims}}, lo, hi};
    if (is_bool(dtype))
      s.lo = 0, s.hi = 1;
    if (is_unsigned_int(dtype))
      s.lo = 0;
    out.push_back(std::move(s));
  };
#define KILN_DTYPE(name, bits, kind, code)                                                         \
  if (in_kinds(DType::name, kinds))                                                                \
    add(DType::name, {3, 7}, {1}, true);
#include "ir/dtypes.def"
#undef KILN_DTYPE
  DType main = kinds & kFloats ? DType::f32 : DType::bool_;
  add(main, {2, 3, 5}, {0}, false);
  add(main, {2, 3, 5}, {1}, true);
  add(main, {2, 3, 5, 4}, {0, 2}, false);
  add(main, {2, 3, 5, 4}, {-1, -2}, true);
  add(main, {37}, {0}, false);
  add(main, {4, 129}, {0, 1}, false);
  add(main, {2, 3}, {}, false);
  add(main, {0, 3}, {1}, false);
  add(main, {}, {}, true);
  return out;
}

} // namespace

#define KILN_REDUCTION(id, text, infer_fn, ref_fn, reduce_fn, sampled)                             \
  const OpDef op_##id{                                                                             \
      .name = #id,                                                                                 \
      .doc = text,                                                                                 \
      .min_operands = 1,                                                                           \
      .max_operands = 1,                                                                           \
      .attrs = {{"axes", AttrKind::dims, std::nullopt,                                             \
                 "the axes reduced; none leaves every element its own result"},                    \
                {"keepdims", AttrKind::boolean, Attr(true), "keep the axes, with size 1"}},        \
      .infer = infer_fn,                                                                           \
      .ref = ref_fn,                                                                               \
      .reduce = reduce_fn,                                                                         \
      .traits = kReduction | kExpensive,                                                           \
      .samples = sampled};

KILN_REDUCTION(reduce_sum, "The sum; integers wrap.", infer<kNumbers>,
               (ref_fold<Start::zero, kAdd, kSame>), (reduce_over<BinaryOp::add, Start::zero>),
               samples(kNumbers))
KILN_REDUCTION(reduce_mean, "The arithmetic mean; NaN of no elements.", infer<kFloats>,
               (ref_fold<Start::zero, kAdd, kMean, true>),
               (reduce_over<BinaryOp::add, Start::zero, Term::plain, Finish::mean>),
               samples(kFloats))
KILN_REDUCTION(reduce_max, "The greatest; NaN where there is one; the least value of no elements.",
               infer<kNumbers>, (ref_fold<Start::least, kMax, kSame>),
               (reduce_over<BinaryOp::max, Start::least>), samples(kNumbers))
KILN_REDUCTION(reduce_min, "The least; NaN where there is one; the greatest value of no elements.",
               infer<kNumbers>, (ref_fold<Start::greatest, kMin, kSame>),
               (reduce_over<BinaryOp::min, Start::greatest>), samples(kNumbers))
KILN_REDUCTION(reduce_prod, "The product; integers wrap.", infer<kNumbers>,
               (ref_fold<Start::one, kMul, kSame>), (reduce_over<BinaryOp::mul, Start::one>),
               samples(kNumbers, -1.5, 1.5))
KILN_REDUCTION(reduce_any, "Whether any is true.", infer<kBools>,
               (ref_fold<Start::zero, kAny, kSame>), (reduce_over<BinaryOp::bit_or, Start::zero>),
               samples(kBools))
KILN_REDUCTION(reduce_all, "Whether all are true.", infer<kBools>,
               (ref_fold<Start::one, kAll, kSame>), (reduce_over<BinaryOp::bit_and, Start::one>),
               samples(kBools))
KILN_REDUCTION(reduce_l1, "The sum of absolute values.", infer<kNumbers>,
               (ref_fold<Start::zero, kSumAbs, kSame>),
               (reduce_over<BinaryOp::add, Start::zero, Term::absolute>), samples(kNumbers))
KILN_REDUCTION(reduce_l2, "The square root of the sum of squares.", infer<kFloats>,
               (ref_fold<Start::zero, kSumSquare, kRoot, true>),
               (reduce_over<BinaryOp::add, Start::zero, Term::square, Finish::root>),
               samples(kFloats))
KILN_REDUCTION(reduce_sum_square, "The sum of squares.", infer<kNumbers>,
               (ref_fold<Start::zero, kSumSquare, kSame>),
               (reduce_over<BinaryOp::add, Start::zero, Term::square>), samples(kNumbers))
#undef KILN_REDUCTION

const OpDef op_reduce_log_sum_exp{
    .name = "reduce_log_sum_exp",
    .doc = "log(sum(exp(x))), without overflow.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"axes", AttrKind::dims}, {"keepdims", AttrKind::boolean, Attr(true)}},
    .infer = infer<kFloats>,
    .ref = log_sum_exp_ref,
    .decompose = log_sum_exp_decompose,
    .traits = kExpensive,
    .samples = samples(kFloats, -20, 20),
};

} // namespace kiln
