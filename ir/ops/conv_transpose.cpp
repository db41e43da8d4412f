// conv_transpose: each element of x spreads a window of products over the result. In code it is
// gathered instead: the taps that reach output position o are those whose distance to o is a
// multiple of the stride, which is solved for the tap, so that no loop has a condition in it.
#include "ir/ops/contraction.h"
#include "ir/ops/elementwise.h"

#include <fmt/format.h>
#include <numeric>
#include <utility>

namespace kiln {
namespace {

using elementwise::InferResult;

InferResult infer(InferContext &c) {
  KILN_RETURN_IF_ERROR(check_kinds(c, 0, kNumbers));
  KILN_RETURN_IF_ERROR(same_dtype(c));
  KILN_RETURN_IF_ERROR(check_rank_at_least(c, 0, 3));
  KILN_RETURN_IF_ERROR(check_rank(c, 1, c.operands[0].rank()));
  const Shape &x = c.operands[0].shape, &w = c.operands[1].shape;
  KILN_TRY(groups, int_attr(c.attrs, "groups"));
  if (groups < 1 || groups > (int64_t(1) << 31))
    return Error{fmt::format("'groups' is {}; it must be at least 1", groups)};
  if (!c.require_equal(x[1], w[0]))
    return Error{fmt::format(
        "Given transposed weight of size {}, expected input{} to have {} channels, but got {} "
        "channels instead",
        shape_text(w), shape_text(x), w[0].text(), x[1].text())};
  if (!mod(w[0], groups).is_const(0))
    return Error{fmt::format("the weight has {} input channels; 'groups', {}, must divide that",
                             w[0].text(), groups)};
  KILN_TRY(geometry, read_window(c, std::vector<Dim>(w.begin() + 2, w.end())));
  KILN_TRY(extra, ints_attr(c.attrs, "output_padding", geometry.rank(), 0));
  Dim channels = w[1] * Dim(groups);
  Shape shape{x[0], channels};
  for (size_t d = 0; d < geometry.rank(); ++d)
    shape.push_back((x[d + 2] - Dim(1)) * Dim(geometry.stride[d]) + geometry.extent(d) -
                    geometry.pad_lo[d] - geometry.pad_hi[d] + Dim(extra[d]));
  KILN_RETURN_IF_ERROR(nonnegative_dims(c, shape, "the result's shape"));
  if (c.operands.size() > 2)
    KILN_RETURN_IF_ERROR(
        equal_shapes(c, c.operands[2].shape, {channels}, "the bias and the output channels"));
  return one_result(c.operands[0].dtype, std::move(shape));
}

template <typename A>
Tensor conv_transpose_wide(const RefContext &c) {
  const Tensor &x = *c.operands[0], &weight = *c.operands[1];
  Tensor out = make_tensor(c.results[0]);
  if (out.count() == 0)
    return out;
  // As a convolution's window, with the roles of input and result exchanged.
  ConcreteWindow w =
      concrete_window(c.attrs, std::span(out.dims()).subspan(2),
                      std::span(weight.dims()).subspan(2), std::span(x.dims()).subspan(2));
  int64_t groups = c.attrs.get_int("groups"), batch = x.dims()[0];
  int64_t in_group = weight.dims()[0] / groups, out_group = weight.dims()[1];
  int64_t taps = w.taps(), positions = w.positions(), rows = out_group * taps, plane = w.in_count();
  int64_t chunk = std::clamp<int64_t>((int64_t(1) << 22) / std::max<int64_t>(rows, 1), 1,
                                      std::max<int64_t>(positions, 1));
  auto a = widen_all<A>(weight);
  std::vector<A> flipped(size_t(rows * in_group)), columns, in, sum(size_t(out_group * plane));
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t ic = 0; ic < in_group; ++ic)
      for (int64_t r = 0; r < rows; ++r)
        flipped[size_t(r * in_group + ic)] = a[size_t((g * in_group + ic) * rows + r)];
    for (int64_t n = 0; n < batch; ++n) {
      for (int64_t oc = 0; oc < out_group; ++oc) {
        A bias = 0;
        if (c.operands.size() > 2)
          widen(*c.operands[2], g * out_group + oc, 1, &bias);
        std::fill_n(sum.data() + oc * plane, plane, bias);
      }
      for (int64_t begin = 0; begin < positions; begin += chunk) {
        int64_t end = std::min(begin + chunk, positions), width = end - begin;
        in.resize(size_t(in_group * width));
        for (int64_t ic = 0; ic < in_group; ++ic)
          widen(x, ((n * groups + g) * in_group + ic) * positions + begin, width,
                in.data() + ic * width);
        columns.assign(size_t(rows * width), A(0));
        accumulate_product(flipped.data(), in.data(), columns.data(), rows, width, in_group);
        for (int64_t oc = 0; oc < out_group; ++oc)
          scatter_columns(w, columns.data() + oc * taps * width, begin, end,
                          sum.data() + oc * plane);
      }
      narrow(sum.data(), (n * groups + g) * out_group * plane, out_group * plane, out);
    }
  }
  return out;
}

