// Operators that are imported as several ops: losses, attention, rotary positions, optimizers.
#include "tests/onnx/run_node.h"

#include <cmath>

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

Tensor bools(std::vector<int64_t> dims, const std::vector<int> &flags) {
  Tensor out(DType::bool_, std::move(dims));
  for (size_t i = 0; i < flags.size(); ++i)
    out.set_i64(int64_t(i), flags[i]);
  return out;
}

} // namespace

TEST_CASE("losses") {
  Tensor scores = floats({2, 2}, {-1, -2, -3, -4}), target = ints({1, 0}), weights = floats({2}, {1, 3});
  auto nll = [&](std::vector<std::string> attributes, bool weighted = false) {
    std::vector<Tensor> inputs = {scores, target};
    if (weighted)
      inputs.push_back(weights);
    return run_node("NegativeLogLikelihoodLoss", inputs, attributes)[0];
  };
  check_near(nll({}), {2.5});
  check_near(nll({attr_s("reduction", "none")}), {2, 3});
  check_near(nll({attr_s("reduction", "sum")}, true), {9});
  check_near(nll({}, true), {9.0 / 4});
  check_near(nll({attr_i("ignore_index", 0)}), {2});
  auto out = run_node("SoftmaxCrossEntropyLoss", {floats({2, 2}, {5, 5, 0, std::log(3)}), ints({0, 1})},
                      {attr_s("reduction", "none")}, {"y", "p"});
  check_near(out[0], {std::log(2), std::log(4.0 / 3)});
  check_near(out[1], {-std::log(2), -std::log(2), -std::log(4), std::log(0.75)});
}

TEST_CASE("attention") {
  Tensor q = floats({1, 2, 2, 1}, {1, 1, 1, 1}), k = floats({1, 1, 2, 1}, {0, std::log(3)}), v = floats({1, 1, 2, 1}, {4, 8});
  std::vector<std::string> scale = {attr_f("scale", 1)};
  check_near(run_node("Attention", {q, k, v}, scale)[0], {7, 7, 7, 7}); // weights 1/4 and 3/4, for both heads
  check_near(run_node("Attention", {q, k, v}, {attr_f("scale", 1), attr_i("is_causal", 1)})[0], {4, 7, 4, 7});
  // A row that sees nothing is zero; a mask that is too short hides the rest.
  check_near(run_node("Attention", {q, k, v, bools({2, 2}, {0, 0, 1, 1})}, scale)[0], {0, 7, 0, 7});
  check_near(run_node("Attention", {q, k, v, floats({2, 1}, {0, 0})}, {attr_f("scale", 1), attr_f("softcap", 5000)})[0],
             {7, 7, 7, 7}); // one column is for all keys
  // What came before goes in front, and the first query stands behind it.
  auto out = run_node("Attention", {q, k, v, Tensor(DType::f32, {0}), floats({1, 1, 1, 1}, {0}), floats({1, 1, 1, 1}, {0})},
                      {attr_f("scale", 1), attr_i("is_causal", 1)}, {"y", "k", "v"});
  check_near(out[0], {2, 28.0 / 5, 2, 28.0 / 5});
  check_near(out[1], {0, 0, std::log(3)});
  // Heads side by side, with the scores after the softmax.
  Tensor flat_q = floats({1, 2, 2}, {1, 1, 1, 1}), flat_k = floats({1, 2, 1}, {0, std::log(3)}), flat_v = floats({1, 2, 1}, {4, 8});
  auto flat = run_node("Attention", {flat_q, flat_k, flat_v},
                       {attr_f("scale", 1), attr_i("q_num_heads", 2), attr_i("kv_num_heads", 1), attr_i("qk_matmul_output_mode", 3)},
                       {"y", "k", "v", "w"});
  check_near(flat[0], {7, 7, 7, 7});
  check_near(flat[3], {0.25, 0.75, 0.25, 0.75, 0.25, 0.75, 0.25, 0.75});
}

