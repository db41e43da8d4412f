// Transforms and resizing: values that can be computed by hand.
#include "tests/onnx/run_node.h"

#include <cmath>
#include <numbers>

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

// cos(2 pi k i / n), as [1, n, 1].
Tensor wave(int64_t n, int64_t k) {
  Tensor out(DType::f32, {1, n, 1});
  for (int64_t i = 0; i < n; ++i)
    out.set_f64(i, std::cos(2 * std::numbers::pi * double(i * k % n) / double(n)));
  return out;
}

std::vector<Tensor> dft(const Tensor &x, std::vector<std::string> attributes) {
  return run_node("DFT", {x}, attributes, {"y"}, "", 17);
}

} // namespace

TEST_CASE("DFT of a wave is one line, for short and long lengths") {
  for (int64_t n : {8, 15, 1030, 2048}) {
    Tensor y = dft(wave(n, 3), {attr_i("onesided", 1)})[0];
    REQUIRE(y.dims() == std::vector<int64_t>{1, n / 2 + 1, 2});
    for (int64_t k = 0; k < n / 2 + 1; ++k)
      CHECK(y.at_f64(2 * k) == Approx(k == 3 ? double(n) / 2 : 0).margin(1e-3));
  }
}

TEST_CASE("the inverse DFT takes the spectrum back") {
  for (int64_t n : {6, 7, 2048}) {
    Tensor x = wave(n, 2), both = dft(x, {})[0], one = dft(x, {attr_i("onesided", 1)})[0];
    Tensor back = dft(both, {attr_i("inverse", 1)})[0], real;
    GraphMaker g;
    g.input("x", DType::f32, {1, n / 2 + 1, 2}).weight("n", ints({n}));
    g.node("DFT", {"x", "n"}, {"y"}, {attr_i("inverse", 1), attr_i("onesided", 1)}).output("y");
    real = Imported(g.model(17)).run({one})[0];
    REQUIRE(real.dims() == x.dims());
    for (int64_t i = 0; i < n; ++i) {
      CHECK(back.at_f64(2 * i) == Approx(x.at_f64(i)).margin(1e-5));
      CHECK(real.at_f64(i) == Approx(x.at_f64(i)).margin(1e-5));
    }
  }
}

TEST_CASE("STFT") {
  Tensor x = floats({1, 6, 1}, {1, 2, 3, 4, 5, 6}), complex = floats({1, 2, 2}, {1, 1, 2, 0}), step = ints({2});
  Tensor window = floats({2}, {1, 2});
  check_near(run_node("STFT", {x, step, window}, {}, {"y"}, "", 17, {1})[0], {5, 0, -3, 0, 11, 0, -5, 0, 17, 0, -7, 0});
  check_near(run_node("STFT", {complex, step}, {attr_i("onesided", 0)}, {"y"}, "", 17, {1})[0], {3, 1, -1, 1});
  CHECK_THAT(error_of("STFT", {complex, step}, {}, 17, {1}), Contains("set onesided to 0"));
}

TEST_CASE("Resize with antialiasing") {
  Tensor x = floats({1, 1, 1, 8}, {0, 0, 8, 0, 0, 0, 0, 8}), sizes = ints({1, 1, 1, 4}), none(DType::f32, {0});
  auto with = [&](std::vector<std::string> attributes) {
    attributes.push_back(attr_i("antialias", 1));
    return run_node("Resize", {x, none, none, sizes}, attributes, {"y"}, "", 18, {3})[0];
  };
  // Weights 1 3 3 1 over 8; beyond the end lies the last element again.
  check_near(with({attr_s("mode", "linear")}), {1, 3, 0, 4});
  check_near(with({attr_s("mode", "linear"), attr_i("exclude_outside", 1)}), {8.0 / 7, 3, 0, 24.0 / 7});
  check_near(with({attr_s("mode", "nearest")}), {0, 8, 0, 0});
}

TEST_CASE("Resize of a region that is known when it runs") {
  Tensor x = floats({1, 1, 1, 5}, {0, 1, 2, 3, 4}), none(DType::f32, {0}), sizes = ints({1, 1, 1, 3});
  Tensor roi = floats({8}, {0, 0, 0, 0.25, 1, 1, 1, 1.25});
  std::vector<std::string> crop = {attr_s("coordinate_transformation_mode", "tf_crop_and_resize"), attr_s("mode", "linear"),
                                   attr_f("extrapolation_value", -7)};
  check_near(run_node("Resize", {x, roi, none, sizes}, crop, {"y"}, "", 13, {3})[0], {1, 3, -7});
  check_near(run_node("Resize", {x, roi, none, sizes}, crop, {"y"}, "", 13, {1, 3})[0], {1, 3, -7});
  CHECK_THAT(error_of("Resize", {x, floats({2}, {0, 1}), none, sizes}, crop, 13, {3}), Contains("it must be 8 floats"));
}

TEST_CASE("Resize to sizes that were rounded") {
  Tensor x = floats({1, 1, 1, 4}, {1, 2, 3, 4}), none(DType::f32, {0}), scales = floats({4}, {1, 1, 1, 0.6f});
  auto with = [&](const std::string &coordinates) {
    return run_node("Resize", {x, none, scales}, {attr_s("mode", "linear"), attr_s("coordinate_transformation_mode", coordinates)},
                    {"y"}, "", 19, {2})[0];
  };
  check_near(with("half_pixel_symmetric"), {5.0 / 3, 10.0 / 3}, 1e-5);
  check_near(with("align_corners"), {1, 1 + 3 / 1.4}, 1e-5);
  CHECK_THAT(error_of("Resize", {x, none, scales}, {attr_s("coordinate_transformation_mode", "best")}, 19, {2}),
             Contains("'coordinate_transformation_mode' is 'best'"));
}
