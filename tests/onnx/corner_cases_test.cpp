// Corners of operators: what their definitions say of bounds that cross, of empty lists of axes, of sizes of 0.
#include "tests/onnx/run_node.h"

#include <cmath>

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

Tensor scalar(double value) { return floats({}, {value}); }

Tensor of(DType dtype, std::vector<int64_t> dims, const std::vector<double> &numbers) {
  Tensor out(dtype, std::move(dims));
  for (size_t i = 0; i < numbers.size(); ++i)
    out.set_f64(int64_t(i), numbers[i]);
  return out;
}

} // namespace

TEST_CASE("the upper bound of Clip wins where the bounds cross") {
  Tensor x = floats({3}, {-3, 1.5, 5});
  for (std::set<size_t> known : std::vector<std::set<size_t>>{{}, {1}, {2}, {1, 2}}) {
    INFO("known bounds: " << known.size());
    check_near(run_node("Clip", {x, scalar(2), scalar(1)}, {}, {"y"}, "", 13, known)[0], {1, 1, 1});
    check_near(run_node("Clip", {x, scalar(1), scalar(2)}, {}, {"y"}, "", 13, known)[0], {1, 1.5, 2});
  }
}

TEST_CASE("what is no number is not above a threshold") {
  check_near(run_node("ThresholdedRelu", {floats({4}, {NAN, 2, 0.5, INFINITY})}, {})[0], {0, 2, 0, INFINITY});
}

TEST_CASE("the statistics of a layer norm are of their own dtype") {
  GraphMaker g;
  g.input("x", DType::f32, {1, 4});
  g.node("Cast", {"x"}, {"h"}, {attr_i("to", 10)}).weight("s", floats({4}, {1, 1, 1, 1})).node("Cast", {"s"}, {"scale"}, {attr_i("to", 10)});
  g.node("LayerNormalization", {"h", "scale"}, {"n", "mean", "inverse"}).node("Cast", {"n"}, {"y"}, {attr_i("to", 1)});
  g.output("y").output("mean").output("inverse");
  Imported m(g.model(17));
  auto out = m.run({floats({1, 4}, {1000, 400, -200, 0})});
  CHECK(out[1].dtype() == DType::f32);
  CHECK(out[2].dtype() == DType::f32);
  check_near(out[1], {300});
  check_near(out[2], {1 / std::sqrt(210000.0)}, 1e-8);
}

TEST_CASE("reductions over no axes still do what is done to each element") {
  Tensor x = floats({2}, {-3, 2});
  auto over_none = [&](const std::string &type, const std::vector<Tensor> &inputs) {
    return run_node(type, inputs, {attr_i("noop_with_empty_axes", 1)}, {"y"}, "", 18)[0];
  };
  check_near(over_none("ReduceSumSquare", {x}), {9, 4});
  check_near(over_none("ReduceL1", {x}), {3, 2});
  check_near(over_none("ReduceL2", {x}), {3, 2});
  check_near(over_none("ReduceLogSumExp", {x}), {-3, 2});
  check_near(over_none("ReduceLogSum", {floats({2}, {1, std::exp(2)})}), {0, 2});
  check_near(over_none("ReduceMean", {x}), {-3, 2});
}

TEST_CASE("reductions of integers by way of reals") {
  Tensor x = of(DType::i32, {2, 2}, {3, 4, 1, 2});
  auto rows = [&](const std::string &type) { return run_node(type, {x, ints({1})}, {attr_i("keepdims", 0)}, {"y"}, "", 18, {1})[0]; };
  CHECK(rows("ReduceMean").dtype() == DType::i32);
  check_near(rows("ReduceMean"), {3, 1});
  check_near(rows("ReduceL2"), {5, 2});
  check_near(rows("ReduceLogSum"), {1, 1});
  check_near(rows("ReduceLogSumExp"), {4, 2});
}