TEST_CASE("attention refuses what does not fit") {
  GraphMaker g;
  g.input("q", DType::f32, {1, 2, 6}).input("k", DType::f32, {1, 2, 4});
  g.node("Attention", {"q", "k", "k"}, {"y"}, {attr_i("q_num_heads", 3), attr_i("kv_num_heads", 2)}).output("y");
  CHECK_THAT(Imported(g.model(23)).errors(), Contains("3 query heads do not share 2 key and 2 value heads evenly"));
}

TEST_CASE("rotary positions") {
  Tensor x = floats({1, 1, 1, 5}, {1, 2, 3, 4, 9}), cosines = floats({2, 2}, {1, 1, 0, 0}), sines = floats({2, 2}, {0, 0, 1, 1});
  Tensor at(DType::i64, {1, 1});
  at.set_i64(0, 1);
  std::vector<std::string> part = {attr_i("rotary_embedding_dim", 4)};
  check_near(run_node("RotaryEmbedding", {x, cosines, sines, at}, part)[0], {-3, -4, 1, 2, 9});
  part.push_back(attr_i("interleaved", 1));
  check_near(run_node("RotaryEmbedding", {x, cosines, sines, at}, part)[0], {-2, 1, -4, 3, 9});
}

TEST_CASE("rotary positions refuse what does not fit") {
  auto error_at = [](const std::vector<TestDim> &positions, const std::string &domain) {
    bool contrib = !domain.empty();
    GraphMaker g;
    g.input("x", DType::f32, {2, 1, 3, 4}).input("at", DType::i64, positions);
    g.input("cos", DType::f32, {8, 2}).input("sin", DType::f32, {8, 2});
    g.node("RotaryEmbedding", contrib ? Names{"x", "at", "cos", "sin"} : Names{"x", "cos", "sin", "at"}, {"y"}, {}, "", domain);
    return Imported(g.output("y").model(23)).errors();
  };
  CHECK(error_at({1}, "com.microsoft") == "");
  CHECK(error_at({2, 3}, "com.microsoft") == "");
  CHECK_THAT(error_at({}, "com.microsoft"), Contains("its 'position_ids' are i64[], not [1] or [batch, length]"));
  CHECK_THAT(error_at({3}, "com.microsoft"), Contains("its 'position_ids' are i64[3], not [1] or [batch, length]"));
  CHECK_THAT(error_at({2, 3, 1}, "com.microsoft"), Contains("its 'position_ids' are i64[2, 3, 1]"));
  CHECK(error_at({2, 3}, "") == "");
  for (const std::vector<TestDim> &wrong : {std::vector<TestDim>{}, {3}, {2, 3, 1}})
    CHECK_THAT(error_at(wrong, ""), Contains("its 'position_ids' are i64") && Contains("not [batch, length]"));
}

TEST_CASE("optimizers") {
  Tensor rate = floats({}, {0.5}), step(DType::i64, {}), x = floats({2}, {1, 2}), g = floats({2}, {2, -2}), zero = floats({2}, {0, 0});
  step.set_i64(0, 1);
  std::string domain = "ai.onnx.preview.training";
  auto momentum = run_node("Momentum", {rate, step, x, g, floats({2}, {1, 1})},
                           {attr_f("alpha", 0.5), attr_f("beta", 1), attr_f("norm_coefficient", 0), attr_s("mode", "standard")},
                           {"y", "v"}, domain);
  check_near(momentum[0], {-0.25, 2.75});
  check_near(momentum[1], {2.5, -1.5});
  auto adagrad = run_node("Adagrad", {rate, step, x, g, zero}, {attr_f("epsilon", 0)}, {"y", "h"}, domain);
  check_near(adagrad[0], {0.5, 2.5});
  check_near(adagrad[1], {4, 4});
  // The first step of Adam is as long as the rate.
  auto adam = run_node("Adam", {rate, step, x, g, zero, zero}, {attr_f("epsilon", 0)}, {"y", "v", "h"}, domain);
  check_near(adam[0], {0.5, 2.5});
}

