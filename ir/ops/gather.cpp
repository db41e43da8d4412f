// Ops that read elements at indices held in a tensor. Negative indices count from the end; one that is
// out of range traps.
#include "ir/ops/index_util.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_gather(InferContext &context) {
  const TensorType &x = context.operands[0], &indices = context.operands[1];
  KILN_TRY(axis, axis_attr(context.attrs, "axis", x.rank()));
  KILN_RETURN_IF_ERROR(check_integer(context, 1));
  Shape out(x.shape.begin(), x.shape.begin() + axis);
  out.insert(out.end(), indices.shape.begin(), indices.shape.end());
  out.insert(out.end(), x.shape.begin() + axis + 1, x.shape.end());
  return one_result(x.dtype, std::move(out));
}

Result<Types> infer_gather_elements(InferContext &context) {
  const TensorType &x = context.operands[0], &indices = context.operands[1];
  KILN_TRY(axis, axis_attr(context.attrs, "axis", x.rank()));
  KILN_RETURN_IF_ERROR(check_integer(context, 1));
  KILN_RETURN_IF_ERROR(check_rank(context, 1, x.rank()));
  for (int d = 0; d < x.rank(); ++d)
    if (d != axis && !require_at_most(context, indices.shape[size_t(d)], x.shape[size_t(d)]))
      return Error{fmt::format("dim {} of the indices {} is larger than that of {}", d, indices.text(),
                               x.text())};
  return one_result(x.dtype, indices.shape);
}

Result<Types> infer_gather_nd(InferContext &context) {
  const TensorType &x = context.operands[0], &indices = context.operands[1];
  KILN_RETURN_IF_ERROR(check_integer(context, 1));
  KILN_RETURN_IF_ERROR(check_rank_at_least(context, 0, 1));
  KILN_RETURN_IF_ERROR(check_rank_at_least(context, 1, 1));
  KILN_TRY(batch, int_attr(context.attrs, "batch_dims"));
  if (batch < 0 || batch >= x.rank() || batch >= indices.rank())
    return Error{fmt::format("batch_dims is {}; with {} and indices {} it must be from 0 to {}", batch,
                             x.text(), indices.text(), std::min(x.rank(), indices.rank()) - 1)};
  auto depth = indices.shape.back().try_const();
  if (!depth || *depth < 1 || *depth > x.rank() - batch)
    return Error{fmt::format("the last dim of the indices {} is the number of dims of {} that are indexed: "
                             "it must be a number from 1 to {}",
                             indices.text(), x.text(), x.rank() - batch)};
  Shape out;
  for (size_t d = 0; d < size_t(batch); ++d) {
    KILN_RETURN_IF_ERROR(equal_dims(context, x.shape[d], indices.shape[d], "a batch dim"));
    out.push_back(x.shape[d]);
  }
  out.insert(out.end(), indices.shape.begin() + batch, indices.shape.end() - 1);
  out.insert(out.end(), x.shape.begin() + batch + *depth, x.shape.end());
  return one_result(x.dtype, std::move(out));
}

Result<std::vector<Tensor>> ref_gather(const RefContext &context) {
  const Tensor &x = *context.operands[0], &indices = *context.operands[1];
  size_t axis = size_t(axis_of(context.attrs, "axis", x.rank()));
  int64_t outer = product(std::span(x.dims()).first(axis)), size = x.dims()[axis];
  int64_t inner = product(std::span(x.dims()).subspan(axis + 1)), to = 0;
  Tensor out = make_tensor(context.results[0]);
  for (int64_t i = 0; i < outer; ++i)
    for (int64_t j = 0; j < indices.count(); ++j, to += inner) {
      KILN_TRY(index, index_at(indices, j, size));
      copy_elements(x, (i * size + index) * inner, out, to, inner);
    }
  return one_tensor(std::move(out));
}

Result<std::vector<Tensor>> ref_gather_elements(const RefContext &context) {
  const Tensor &x = *context.operands[0], &indices = *context.operands[1];
  size_t axis = size_t(axis_of(context.attrs, "axis", x.rank()));
  auto strides = row_major_strides(x.dims());
  Tensor out = make_tensor(context.results[0]);
  Status status = Unit{};
  for_each_index(out.dims(), [&](const std::vector<int64_t> &at, int64_t linear) {
    auto index = index_at(indices, linear, x.dims()[axis]);
    if (!index) {
      status = index.error();
      return;
    }
    int64_t from = 0;
    for (size_t d = 0; d < at.size(); ++d)
      from += (d == axis ? *index : at[d]) * strides[d];
    copy_elements(x, from, out, linear);
  });
  KILN_RETURN_IF_ERROR(status);
  return one_tensor(std::move(out));
}