TEST_CASE("slices with steps longer than any axis") {
  Tensor x = floats({4}, {1, 2, 3, 4});
  for (std::set<size_t> known : std::vector<std::set<size_t>>{{1, 2, 3, 4}, {3, 4}, {3}}) {
    INFO("known operands: " << known.size());
    auto slice = [&](int64_t start, int64_t end, int64_t step) {
      return run_node("Slice", {x, ints({start}), ints({end}), ints({0}), ints({step})}, {}, {"y"}, "", 13, known)[0];
    };
    check_near(slice(2, INT64_MIN, INT64_MIN), {3});
    check_near(slice(1, INT64_MAX, INT64_MAX), {2});
    check_near(slice(-1, INT64_MIN, -3), {4, 1});
  }
}

TEST_CASE("what Pad cuts off is neither mirrored nor repeated") {
  Tensor x = floats({4}, {1, 2, 3, 4});
  auto padded = [&](const std::string &mode, int64_t before, int64_t after) {
    return run_node("Pad", {x, ints({before, after})}, {attr_s("mode", mode)}, {"y"}, "", 19, {1})[0];
  };
  check_near(padded("wrap", 2, -1), {2, 3, 1, 2, 3});
  check_near(padded("reflect", -1, 2), {2, 3, 4, 3, 2});
  check_near(padded("edge", 1, -2), {1, 1, 2});
  Tensor wide = ints({1}), value = Tensor::scalar_i64(DType::i64, (int64_t(1) << 60) + 1);
  for (std::set<size_t> known : std::vector<std::set<size_t>>{{1}, {1, 2}})
    CHECK(run_node("Pad", {wide, ints({0, 1}), value}, {}, {"y"}, "", 19, known)[0].at_i64(1) == (int64_t(1) << 60) + 1);
}

TEST_CASE("the first Resize rounds up along axes that shrink alone") {
  Tensor x = floats({2, 4}, {0, 1, 2, 3, 4, 5, 6, 7});
  check_near(run_node("Resize", {x, floats({2}, {0.5, 1.5})}, {attr_s("mode", "nearest")}, {"y"}, "", 10, {1})[0], {0, 0, 1, 2, 2, 3});
  check_near(run_node("Resize", {x, floats({2}, {1, 0.75})}, {attr_s("mode", "nearest")}, {"y"}, "", 10, {1})[0], {0, 2, 3, 4, 6, 7});
}

TEST_CASE("a diagonal that a run tells") {
  Tensor x = floats({2, 3}, {1, 2, 3, 4, 5, 6});
  for (std::set<size_t> known : std::vector<std::set<size_t>>{{}, {1}}) {
    auto part = [&](int64_t k, int64_t upper) {
      return run_node("Trilu", {x, Tensor::scalar_i64(DType::i64, k)}, {attr_i("upper", upper)}, {"y"}, "", 14, known)[0];
    };
    check_near(part(1, 1), {0, 2, 3, 0, 0, 6});
    check_near(part(0, 0), {1, 0, 0, 4, 5, 0});
    check_near(part(-9, 1), {1, 2, 3, 4, 5, 6});
  }
}

TEST_CASE("NonZero of one number has no rows") {
  for (double value : {0.0, 3.0}) {
    GraphMaker g;
    g.input("x", DType::f32, {}).node("NonZero", {"x"}, {"y"}).output("y");
    Imported m(g.model(13));
    CHECK(m.run({scalar(value)})[0].dims() == std::vector<int64_t>{0, value != 0});
  }
}

TEST_CASE("activations of recurrent layers with two numbers") {
  auto step = [&](const std::string &activation) {
    return run_node("RNN", {floats({1, 1, 1}, {2}), floats({1, 1, 1}, {1}), floats({1, 1, 1}, {0})},
                    {attr_i("hidden_size", 1), attr_strings("activations", {activation}), attr_floats("activation_alpha", {0.5f}),
                     attr_floats("activation_beta", {0.25f})})[0];
  };
  check_near(step("Affine"), {1.25});
  check_near(step("ScaledTanh"), {0.5 * std::tanh(0.5)});
}
