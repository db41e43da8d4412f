// Every operator of the table with operands that nobody checked: too few, too many, of a type, a rank
// or a size it may not have, and with the usual attributes as strings. Some of these are fine by some
// operators; all others name the node.
#include "tests/onnx/hostile_cases.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::test {
namespace {

struct TableRow {
  std::string name;
  int least, most;
  std::string domain;
};

std::vector<TableRow> table() {
  return {
#define KILN_ONNX(name, least, most, handler) {#name, least, most, ""},
#define KILN_ONNX_MOVES(name, least, most, handler) {#name, least, most, ""},
#define KILN_ONNX_TEXT(name, least, most, handler) {#name, least, most, ""},
#define KILN_ONNX_ML_TEXT(name, least, most, handler) {#name, least, most, "ai.onnx.ml"},
#define KILN_ONNX_ANY(name, least, most, handler) {#name, least, most, ""},
#define KILN_ONNX_ML(name, least, most, handler) {#name, least, most, "ai.onnx.ml"},
#define KILN_ONNX_TRAIN(name, least, most, handler) {#name, least, most, "ai.onnx.preview.training"},
#define KILN_ONNX_PREVIEW(name, least, most, handler) {#name, least, most, "ai.onnx.preview"},
#define KILN_ONNX_MS(name, least, most, handler) {#name, least, most, "com.microsoft"},
#define KILN_ONNX_UNARY(name, op) {#name, 1, 1, ""},
#define KILN_ONNX_BINARY(name, op) {#name, 2, 2, ""},
#include "frontend/onnx/onnx_ops.def"
#undef KILN_ONNX
#undef KILN_ONNX_MOVES
#undef KILN_ONNX_TEXT
#undef KILN_ONNX_ML_TEXT
#undef KILN_ONNX_ANY
#undef KILN_ONNX_ML
#undef KILN_ONNX_TRAIN
#undef KILN_ONNX_PREVIEW
#undef KILN_ONNX_MS
#undef KILN_ONNX_UNARY
#undef KILN_ONNX_BINARY
  };
}

std::vector<std::string> strings_for_all() {
  std::vector<std::string> out;
  for (const char *name : {"axis", "axes", "alpha", "beta", "epsilon", "kernel_shape", "strides", "pads", "dilations", "group", "mode", "to",
                           "perm", "blocksize", "hidden_size", "num_heads", "size", "equation", "keepdims", "shape", "value", "body",
                           "then_branch", "else_branch", "dtype", "block_size", "bits", "n_targets", "post_transform", "classlabels_ints",
                           "nodes_values", "coefficients", "scale", "offset", "K", "N", "num_outputs", "direction", "reduction", "upper", "k"})
    out.push_back(attr_strings(name, {"not what", "it takes"}));
  return out;
}

} // namespace

void add_operator_cases(HostileCases &cases) {
  for (const TableRow &row : table()) {
    int usual = std::max(row.least, row.most < 0 ? std::max(row.least, 2) : std::min(row.most, std::max(row.least, 1)));
    auto add = [&](const std::string &what, DType dtype, const std::vector<TestDim> &dims, int count,
                   const std::vector<std::string> &attributes, bool may_compile) {
      NodeModel model(fmt::format("op_{}{}_{}", row.domain.empty() ? "" : row.domain + "_", row.name, what));
      for (int i = 0; i < count; ++i)
        model.input(fmt::format("x{}", i), dtype, dims);
      HostileCase made = model.node(row.name, attributes, kBad, row.domain);
      made.may_compile = may_compile;
      cases.push_back(std::move(made));
    };
    if (row.least > 0)
      add("without_operands", DType::f32, {2}, 0, {}, false);
    if (row.most >= 0)
      add("with_too_many", DType::f32, {2}, row.most + 1, {}, false);
    add("of_bools", DType::bool_, {}, usual, {}, true);
    add("of_nothing", DType::f32, {int64_t(0), int64_t(0)}, usual, {}, true);
    add("of_rank_7", DType::f64, std::vector<TestDim>(7, int64_t(1)), usual, {}, true);
    add("of_unknown_sizes", DType::f32, {"A", "B", "C", "D"}, usual, {}, true);
    {
      GraphMaker g;
      Names names;
      for (int i = 0; i < usual; ++i)
        g.input(names.emplace_back(fmt::format("x{}", i)), DType::f32, {2, 3});
      g.input("x", DType::f32, {2}).node(row.name, names, {}, {}, kBad, row.domain).node("Neg", {"x"}, {"y"}).output("y");
      cases.push_back({fmt::format("op_{}{}_without_results", row.domain.empty() ? "" : row.domain + "_", row.name),
                       g.model(17, row.domain.empty() ? "" : NodeModel::opset_import(row.domain)), kBad, true});
    }
    add("with_strings", DType::i64, {3, 4}, usual, strings_for_all(), true);
  }
}

} // namespace kiln::test
