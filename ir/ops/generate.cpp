// Elements computed from their own index: iota, one_hot, trilu.
#include "ir/ops/index_util.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_iota(InferContext &context) {
  const Shape &shape = context.attrs.get_dims("shape");
  KILN_RETURN_IF_ERROR(nonnegative_dims(context, shape, "'shape'"));
  KILN_RETURN_IF_ERROR(axis_attr(context.attrs, "axis", int(shape.size())));
  DType dtype = context.attrs.get_dtype("dtype");
  if (is_bool(dtype) || is_narrow(dtype))
    return Error{fmt::format("an index does not fit in {}; give iota a number dtype", dtype_name(dtype))};
  return one_result(dtype, shape);
}

Result<Types> infer_one_hot(InferContext &context) {
  const TensorType &indices = context.operands[0], &values = context.operands[1];
  KILN_RETURN_IF_ERROR(check_integer(context, 0));
  if (values.rank() != 1 || !context.require_equal(values.shape[0], 2))
    return Error{fmt::format("operand 1 is {}; it must hold two values, off and on", values.text())};
  const Dim &depth = context.attrs.get_dim("depth");
  KILN_RETURN_IF_ERROR(nonnegative_dims(context, {&depth, 1}, "'depth'"));
  KILN_TRY(axis, axis_attr(context.attrs, "axis", indices.rank() + 1));
  Shape out = indices.shape;
  out.insert(out.begin() + axis, depth);
  return one_result(values.dtype, std::move(out));
}

Result<Types> infer_trilu(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_rank_at_least(context, 0, 2));
  if (!context.attrs.get_dim("k").is_valid())
    return Error{"'k' overflows"};
  return Types{context.operands[0]};
}

Result<std::vector<Tensor>> ref_iota(const RefContext &context) {
  Tensor out = make_tensor(context.results[0]);
  size_t axis = size_t(axis_of(context.attrs, "axis", out.rank()));
  int64_t size = out.dims()[axis], inner = product(std::span(out.dims()).subspan(axis + 1));
  for (int64_t i = 0; i < out.count(); ++i)
    out.set_i64(i, i / inner % size);
  return one_tensor(std::move(out));
}

Result<std::vector<Tensor>> ref_one_hot(const RefContext &context) {
  const Tensor &indices = *context.operands[0], &values = *context.operands[1];
  Tensor out = make_tensor(context.results[0]);
  size_t axis = size_t(axis_of(context.attrs, "axis", out.rank()));
  int64_t depth = out.dims()[axis], inner = product(std::span(out.dims()).subspan(axis + 1));
  for (int64_t i = 0; i < out.count(); ++i)
    copy_elements(values, 0, out, i);
  for (int64_t i = 0; i < indices.count(); ++i)
    if (auto index = wrapped_index(indices.at_i64(i), depth))
      copy_elements(values, 1, out, (i / inner * depth + *index) * inner + i % inner);
  return one_tensor(std::move(out));
}

Result<std::vector<Tensor>> ref_trilu(const RefContext &context) {
  const Tensor &x = *context.operands[0];
  Tensor out = make_tensor(context.results[0]);
  bool upper = context.attrs.get_bool("upper");
  KILN_TRY(k, int_attr(context.attrs, "k"));
  int64_t columns = x.dims().back(), rows = x.dims()[size_t(x.rank()) - 2];
  for (int64_t i = 0; i < out.count(); ++i) {
    int64_t row = i / columns % rows, column = i % columns;
    // k may be as large as it likes: compare, do not add.
    if (upper ? column - row >= k : column - row <= k)
      copy_elements(x, i, out, i);
  }
  return one_tensor(std::move(out));
}

Expr element_iota(LowerContext &context, int, std::span<const Dim> index) {
  const TensorType &type = context.result_type(0);
  return kb::convert(compute_dtype(type.dtype),
                     kb::index(index[size_t(axis_of(context.attrs(), "axis", type.rank()))]));
}