Result<std::vector<Tensor>> ref(const RefContext &c) {
  return std::vector{with_contraction_type(
      c.operands[0]->dtype(), [&]<typename A>() { return conv_transpose_wide<A>(c); })};
}

// x in [0, m) with a * x = 1 modulo m, for coprime a and m, by Euclid's algorithm.
int64_t inverse_modulo(int64_t a, int64_t m) {
  int64_t r0 = m, r1 = a % m, x0 = 0, x1 = 1;
  while (r1 != 0) {
    int64_t q = r0 / r1;
    r0 = std::exchange(r1, r0 - q * r1);
    x0 = std::exchange(x1, x0 - q * x1);
  }
  return x0 < 0 ? x0 + m : x0;
}

// Taps k and elements i with i * stride + k * dilation = p, where p is the padded output position.
// With g = gcd(stride, dilation) they are, for t = 0, 1, ..., and only if g divides p:
//   k = r + t * stride/g,   i = q - t * dilation/g
struct Solution {
  Dim begin, end; // of t
  Dim k0, i0;     // at t = 0
  int64_t k_step, i_step;
};

Solution solve(LowerContext &c, const Dim &p, int64_t stride, int64_t dilation, const Dim &kernel,
               const Dim &size) {
  int64_t g = std::gcd(stride, dilation), s = stride / g, d = dilation / g;
  Dim r = s == 1 ? Dim(0) : c.simplified(mod(floordiv(p, g) * Dim(inverse_modulo(d, s)), s));
  Dim q = c.simplified(floordiv(dilation == 1 ? p : p - r * Dim(dilation), stride));
  Solution out{0, 0, r, q, s, d};
  out.begin = c.simplified(max(0, ceildiv(q - size + Dim(1), d)));
  out.end = c.simplified(min(ceildiv(kernel - r, s), floordiv(q, d) + Dim(1)));
  if (g > 1)
    out.end *= Dim(1) - min(1, mod(p, g));
  return out;
}

