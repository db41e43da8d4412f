// attention: scaled dot products of queries and keys, a softmax over the keys, and the values' mean
// weighted with it. Leading dims (batch, heads) broadcast.
#include "ir/ops/composite.h"

#include <fmt/format.h>
#include <limits>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Shape batch_of(const TensorType &type) { return Shape(type.shape.begin(), type.shape.end() - 2); }

Result<Types> infer_attention(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_float(context, 0));
  for (int i = 0; i < 3; ++i) {
    KILN_RETURN_IF_ERROR(same_dtype(context, 0, i));
    KILN_RETURN_IF_ERROR(check_rank_at_least(context, i, 2));
  }
  const TensorType &q = context.operands[0], &k = context.operands[1], &v = context.operands[2];
  const Dim &queries = q.shape[q.shape.size() - 2], &keys = k.shape[k.shape.size() - 2];
  KILN_RETURN_IF_ERROR(equal_dims(context, q.shape.back(), k.shape.back(),
                                  "the sizes of a query and of a key (the last dims)"));
  KILN_RETURN_IF_ERROR(equal_dims(context, keys, v.shape[v.shape.size() - 2],
                                  "the numbers of keys and of values (the dims before the last)"));
  KILN_TRY(query_key_batch, broadcast_shapes(context, batch_of(q), batch_of(k)));
  KILN_TRY(batch, broadcast_shapes(context, query_key_batch, batch_of(v)));
  if (context.operands.size() > 3) {
    const TensorType &mask = context.operands[3];
    KILN_RETURN_IF_ERROR(check_dtype(context, 3, is_bool(mask.dtype) || mask.dtype == q.dtype,
                                     "bool, true where a key is seen, or of the dtype of q, added to the scores"));
    Shape scores = query_key_batch;
    scores.push_back(queries);
    scores.push_back(keys);
    KILN_RETURN_IF_ERROR(broadcasts_to(context, mask.shape, scores));
  }
  Shape out = batch;
  out.push_back(queries);
  out.push_back(v.shape.back());
  return one_result(q.dtype, std::move(out));
}

std::vector<ValueId> decompose_attention(GraphBuilder &b, const Node &node) {
  ValueId q = node.operands[0], k = node.operands[1], v = node.operands[2];
  DType dtype = b.type(q).dtype;
  ValueId scores = widen(b, b(Op::dot, {q, k}, {{"transpose_b", true}}));
  DType wide = b.type(scores).dtype;
  scores = b(Op::mul, {scores, b.scalar(wide, node.attrs.get_float("scale"))});
  ValueId hidden = b.scalar(wide, -std::numeric_limits<double>::infinity());
  if (node.operands.size() > 3) {
    ValueId mask = node.operands[3];
    scores = is_bool(b.type(mask).dtype) ? b(Op::where, {mask, scores, hidden})
                                         : b(Op::add, {scores, widen(b, mask)});
  }
  if (node.attrs.get_bool("causal")) {
    const Shape &shape = b.type(scores).shape;
    Dim queries = shape[shape.size() - 2], keys = shape.back();
    auto indices = [&](Shape index_shape, int64_t axis) {
      return b(Op::iota, {}, {{"shape", std::move(index_shape)}, {"axis", Dim(axis)}, {"dtype", DType::i64}});
    };
    ValueId seen = b(Op::le, {indices({1, keys}, 1), indices({queries, 1}, 0)});
    scores = b(Op::where, {seen, scores, hidden});
  }
  ValueId weights = narrow(b, b(Op::softmax, {scores}, {{"axis", Dim(-1)}}), dtype);
  return {b(Op::dot, {weights, v})};
}

OpSample sample(std::vector<Shape> shapes, Attrs attrs, DType mask = DType::f32) {
  OpSample out{{}, std::move(attrs)};
  for (size_t i = 0; i < shapes.size(); ++i)
    out.operands.push_back({i == 3 ? mask : DType::f32, shapes[i]});
  return out;
}

} // namespace

const OpDef op_attention{
    .name = "attention",
    .doc = "softmax(q k^T * scale + mask) v for q[..., L, E], k[..., S, E], v[..., S, V]. A bool mask is true "
           "where a key is seen; with causal, query i sees keys 0 to i.",
    .min_operands = 3,
    .max_operands = 4,
    .attrs = {{"scale", AttrKind::real}, {"causal", AttrKind::boolean, Attr(false)}},
    .infer = infer_attention,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::attention, c); },
    .decompose = decompose_attention,
    .samples = {sample({{2, 3, 5, 8}, {2, 3, 7, 8}, {2, 3, 7, 4}}, {{"scale", 0.35}}),
                sample({{4, 6}, {4, 6}, {4, 6}}, {{"scale", 0.4}, {"causal", true}}),
                sample({{2, 3, 5, 8}, {2, 1, 7, 8}, {2, 1, 7, 4}, {5, 7}}, {{"scale", 0.35}}),
                sample({{2, 37, 12}, {2, 45, 12}, {2, 45, 20}, {45}}, {{"scale", 0.3}}),
                sample({{70, 16}, {70, 16}, {70, 16}}, {{"scale", 0.25}, {"causal", true}}),
                sample({{9, 300}, {250, 300}, {250, 300}}, {{"scale", 0.06}})},
    .tolerance = 1e-4,
};

} // namespace kiln
