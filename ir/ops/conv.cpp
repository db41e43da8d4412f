// conv: convolution over any number of spatial dims, with groups.
#include "ir/ops/contraction.h"
#include "ir/ops/elementwise.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using elementwise::InferResult;

InferResult infer(InferContext &c) {
  KILN_RETURN_IF_ERROR(check_kinds(c, 0, kNumbers));
  KILN_TRY(dtype, contraction_dtype(c));
  KILN_RETURN_IF_ERROR(check_rank_at_least(c, 0, 3));
  KILN_RETURN_IF_ERROR(check_rank(c, 1, c.operands[0].rank()));
  const Shape &x = c.operands[0].shape, &w = c.operands[1].shape;
  KILN_TRY(groups, int_attr(c.attrs, "groups"));
  if (groups < 1 || groups > (int64_t(1) << 31))
    return Error{fmt::format("'groups' is {}; it must be at least 1", groups)};
  if (!c.require_equal(x[1], w[1] * Dim(groups)))
    return Error{fmt::format(
        "Given groups={}, weight of size {}, expected input{} to have {} channels, but got "
        "{} channels instead",
        groups, shape_text(w), shape_text(x), (w[1] * Dim(groups)).text(), x[1].text())};
  if (!mod(w[0], groups).is_const(0))
    return Error{fmt::format("the weight has {} output channels; 'groups', {}, must divide that",
                             w[0].text(), groups)};
  KILN_TRY(geometry, read_window(c, std::vector<Dim>(w.begin() + 2, w.end())));
  KILN_TRY(spatial, window_result(c, geometry, std::span(x).subspan(2), false));
  if (c.operands.size() > 2)
    KILN_RETURN_IF_ERROR(
        equal_shapes(c, c.operands[2].shape, {w[0]}, "the bias and the output channels"));
  spatial.insert(spatial.begin(), {x[0], w[0]});
  return one_result(dtype, std::move(spatial));
}

template <typename A>
Tensor conv_wide(const RefContext &c) {
  const Tensor &x = *c.operands[0], &weight = *c.operands[1];
  Tensor out = make_tensor(c.results[0]);
  if (out.count() == 0)
    return out;
  ConcreteWindow w =
      concrete_window(c.attrs, std::span(x.dims()).subspan(2), std::span(weight.dims()).subspan(2),
                      std::span(out.dims()).subspan(2));
  int64_t groups = c.attrs.get_int("groups"), batch = x.dims()[0];
  int64_t in_group = weight.dims()[1], out_group = weight.dims()[0] / groups;
  int64_t taps = w.taps(), positions = w.positions(), k = in_group * taps;
  int64_t chunk = std::clamp<int64_t>((int64_t(1) << 22) / std::max<int64_t>(k, 1), 1, positions);
  auto a = widen_all<A>(weight);
  std::vector<A> columns(size_t(k * chunk)), sum(size_t(out_group * chunk)),
      plane(size_t(w.in_count()));
  std::vector<A> bias(size_t(weight.dims()[0]));
  if (c.operands.size() > 2)
    bias = widen_all<A>(*c.operands[2]);
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t begin = 0; begin < positions; begin += chunk) {
        int64_t end = std::min(begin + chunk, positions), width = end - begin;
        for (int64_t ic = 0; ic < in_group; ++ic) {
          widen(x, ((n * groups + g) * in_group + ic) * w.in_count(), w.in_count(), plane.data());
          gather_columns(w, plane.data(), begin, end, columns.data() + ic * taps * width);
        }
        for (int64_t oc = 0; oc < out_group; ++oc)
          std::fill_n(sum.data() + oc * width, width, bias[size_t(g * out_group + oc)]);
        accumulate_product(a.data() + g * out_group * k, columns.data(), sum.data(), out_group,
                           width, k);
        for (int64_t oc = 0; oc < out_group; ++oc)
          narrow(sum.data() + oc * width, ((n * groups + g) * out_group + oc) * positions + begin,
                 width, out);
      }
  return out;
}

