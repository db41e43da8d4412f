#include "frontend/onnx/ops.h"
#include "frontend/onnx/text.h"

#include <unordered_map>

namespace kiln::onnx {
namespace {

template <Op op>
Status import_unary(OnnxNode &n) {
  n.ignore({"consumed_inputs"}); // an optimisation of the first opsets, without meaning
  return n.finish(op, {n.in(0)});
}

// Before opset 7 the second operand was broadcast only where the node said so, and then from an axis on.
Result<Val> aligned(OnnxNode &n) {
  n.ignore({"consumed_inputs"});
  Val b = n.in(1);
  bool broadcast = n.get_flag("broadcast", false);
  if (!broadcast || n.opset() >= 7)
    return b;
  int64_t given = n.get_int("axis", n.rank(0) - b.rank());
  KILN_TRY(axis, n.axis(given < 0 ? given + n.rank(0) : given, n.rank(0) + 1));
  Shape shape = b.type.shape;
  while (int(shape.size()) + axis < n.rank(0))
    shape.push_back(1);
  return reshape(n.emitter(), b, shape);
}

template <Op op>
Status import_binary(OnnxNode &n) {
  KILN_TRY(b, aligned(n));
  return n.finish(op, {n.in(0), b});
}

} // namespace

Status import_equal(OnnxNode &n) {
  if (n.in(0).text || n.in(1).text)
    return n.finish(text_equal(n.emitter(), n.in(0), n.in(1)));
  return import_binary<Op::eq>(n);
}

namespace {

constexpr OnnxOp kOps[] = {
#define KILN_ONNX(name, min_inputs, max_inputs, handler) {"", #name, min_inputs, max_inputs, handler},
#define KILN_ONNX_MOVES(name, min_inputs, max_inputs, handler)                                     \
  {"", #name, min_inputs, max_inputs, handler, Takes::moves},
#define KILN_ONNX_TEXT(name, min_inputs, max_inputs, handler)                                      \
  {"", #name, min_inputs, max_inputs, handler, Takes::text},
#define KILN_ONNX_ML_TEXT(name, min_inputs, max_inputs, handler)                                   \
  {"ai.onnx.ml", #name, min_inputs, max_inputs, handler, Takes::text},
#define KILN_ONNX_ML_MOVES(name, min_inputs, max_inputs, handler)                                  \
  {"ai.onnx.ml", #name, min_inputs, max_inputs, handler, Takes::moves},
#define KILN_ONNX_ML_ANY(name, min_inputs, max_inputs, handler)                                    \
  {"ai.onnx.ml", #name, min_inputs, max_inputs, handler, Takes::any},
#define KILN_ONNX_ANY(name, min_inputs, max_inputs, handler)                                       \
  {"", #name, min_inputs, max_inputs, handler, Takes::any},
#define KILN_ONNX_ML(name, min_inputs, max_inputs, handler)                                        \
  {"ai.onnx.ml", #name, min_inputs, max_inputs, handler},
#define KILN_ONNX_TRAIN(name, min_inputs, max_inputs, handler)                                     \
  {"ai.onnx.preview.training", #name, min_inputs, max_inputs, handler},
#define KILN_ONNX_PREVIEW(name, min_inputs, max_inputs, handler)                                   \
  {"ai.onnx.preview", #name, min_inputs, max_inputs, handler},
#define KILN_ONNX_MS(name, min_inputs, max_inputs, handler)                                        \
  {"com.microsoft", #name, min_inputs, max_inputs, handler},
#define KILN_ONNX_UNARY(name, op) {"", #name, 1, 1, import_unary<Op::op>},
#define KILN_ONNX_BINARY(name, op) {"", #name, 2, 2, import_binary<Op::op>},
#include "frontend/onnx/onnx_ops.def"
#undef KILN_ONNX
#undef KILN_ONNX_MOVES
#undef KILN_ONNX_TEXT
#undef KILN_ONNX_ML_TEXT
#undef KILN_ONNX_ML_MOVES
#undef KILN_ONNX_ML_ANY
#undef KILN_ONNX_ANY
#undef KILN_ONNX_ML
#undef KILN_ONNX_TRAIN
#undef KILN_ONNX_PREVIEW
#undef KILN_ONNX_MS
#undef KILN_ONNX_UNARY
#undef KILN_ONNX_BINARY
};

} // namespace

std::span<const OnnxOp> onnx_ops() { return kOps; }

const OnnxOp *find_onnx_op(std::string_view domain, std::string_view name) {
  static const auto *index = [] {
    auto *map = new std::unordered_multimap<std::string_view, const OnnxOp *>;
    for (const OnnxOp &op : kOps)
      map->emplace(op.name, &op);
    return map;
  }();
  auto [begin, end] = index->equal_range(name);
  for (auto it = begin; it != end; ++it)
    if (it->second->domain == domain)
      return it->second;
  return nullptr;
}

} // namespace kiln::onnx
