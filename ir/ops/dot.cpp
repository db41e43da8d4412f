// dot: matrix products with broadcast batch dims.
#include "ir/ops/contraction.h"
#include "ir/ops/elementwise.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using elementwise::InferResult;

InferResult infer(InferContext &c) {
  KILN_RETURN_IF_ERROR(check_kinds(c, 0, kNumbers));
  KILN_TRY(dtype, contraction_dtype(c));
  KILN_RETURN_IF_ERROR(check_rank_at_least(c, 0, 2));
  KILN_RETURN_IF_ERROR(check_rank_at_least(c, 1, 2));
  const Shape &a = c.operands[0].shape, &b = c.operands[1].shape;
  bool transposed = c.attrs.get_bool("transpose_b");
  const Dim &n = b[b.size() - (transposed ? 2 : 1)], &kb = b[b.size() - (transposed ? 1 : 2)];
  const Dim &m = a[a.size() - 2], &ka = a[a.size() - 1];
  if (!c.require_equal(ka, kb))
    return Error{fmt::format(
        "mat1 and mat2 shapes cannot be multiplied ({}x{} and {}x{}); the operands are {} "
        "and {}{}",
        m.text(), ka.text(), kb.text(), n.text(), c.operands[0].text(), c.operands[1].text(),
        transposed ? ", the second transposed" : "")};
  KILN_TRY(shape,
           broadcast_shapes(c, Shape(a.begin(), a.end() - 2), Shape(b.begin(), b.end() - 2)));
  shape.push_back(m);
  shape.push_back(n);
  if (c.operands.size() > 2)
    KILN_RETURN_IF_ERROR(broadcasts_to(c, c.operands[2].shape, shape));
  return one_result(dtype, std::move(shape));
}

// Which matrix of an operand belongs to each matrix of the result.
std::vector<int64_t> batch_of(const Tensor &operand, const std::vector<int64_t> &result) {
  std::vector<int64_t> dims(operand.dims().begin(), operand.dims().end() - 2);
  std::vector<int64_t> batch(result.begin(), result.end() - 2);
  Tensor numbers(DType::i64, dims);
  for (int64_t i = 0; i < numbers.count(); ++i)
    numbers.set_i64(i, i);
  std::vector<int64_t> out(size_t(product(batch)));
  BroadcastReader<int64_t>(numbers, batch).read(int64_t(out.size()), out.data());
  return out;
}

