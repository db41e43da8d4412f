// Operators with a state, and those whose bodies are graphs: linear attention, causal convolutions, caches,
// FlexAttention, Scan of opset 8, TreeEnsemble. All values are computed by hand.
#include "tests/onnx/harness.h"

#include <cmath>
#include <limits>

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

// Operands without elements are left out.
struct MadeNode {
  GraphMaker g;
  std::vector<Tensor> given;
  MadeNode(const std::string &type, const std::vector<Tensor> &inputs, const Names &outputs,
           const std::vector<std::string> &attributes, const std::string &domain = "") {
    Names names;
    for (size_t i = 0; i < inputs.size(); ++i) {
      names.push_back(inputs[i].count() ? "x" + std::to_string(i) : "");
      if (inputs[i].count() == 0)
        continue;
      g.input(names.back(), inputs[i].dtype(), {inputs[i].dims().begin(), inputs[i].dims().end()});
      given.push_back(inputs[i]);
    }
    g.node(type, names, outputs, attributes, "", domain);
    for (const std::string &o : outputs)
      g.output(o);
  }
};

std::vector<Tensor> run_node(const std::string &type, const std::vector<Tensor> &inputs, const Names &outputs,
                             const std::vector<std::string> &attributes, int64_t opset = 27, const std::string &domain = "") {
  MadeNode made(type, inputs, outputs, attributes, domain);
  return Imported(made.g.model(opset)).run(made.given);
}

std::string errors_of(const std::string &type, const std::vector<Tensor> &inputs, const Names &outputs,
                      const std::vector<std::string> &attributes, int64_t opset = 27, const std::string &domain = "") {
  return Imported(MadeNode(type, inputs, outputs, attributes, domain).g.model(opset)).errors();
}

const Tensor kNone(DType::f32, {0});
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

} // namespace

TEST_CASE("linear attention") {
  Tensor q = floats({1, 2, 1}, {1, 2}), k = floats({1, 2, 1}, {3, 4}), v = floats({1, 2, 1}, {5, 6});
  Tensor decay = floats({1, 2, 1}, {0, std::log(0.5)}), beta = floats({1, 2, 1}, {1, 0.5});
  auto run = [&](const std::string &rule, const Tensor &g, const Tensor &b, const Tensor &past = kNone) {
    return run_node("LinearAttention", {q, k, v, past, g, b}, {"y", "s"},
                    {attr_s("update_rule", rule), attr_i("q_num_heads", 1), attr_i("kv_num_heads", 1), attr_f("scale", 1)});
  };
  // S = 3 * 5, then 15 + 4 * 6
  auto linear = run("linear", kNone, kNone);
  check_near(linear[0], {15, 78});
  check_near(linear[1], {39});
  check_near(run("gated", decay, kNone)[0], {15, 63});        // 7.5 + 24
  check_near(run("delta", kNone, beta)[0], {15, -186});       // 15 + 4 * 0.5 * (6 - 60)
  check_near(run("gated_delta", decay, beta)[0], {15, -81});  // 7.5 + 4 * 0.5 * (6 - 30)
  check_near(run("linear", kNone, kNone, floats({1, 1, 1, 1}, {1}))[0], {16, 80});
  CHECK_THAT(errors_of("LinearAttention", {q, k, v}, {"y", "s"}, {attr_i("q_num_heads", 1), attr_i("kv_num_heads", 1)}),
             Contains("the rule 'gated_delta' needs a decay and needs a beta"));
}

TEST_CASE("query heads that share the state of a linear attention") {
  // One step: S = [3 5; 4 6]^T k (x) v with k = (1, 2), v = (3, 4): rows (3, 4) and (6, 8).
  auto out = run_node("LinearAttention", {floats({1, 1, 4}, {1, 0, 0, 1}), floats({1, 1, 2}, {1, 2}), floats({1, 1, 2}, {3, 4})},
                      {"y", "s"}, {attr_s("update_rule", "linear"), attr_i("q_num_heads", 2), attr_i("kv_num_heads", 1), attr_f("scale", 2)});
  check_near(out[0], {6, 8, 12, 16});
  check_near(out[1], {3, 4, 6, 8});
}