ReduceSpec reduce(LowerContext &c, std::span<const Dim> index) {
  const Shape &x = c.operand_type(0).shape, &weight = c.operand_type(1).shape;
  Window w = known_window(c.attrs(), std::vector<Dim>(weight.begin() + 2, weight.end()));
  Dim groups = c.attrs().get_int("groups");
  ReduceSpec spec;
  spec.accumulator = compute_dtype(c.operand_type(0).dtype);
  spec.init = kb::constant(spec.accumulator, 0);
  Dim in_group = floordiv(weight[0], groups), oc = index[1];
  Dim group = c.simplified(floordiv(oc, weight[1]));
  Symbol channel = fresh_symbol("ic");
  spec.axes.push_back({channel, 0, in_group});
  Dim ic = (groups.is_const(1) ? Dim(0) : group) * in_group + Dim::symbol(channel);
  std::vector<Dim> at_x{index[0], ic},
      at_w{ic, groups.is_const(1) ? oc : c.simplified(mod(oc, weight[1]))};
  std::vector<int64_t> extra = c.attrs().get_ints("output_padding");
  for (size_t d = 0; d < w.rank(); ++d) {
    Solution taps =
        solve(c, index[d + 2] + w.pad_lo[d], w.stride[d], w.dilation[d], w.kernel[d], x[d + 2]);
    // So far behind the last element, or between the taps, the range would end before it begins.
    if (extra[d] >= w.stride[d] || w.dilation[d] > 1 || w.pad_hi[d].try_const().value_or(-1) < 0)
      taps.end = c.simplified(max(taps.begin, taps.end));
    // Taps that read a zero beside x may be counted in: then every position of a phase has as many.
    Dim all = c.simplified(ceildiv(w.kernel[d] - taps.k0, taps.k_step));
    if (w.dilation[d] == 1 && all.is_const()) {
      Dim past = taps.i0 - x[d + 2] + Dim(1), before = all - Dim(1) - taps.i0;
      if (c.operand_zero_padded(0, int(d) + 2, before, past)) {
        taps.begin = 0;
        taps.end = all;
      }
    }
    Symbol var = fresh_symbol("t");
    spec.axes.push_back({var, taps.begin, taps.end});
    Dim t = Dim::symbol(var);
    at_x.push_back(taps.i0 - t * Dim(taps.i_step));
    at_w.push_back(taps.k0 + t * Dim(taps.k_step));
  }
  spec.term = [at_x, at_w](LowerContext &lc) {
    return kb::mul(lc.operand(0, at_x), lc.operand(1, at_w));
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
                 std::vector<Dim> pad, std::vector<Dim> dilation, std::vector<Dim> extra,
                 int64_t groups) {
    OpSample s{{{dtype, std::move(x)}, {dtype, w}},
               {{"stride", std::move(stride)},
                {"pad", std::move(pad)},
                {"dilation", std::move(dilation)},
                {"output_padding", std::move(extra)},
                {"groups", Dim(groups)}},
               is_unsigned_int(dtype) ? 0.0 : -2.0,
               2};
    if (bias)
      s.operands.push_back({dtype, {w[1] * Dim(groups)}});
    out.push_back(std::move(s));
  };
  for (DType dtype : {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i32})
    add(dtype, {2, 3, 4, 5}, {3, 4, 3, 3}, true, {2, 2}, {1, 1, 1, 1}, {1, 1}, {1, 1}, 1);
  DType f = DType::f32;
  add(f, {1, 2, 5, 4}, {2, 3, 3, 2}, false, {1, 1}, {0, 0, 0, 0}, {1, 1}, {0, 0}, 1);
  add(f, {1, 2, 4, 4}, {2, 3, 2, 4}, false, {2, 3}, {0, 1, 1, 0}, {1, 1}, {0, 0}, 1);
  add(f, {1, 2, 5, 5}, {2, 2, 3, 3}, false, {1, 1}, {1, 2, 2, 1}, {2, 3}, {0, 0}, 1); // dilated
  add(f, {1, 2, 5, 5}, {2, 2, 3, 3}, true, {2, 3}, {1, 0, 1, 0}, {3, 2}, {0, 1},
      1); // coprime stride and dilation
  add(f, {1, 2, 5, 4}, {2, 2, 3, 2}, true, {4, 2}, {1, 0, 0, 1}, {2, 2}, {1, 0},
      1); // with a common factor
  add(f, {2, 6, 4, 4}, {6, 2, 3, 3}, true, {2, 2}, {1, 1, 1, 1}, {1, 1}, {0, 0}, 3);  // groups
  add(f, {1, 4, 4, 4}, {4, 1, 2, 2}, false, {2, 2}, {0, 0, 0, 0}, {1, 1}, {0, 0}, 4); // depthwise
  add(f, {2, 3, 7}, {3, 2, 4}, true, {3}, {1, 1}, {1}, {0}, 1);
  add(f, {1, 2, 2, 3, 2}, {2, 2, 2, 3, 2}, false, {2, 1, 2}, {0, 1, 0, 0, 1, 0}, {1, 1, 1},
      {0, 0, 0}, 1);
  return out;
}

} // namespace

const OpDef op_conv_transpose{
    .name = "conv_transpose",
    .doc =
        "The gradient of a convolution as an op of its own: x[N, C, spatial...] with w[C, "
        "M/groups, k...], plus "
        "bias[M]; pad takes elements off the result. f16 and bf16 accumulate in f32. (x, w, bias?)",
    .min_operands = 2,
    .max_operands = 3,
    .attrs = {{"stride", AttrKind::dims},
              {"pad", AttrKind::dims, std::nullopt,
               "taken off before each spatial dim, then after"},
              {"dilation", AttrKind::dims},
              {"output_padding", AttrKind::dims, std::nullopt, "added after each spatial dim"},
              {"groups", AttrKind::integer, Attr(Dim(1))}},
    .infer = infer,
    .ref = ref,
    .reduce = reduce,
    .traits = kContraction | kExpensive,
    .samples = samples(),
};

} // namespace kiln
