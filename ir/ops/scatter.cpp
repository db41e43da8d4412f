// Ops that write elements at indices held in a tensor into a copy of x. Updates are applied in row-major
// order, so that of two at one place the last wins, on every target.
#include "ir/ops/index_util.h"
#include "ir/ops/ref_codes.h"

#include <cmath>
#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Status check_reduction(const InferContext &context) {
  KILN_TRY(reduction, choice_attr(context.attrs, "reduction", {"none", "add", "mul", "min", "max"}));
  DType dtype = context.operands[0].dtype;
  if (reduction != "none" && (is_bool(dtype) || is_narrow(dtype)))
    return Error{fmt::format("reduction \"{}\" of {}: convert it first", reduction, dtype_name(dtype))};
  return Unit{};
}

Result<Types> infer_scatter_elements(InferContext &context) {
  const TensorType &x = context.operands[0], &indices = context.operands[1];
  KILN_TRY(axis, axis_attr(context.attrs, "axis", x.rank()));
  KILN_RETURN_IF_ERROR(check_integer(context, 1));
  KILN_RETURN_IF_ERROR(check_rank(context, 1, x.rank()));
  KILN_RETURN_IF_ERROR(same_dtype(context, 0, 2));
  KILN_RETURN_IF_ERROR(equal_shapes(context, indices.shape, context.operands[2].shape,
                                    "shapes of the indices and the updates"));
  for (int d = 0; d < x.rank(); ++d)
    if (d != axis && !require_at_most(context, indices.shape[size_t(d)], x.shape[size_t(d)]))
      return Error{fmt::format("dim {} of the indices {} is larger than that of {}", d, indices.text(),
                               x.text())};
  KILN_RETURN_IF_ERROR(check_reduction(context));
  return Types{x};
}

Result<Types> infer_scatter_nd(InferContext &context) {
  const TensorType &x = context.operands[0], &indices = context.operands[1];
  KILN_RETURN_IF_ERROR(check_integer(context, 1));
  KILN_RETURN_IF_ERROR(check_rank_at_least(context, 0, 1));
  KILN_RETURN_IF_ERROR(check_rank_at_least(context, 1, 1));
  KILN_RETURN_IF_ERROR(same_dtype(context, 0, 2));
  auto depth = indices.shape.back().try_const();
  if (!depth || *depth < 1 || *depth > x.rank())
    return Error{fmt::format("the last dim of the indices {} is the number of dims of {} that are indexed: "
                             "it must be a number from 1 to {}",
                             indices.text(), x.text(), x.rank())};
  Shape expected(indices.shape.begin(), indices.shape.end() - 1);
  expected.insert(expected.end(), x.shape.begin() + *depth, x.shape.end());
  KILN_RETURN_IF_ERROR(equal_shapes(context, context.operands[2].shape, expected,
                                    "the shape of the updates against indices.shape[:-1] + the rest of x"));
  KILN_RETURN_IF_ERROR(check_reduction(context));
  return Types{x};
}

template <typename W>
W combined(const std::string &reduction, W a, W b) {
  if (reduction == "none")
    return b;
  if constexpr (std::is_same_v<W, double>) {
    if (reduction == "add")
      return a + b;
    if (reduction == "mul")
      return a * b;
    if (std::isnan(a) || std::isnan(b))
      return std::numeric_limits<double>::quiet_NaN();
  } else {
    // Wraps as every integer type does.
    if (reduction == "add")
      return W(uint64_t(a) + uint64_t(b));
    if (reduction == "mul")
      return W(uint64_t(a) * uint64_t(b));
  }
  return (reduction == "min") == (a < b) ? a : b;
}

