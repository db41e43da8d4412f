// Every operator of the table with operands that nobody checked: too few, too many, of a type, a rank
// or a size it may not have, and with the usual attributes as strings. Some of these are fine by some
// operators; all others name the node.
#include "tests/onnx/hostile_cases.h"

#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::test {
namespace {

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
  for (const onnx::OnnxOp &op : onnx::onnx_ops()) {
    std::string name(op.name), domain(op.domain), prefix = domain.empty() ? "" : domain + "_";
    int usual = std::max(op.min_inputs, op.max_inputs < 0 ? std::max(op.min_inputs, 2) : std::min(op.max_inputs, std::max(op.min_inputs, 1)));
    auto add = [&](const std::string &what, DType dtype, const std::vector<TestDim> &dims, int count,
                   const std::vector<std::string> &attributes, bool may_compile) {
      NodeModel model(fmt::format("op_{}{}_{}", prefix, name, what));
      for (int i = 0; i < count; ++i)
        model.input(fmt::format("x{}", i), dtype, dims);
      HostileCase made = model.node(name, attributes, kBad, domain);
      made.may_compile = may_compile;
      cases.push_back(std::move(made));
    };
    if (op.min_inputs > 0)
      add("without_operands", DType::f32, {2}, 0, {}, false);
    if (op.max_inputs >= 0)
      add("with_too_many", DType::f32, {2}, op.max_inputs + 1, {}, false);
    add("of_bools", DType::bool_, {}, usual, {}, true);
    add("of_nothing", DType::f32, {int64_t(0), int64_t(0)}, usual, {}, true);
    add("of_rank_7", DType::f64, std::vector<TestDim>(7, int64_t(1)), usual, {}, true);
    add("of_unknown_sizes", DType::f32, {"A", "B", "C", "D"}, usual, {}, true);
    {
      GraphMaker g;
      Names names;
      for (int i = 0; i < usual; ++i)
        g.input(names.emplace_back(fmt::format("x{}", i)), DType::f32, {2, 3});
      g.input("x", DType::f32, {2}).node(name, names, {}, {}, kBad, domain).node("Neg", {"x"}, {"y"}).output("y");
      cases.push_back({fmt::format("op_{}{}_without_results", prefix, name),
                       g.model(17, domain.empty() ? "" : NodeModel::opset_import(domain)), kBad, true});
    }
    add("with_strings", DType::i64, {3, 4}, usual, strings_for_all(), true);
  }
}

} // namespace kiln::test