Result<std::vector<Tensor>> ref(const RefContext &c) {
  return std::vector{
      with_contraction_type(c.operands[0]->dtype(), [&]<typename A>() { return conv_wide<A>(c); })};
}

// An axis over [begin, end), or its only index where there is just one.
Dim add_axis(ReduceSpec &spec, std::string_view stem, const Dim &begin, const Dim &end) {
  if ((end - begin).is_const(1))
    return begin;
  Symbol var = fresh_symbol(stem);
  spec.axes.push_back({var, begin, end});
  return Dim::symbol(var);
}

// Taps that read nothing but padding for a whole line of results are left out even where a halo of
// zeros is there to be read, once the line and the sum over channels make up for the bounds. In large
// images such lines are rare, and plain bounds make better addresses.
bool leaves_out_padding(LowerContext &c, const Window &w, size_t d) {
  constexpr int64_t kLeastLine = 4, kLeastChannels = 16, kMostLines = 16;
  auto at_least = [](const Dim &n, int64_t least) { return n.is_const() && n.as_const() >= least; };
  const Shape &weight = c.operand_type(1).shape;
  const Dim &lines = c.result_type().shape[d + 2];
  return d + 1 < w.rank() && lines.is_const() && lines.as_const() <= kMostLines && at_least(weight[0], kLeastChannels) &&
         at_least(weight[1], kLeastChannels) && at_least(c.result_type().shape.back(), kLeastLine) &&
         w.pad_lo[d].is_const();
}

ReduceSpec reduce(LowerContext &c, std::span<const Dim> index) {
  const Shape &x = c.operand_type(0).shape, &weight = c.operand_type(1).shape;
  Window w = known_window(c.attrs(), std::vector<Dim>(weight.begin() + 2, weight.end()));
  int64_t groups = c.attrs().get_int("groups");
  ReduceSpec spec;
  spec.accumulator = compute_dtype(c.result_type().dtype);
  spec.init = kb::constant(spec.accumulator, 0);
  Dim oc = index[1], ic = add_axis(spec, "ic", 0, weight[1]);
  Dim group = groups == 1 ? Dim(0) : floordiv(oc, floordiv(weight[0], groups));
  std::vector<Dim> at_x{index[0], group * weight[1] + ic}, at_w{oc, ic};
  for (size_t d = 0; d < w.rank(); ++d) {
    const Dim &size = x[d + 2], &at = index[d + 2];
    Dim past = overhang(w, d, size, c.result_type().shape[d + 2]);
    // Where the size is not known, at most all of the padding is read.
    if (!past.is_const())
      past = w.pad_hi[d];
    past = max(past, 0);
    TapRange taps{0, w.kernel[d]};
    if (leaves_out_padding(c, w, d) ||
        !c.operand_zero_padded(0, int(d) + 2, w.pad_lo[d], past))
      taps = inner_taps(c, w, d, size, at, past);
    Dim k = add_axis(spec, "k", taps.begin, taps.end);
    at_x.push_back(at * Dim(w.stride[d]) + k * Dim(w.dilation[d]) - w.pad_lo[d]);
    at_w.push_back(k);
  }
  spec.term = [at_x, at_w, sum = spec.accumulator](LowerContext &lc) {
    return kb::mul(kb::convert(sum, lc.operand(0, at_x)), kb::convert(sum, lc.operand(1, at_w)));
  };
  if (c.node().operands.size() > 2)
    spec.finish = [&c, oc](Expr acc) {
      return kb::add(std::move(acc), c.operand(2, std::vector{oc}));
    };
  return spec;
}