Expr element_one_hot(LowerContext &context, int, std::span<const Dim> index) {
  size_t axis = size_t(axis_of(context.attrs(), "axis", int(index.size())));
  std::vector<Dim> at(index.begin(), index.end());
  at.erase(at.begin() + std::ptrdiff_t(axis));
  Expr raw = context.bind(kb::convert(DType::i64, context.operand(0, at)));
  Expr depth = kb::index(context.attrs().get_dim("depth"));
  Expr wrapped = kb::select(kb::lt(raw, kb::integer(DType::i64, 0)), kb::add(raw, depth), raw);
  Expr off = context.operand(1, std::vector<Dim>{0}), on = context.operand(1, std::vector<Dim>{1});
  return kb::select(kb::eq(wrapped, kb::index(index[axis])), std::move(on), std::move(off));
}

Expr element_trilu(LowerContext &context, int, std::span<const Dim> index) {
  Expr x = context.operand(0, index);
  Expr diagonal = kb::index(index[index.size() - 2] + context.attrs().get_dim("k"));
  Expr column = kb::index(index.back());
  Expr kept = context.attrs().get_bool("upper") ? kb::le(diagonal, column) : kb::le(column, diagonal);
  Expr zero = kb::constant(x.dtype, 0);
  return kb::select(std::move(kept), std::move(x), std::move(zero));
}

OpSample iota_sample(Shape shape, int64_t axis, DType dtype) {
  return {{}, {{"shape", std::move(shape)}, {"axis", Dim(axis)}, {"dtype", dtype}}};
}
OpSample one_hot_sample(Shape shape, int64_t depth, int64_t axis, DType dtype) {
  return {{{DType::i64, std::move(shape)}, {dtype, {2}}}, {{"depth", Dim(depth)}, {"axis", Dim(axis)}}, -5, 5};
}
OpSample trilu_sample(Shape shape, bool upper, int64_t k, DType dtype = DType::f32) {
  return {{{dtype, std::move(shape)}}, {{"upper", upper}, {"k", Dim(k)}}};
}

} // namespace

const OpDef op_iota{
    .name = "iota",
    .doc = "Each element is its index along axis.",
    .attrs = {{"shape", AttrKind::dims}, {"axis", AttrKind::integer}, {"dtype", AttrKind::dtype}},
    .infer = infer_iota,
    .ref = ref_iota,
    .element = element_iota,
    .samples = {iota_sample({7}, 0, DType::i64), iota_sample({3, 4, 5}, 1, DType::f32), iota_sample({2, 300}, -1, DType::u8)},
    .tolerance = 0,
};

const OpDef op_one_hot{
    .name = "one_hot",
    .doc = "A new axis of size depth that holds values[1] at the index and values[0] elsewhere. Negative "
           "indices count from the end; one out of range gives no values[1] at all.",
    .min_operands = 2,
    .max_operands = 2,
    .attrs = {{"depth", AttrKind::integer}, {"axis", AttrKind::integer, Attr(Dim(-1))}},
    .infer = infer_one_hot,
    .ref = ref_one_hot,
    .element = element_one_hot,
    .samples = {one_hot_sample({4}, 5, -1, DType::f32), one_hot_sample({2, 3}, 4, 1, DType::i32),
                one_hot_sample({}, 3, 0, DType::f32)},
    .tolerance = 0,
};

const OpDef op_trilu{
    .name = "trilu",
    .doc = "Keeps the upper (else the lower) triangle of the last two dims, from the k-th diagonal on, and "
           "puts 0 elsewhere.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"upper", AttrKind::boolean, Attr(true)}, {"k", AttrKind::integer, Attr(Dim(0))}},
    .infer = infer_trilu,
    .ref = ref_trilu,
    .element = element_trilu,
    .traits = kZeroPreserving,
    .samples = {trilu_sample({4, 5}, true, 0), trilu_sample({2, 5, 3}, false, -1), trilu_sample({3, 3}, true, 2, DType::i32)},
    .tolerance = 0,
};

} // namespace kiln
