// Operators on images: sampling between pixels, regions, pools and what undoes them.
#include "tests/onnx/run_node.h"

#include <cmath>

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

Tensor counted(std::vector<int64_t> dims, double first = 0) {
  Tensor out(DType::f32, std::move(dims));
  for (int64_t i = 0; i < out.count(); ++i)
    out.set_f64(i, first + double(i));
  return out;
}

} // namespace

TEST_CASE("GridSample") {
  Tensor x = counted({1, 1, 2, 2}); // 0 1 / 2 3
  Tensor grid = floats({1, 1, 3, 2}, {0, 0, 1, 1, -2, 0});
  auto sampled = [&](std::vector<std::string> attributes, int64_t opset = 20) {
    return run_node("GridSample", {x, grid}, attributes, {"y"}, "", opset)[0];
  };
  // The middle of all; the last corner, a quarter of which is inside; outside, past the left edge by 1.
  check_near(sampled({}), {1.5, 0.75, 0});
  check_near(sampled({attr_i("align_corners", 1)}), {1.5, 3, 0.5});
  check_near(sampled({attr_s("padding_mode", "border")}), {1.5, 3, 1});
  check_near(sampled({attr_s("padding_mode", "reflection")}), {1.5, 3, 1.5});
  check_near(sampled({attr_s("mode", "nearest"), attr_s("padding_mode", "border")}), {0, 3, 0});
  check_near(sampled({attr_s("mode", "bicubic")}, 16), values(sampled({attr_s("mode", "cubic")})));
  CHECK_THAT(error_of("GridSample", {x, floats({1, 1, 1, 3}, {0, 0, 0})}, {}), Contains("the grid must be [1, ..., 2]"));
  CHECK_THAT(error_of("GridSample", {x, grid}, {attr_s("mode", "best")}), Contains("the attribute 'mode' is 'best'"));
}

// Some of the channels, as a tensor of their own.
static Tensor channels_of(const Tensor &x, int64_t first, int64_t count) {
  auto dims = x.dims();
  int64_t all = dims[1], inner = x.count() / (dims[0] * all);
  dims[1] = count;
  Tensor out(DType::f32, dims);
  for (int64_t i = 0; i < out.count(); ++i)
    out.set_f64(i, x.at_f64((i / (count * inner) * all + first) * inner + i % (count * inner)));
  return out;
}

TEST_CASE("GridSample of many channels is that of each") {
  Tensor x(DType::f32, {2, 9, 4, 5}), grid(DType::f32, {2, 3, 4, 2});
  for (int64_t i = 0; i < x.count(); ++i)
    x.set_f64(i, std::sin(double(i * i)));
  for (int64_t i = 0; i < grid.count(); ++i)
    grid.set_f64(i, 1.4 * std::cos(double(3 * i)));
  for (const char *mode : {"linear", "nearest", "cubic"})
    for (const char *padding : {"zeros", "border", "reflection"}) {
      INFO(mode << " " << padding);
      std::vector<std::string> attributes = {attr_s("mode", mode), attr_s("padding_mode", padding)};
      Tensor all = run_node("GridSample", {x, grid}, attributes, {"y"}, "", 20)[0];
      for (int64_t c = 0; c < 9; ++c)
        check_near(channels_of(all, c, 1), values(run_node("GridSample", {channels_of(x, c, 1), grid}, attributes, {"y"}, "", 20)[0]), 1e-6);
    }
}

TEST_CASE("DeformConv of many channels is the sum over groups of few") {
  Tensor x(DType::f32, {2, 16, 4, 5}), w(DType::f32, {4, 8, 3, 2}), offset(DType::f32, {2, 24, 2, 4}), mask(DType::f32, {2, 12, 2, 4});
  for (Tensor *t : {&x, &w, &offset, &mask})
    for (int64_t i = 0; i < t->count(); ++i)
      t->set_f64(i, std::sin(double(i * i + t->count())));
  // The two groups of offsets again as four: then there are 4 channels for each instead of 8.
  auto twice = [](const Tensor &t) {
    auto dims = t.dims();
    int64_t half = t.count() / 4;
    dims[1] *= 2;
    Tensor out(DType::f32, dims);
    for (int64_t i = 0; i < out.count(); ++i)
      out.set_f64(i, t.at_f64(i / (2 * half) * half + i % half));
    return out;
  };
  std::vector<std::string> groups = {attr_i("group", 2)}, few = groups, many = groups;
  few.push_back(attr_i("offset_group", 4)), many.push_back(attr_i("offset_group", 2));
  Tensor bias = floats({4}, {1, 2, 3, 4});
  check_near(run_node("DeformConv", {x, w, offset, bias, mask}, many)[0],
             values(run_node("DeformConv", {x, w, twice(offset), bias, twice(mask)}, few)[0]), 1e-5);
}