std::vector<OpSample> samples() {
  std::vector<OpSample> out;
  auto add = [&](DType dtype, Shape x, Shape w, bool bias, std::vector<Dim> stride,
                 std::vector<Dim> pad, std::vector<Dim> dilation, int64_t groups) {
    OpSample s{{{dtype, std::move(x)}, {dtype, w}},
               {{"stride", std::move(stride)},
                {"pad", std::move(pad)},
                {"dilation", std::move(dilation)},
                {"groups", Dim(groups)}},
               is_unsigned_int(dtype) ? 0.0 : -2.0,
               2};
    if (bias)
      s.operands.push_back({dtype, {w[0]}});
    out.push_back(std::move(s));
  };
  for (DType dtype :
       {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i32, DType::i8, DType::u8})
    add(dtype, {2, 3, 7, 5}, {4, 3, 3, 3}, true, {1, 1}, {1, 1, 1, 1}, {1, 1}, 1);
  DType f = DType::f32;
  add(f, {1, 3, 9, 11}, {5, 3, 3, 2}, false, {2, 3}, {0, 1, 1, 0}, {1, 1},
      1); // strides, lopsided padding
  add(f, {1, 2, 10, 10}, {3, 2, 3, 3}, false, {1, 2}, {2, 2, 2, 2}, {2, 3}, 1); // dilated
  add(f, {1, 6, 6, 6}, {6, 1, 3, 3}, true, {1, 1}, {1, 1, 1, 1}, {1, 1}, 6);    // depthwise
  add(f, {2, 3, 5, 5}, {6, 1, 3, 3}, false, {2, 2}, {1, 1, 1, 1}, {1, 1}, 3);   // a multiplier of 2
  add(f, {1, 8, 5, 5}, {6, 4, 3, 3}, true, {1, 1}, {0, 0, 0, 0}, {1, 1}, 2);    // groups
  add(f, {1, 64, 4, 5}, {48, 32, 1, 3}, true, {1, 1}, {0, 1, 0, 1}, {1, 1}, 2); // of whole and of ragged blocks
  add(f, {1, 32, 6, 5}, {64, 16, 3, 1}, true, {2, 1}, {1, 0, 1, 0}, {1, 1}, 2); // of blocks
  add(f, {1, 17, 4, 4}, {19, 17, 1, 1}, true, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1); // pointwise
  add(f, {1, 3, 23, 23}, {16, 3, 7, 7}, false, {2, 2}, {3, 3, 3, 3}, {1, 1},
      1);                                                   // the stem of a ResNet
  add(f, {2, 3, 13}, {4, 3, 5}, true, {2}, {2, 2}, {1}, 1); // one dim
  add(f, {1, 2, 4, 5, 3}, {3, 2, 2, 3, 3}, true, {1, 1, 1}, {0, 1, 1, 1, 1, 1}, {1, 1, 1},
      1); // three
  auto mixed = [&](Shape x, Shape w, std::vector<Dim> pad, int64_t groups) {
    out.push_back({{{DType::u8, std::move(x)}, {DType::i8, w}, {DType::i32, {w[0]}}},
                   {{"stride", std::vector<Dim>{1, 1}},
                    {"pad", std::move(pad)},
                    {"dilation", std::vector<Dim>{1, 1}},
                    {"groups", Dim(groups)}},
                   0,
                   100});
  };
  mixed({1, 20, 6, 7}, {18, 20, 3, 3}, {1, 1, 1, 1}, 1);
  mixed({2, 16, 5, 5}, {16, 1, 3, 3}, {1, 1, 1, 1}, 16);
  add(f, {0, 3, 5, 5}, {2, 3, 3, 3}, false, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1);
  return out;
}

} // namespace

const OpDef op_conv{
    .name = "conv",
    .doc = "Convolution (cross-correlation) of x[N, C, spatial...] with w[M, C/groups, k...], plus "
           "bias[M]. "
           "f16 and bf16 accumulate in f32; u8 with i8 gives i32. (x, w, bias?)",
    .min_operands = 2,
    .max_operands = 3,
    .attrs = {{"stride", AttrKind::dims},
              {"pad", AttrKind::dims, std::nullopt,
               "zeros before each spatial dim, then those after"},
              {"dilation", AttrKind::dims},
              {"groups", AttrKind::integer, Attr(Dim(1))}},
    .infer = infer,
    .ref = ref,
    .reduce = reduce,
    .traits = kContraction | kExpensive,
    .samples = samples(),
};

} // namespace kiln
