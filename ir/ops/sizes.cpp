// bind_size: a number that a run has computed becomes a size, which later types mention like any other.
//
//     count: i64[] = reduce_sum(ones, axes=[0])
//     size K <= N = count
//     y: f32[K] = slice(x, ...)
//
// What is planned before a run (memory, the largest outputs) goes by the bound.
#include "ir/ops/infer_util.h"

#include <fmt/format.h>

namespace kiln {
namespace {

Result<std::vector<TensorType>> infer_bind_size(InferContext &context) {
  const std::string &symbol = context.attrs.get_string("symbol");
  const Dim &bound = context.attrs.get_dim("bound");
  auto parsed = parse_dim(symbol);
  if (!parsed || !parsed->try_symbol() || parsed->try_symbol()->text() != symbol)
    return Error{fmt::format("'{}' is no name of a size", symbol)};
  if (!bound.is_valid() || (bound.is_const() && bound.as_const() < 0) || bound.depends_on(Symbol(symbol)))
    return Error{fmt::format("the bound of the size {} is {}", symbol, bound.is_valid() ? bound.text() : "too large")};
  if (context.operands[0] != TensorType{DType::i64, {}})
    return Error{fmt::format("the size {} is {}; it must be i64[]", symbol, context.operands[0].text())};
  return std::vector<TensorType>();
}

} // namespace

const OpDef op_bind_size{
    .name = "bind_size",
    .doc = "Makes a computed number a size: the symbol, at most the bound. More is an error of the run.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"symbol", AttrKind::string}, {"bound", AttrKind::integer}},
    .infer = infer_bind_size,
    .structural = true,
    .traits = kNoFold | kSideEffect,
};

} // namespace kiln