TEST_CASE("a causal convolution with state") {
  Tensor x = floats({1, 1, 3}, {1, 2, 3}), w = floats({1, 1, 2}, {10, 1});
  auto out = run_node("CausalConvWithState", {x, w, floats({1}, {100}), floats({1, 1, 1}, {5})}, {"y", "s"}, {});
  check_near(out[0], {151, 112, 123});
  check_near(out[1], {3});
  check_near(run_node("CausalConvWithState", {x, w}, {"y", "s"}, {})[0], {1, 12, 23});
  check_near(run_node("CausalConvWithState", {floats({1, 1, 1}, {2}), floats({1, 1, 3}, {0, 0, 1})}, {"y", "s"}, {})[1], {0, 2});
  CHECK_THAT(errors_of("CausalConvWithState", {x, w, kNone, floats({1, 1, 2}, {5, 5})}, {"y", "s"}, {}), Contains("does not fit 2 taps"));
}

TEST_CASE("writing into a cache") {
  Tensor cache = floats({2, 3, 1}, {1, 2, 3, 4, 5, 6}), update = floats({2, 2, 1}, {10, 20, 30, 40});
  auto run = [&](const std::string &mode, const Tensor &at) {
    return values(run_node("TensorScatter", {cache, update, at}, {"y"}, {attr_s("mode", mode)})[0]);
  };
  CHECK(run("linear", kNone) == std::vector<double>{10, 20, 3, 30, 40, 6});
  CHECK(run("linear", ints({1, 0})) == std::vector<double>{1, 10, 20, 30, 40, 6});
  CHECK(run("circular", ints({2, 4})) == std::vector<double>{20, 2, 10, 4, 30, 40});
  CHECK_THAT(errors_of("TensorScatter", {cache, floats({2, 2, 2}, {0, 0, 0, 0, 0, 0, 0, 0})}, {"y"}, {}), Contains("does not go into a cache"));
}

TEST_CASE("running products") {
  Tensor x = floats({2, 3}, {1, 2, 3, 4, 5, 6});
  auto run = [&](int64_t axis, int64_t exclusive, int64_t reverse) {
    GraphMaker g;
    g.input("x", DType::f32, {2, 3}).weight("axis", Tensor::scalar_i64(DType::i64, axis));
    g.node("CumProd", {"x", "axis"}, {"y"}, {attr_i("exclusive", exclusive), attr_i("reverse", reverse)}).output("y");
    return values(Imported(g.model(26)).run({x})[0]);
  };
  CHECK(run(1, 0, 0) == std::vector<double>{1, 2, 6, 4, 20, 120});
  CHECK(run(0, 1, 0) == std::vector<double>{1, 1, 1, 1, 2, 3});
  CHECK(run(-1, 1, 1) == std::vector<double>{6, 3, 1, 30, 6, 1});
}

TEST_CASE("the gradient of a tensor of the graph") {
  // y = a b + a: dy/da = b + 1, dy/db = a
  GraphMaker g;
  g.input("a", DType::f32, {2}).input("b", DType::f32, {2});
  g.node("Gradient", {"a", "b"}, {"da", "db"}, {attr_strings("xs", {"a", "b"}), attr_s("y", "y")}, "", "ai.onnx.preview.training");
  g.node("Mul", {"a", "b"}, {"p"}).node("Add", {"p", "a"}, {"y"}).output("da").output("db");
  auto out = Imported(g.model()).run({floats({2}, {2, 3}), floats({2}, {5, 7})});
  check_near(out[0], {6, 8});
  check_near(out[1], {2, 3});
  GraphMaker other;
  other.input("a", DType::f32, {2}).node("Neg", {"a"}, {"b"}).node("Neg", {"a"}, {"y"});
  other.node("Gradient", {"b"}, {"d"}, {attr_strings("xs", {"a"}), attr_s("y", "y")}, "", "ai.onnx.preview.training").output("d");
  CHECK_THAT(Imported(other.model()).errors(), Contains("its input 0 is 'b', not the tensor 'a'"));
}

TEST_CASE("gated linear units") {
  Tensor a = floats({2}, {0, 2}), b = floats({2}, {7, 3});
  check_near(run_node("SwiGLU", {a, b}, {"y"}, {}, 28)[0], {0, 6 / (1 + std::exp(-2.0))});
  check_near(run_node("SwiGLU", {a, b}, {"y"}, {attr_f("alpha", 0.5)}, 28)[0], {0, 6 / (1 + std::exp(-1.0))});
}

