// reshape: the same elements in the same row-major order, in another shape.
//
// The general map is to linearise the result's index and split it again over the operand's dims. Where
// a run of result dims and a run of operand dims hold the same number of elements ([N, 12, 64] and
// [N, 768] do, twice), only that run is linearised, so that N stays an index of its own and strides can
// be read off.
#include "ir/ops/index_util.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_reshape(InferContext &context) {
  const TensorType &x = context.operands[0];
  const Shape &shape = context.attrs.get_dims("shape");
  KILN_RETURN_IF_ERROR(nonnegative_dims(context, shape, "'shape'"));
  Dim from = element_count(x.shape), to = element_count(shape);
  if (!context.require_equal(from, to))
    return Error{fmt::format("{} has {} elements and {} has {}", shape_text(x.shape), from.text(),
                             shape_text(shape), to.text())};
  return one_result(x.dtype, shape);
}

Result<std::vector<Tensor>> ref_reshape(const RefContext &context) {
  Tensor out = make_tensor(context.results[0]);
  copy_elements(*context.operands[0], 0, out, 0, out.count());
  return one_tensor(std::move(out));
}

// A run of operand dims [from_begin, from_end) that holds the same elements as a run of result dims.
struct Run {
  size_t from_begin, from_end, to_begin, to_end;
};

// The shortest runs, front to back. A pair of products of which neither is known to be the larger ends
// the search: the rest is one run.
std::vector<Run> match_runs(const Shape &from, const Shape &to) {
  std::vector<Run> out;
  size_t i = 0, j = 0;
  while (i < from.size() && j < to.size()) {
    Run run{i, i + 1, j, j + 1};
    Dim a = from[i], b = to[j];
    while (a != b) {
      bool grow_from = run.from_end < from.size() && known_nonnegative(b - a, DimRanges{});
      bool grow_to = run.to_end < to.size() && known_nonnegative(a - b, DimRanges{});
      if (grow_from) {
        a *= from[run.from_end++];
      } else if (grow_to) {
        b *= to[run.to_end++];
      } else {
        run.from_end = from.size();
        run.to_end = to.size();
        break;
      }
    }
    out.push_back(run);
    i = run.from_end;
    j = run.to_end;
  }
  return out;
}

// The dims that are not 1, which alone have an index to speak of.
std::vector<size_t> dims_with_extent(const Shape &shape) {
  std::vector<size_t> out;
  for (size_t d = 0; d < shape.size(); ++d)
    if (!shape[d].is_const(1))
      out.push_back(d);
  return out;
}

Shape pick(const Shape &shape, const std::vector<size_t> &dims) {
  Shape out;
  for (size_t d : dims)
    out.push_back(shape[d]);
  return out;
}

Expr element_reshape(LowerContext &context, int, std::span<const Dim> index) {
  const Shape &from_shape = context.operand_type(0).shape, &to_shape = context.result_type(0).shape;
  auto from_dims = dims_with_extent(from_shape), to_dims = dims_with_extent(to_shape);
  Shape from = pick(from_shape, from_dims), to = pick(to_shape, to_dims);
  std::vector<Dim> at(from_shape.size(), 0);
  for (const Run &run : match_runs(from, to)) {
    Dim linear = 0;
    for (size_t j = run.to_begin; j < run.to_end; ++j)
      linear = linear * to[j] + index[to_dims[j]];
    linear = context.simplified(linear);
    for (size_t i = run.from_end; i-- > run.from_begin;) {
      bool first = i == run.from_begin;
      at[from_dims[i]] = first ? linear : context.simplified(mod(linear, from[i]));
      if (!first)
        linear = context.simplified(floordiv(linear, from[i]));
    }
  }
  return context.operand(0, at);
}

OpSample sample(Shape from, Shape to) { return {{{DType::f32, std::move(from)}}, {{"shape", std::move(to)}}}; }

} // namespace

const OpDef op_reshape{
    .name = "reshape",
    .doc = "The same elements in row-major order, in another shape of as many elements.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"shape", AttrKind::dims, std::nullopt, "all dims"}},
    .infer = infer_reshape,
    .ref = ref_reshape,
    .element = element_reshape,
    .traits = kMovement,
    .samples = {sample({2, 12, 5}, {2, 60}), sample({2, 60}, {2, 12, 5}), sample({4, 1, 6}, {3, 8}),
                sample({7}, {1, 7, 1}), sample({1}, {}), sample({2, 3, 4, 5}, {6, 20})},
    .tolerance = 0,
};

} // namespace kiln