// Applies updates one after the other: `target(i)` is where update element i goes.
template <typename Target>
Result<std::vector<Tensor>> scattered(const RefContext &context, Target target) {
  const Tensor &x = *context.operands[0], &updates = *context.operands[2];
  const std::string &reduction = context.attrs.get_string("reduction");
  return with_wide_type(x.dtype(), [&]<typename W>() -> Result<std::vector<Tensor>> {
    auto values = widen_all<W>(x), added = widen_all<W>(updates);
    for (int64_t i = 0; i < updates.count(); ++i) {
      Result<int64_t> to = target(i);
      if (!to)
        return to.error();
      values[size_t(*to)] = combined<W>(reduction, values[size_t(*to)], added[size_t(i)]);
    }
    Tensor out = make_tensor(context.results[0]);
    narrow<W>(values.data(), 0, out.count(), out);
    return one_tensor(std::move(out));
  });
}

Result<std::vector<Tensor>> ref_scatter_elements(const RefContext &context) {
  if (is_narrow(context.operands[0]->dtype()))
    return ref_on_codes(ref_scatter_elements, context);
  const Tensor &x = *context.operands[0], &indices = *context.operands[1];
  size_t axis = size_t(axis_of(context.attrs, "axis", x.rank()));
  auto strides = row_major_strides(x.dims()), from = row_major_strides(indices.dims());
  return scattered(context, [&](int64_t i) -> Result<int64_t> {
    KILN_TRY(index, index_at(indices, i, x.dims()[axis]));
    int64_t to = index * strides[axis];
    for (size_t d = 0; d < strides.size(); ++d)
      if (d != axis)
        to += i / from[d] % indices.dims()[d] * strides[d];
    return to;
  });
}

Result<std::vector<Tensor>> ref_scatter_nd(const RefContext &context) {
  if (is_narrow(context.operands[0]->dtype()))
    return ref_on_codes(ref_scatter_nd, context);
  const Tensor &x = *context.operands[0], &indices = *context.operands[1];
  size_t depth = size_t(indices.dims().back());
  auto strides = row_major_strides(x.dims());
  int64_t inner = product(std::span(x.dims()).subspan(depth));
  // Of every row, whether or not it holds elements: an index is an input of its own.
  std::vector<int64_t> rows(size_t(product(std::span(indices.dims()).first(indices.dims().size() - 1))));
  for (size_t row = 0; row < rows.size(); ++row)
    for (size_t k = 0; k < depth; ++k) {
      KILN_TRY(index, index_at(indices, int64_t(row * depth + k), x.dims()[k]));
      rows[row] += index * strides[k];
    }
  return scattered(context, [&](int64_t i) -> Result<int64_t> { return rows[size_t(i / inner)] + i % inner; });
}

void lower_copy(LowerContext &context) {
  parallel_nest(context, context.result_type(0).shape, [&](std::vector<Dim> &index) {
    context.emit(context.store_result(0, index, context.operand(0, index)));
  });
}

// Serial loops over some dims of an index; each iteration sees what the ones before have stored.
void serial_nest_over(LowerContext &context, const Shape &shape, std::span<const int> dims,
                      std::vector<Dim> &index, const std::function<void()> &body) {
  if (dims.empty())
    return body();
  context.loop("u", 0, shape[size_t(dims[0])], LoopKind::serial, [&](const Dim &var) {
    index[size_t(dims[0])] = var;
    serial_nest_over(context, shape, dims.subspan(1), index, body);
  });
}

void update(LowerContext &context, std::span<const Dim> to, Expr value) {
  const std::string &reduction = context.attrs().get_string("reduction");
  if (reduction != "none") {
    BinaryOp op = reduction == "add"   ? BinaryOp::add
                  : reduction == "mul" ? BinaryOp::mul
                  : reduction == "min" ? BinaryOp::min
                                       : BinaryOp::max;
    value = kb::binary(op, load_result(context, 0, to), std::move(value));
  }
  context.emit(context.store_result(0, to, std::move(value)));
}