TEST_CASE("GridSample in a volume") {
  Tensor x = counted({1, 1, 2, 2, 2}), grid = floats({1, 1, 1, 2, 3}, {0, 0, 0, 1, -1, 1}); // x y z
  check_near(run_node("GridSample", {x, grid}, {attr_i("align_corners", 1)})[0], {3.5, 5});
}

TEST_CASE("AffineGrid") {
  Tensor theta = floats({1, 2, 3}, {1, 0, 0.5, 0, 2, 0});
  check_near(run_node("AffineGrid", {theta, ints({1, 1, 1, 2})}, {}, {"y"}, "", 20, {1})[0], {0, 0, 1, 0});
  check_near(run_node("AffineGrid", {theta, ints({1, 1, 2, 2})}, {attr_i("align_corners", 1)}, {"y"}, "", 20, {1})[0],
             {-0.5, -2, 1.5, -2, -0.5, 2, 1.5, 2});
}

TEST_CASE("DeformConv moves what its kernel reads") {
  Tensor x = counted({1, 1, 3, 3}), w = floats({1, 1, 1, 2}, {1, 10});
  Tensor none(DType::f32, {1, 4, 3, 2}), down(DType::f32, {1, 4, 3, 2});
  for (int64_t i = 0; i < none.count(); ++i) {
    none.set_f64(i, 0);
    down.set_f64(i, i < 6 ? 0.5 : 0); // the first tap reads half a row lower
  }
  check_near(run_node("DeformConv", {x, w, none}, {})[0], {10, 21, 43, 54, 76, 87});
  check_near(run_node("DeformConv", {x, w, down}, {})[0], {11.5, 22.5, 44.5, 55.5, 73, 83.5});
  CHECK_THAT(error_of("DeformConv", {x, w, none}, {attr_i("offset_group", 2)}), Contains("do not fit"));
  CHECK_THAT(error_of("DeformConv", {x, w, none}, {attr_ints("strides", {0, 1})}), Contains("'strides' holds 0"));
}

TEST_CASE("RoiAlign") {
  Tensor x = counted({1, 1, 4, 4}), rois = floats({1, 4}, {0, 0, 4, 4}), image = ints({0});
  std::vector<std::string> two = {attr_i("output_height", 2), attr_i("output_width", 2)};
  auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), two.begin(), two.end());
    return run_node("RoiAlign", {x, rois, image}, more, {"y"}, "", 16)[0];
  };
  check_near(with({attr_i("sampling_ratio", 2)}), {2.5, 4.5, 10.5, 12.5}); // means of quarters
  check_near(with({attr_i("sampling_ratio", 0)}), {2.5, 4.5, 10.5, 12.5}); // two samples fit a bin of two pixels
  check_near(with({attr_i("sampling_ratio", 2), attr_s("mode", "max")}), {5, 7, 13, 15});
  check_near(with({attr_i("sampling_ratio", 0), attr_s("mode", "max")}), {5, 7, 13, 15});
  check_near(with({attr_i("sampling_ratio", 1), attr_s("coordinate_transformation_mode", "output_half_pixel")}),
             {5, 7, 13, 15});
  CHECK_THAT(error_of("RoiAlign", {x, rois, ints({0, 0})}, two), Contains("they must be [R, 4] and [R]"));
}

TEST_CASE("MaxRoiPool") {
  Tensor x = counted({1, 1, 4, 4}), rois = floats({2, 5}, {0, 0, 0, 3, 3, 0, 1, 1, 2, 9});
  check_near(run_node("MaxRoiPool", {x, rois}, {attr_ints("pooled_shape", {2, 2})}, {"y"}, "", 1)[0],
             {5, 7, 13, 15, 13, 14, 0, 0}); // the last bins lie below the map
}

TEST_CASE("MaxPool says where") {
  Tensor x = floats({1, 2, 2, 3}, {1, 5, 5, 5, 2, 3, -1, -2, -3, -4, -5, NAN});
  auto out = run_node("MaxPool", {x}, {attr_ints("kernel_shape", {2, 2})}, {"y", "i"}, "", 12);
  check_near(out[1], {1, 1, 6, 11}); // the first of equal ones, and a NaN before all
  out = run_node("MaxPool", {x}, {attr_ints("kernel_shape", {2, 2}), attr_i("storage_order", 1)}, {"y", "i"}, "", 12);
  check_near(out[1], {2, 2, 6, 11});
  Tensor low = floats({1, 1, 1, 2}, {-INFINITY, -INFINITY});
  out = run_node("MaxPool", {low}, {attr_ints("kernel_shape", {1, 2}), attr_ints("pads", {0, 1, 0, 1})}, {"y", "i"}, "", 12);
  check_near(out[1], {0, 0, 1}); // never in the padding
}

