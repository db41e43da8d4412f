// FlexAttention: the model gives graphs that change the scores and the weights of an attention. They are
// imported in place, between the dots and the softmax, so that the whole is fused as any attention is.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/tensors.h"

#include <fmt/format.h>

#include <cmath>

namespace kiln::onnx {
namespace {

Result<Val> modified(OnnxNode &n, std::string_view name, const Val &x) {
  if (!n.has_attr(name))
    return x;
  KILN_TRY(graph, n.get_graph(name));
  std::vector<Val> inputs = {x};
  KILN_TRY(results, n.importer().import_subgraph(graph, inputs));
  if (results.size() != 1 || results[0].type.shape != x.type.shape || results[0].dtype() != x.dtype())
    return Error{fmt::format("its graph '{}' must give one result of the type of its input, {}", name, x.type.text())};
  return results[0];
}

} // namespace

Status import_flex_attention(OnnxNode &n) {
  Emitter &e = n.emitter();
  for (size_t i = 0; i < 3; ++i)
    if (n.rank(i) != 4)
      return Error{fmt::format("its operands must be [B, H, L, E], not {}", n.in(i).type.text())};
  auto heads = n.shape(0)[1].try_const(), groups = n.shape(1)[1].try_const(), size = n.shape(0)[3].try_const();
  if (!heads || !groups || *groups < 1 || *heads % *groups != 0 || n.shape(2)[1] != n.shape(1)[1])
    return Error{fmt::format("{} query heads do not share {} key and {} value heads evenly", n.shape(0)[1].text(),
                             n.shape(1)[1].text(), n.shape(2)[1].text())};
  if (!size && !n.has_attr("scale"))
    return Error{"the size of a head must be known"};
  double scale = n.get_float("scale", size ? 1 / std::sqrt(double(std::max<int64_t>(*size, 1))) : 1);
  DType precision = compute_dtype(n.dtype(0));
  if (int64_t given = n.get_int("softmax_precision", 0); given != 0) {
    auto known = dtype_from_onnx(given);
    if (!known || !is_float(*known))
      return Error{fmt::format("'softmax_precision' is {}, which is no type of floats", onnx_type_name(given))};
    precision = *known;
  }
  const Dim batch = n.shape(0)[0], queries = n.shape(0)[2], keys = n.shape(1)[2];
  // Heads that share keys and values are a dim of their own, against which those broadcast.
  bool grouped = *heads != *groups;
  auto by_group = [&](const Val &x, int64_t shared) -> Result<Val> {
    if (!grouped)
      return x;
    return reshape(e, x, {x.dim(0), Dim(*groups), Dim(shared), x.dim(2), x.dim(3)});
  };
  KILN_TRY(q, by_group(n.in(0), *heads / *groups));
  KILN_TRY(k, by_group(n.in(1), 1));
  KILN_TRY(v, by_group(n.in(2), 1));
  KILN_TRY(product, n.emit(Op::dot, {q, k}, {{"transpose_b", true}}));
  KILN_TRY(wide, convert(e, product, precision));
  KILN_TRY(scaled, n.emit(Op::mul, {wide, e.scalar(precision, scale)}));
  KILN_TRY(scores, reshape(e, scaled, {batch, Dim(*heads), queries, keys}));
  KILN_TRY(bent, modified(n, "score_mod", scores));
  KILN_TRY(weights, n.emit(Op::softmax, {bent}, {{"axis", attr_int(3)}}));
  KILN_TRY(chosen, modified(n, "prob_mod", weights));
  KILN_TRY(spread, by_group(chosen, *heads / *groups));
  KILN_TRY(values, convert(e, v, precision));
  KILN_TRY(out, n.emit(Op::dot, {spread, values}));
  KILN_TRY(joined, reshape(e, out, {batch, Dim(*heads), queries, n.shape(2)[3]}));
  return n.finish(convert(e, joined, n.dtype(0)));
}

} // namespace kiln::onnx