TEST_CASE("batch normalisation in training mode uses the batch's own statistics") {
  GraphMaker g;
  g.input("x", DType::f32, {2, 1, 2}).weight("s", floats({1}, {2})).weight("b", floats({1}, {1}));
  g.weight("m", floats({1}, {10})).weight("v", floats({1}, {20}));
  g.node("BatchNormalization", {"x", "s", "b", "m", "v"}, {"y", "mean", "var"},
         {attr_i("training_mode", 1), attr_f("momentum", 0.75f), attr_f("epsilon", 0)});
  g.output("y").output("mean").output("var");
  Imported m(g.model(15));
  auto out = m.run({floats({2, 1, 2}, {1, 1, 3, 3})}); // mean 2, variance 1
  check_near(out[0], {-1, -1, 3, 3});
  check_near(out[1], {8});
  check_near(out[2], {15.25});
}

TEST_CASE("recurrent layers with the batch first") {
  auto run = [](int64_t layout, const Tensor &x, const Tensor &h) {
    GraphMaker g;
    g.input("x", DType::f32, std::vector<TestDim>(x.dims().begin(), x.dims().end()));
    g.input("h", DType::f32, std::vector<TestDim>(h.dims().begin(), h.dims().end()));
    g.weight("w", floats({2, 1, 1}, {0.5, -1})).weight("r", floats({2, 1, 1}, {0.25, 0.5}));
    g.node("RNN", {"x", "w", "r", "", "", "h"}, {"y", "last"},
           {attr_i("hidden_size", 1), attr_s("direction", "bidirectional"), attr_i("layout", layout)});
    g.output("y").output("last");
    return Imported(g.model(14)).run({x, h});
  };
  // Two items of three steps; states by direction.
  auto steps = run(0, floats({3, 2, 1}, {1, 4, 2, 5, 3, 6}), floats({2, 2, 1}, {0.1, 0.2, 0.3, 0.4}));
  auto items = run(1, floats({2, 3, 1}, {1, 2, 3, 4, 5, 6}), floats({2, 2, 1}, {0.1, 0.3, 0.2, 0.4}));
  REQUIRE(items[0].dims() == std::vector<int64_t>{2, 3, 2, 1});
  for (int64_t b = 0; b < 2; ++b)
    for (int64_t d = 0; d < 2; ++d) {
      CHECK(items[1].at_f64(b * 2 + d) == steps[1].at_f64(d * 2 + b));
      for (int64_t t = 0; t < 3; ++t)
        CHECK(items[0].at_f64((b * 3 + t) * 2 + d) == steps[0].at_f64((t * 2 + d) * 2 + b));
    }
}

TEST_CASE("operands of several dtypes") {
  // Scales and statistics in another dtype than the data; the result has that of the data, or of the scale.
  auto doubles = [](std::vector<double> values) {
    Tensor out(DType::f64, {int64_t(values.size())});
    for (size_t i = 0; i < values.size(); ++i)
      out.set_f64(int64_t(i), values[i]);
    return out;
  };
  GraphMaker g;
  g.input("x", DType::f32, {1, 2, 1}).weight("s", doubles({2, 3})).weight("b", floats({2}, {1, -1}));
  g.weight("m", doubles({1, 1})).weight("v", doubles({4, 1}));
  g.node("BatchNormalization", {"x", "s", "b", "m", "v"}, {"y"}, {attr_f("epsilon", 0)});
  g.node("RMSNormalization", {"x", "one"}, {"z"}, {attr_f("epsilon", 0)}).weight("one", doubles({2}));
  g.output("y").output("z");
  Imported m(g.model(23));
  auto out = m.run({floats({1, 2, 1}, {3, 3})});
  check_near(out[0], {3, 5});
  CHECK(out[0].dtype() == DType::f32);
  check_near(out[1], {2, 2});
  CHECK(out[1].dtype() == DType::f64);

  GraphMaker p;
  p.input("x", DType::i32, {3}).input("s", DType::i32, {1}).node("PRelu", {"x", "s"}, {"y"}).output("y");
  Tensor x(DType::i32, {3}), slope(DType::i32, {1});
  x.set_i64(0, -2), x.set_i64(1, 5), slope.set_i64(0, 3);
  check_near(Imported(p.model(16)).run({x, slope})[0], {-6, 5, 0});
}