TEST_CASE("MaxUnpool") {
  Tensor x = floats({1, 1, 1, 2}, {7, 8}), at(DType::i64, {1, 1, 1, 2});
  at.set_i64(0, 1), at.set_i64(1, 6);
  std::vector<std::string> window = {attr_ints("kernel_shape", {2, 2}), attr_ints("strides", {2, 2})};
  check_near(run_node("MaxUnpool", {x, at}, window, {"y"}, "", 11)[0], {0, 7, 0, 0, 0, 0, 8, 0});
  Tensor wide = run_node("MaxUnpool", {x, at, ints({1, 1, 3, 5})}, window, {"y"}, "", 11, {2})[0];
  check_near(wide, {0, 7, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0});
}

TEST_CASE("LpPool") {
  Tensor x = floats({1, 1, 4}, {3, -4, 0, 12});
  std::vector<std::string> window = {attr_ints("kernel_shape", {2}), attr_ints("strides", {2})};
  check_near(run_node("LpPool", {x}, window, {"y"}, "", 18)[0], {5, 12});
  window.push_back(attr_i("p", 1));
  check_near(run_node("LpPool", {x}, window, {"y"}, "", 18)[0], {7, 12});
  check_near(run_node("GlobalLpPool", {x}, {attr_i("p", 1)}, {"y"}, "", 2)[0], {19});
  check_near(run_node("GlobalLpPool", {x}, {attr_f("p", 2)}, {"y"}, "", 1)[0], {13});
}

TEST_CASE("Col2Im adds what overlaps") {
  Tensor x = counted({1, 2, 3}, 1); // two taps, three places
  check_near(run_node("Col2Im", {x, ints({4}), ints({2})}, {}, {"y"}, "", 18, {1, 2})[0], {1, 6, 8, 6});
  check_near(run_node("Col2Im", {x, ints({5}), ints({2})}, {attr_ints("strides", {2}), attr_ints("pads", {1, 0})}, {"y"}, "", 18, {1, 2})[0],
             {4, 2, 5, 3, 6});
  CHECK_THAT(error_of("Col2Im", {x, ints({9}), ints({2})}, {}, 18, {1, 2}), Contains("should have 8 places"));
}

TEST_CASE("CenterCropPad") {
  Tensor x = counted({5, 2});
  check_near(run_node("CenterCropPad", {x, ints({2, 5})}, {}, {"y"}, "", 18, {1})[0], {0, 2, 3, 0, 0, 0, 4, 5, 0, 0});
  check_near(run_node("CenterCropPad", {x, ints({1})}, {attr_ints("axes", {-2})}, {"y"}, "", 18, {1})[0], {4, 5});
}

TEST_CASE("ReverseSequence") {
  Tensor x = counted({3, 2});
  check_near(run_node("ReverseSequence", {x, ints({3, 2})}, {}, {"y"}, "", 10)[0], {4, 3, 2, 1, 0, 5});
  check_near(run_node("ReverseSequence", {x, ints({2, 1, 0})}, {attr_i("time_axis", 1), attr_i("batch_axis", 0)}, {"y"}, "", 10)[0],
             {1, 0, 2, 3, 4, 5});
}

TEST_CASE("Det") {
  check_near(run_node("Det", {floats({2, 2, 2}, {1, 2, 3, 4, 2, 0, 0, 3})}, {}, {"y"}, "", 11)[0], {-2, 6});
  check_near(run_node("Det", {floats({4, 4}, {0, 2, 0, 0, 1, 0, 0, 0, 0, 0, 3, 1, 0, 0, 1, 2})}, {}, {"y"}, "", 11)[0], {-10});
  CHECK_THAT(error_of("Det", {floats({2, 3}, {1, 2, 3, 4, 5, 6})}, {}), Contains("must be square"));
}

TEST_CASE("windows of spectra") {
  auto window = [](const std::string &type, int64_t size, bool periodic) {
    Tensor n(DType::i64, {});
    n.set_i64(0, size);
    return run_node(type, {n}, {attr_i("periodic", periodic)}, {"y"}, "", 17, {0})[0];
  };
  check_near(window("HannWindow", 4, true), {0, 0.5, 1, 0.5});
  check_near(window("HannWindow", 3, false), {0, 1, 0});
  check_near(window("HammingWindow", 2, true), {4.0 / 46, 1});
  check_near(window("BlackmanWindow", 4, true), {0, 0.34, 1, 0.34});
}