// Positions off the axis are independent of each other; along it updates may meet.
void lower_scatter_elements(LowerContext &context) {
  lower_copy(context);
  const Shape &shape = context.operand_type(1).shape;
  int rank = int(shape.size()), axis = axis_of(context.attrs(), "axis", rank);
  std::vector<int> others;
  for (int d = 0; d < rank; ++d)
    if (d != axis)
      others.push_back(d);
  std::vector<Dim> index(shape.size());
  parallel_nest_over(context, shape, others, index, [&] {
    serial_nest_over(context, shape, {&axis, 1}, index, [&] {
      std::vector<Dim> to = index;
      to[size_t(axis)] = checked_index(context, 1, index, context.result_type(0).shape[size_t(axis)]);
      update(context, to, context.operand(2, index));
    });
  });
}

void lower_scatter_nd(LowerContext &context) {
  lower_copy(context);
  const Shape &indices = context.operand_type(1).shape, &result = context.result_type(0).shape;
  const Shape &updates = context.operand_type(2).shape;
  size_t leading = indices.size() - 1, depth = size_t(indices.back().as_const());
  std::vector<int> rows, inner;
  for (size_t d = 0; d < updates.size(); ++d)
    (d < leading ? rows : inner).push_back(int(d));
  std::vector<Dim> index(updates.size());
  serial_nest_over(context, indices, rows, index, [&] {
    std::vector<Dim> row(index.begin(), index.begin() + std::ptrdiff_t(leading)), to;
    row.push_back(0);
    for (size_t k = 0; k < depth; ++k) {
      row.back() = int64_t(k);
      to.push_back(checked_index(context, 1, row, result[k]));
    }
    parallel_nest_over(context, updates, inner, index, [&] {
      std::vector<Dim> at = to;
      at.insert(at.end(), index.begin() + std::ptrdiff_t(leading), index.end());
      update(context, at, context.operand(2, index));
    });
  });
}

OpSample sample(Shape x, Shape indices, Shape updates, Attrs attrs, double size, DType dtype = DType::f32) {
  return {{{dtype, std::move(x)}, {DType::i64, std::move(indices)}, {dtype, std::move(updates)}},
          std::move(attrs), -size, size - 1};
}
std::string text(const char *s) { return s; }

} // namespace

const OpDef op_scatter_elements{
    .name = "scatter_elements",
    .doc = "A copy of x where each update is put (or added, ...) at its own position with the index in place "
           "of the one along axis.",
    .min_operands = 3,
    .max_operands = 3,
    .attrs = {{"axis", AttrKind::integer}, {"reduction", AttrKind::string, Attr(std::string("none"))}},
    .infer = infer_scatter_elements,
    .ref = ref_scatter_elements,
    .lower = lower_scatter_elements,
    .samples = {sample({4, 3}, {2, 3}, {2, 3}, {{"axis", Dim(0)}}, 4),
                sample({3, 5}, {3, 4}, {3, 4}, {{"axis", Dim(1)}, {"reduction", text("add")}}, 5),
                sample({3, 5}, {3, 4}, {3, 4}, {{"axis", Dim(1)}, {"reduction", text("max")}}, 5, DType::i32)},
};

const OpDef op_scatter_nd{
    .name = "scatter_nd",
    .doc = "A copy of x where slices are replaced by (or combined with) updates; the last dim of the indices "
           "holds the positions in the leading dims of x, which must be in range even of slices without "
           "elements.",
    .min_operands = 3,
    .max_operands = 3,
    .attrs = {{"reduction", AttrKind::string, Attr(std::string("none"))}},
    .infer = infer_scatter_nd,
    .ref = ref_scatter_nd,
    .lower = lower_scatter_nd,
    .samples = {sample({4, 3}, {2, 1}, {2, 3}, {}, 4), sample({3, 3, 2}, {4, 2}, {4, 2}, {{"reduction", text("add")}}, 3),
                sample({6}, {3, 1}, {3}, {{"reduction", text("mul")}}, 6), sample({3, 3}, {2, 2}, {2}, {{"reduction", text("min")}}, 3)},
};

} // namespace kiln
