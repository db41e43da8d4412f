// cumsum: sums of all elements up to each.
#include "ir/ops/index_util.h"

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_cumsum(InferContext &context) {
  const TensorType &x = context.operands[0];
  KILN_RETURN_IF_ERROR(axis_attr(context.attrs, "axis", x.rank()));
  KILN_RETURN_IF_ERROR(check_number(context, 0));
  return Types{x};
}

// Calls f(offset of the axis' first element, stride of the axis) for each row.
template <typename F>
void for_each_row(const Tensor &x, size_t axis, F f) {
  int64_t inner = product(std::span(x.dims()).subspan(axis + 1)), size = x.dims()[axis];
  int64_t outer = product(std::span(x.dims()).first(axis));
  for (int64_t i = 0; i < outer; ++i)
    for (int64_t j = 0; j < inner; ++j)
      f(i * size * inner + j, inner);
}

Result<std::vector<Tensor>> ref_cumsum(const RefContext &context) {
  const Tensor &x = *context.operands[0];
  size_t axis = size_t(axis_of(context.attrs, "axis", x.rank()));
  bool exclusive = context.attrs.get_bool("exclusive"), reverse = context.attrs.get_bool("reverse");
  return with_wide_type(x.dtype(), [&]<typename W>() -> Result<std::vector<Tensor>> {
    // Sums of signed integers wrap, which only unsigned arithmetic may.
    using Sum = std::conditional_t<std::is_same_v<W, double>, double, uint64_t>;
    auto in = widen_all<W>(x);
    std::vector<W> sums(in.size());
    int64_t size = x.dims()[axis];
    for_each_row(x, axis, [&](int64_t first, int64_t stride) {
      Sum sum = 0;
      for (int64_t k = 0; k < size; ++k) {
        size_t at = size_t(first + (reverse ? size - 1 - k : k) * stride);
        Sum before = sum;
        sum += Sum(in[at]);
        sums[at] = W(exclusive ? before : sum);
      }
    });
    Tensor out = make_tensor(context.results[0]);
    narrow<W>(sums.data(), 0, out.count(), out);
    return one_tensor(std::move(out));
  });
}

// Rows in parallel; along the axis one accumulator, in the order of the sum.
void lower_cumsum(LowerContext &context) {
  const TensorType &type = context.result_type(0);
  int rank = type.rank(), axis = axis_of(context.attrs(), "axis", rank);
  bool exclusive = context.attrs().get_bool("exclusive"), reverse = context.attrs().get_bool("reverse");
  DType dtype = compute_dtype(type.dtype);
  std::vector<int> others;
  for (int d = 0; d < rank; ++d)
    if (d != axis)
      others.push_back(d);
  const Dim &size = type.shape[size_t(axis)];
  std::vector<Dim> index(type.shape.size());
  parallel_nest_over(context, type.shape, others, index, [&] {
    Symbol sum = fresh_symbol("sum");
    context.emit(kb::alloc(sum, dtype, 1, 1, MemorySpace::reg));
    context.emit(kb::store(sum, 0, kb::constant(dtype, 0)));
    context.loop("k", 0, size, LoopKind::serial, [&](const Dim &k) {
      index[size_t(axis)] = reverse ? size - Dim(1) - k : k;
      Expr x = context.bind(context.operand(0, index));
      if (exclusive)
        context.emit(context.store_result(0, index, kb::load(sum, dtype, 0)));
      context.emit(kb::store(sum, 0, kb::add(kb::load(sum, dtype, 0), x)));
      if (!exclusive)
        context.emit(context.store_result(0, index, kb::load(sum, dtype, 0)));
    });
  });
}

OpSample sample(Shape shape, int64_t axis, bool exclusive, bool reverse, DType dtype = DType::f32) {
  return {{{dtype, std::move(shape)}},
          {{"axis", Dim(axis)}, {"exclusive", exclusive}, {"reverse", reverse}}};
}

} // namespace

const OpDef op_cumsum{
    .name = "cumsum",
    .doc = "Each element is the sum of those before it along axis and itself; without itself with exclusive, "
           "of those after it with reverse.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"axis", AttrKind::integer},
              {"exclusive", AttrKind::boolean, Attr(false)},
              {"reverse", AttrKind::boolean, Attr(false)}},
    .infer = infer_cumsum,
    .ref = ref_cumsum,
    .lower = lower_cumsum,
    .traits = kZeroPreserving,
    .samples = {sample({9}, 0, false, false), sample({3, 5}, 1, true, false), sample({4, 3, 2}, 1, false, true),
                sample({5, 4}, -2, true, true, DType::i32)},
};

} // namespace kiln
