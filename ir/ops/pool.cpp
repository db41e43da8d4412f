// max_pool and avg_pool. Padding is not part of a maximum; in an average it counts if asked for.
#include "ir/ops/elementwise.h"
#include "ir/ops/window.h"

#include <cmath>
#include <fmt/format.h>
#include <limits>

namespace kiln {
namespace {

using elementwise::InferResult;

template <unsigned kinds>
InferResult infer(InferContext &c) {
  KILN_RETURN_IF_ERROR(check_kinds(c, 0, kinds));
  KILN_RETURN_IF_ERROR(check_rank_at_least(c, 0, 3));
  const Shape &x = c.operands[0].shape;
  KILN_TRY(kernel, ints_attr(c.attrs, "kernel", x.size() - 2, 1));
  KILN_TRY(geometry, read_window(c, std::vector<Dim>(kernel.begin(), kernel.end())));
  for (size_t d = 0; d < geometry.rank(); ++d)
    for (const Dim &pad : {geometry.pad_lo[d], geometry.pad_hi[d]})
      if (pad.is_const() && !require_at_most(c, pad + Dim(1), geometry.extent(d)))
        return Error{fmt::format(
            "'pad' is {} along spatial dim {}; it must be smaller than the kernel, which spans {}",
            pad.text(), d, geometry.extent(d).text())};
  KILN_TRY(spatial,
           window_result(c, geometry, std::span(x).subspan(2), c.attrs.get_bool("ceil_mode")));
  spatial.insert(spatial.begin(), {x[0], x[1]});
  return one_result(c.operands[0].dtype, std::move(spatial));
}

// For one dim and output position: the first element read, how many taps read within the input, and
// how many within input and padding.
struct Taps {
  int64_t first, inner, padded;
};

std::vector<std::vector<Taps>> all_taps(const ConcreteWindow &w,
                                        const std::vector<int64_t> &pad_hi) {
  std::vector<std::vector<Taps>> out(w.in.size());
  for (size_t d = 0; d < w.in.size(); ++d)
    for (int64_t o = 0; o < w.out[d]; ++o) {
      int64_t start = o * w.stride[d] - w.pad_lo[d], step = w.dilation[d];
      // How many taps read below `end`.
      auto taps_below = [&](int64_t end) {
        return end <= start ? int64_t(0) : std::min(w.kernel[d], (end - start - 1) / step + 1);
      };
      int64_t before = taps_below(0), inner = taps_below(w.in[d]) - before;
      out[d].push_back({start + before * step, inner, taps_below(w.in[d] + pad_hi[d])});
    }
  return out;
}

// step folds the elements of each window; finish(fold, elements, elements with padding) is the
// result.
template <typename W, typename Step, typename Finish>
Tensor pool(const RefContext &c, W init, const Step &step, const Finish &finish) {
  const Tensor &x = *c.operands[0];
  Tensor out = make_tensor(c.results[0]);
  auto kernel = c.attrs.get_ints("kernel"), pad = c.attrs.get_ints("pad");
  ConcreteWindow w = concrete_window(c.attrs, std::span(x.dims()).subspan(2), kernel,
                                     std::span(out.dims()).subspan(2));
  size_t rank = w.in.size();
  auto taps = all_taps(w, {pad.begin() + int64_t(rank), pad.end()});
  auto strides = row_major_strides(w.in);
  std::vector<W> plane(size_t(w.in_count())), result(size_t(w.positions()));
  std::vector<int64_t> o(rank), k(rank);
  int64_t planes = w.positions() == 0 ? 0 : out.count() / w.positions();
  for (int64_t n = 0; n < planes; ++n) {
    widen(x, n * w.in_count(), w.in_count(), plane.data());
    std::fill(o.begin(), o.end(), 0);
    for (W &r : result) {
      int64_t inner = 1, padded = 1, base = 0;
      for (size_t d = 0; d < rank; ++d) {
        const Taps &t = taps[d][size_t(o[d])];
        inner *= t.inner;
        padded *= t.padded;
        base += t.first * strides[d];
      }
      W acc = init;
      std::fill(k.begin(), k.end(), 0);
      for (int64_t i = 0; i < inner; ++i) {
        acc = step(acc, plane[size_t(base)]);
        for (size_t d = rank; d-- > 0;) {
          base += w.dilation[d] * strides[d];
          if (++k[d] < taps[d][size_t(o[d])].inner)
            break;
          base -= k[d] * w.dilation[d] * strides[d];
          k[d] = 0;
        }
      }
      r = finish(acc, inner, padded);
      for (size_t d = rank; d-- > 0;) {
        if (++o[d] < w.out[d])
          break;
        o[d] = 0;
      }
    }
    narrow(result.data(), n * w.positions(), w.positions(), out);
  }
  return out;
}

double least_value(DType dtype) {
  return is_float(dtype) ? -std::numeric_limits<double>::infinity() : -std::ldexp(1, 63);
}

Result<std::vector<Tensor>> max_ref(const RefContext &c) {
  DType dtype = c.operands[0]->dtype();
  return std::vector{with_wide_type(dtype, [&]<typename W>() {
    W init = std::is_same_v<W, double> ? W(least_value(dtype))
                                       : W(Tensor::scalar_f64(dtype, least_value(dtype)).at_i64(0));
    auto step = [](W a, W b) {
      if constexpr (std::is_same_v<W, double>)
        if (std::isnan(a) || std::isnan(b))
          return a + b;
      return a < b ? b : a;
    };
    return pool<W>(c, init, step, [](W acc, int64_t, int64_t) { return acc; });
  })};
}

Result<std::vector<Tensor>> avg_ref(const RefContext &c) {
  bool include_pad = c.attrs.get_bool("count_include_pad");
  return std::vector{pool<double>(
      c, 0, [](double a, double b) { return a + b; },
      [=](double acc, int64_t inner, int64_t padded) {
        return acc / double(std::max<int64_t>(include_pad ? padded : inner, 1));
      })};
}

// What both pools read: axes over the taps within the input, and the operand's index.
struct Reads {
  std::vector<ReduceSpec::Axis> axes;
  std::vector<Dim> index;
  Dim inner = 1, padded = 1; // how many elements, without and with padding
};

Reads window_reads(LowerContext &c, std::span<const Dim> index, bool zeros_allowed) {
  const Shape &x = c.operand_type(0).shape;
  Window w = known_window(c.attrs(), c.attrs().get_dims("kernel"));
  bool ceil = c.attrs().get_bool("ceil_mode");
  Reads out;
  out.index = {index[0], index[1]};
  for (size_t d = 0; d < w.rank(); ++d) {
    const Dim &size = x[d + 2], &at = index[d + 2];
    Dim past = overhang(w, d, size, c.result_type().shape[d + 2]);
    // Where the size is not known, at most all of the padding is read, and what rounding up adds.
    if (!past.is_const())
      past = w.pad_hi[d] + Dim(ceil ? w.stride[d] - 1 : 0);
    past = max(past, 0);
    TapRange inner = inner_taps(c, w, d, size, at, past), taps{0, w.kernel[d]};
    if (!zeros_allowed || !c.operand_zero_padded(0, int(d) + 2, w.pad_lo[d], past))
      taps = inner;
    out.inner *= max(inner.end - inner.begin, 0);
    Dim room = size + w.pad_hi[d] - at * Dim(w.stride[d]) + w.pad_lo[d];
    out.padded *= ceil ? c.simplified(min(w.kernel[d], ceildiv(room, w.dilation[d]))) : w.kernel[d];
    Symbol var = fresh_symbol("k");
    out.axes.push_back({var, taps.begin, taps.end});
    out.index.push_back(at * Dim(w.stride[d]) + Dim::symbol(var) * Dim(w.dilation[d]) -
                        w.pad_lo[d]);
  }
  return out;
}

ReduceSpec max_reduce(LowerContext &c, std::span<const Dim> index) {
  Reads reads = window_reads(c, index, false);
  ReduceSpec spec;
  spec.axes = reads.axes;
  spec.combine = BinaryOp::max;
  spec.accumulator = compute_dtype(c.operand_type(0).dtype);
  double least = least_value(spec.accumulator);
  spec.init =
      is_float(spec.accumulator)
          ? kb::number(spec.accumulator, least)
          : kb::integer(spec.accumulator, Tensor::scalar_f64(spec.accumulator, least).at_i64(0));
  spec.term = [at = reads.index](LowerContext &lc) { return lc.operand(0, at); };
  return spec;
}

ReduceSpec avg_reduce(LowerContext &c, std::span<const Dim> index) {
  Reads reads = window_reads(c, index, true);
  ReduceSpec spec;
  spec.axes = reads.axes;
  spec.accumulator = compute_dtype(c.operand_type(0).dtype);
  spec.init = kb::number(spec.accumulator, 0);
  spec.term = [at = reads.index](LowerContext &lc) { return lc.operand(0, at); };
  Dim count =
      c.simplified(max(1, c.attrs().get_bool("count_include_pad") ? reads.padded : reads.inner));
  spec.finish = [count](Expr acc) {
    DType dtype = acc.dtype;
    Expr n = count.is_const() ? kb::number(dtype, double(count.as_const()))
                              : kb::convert(dtype, kb::index(count));
    return kb::div(std::move(acc), std::move(n));
  };
  return spec;
}

std::vector<OpSample> samples(bool average) {
  std::vector<OpSample> out;
  auto add = [&](DType dtype, Shape x, std::vector<Dim> kernel, std::vector<Dim> stride,
                 std::vector<Dim> pad, std::vector<Dim> dilation, bool ceil, bool include_pad) {
    OpSample s{{{dtype, std::move(x)}},
               {{"kernel", std::move(kernel)},
                {"stride", std::move(stride)},
                {"pad", std::move(pad)},
                {"dilation", std::move(dilation)},
                {"ceil_mode", ceil}},
               is_unsigned_int(dtype) ? 0.0 : -4.0,
               4};
    if (average)
      s.attrs.set("count_include_pad", include_pad);
    out.push_back(std::move(s));
  };
  for (DType dtype :
       {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i32, DType::i8, DType::u8})
    if (is_float(dtype) || !average)
      add(dtype, {2, 3, 8, 6}, {2, 2}, {2, 2}, {0, 0, 0, 0}, {1, 1}, false, false);
  DType f = DType::f32;
  for (bool include_pad : {false, true}) {
    if (include_pad && !average)
      break;
    add(f, {1, 3, 9, 7}, {3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}, false, include_pad);
    add(f, {1, 2, 8, 7}, {3, 2}, {2, 3}, {0, 1, 1, 0}, {1, 1}, true, include_pad);
    add(f, {1, 2, 5, 6}, {2, 2}, {2, 4}, {0, 1, 0, 1}, {1, 1}, true,
        include_pad); // the last window starts in padding
    add(f, {1, 2, 9, 9}, {3, 3}, {1, 1}, {2, 1, 2, 1}, {2, 2}, false, include_pad);
    add(f, {2, 3, 11}, {4}, {3}, {1, 2}, {1}, false, include_pad);
    add(f, {1, 2, 4, 5, 6}, {2, 3, 2}, {1, 2, 2}, {1, 1, 0, 0, 1, 1}, {1, 1, 1}, false,
        include_pad);
    add(f, {1, 5, 7, 7}, {7, 7}, {1, 1}, {0, 0, 0, 0}, {1, 1}, false, include_pad);
  }
  add(f, {0, 3, 5, 5}, {2, 2}, {1, 1}, {0, 0, 0, 0}, {1, 1}, false, false);
  return out;
}

const std::vector<AttrSpec> kWindowAttrs = {
    {"kernel", AttrKind::dims},
    {"stride", AttrKind::dims},
    {"pad", AttrKind::dims, std::nullopt, "before each spatial dim, then after"},
    {"dilation", AttrKind::dims},
    {"ceil_mode", AttrKind::boolean, Attr(false), "keep a last window that hangs over the end"}};

std::vector<AttrSpec> avg_attrs() {
  std::vector<AttrSpec> out = kWindowAttrs;
  out.push_back({"count_include_pad", AttrKind::boolean, Attr(false),
                 "divide by the padding's elements too"});
  return out;
}

} // namespace

const OpDef op_max_pool{
    .name = "max_pool",
    .doc = "The greatest element of each window over the spatial dims of x[N, C, spatial...]; NaN "
           "where there is one.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = kWindowAttrs,
    .infer = infer<kNumbers>,
    .ref = max_ref,
    .reduce = max_reduce,
    .traits = kWindow | kExpensive,
    .samples = samples(false),
};

const OpDef op_avg_pool{
    .name = "avg_pool",
    .doc = "The mean of each window over the spatial dims of x[N, C, spatial...].",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = avg_attrs(),
    .infer = infer<kFloats>,
    .ref = avg_ref,
    .reduce = avg_reduce,
    .traits = kWindow | kExpensive,
    .samples = samples(true),
};

} // namespace kiln