// c[m, n] += a[m, k] b[n, k]: for a few rows, where transposing b would cost more than the product.
// Four sums side by side, so that one does not wait for the other.
template <typename A>
void accumulate_transposed(const A *a, const A *b, A *c, int64_t m, int64_t n, int64_t k) {
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = 0; i < m; ++i) {
      const A *x = a + i * k, *y = b + j * k;
      A sum[4] = {};
      int64_t p = 0;
      for (; p + 4 <= k; p += 4)
        for (int64_t q = 0; q < 4; ++q)
          sum[q] += x[p + q] * y[p + q];
      for (; p < k; ++p)
        sum[0] += x[p] * y[p];
      c[i * n + j] += (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
}

template <typename A>
Tensor dot_wide(const RefContext &c) {
  const Tensor &x = *c.operands[0], &y = *c.operands[1];
  Tensor out = make_tensor(c.results[0]);
  int64_t m = out.dims()[out.dims().size() - 2], n = out.dims().back(), k = x.dims().back();
  if (out.count() == 0)
    return out;
  auto a = widen_all<A>(x), b = widen_all<A>(y);
  bool direct = c.attrs.get_bool("transpose_b") && m <= 8;
  if (c.attrs.get_bool("transpose_b") && !direct) {
    std::vector<A> flipped(b.size());
    for (size_t base = 0; base < b.size(); base += size_t(n * k))
      for (int64_t i = 0; i < n; ++i)
        for (int64_t p = 0; p < k; ++p)
          flipped[base + size_t(p * n + i)] = b[base + size_t(i * k + p)];
    b = std::move(flipped);
  }
  std::vector<A> sum(size_t(out.count()));
  auto batch_a = batch_of(x, out.dims()), batch_b = batch_of(y, out.dims());
  for (size_t i = 0; i < batch_a.size(); ++i) {
    const A *left = a.data() + batch_a[i] * m * k, *right = b.data() + batch_b[i] * k * n;
    A *to = sum.data() + int64_t(i) * m * n;
    if (direct)
      accumulate_transposed(left, right, to, m, n, k);
    else
      accumulate_product(left, right, to, m, n, k);
  }
  if (c.operands.size() > 2) {
    std::vector<A> bias(sum.size());
    BroadcastReader<A>(*c.operands[2], out.dims()).read(out.count(), bias.data());
    for (size_t i = 0; i < sum.size(); ++i)
      sum[i] += bias[i];
  }
  narrow(sum.data(), 0, out.count(), out);
  return out;
}

Result<std::vector<Tensor>> ref(const RefContext &c) {
  return std::vector{
      with_contraction_type(c.operands[0]->dtype(), [&]<typename A>() { return dot_wide<A>(c); })};
}

// The part of a result's index that addresses an operand broadcast to it, by the first `count` dims
// of it.
std::vector<Dim> broadcast_index(const Shape &shape, size_t count, std::span<const Dim> index) {
  std::vector<Dim> out;
  for (size_t i = 0; i < count; ++i)
    out.push_back(shape[i].is_const(1) ? Dim(0) : index[index.size() - count + i]);
  return out;
}

ReduceSpec reduce(LowerContext &c, std::span<const Dim> index) {
  const Shape &a = c.operand_type(0).shape, &b = c.operand_type(1).shape;
  bool transposed = c.attrs().get_bool("transpose_b");
  auto batch = index.first(index.size() - 2);
  std::vector<Dim> at_a = broadcast_index(a, a.size() - 2, batch),
                   at_b = broadcast_index(b, b.size() - 2, batch);
  Symbol var = fresh_symbol("k");
  Dim m = index[index.size() - 2], n = index.back(), k = Dim::symbol(var);
  at_a.insert(at_a.end(), {m, k});
  at_b.insert(at_b.end(), {transposed ? n : k, transposed ? k : n});
  ReduceSpec spec;
  spec.axes = {{var, 0, a.back()}};
  spec.accumulator = compute_dtype(c.result_type().dtype);
  spec.init = kb::constant(spec.accumulator, 0);
  spec.term = [at_a, at_b, sum = spec.accumulator](LowerContext &lc) {
    return kb::mul(kb::convert(sum, lc.operand(0, at_a)), kb::convert(sum, lc.operand(1, at_b)));
  };
  if (c.node().operands.size() > 2) {
    const Shape &bias = c.operand_type(2).shape;
    spec.finish = [&c, at = broadcast_index(bias, bias.size(), index)](Expr acc) {
      return kb::add(std::move(acc), c.operand(2, at));
    };
  }
  return spec;
}

std::vector<OpSample> samples() {
  std::vector<OpSample> out;
  auto add = [&](DType dtype, std::vector<Shape> shapes, bool transposed) {
    OpSample s{{}, {{"transpose_b", transposed}}, is_unsigned_int(dtype) ? 0.0 : -2.0, 2};
    for (Shape &shape : shapes)
      s.operands.push_back({dtype, std::move(shape)});
    out.push_back(std::move(s));
  };
#define KILN_DTYPE(name, bits, kind, code)                                                         \
  if (!is_bool(DType::name) && !is_narrow(DType::name))                                                                       \
    add(DType::name, {{3, 17}, {17, 5}, {5}}, false);
#include "ir/dtypes.def"
#undef KILN_DTYPE
  out.push_back({{{DType::u8, {6, 24}}, {DType::i8, {24, 37}}, {DType::i32, {37}}},
                 {{"transpose_b", false}},
                 0,
                 100});
  add(DType::f32, {{1, 1}, {1, 1}}, false);
  add(DType::f32, {{33, 65}, {65, 49}}, false);
  add(DType::f32, {{7, 9}, {13, 9}, {13}}, true);
  add(DType::f32, {{19, 9}, {13, 9}}, true);
  add(DType::f32, {{2, 3, 4, 5}, {2, 3, 5, 6}}, false);
  add(DType::f32, {{2, 1, 4, 5}, {3, 6, 5}}, true);
  add(DType::f32, {{4, 5}, {3, 5, 6}, {4, 1}}, false);
  add(DType::f32, {{3, 0}, {0, 4}}, false);
  add(DType::f32, {{0, 3}, {3, 4}}, false);
  return out;
}

} // namespace

const OpDef op_dot{
    .name = "dot",
    .doc = "The matrix products a[..., M, K] b[..., K, N], plus a bias that broadcasts to the "
           "result. Batch dims "
           "broadcast. f16 and bf16 accumulate in f32; u8 with i8 gives i32. (a, b, bias?)",
    .min_operands = 2,
    .max_operands = 3,
    .attrs = {{"transpose_b", AttrKind::boolean, Attr(false), "b is [..., N, K]"}},
    .infer = infer,
    .ref = ref,
    .reduce = reduce,
    .traits = kContraction | kExpensive,
    .samples = samples(),
};

} // namespace kiln
