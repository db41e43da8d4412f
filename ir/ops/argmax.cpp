// argmax and argmin: where the extreme element of an axis is. A pair (value, index) is carried
// along a serial loop. NaN counts as extreme, so that it is found as reduce_max hands it on.
#include "ir/ops/elementwise.h"

#include <cmath>

namespace kiln {
namespace {

using namespace elementwise;

InferResult infer(InferContext &c) {
  KILN_RETURN_IF_ERROR(check_kinds(c, 0, kNumbers));
  const TensorType &x = c.operands[0];
  KILN_TRY(axis, axis_attr(c.attrs, "axis", x.rank()));
  if (x.shape[size_t(axis)].is_const(0))
    return Error{"there is no extreme element along axis " + std::to_string(axis) + " of " +
                 x.text() + ": it has no elements"};
  Shape shape = x.shape;
  if (c.attrs.get_bool("keepdims"))
    shape[size_t(axis)] = 1;
  else
    shape.erase(shape.begin() + axis);
  return one_result(DType::i64, std::move(shape));
}

template <typename W, bool greatest>
Tensor find_wide(const RefContext &c) {
  const Tensor &x = *c.operands[0];
  size_t axis = size_t(axis_of(c.attrs, "axis", x.rank()));
  bool last = c.attrs.get_bool("last");
  auto beats = [&](W a, W b) {
    if constexpr (std::is_same_v<W, double>) {
      if (std::isnan(b))
        return last && std::isnan(a);
      if (std::isnan(a))
        return true;
    }
    return (greatest ? a > b : a < b) || (last && a == b);
  };
  Tensor out = make_tensor(c.results[0]);
  auto values = widen_all<W>(x);
  int64_t n = x.dims()[axis],
          inner = product({x.dims().begin() + int64_t(axis) + 1, x.dims().end()});
  for (int64_t r = 0; r < out.count(); ++r) {
    const W *p = values.data() + (r / inner) * n * inner + r % inner;
    int64_t best = 0;
    for (int64_t i = 1; i < n; ++i)
      if (beats(p[i * inner], p[best * inner]))
        best = i;
    out.set_i64(r, best);
  }
  return out;
}

template <bool greatest>
Result<std::vector<Tensor>> ref(const RefContext &c) {
  std::vector<Tensor> out;
  out.push_back(with_wide_type(c.operands[0]->dtype(),
                               [&]<typename W>() { return find_wide<W, greatest>(c); }));
  return out;
}

Expr is_nan(const Expr &x) {
  return kb::unary(UnaryOp::is_nan, x);
}

// Loops over the other dims, then the search along the axis.
template <bool greatest>
void lower(LowerContext &c) {
  const TensorType &x = c.operand_type(0);
  size_t axis = size_t(axis_of(c.attrs(), "axis", x.rank()));
  bool keepdims = c.attrs().get_bool("keepdims"), last = c.attrs().get_bool("last");
  std::vector<Dim> at(x.shape.size());
  auto search = [&] {
    DType dtype = compute_dtype(x.dtype);
    Symbol best = fresh_symbol("best"), where = fresh_symbol("where");
    c.emit(kb::alloc(best, dtype, 1, 1, MemorySpace::reg));
    c.emit(kb::alloc(where, DType::i64, 1, 1, MemorySpace::reg));
    at[axis] = 0;
    c.emit(kb::store(best, 0, c.operand(0, at)));
    c.emit(kb::store(where, 0, kb::integer(DType::i64, 0)));
    c.loop("r", 1, x.shape[axis], LoopKind::serial, [&](const Dim &r) {
      at[axis] = r;
      Expr value = c.bind(c.operand(0, at)), held = c.bind(kb::load(best, dtype, 0));
      BinaryOp op =
          greatest ? (last ? BinaryOp::ge : BinaryOp::gt) : (last ? BinaryOp::le : BinaryOp::lt);
      Expr beats = kb::binary(op, value, held);
      if (is_float(dtype)) {
        Expr nan = is_nan(value);
        if (!last)
          nan = kb::logical_and(std::move(nan), kb::logical_not(is_nan(held)));
        beats = kb::logical_or(std::move(beats), std::move(nan));
      }
      beats = c.bind(std::move(beats));
      c.emit(kb::store(best, 0, kb::select(beats, value, held)));
      c.emit(kb::store(where, 0, kb::select(beats, kb::index(r), kb::load(where, DType::i64, 0))));
    });
    std::vector<Dim> out = at;
    if (keepdims)
      out[axis] = 0;
    else
      out.erase(out.begin() + int64_t(axis));
    c.emit(c.store_result(0, out, kb::load(where, DType::i64, 0)));
  };
  auto nest = [&](auto &self, size_t d) -> void {
    if (d == x.shape.size())
      return search();
    if (d == axis)
      return self(self, d + 1);
    c.loop("i", 0, x.shape[d], LoopKind::parallel, [&](const Dim &i) {
      at[d] = i;
      self(self, d + 1);
    });
  };
  nest(nest, 0);
}

std::vector<OpSample> samples() {
  std::vector<OpSample> out;
  auto add = [&](DType dtype, Shape shape, int64_t axis, bool keepdims, bool last) {
    out.push_back({{{dtype, std::move(shape)}},
                   {{"axis", Dim(axis)}, {"keepdims", keepdims}, {"last", last}},
                   is_unsigned_int(dtype) ? 0.0 : -4.0,
                   4});
  };
#define KILN_DTYPE(name, bits, kind, code)                                                         \
  if (!is_bool(DType::name) && !is_narrow(DType::name))                                                                       \
    add(DType::name, {3, 7}, 1, true, false);
#include "ir/dtypes.def"
#undef KILN_DTYPE
  add(DType::f32, {2, 3, 5}, 0, false, true);
  add(DType::f32, {2, 3, 5}, -2, true, false);
  add(DType::i32, {4, 33}, 1, false, true);
  add(DType::f32, {9}, 0, false, false);
  add(DType::f32, {0, 3}, 1, false, false);
  return out;
}

} // namespace

#define KILN_ARG(id, text, greatest)                                                               \
  const OpDef op_##id{.name = #id,                                                                 \
                      .doc = text,                                                                 \
                      .min_operands = 1,                                                           \
                      .max_operands = 1,                                                           \
                      .attrs = {{"axis", AttrKind::integer},                                       \
                                {"keepdims", AttrKind::boolean, Attr(true)},                       \
                                {"last", AttrKind::boolean, Attr(false), "which of equals"}},      \
                      .infer = infer,                                                              \
                      .ref = ref<greatest>,                                                        \
                      .lower = lower<greatest>,                                                    \
                      .traits = kExpensive,                                                        \
                      .samples = samples()};
KILN_ARG(argmax,
         "The index of the greatest element along an axis, the first of equals; of a NaN if there "
         "is one.",
         true)
KILN_ARG(
    argmin,
    "The index of the least element along an axis, the first of equals; of a NaN if there is one.",
    false)
#undef KILN_ARG

} // namespace kiln