TEST_CASE("attention with graphs of its own") {
  // Equal scores but for what the first graph adds to the second key: weights 1/4 and 3/4, doubled.
  GraphMaker score, prob;
  score.input("s", DType::f32, {1, 2, 1, 2}).node("Add", {"s", "more"}, {"t"}).output("t");
  score.weight("more", floats({2}, {0, std::log(3)}));
  prob.input("p", DType::f32, {1, 2, 1, 2}).node("Add", {"p", "p"}, {"t"}).output("t");
  Tensor q = floats({1, 2, 1, 1}, {0, 0}), k = floats({1, 1, 2, 1}, {1, 2}), v = floats({1, 1, 2, 1}, {4, 8});
  auto out = run_node("FlexAttention", {q, k, v}, {"y"}, {attr_graph("score_mod", score.bytes()), attr_graph("prob_mod", prob.bytes())}, 26,
                      "ai.onnx.preview");
  check_near(out[0], {14, 14});
  GraphMaker wrong;
  wrong.input("s", DType::f32, {1, 2, 1, 2}).node("Shape", {"s"}, {"t"}).output("t");
  CHECK_THAT(errors_of("FlexAttention", {q, k, v}, {"y"}, {attr_graph("score_mod", wrong.bytes())}, 26, "ai.onnx.preview"),
             Contains("must give one result of the type of its input"));
}

TEST_CASE("scans with a batch") {
  GraphMaker body;
  body.input("sum", DType::f32, {1}).input("x", DType::f32, {1});
  body.node("Add", {"sum", "x"}, {"next"}).node("Identity", {"next"}, {"seen"}).output("next").output("seen");
  std::vector<std::string> attributes = {attr_graph("body", body.bytes()), attr_i("num_scan_inputs", 1)};
  Tensor start = floats({2, 1}, {0, 100}), x = floats({2, 3, 1}, {1, 2, 3, 4, 5, 6});
  auto all = run_node("Scan", {kNone, start, x}, {"s", "y"}, attributes, 8);
  CHECK(values(all[0]) == std::vector<double>{6, 115});
  CHECK(values(all[1]) == std::vector<double>{1, 3, 6, 104, 109, 115});
  auto some = run_node("Scan", {ints({2, 1}), start, x}, {"s", "y"}, attributes, 8);
  CHECK(values(some[0]) == std::vector<double>{3, 104});
  CHECK(values(some[1]) == std::vector<double>{1, 3, 0, 104, 0, 0});
  attributes.push_back(attr_ints("directions", {1}));
  CHECK(values(run_node("Scan", {ints({2, 3}), start, x}, {"s", "y"}, attributes, 8)[1]) == std::vector<double>{2, 3, 0, 106, 111, 115});
}

TEST_CASE("an ensemble with sets") {
  // x[0] <= 1 ? (x[1] in {3, 5} ? leaf 0 : leaf 1) : leaf 2; NaN in x[1] is taken for a member.
  auto ensemble = [](std::vector<int64_t> no) {
    return std::vector<std::string>{attr_ints("nodes_featureids", {0, 1}), attr_ints("nodes_truenodeids", {1, 0}),
                                    attr_ints("nodes_falsenodeids", no), attr_ints("nodes_trueleafs", {0, 1}),
                                    attr_ints("nodes_falseleafs", {1, 1}), attr_ints("nodes_missing_value_tracks_true", {0, 1}),
                                    attr_tensor("nodes_modes", tensor_proto("", 2, {2}, std::string("\0\6", 2))),
                                    attr_tensor("nodes_splits", tensor_proto("", floats({2}, {1, 0}))),
                                    attr_tensor("membership_values", tensor_proto("", floats({3}, {3, 5, kNan}))),
                                    attr_tensor("leaf_weights", tensor_proto("", floats({3}, {10, 20, 30}))),
                                    attr_ints("leaf_targetids", {0, 1, 0}), attr_ints("tree_roots", {0}), attr_i("n_targets", 2)};
  };
  Tensor x = floats({5, 2}, {0, 3, 0, 4, 1, 5, 2, 3, 0, kNan});
  auto out = run_node("TreeEnsemble", {x}, {"y"}, ensemble({2, 1}), 21, "ai.onnx.ml");
  CHECK(values(out[0]) == std::vector<double>{10, 0, 0, 20, 10, 0, 30, 0, 10, 0});
  CHECK_THAT(errors_of("TreeEnsemble", {x}, {"y"}, ensemble({3, 1}), 21, "ai.onnx.ml"), Contains("node 0 leads to leaf 3 of 3"));
}