Result<std::vector<Tensor>> ref_gather_nd(const RefContext &context) {
  const Tensor &x = *context.operands[0], &indices = *context.operands[1];
  size_t batch = size_t(context.attrs.get_int("batch_dims")), depth = size_t(indices.dims().back());
  auto strides = row_major_strides(x.dims());
  int64_t inner = product(std::span(x.dims()).subspan(batch + depth));
  int64_t rows = product(std::span(indices.dims()).first(size_t(indices.rank()) - 1));
  int64_t batches = product(std::span(x.dims()).first(batch));
  int64_t batch_size = product(std::span(x.dims()).subspan(batch));
  Tensor out = make_tensor(context.results[0]);
  for (int64_t row = 0; row < rows; ++row) {
    int64_t from = row / (rows / batches) * batch_size;
    for (size_t k = 0; k < depth; ++k) {
      KILN_TRY(index, index_at(indices, row * int64_t(depth) + int64_t(k), x.dims()[batch + k]));
      from += index * strides[batch + k];
    }
    copy_elements(x, from, out, row * inner, inner);
  }
  return one_tensor(std::move(out));
}

Expr element_gather(LowerContext &context, int, std::span<const Dim> index) {
  const TensorType &x = context.operand_type(0), &indices = context.operand_type(1);
  size_t axis = size_t(axis_of(context.attrs(), "axis", x.rank())), count = indices.shape.size();
  std::vector<Dim> at(index.begin(), index.begin() + std::ptrdiff_t(axis));
  at.push_back(checked_index(context, 1, index.subspan(axis, count), x.shape[axis]));
  at.insert(at.end(), index.begin() + std::ptrdiff_t(axis + count), index.end());
  return context.operand(0, at);
}

Expr element_gather_elements(LowerContext &context, int, std::span<const Dim> index) {
  const TensorType &x = context.operand_type(0);
  size_t axis = size_t(axis_of(context.attrs(), "axis", x.rank()));
  std::vector<Dim> at(index.begin(), index.end());
  at[axis] = checked_index(context, 1, index, x.shape[axis]);
  return context.operand(0, at);
}

Expr element_gather_nd(LowerContext &context, int, std::span<const Dim> index) {
  const TensorType &x = context.operand_type(0), &indices = context.operand_type(1);
  size_t batch = size_t(context.attrs().get_int("batch_dims"));
  size_t depth = size_t(indices.shape.back().as_const()), leading = indices.shape.size() - 1;
  std::vector<Dim> row(index.begin(), index.begin() + std::ptrdiff_t(leading));
  std::vector<Dim> at(index.begin(), index.begin() + std::ptrdiff_t(batch));
  row.push_back(0);
  for (size_t k = 0; k < depth; ++k) {
    row.back() = int64_t(k);
    at.push_back(checked_index(context, 1, row, x.shape[batch + k]));
  }
  at.insert(at.end(), index.begin() + std::ptrdiff_t(leading), index.end());
  return context.operand(0, at);
}

OpSample sample(Shape x, Shape indices, Attrs attrs, double size, DType dtype = DType::i64) {
  return {{{DType::f32, std::move(x)}, {dtype, std::move(indices)}}, std::move(attrs), -size, size - 1};
}

} // namespace

const OpDef op_gather{
    .name = "gather",
    .doc = "Slices of x along axis, at the indices: of shape x.shape[:axis] + indices.shape + "
           "x.shape[axis+1:]. Negative indices count from the end.",
    .min_operands = 2,
    .max_operands = 2,
    .attrs = {{"axis", AttrKind::integer}},
    .infer = infer_gather,
    .ref = ref_gather,
    .element = element_gather,
    .samples = {sample({5, 3}, {4}, {{"axis", Dim(0)}}, 5), sample({2, 5, 3}, {2, 2}, {{"axis", Dim(1)}}, 5, DType::i32),
                sample({4, 6}, {}, {{"axis", Dim(-1)}}, 6)},
    .tolerance = 0,
};

const OpDef op_gather_elements{
    .name = "gather_elements",
    .doc = "An element of x for each index: the index replaces the position along axis.",
    .min_operands = 2,
    .max_operands = 2,
    .attrs = {{"axis", AttrKind::integer}},
    .infer = infer_gather_elements,
    .ref = ref_gather_elements,
    .element = element_gather_elements,
    .samples = {sample({4, 3}, {2, 3}, {{"axis", Dim(0)}}, 4), sample({2, 3, 4}, {2, 3, 6}, {{"axis", Dim(2)}}, 4, DType::i32)},
    .tolerance = 0,
};

const OpDef op_gather_nd{
    .name = "gather_nd",
    .doc = "The last dim of the indices holds positions in the dims of x after batch_dims, of which the rest "
           "is taken whole.",
    .min_operands = 2,
    .max_operands = 2,
    .attrs = {{"batch_dims", AttrKind::integer, Attr(Dim(0))}},
    .infer = infer_gather_nd,
    .ref = ref_gather_nd,
    .element = element_gather_nd,
    .samples = {sample({3, 3, 4}, {5, 2}, {}, 3), sample({2, 3, 4}, {2, 5, 1}, {{"batch_dims", Dim(1)}}, 3),
                sample({3, 3}, {2, 2, 2}, {}, 3, DType::i32)},
    .tolerance = 0,
};

} // namespace kiln
