// Operators as the first opsets had them, and those that ONNX dropped.
#include "tests/onnx/run_node.h"

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

Tensor counted(std::vector<int64_t> dims) {
  Tensor out(DType::f32, std::move(dims));
  for (int64_t i = 0; i < out.count(); ++i)
    out.set_f64(i, double(i));
  return out;
}

std::vector<Tensor> old(const std::string &type, const std::vector<Tensor> &inputs, const std::vector<std::string> &attributes,
                        int64_t opset = 1, const std::set<size_t> &known = {}, const Names &outputs = {"y"}) {
  return run_node(type, inputs, attributes, outputs, "", opset, known);
}

} // namespace

TEST_CASE("the second operand is broadcast from an axis on") {
  Tensor x = counted({2, 2, 2}), b = floats({2}, {10, 20});
  std::vector<std::string> from = {attr_i("broadcast", 1), attr_i("axis", 1)};
  check_near(old("Add", {x, b}, from)[0], {10, 11, 22, 23, 14, 15, 26, 27});
  from[1] = attr_i("axis", -3);
  check_near(old("Add", {x, b}, from, 6)[0], {10, 11, 12, 13, 24, 25, 26, 27});
  check_near(old("Add", {x, b}, {attr_i("broadcast", 1)}, 6)[0], {10, 21, 12, 23, 14, 25, 16, 27});
}

TEST_CASE("attributes that became inputs") {
  Tensor x = counted({2, 3});
  check_near(old("Reshape", {x}, {attr_ints("shape", {-1, 2}), attr_ints("consumed_inputs", {0})})[0], {0, 1, 2, 3, 4, 5});
  check_near(old("Slice", {x}, {attr_ints("starts", {0, -2}), attr_ints("ends", {1, 9})})[0], {1, 2});
  check_near(old("Pad", {x}, {attr_ints("paddings", {0, 1, 0, 0}), attr_f("value", 7)})[0], {7, 0, 1, 2, 7, 3, 4, 5});
  check_near(old("Pad", {x}, {attr_ints("pads", {0, -1, 1, 0})}, 2)[0], {1, 2, 4, 5, 0, 0});
  check_near(old("TopK", {x}, {attr_i("k", 1)}, 1, {}, {"y", "i"})[1], {2, 2});
  check_near(old("Clip", {x}, {attr_f("max", 2), attr_f("min", 1)}, 6)[0], {1, 1, 2, 2, 2, 2});
  auto parts = old("Split", {x, floats({2}, {1, 2})}, {attr_i("axis", 1)}, 1, {1}, {"y", "z"});
  check_near(parts[0], {0, 3});
  check_near(parts[1], {1, 2, 4, 5});
  CHECK_THAT(error_of("Split", {x, floats({1}, {7})}, {attr_i("axis", 1)}, 1, {1}), Contains("its sizes add up to 7"));
}

TEST_CASE("Tile along one axis") {
  Tensor x = counted({2, 2}), twice = floats({1}, {2}), axis = floats({1}, {1});
  check_near(old("Tile", {x, twice, axis}, {}, 1, {1, 2})[0], {0, 1, 0, 1, 2, 3, 2, 3});
  CHECK_THAT(error_of("Tile", {x, twice, floats({1}, {2})}, {}, 1, {1, 2}), Contains("the axis 2 is outside"));
}

TEST_CASE("Upsample by height and width") {
  Tensor x = counted({1, 1, 1, 2});
  check_near(old("Upsample", {x}, {attr_f("height_scale", 2), attr_f("width_scale", 2)})[0], {0, 0, 1, 1, 0, 0, 1, 1});
  check_near(old("Upsample", {x}, {attr_floats("scales", {1, 1, 1, 2})}, 7)[0], {0, 0, 1, 1});
}

TEST_CASE("BatchNormalization with statistics of each position") {
  Tensor x = floats({1, 1, 2}, {5, 9}), scale = floats({1, 2}, {2, 3}), bias = floats({1, 2}, {1, -1});
  Tensor mean = floats({1, 2}, {3, 5}), variance = floats({1, 2}, {4, 16});
  std::vector<std::string> each = {attr_i("spatial", 0), attr_f("epsilon", 0)};
  check_near(old("BatchNormalization", {x, scale, bias, mean, variance}, each, 7)[0], {3, 2});
}

TEST_CASE("operators that were dropped") {
  Tensor x = counted({1, 1, 2, 3});
  check_near(old("Affine", {x}, {attr_f("alpha", 2), attr_f("beta", 1)})[0], {1, 3, 5, 7, 9, 11});
  check_near(old("ImageScaler", {x}, {attr_f("scale", 2), attr_floats("bias", {-1})})[0], {-1, 1, 3, 5, 7, 9});
  check_near(old("Crop", {x}, {attr_ints("border", {1, 0, 1, 1})})[0], {1});
  check_near(old("Crop", {x}, {attr_ints("border", {1, 0, 0, 0}), attr_ints("scale", {2, 1})})[0], {1, 4});
  CHECK_THAT(error_of("Crop", {x}, {attr_ints("border", {2, 0, 2, 0})}, 1), Contains("it takes -1 from 2 on"));
  check_near(old("ScaledTanh", {floats({1}, {0})}, {attr_f("alpha", 3), attr_f("beta", 2)})[0], {0});
  check_near(old("ParametricSoftplus", {floats({1}, {0})}, {attr_f("alpha", 2), attr_f("beta", 5)})[0], {1.3862943611});
}
