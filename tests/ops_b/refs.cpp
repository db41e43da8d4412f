// Refs on small known values; those of resize, the norms, lstm and the block ops are what ONNX Runtime
// gives, those of pad and attention what numpy does.
#include "tests/ops_b/build.h"

#include <catch2/catch.hpp>
#include <cmath>

using namespace kiln;
using namespace kiln::test;

namespace {

using Dims = std::vector<Dim>;

// 0, 1, 2, ...
Tensor ramp(std::vector<int64_t> dims, double first = 0, DType dtype = DType::f32) {
  Tensor out(dtype, std::move(dims));
  for (int64_t i = 0; i < out.count(); ++i)
    out.set_f64(i, first + double(i));
  return out;
}

// f(0), f(1), f(2), ... times scale
Tensor wave(std::vector<int64_t> dims, double scale = 1, double (*f)(double) = std::sin, double step = 1.7) {
  Tensor out(DType::f32, std::move(dims));
  for (int64_t i = 0; i < out.count(); ++i)
    out.set_f64(i, scale * double(float(f(double(i) * step))));
  return out;
}

Tensor ints(std::vector<int64_t> dims, const std::vector<double> &values) {
  return tensor(DType::i64, std::move(dims), values);
}

std::vector<Tensor> ref(Op op, const std::vector<Tensor> &operands, const Attrs &attrs = {}) {
  auto out = run_ref(op, operands, attrs);
  INFO((out.ok() ? "" : out.error().message));
  REQUIRE(out.ok());
  return std::move(*out);
}

void check(const Tensor &got, const std::vector<double> &want, double tolerance = 0) {
  auto values = values_of(got);
  REQUIRE(values.size() == want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    INFO("element " << i << ": " << values[i] << ", should be " << want[i]);
    if (std::isnan(want[i]))
      CHECK(std::isnan(values[i]));
    else
      CHECK((values[i] == want[i] || std::abs(values[i] - want[i]) <= tolerance));
  }
}

Attrs resize_attrs(const Dims &from, const Dims &sizes, std::string mode, std::string coordinates,
                   std::string rounding = "floor", bool exclude = false) {
  std::vector<double> scales;
  for (size_t d = 0; d < from.size(); ++d)
    scales.push_back(double(sizes[d].as_const()) / double(from[d].as_const()));
  return {{"sizes", sizes},
          {"scales", scales},
          {"mode", std::move(mode)},
          {"coordinates", std::move(coordinates)},
          {"rounding", std::move(rounding)},
          {"exclude_outside", exclude}};
}

} // namespace

TEST_CASE("pad") {
  auto attrs = [](Dims lo, Dims hi, std::string mode) {
    return Attrs{{"lo", std::move(lo)}, {"hi", std::move(hi)}, {"mode", std::move(mode)}, {"value", 9.0}};
  };
  check(ref(Op::pad, {ramp({2, 3})}, attrs({1, 2}, {1, 1}, "reflect"))[0],
        {5, 4, 3, 4, 5, 4, 2, 1, 0, 1, 2, 1, 5, 4, 3, 4, 5, 4, 2, 1, 0, 1, 2, 1});
  check(ref(Op::pad, {ramp({2, 3})}, attrs({1, 4}, {0, 2}, "wrap"))[0],
        {5, 3, 4, 5, 3, 4, 5, 3, 4, 2, 0, 1, 2, 0, 1, 2, 0, 1, 5, 3, 4, 5, 3, 4, 5, 3, 4});
  check(ref(Op::pad, {ramp({2, 2})}, attrs({0, 1}, {0, 2}, "edge"))[0], {0, 0, 1, 1, 1, 2, 2, 3, 3, 3});
  check(ref(Op::pad, {ramp({2, 2})}, attrs({-1, 1}, {1, 0}, "constant"))[0], {9, 2, 3, 9, 9, 9});
}

TEST_CASE("gather, scatter, cumsum, trilu") {
  check(ref(Op::gather, {ramp({3, 2}), ints({2}, {-1, 0})}, {{"axis", Dim(0)}})[0], {4, 5, 0, 1});
  check(ref(Op::gather_elements, {ramp({2, 2}), ints({1, 2}, {1, 0})}, {{"axis", Dim(0)}})[0], {2, 1});
  check(ref(Op::gather_nd, {ramp({2, 2, 2}), ints({2, 1, 1}, {1, 0})}, {{"batch_dims", Dim(1)}})[0], {2, 3, 4, 5});
  check(ref(Op::scatter_nd, {ramp({4}), ints({3, 1}, {1, 3, 1}), tensor(DType::f32, {3}, {10, 20, 30})},
            {{"reduction", std::string("add")}})[0],
        {0, 41, 2, 23});
  // Of two updates at one place the last wins.
  check(ref(Op::scatter_elements, {ramp({3}), ints({2}, {1, -2}), tensor(DType::f32, {2}, {7, 8})},
            {{"axis", Dim(0)}})[0],
        {0, 8, 2});
  check(ref(Op::cumsum, {ramp({2, 3}, 1)}, {{"axis", Dim(1)}, {"exclusive", true}, {"reverse", true}})[0],
        {5, 3, 0, 11, 6, 0});
  check(ref(Op::trilu, {ramp({3, 4}, 1)}, {{"upper", false}, {"k", Dim(1)}})[0], {1, 2, 0, 0, 5, 6, 7, 0, 9, 10, 11, 12});
  check(ref(Op::one_hot, {ints({3}, {1, -1, 5}), tensor(DType::f32, {2}, {-1, 2})}, {{"depth", Dim(3)}})[0],
        {-1, 2, -1, -1, -1, 2, -1, -1, -1});
  for (double bad : {3.0, -4.0}) {
    auto out = run_ref(Op::gather, {ramp({3}), ints({1}, {bad})}, {{"axis", Dim(0)}});
    REQUIRE(!out.ok());
    CHECK(out.error().message.find("out of range for size 3") != std::string::npos);
  }
  // Slices without elements have indices too.
  auto empty = run_ref(Op::scatter_nd, {tensor(DType::f32, {1, 0}, {}), ints({2, 1}, {-1, 1}), tensor(DType::f32, {2, 0}, {})}, {});
  CHECK(!empty.ok());
}

TEST_CASE("sort and topk: ties keep their order, NaN is the largest") {
  double nan = std::nan("");
  Tensor x = tensor(DType::f32, {6}, {2, nan, 1, 2, -INFINITY, 1});
  auto up = ref(Op::sort, {x}, {{"axis", Dim(0)}});
  check(up[0], {-INFINITY, 1, 1, 2, 2, nan});
  check(up[1], {4, 2, 5, 0, 3, 1});
  check(ref(Op::sort, {x}, {{"axis", Dim(0)}, {"descending", true}})[1], {1, 0, 3, 2, 5, 4});
  check(ref(Op::topk, {x}, {{"k", Dim(3)}})[1], {1, 0, 3});
  check(ref(Op::topk, {x}, {{"k", Dim(2)}, {"largest", false}})[1], {4, 2});
}

TEST_CASE("resize as ONNX Runtime does") {
  Tensor x = ramp({2, 3});
  auto run = [&](std::string mode, std::string coordinates) {
    return ref(Op::resize, {x}, resize_attrs({2, 3}, {3, 5}, std::move(mode), std::move(coordinates)))[0];
  };
  check(run("linear", "half_pixel"), {0, 0.4, 1, 1.6, 2, 1.5, 1.9, 2.5, 3.1, 3.5, 3, 3.4, 4, 4.6, 5}, 1e-6);
  check(run("linear", "align_corners"), {0, 0.5, 1, 1.5, 2, 1.5, 2, 2.5, 3, 3.5, 3, 3.5, 4, 4.5, 5}, 1e-6);
  check(run("linear", "asymmetric"), {0, 0.6, 1.2, 1.8, 2, 2, 2.6, 3.2, 3.8, 4, 3, 3.6, 4.2, 4.8, 5}, 1e-6);
  check(run("cubic", "half_pixel"),
        {-0.3564168, 0.05558348, 0.7395837, 1.423584, 1.835585, 1.404001, 1.816, 2.5, 3.184, 3.596001, 3.164419,
         3.576417, 4.260418, 4.944419, 5.356421},
        1e-5);
  check(run("cubic", "asymmetric"),
        {0, 0.5039999, 1.272001, 1.848, 2.108, 2.055555, 2.559555, 3.327557, 3.903556, 4.163555, 3.333333, 3.837331,
         4.605334, 5.181331, 5.44133},
        1e-5);
  check(ref(Op::resize, {ramp({4})}, resize_attrs({4}, {7}, "cubic", "half_pixel", "floor", true))[0],
        {-0.1225244, 0.2514148, 0.8934177, 1.5, 2.106582, 2.748585, 3.122525}, 1e-5);
  check(ref(Op::resize, {ramp({3, 3})},
            resize_attrs({3, 3}, {2, 7}, "nearest", "half_pixel", "round_prefer_floor"))[0],
        {0, 0, 1, 1, 1, 2, 2, 6, 6, 7, 7, 7, 8, 8});
  check(ref(Op::resize, {ramp({3, 3})}, resize_attrs({3, 3}, {2, 7}, "nearest", "align_corners", "ceil"))[0],
        {0, 1, 1, 1, 2, 2, 2, 6, 7, 7, 7, 8, 8, 8});
}

TEST_CASE("norms as ONNX Runtime does") {
  check(ref(Op::lrn, {wave({1, 5, 1, 2})}, {{"size", Dim(3)}, {"alpha", 0.5}, {"beta", 0.75}, {"bias", 1.5}})[0],
        {0, 0.6363416, -0.1838151, -0.5691603, 0.3420146, 0.5110992, -0.4609008, -0.4158924, 0.5758984, 0.2802051},
        1e-6);
  check(ref(Op::layer_norm, {wave({2, 4}), ramp({4}, 1), ramp({4})}, {{"axis", Dim(-1)}})[0],
        {0.06886479, 4.017814, 1.093345, -2.102214, 0.7558725, 3.431159, -1.142355, -0.6960018}, 1e-5);
  check(ref(Op::instance_norm,
            {wave({1, 2, 3}), tensor(DType::f32, {2}, {1, 2}), tensor(DType::f32, {2}, {0.5, -1})},
            {{"epsilon", 1e-3}})[0],
        {0.04463196, 1.884971, -0.4296033, -3.787022, -0.011181, 0.798203}, 1e-5);
  check(ref(Op::softmax, {tensor(DType::f32, {3}, {1000, 1000, -1000})}, {{"axis", Dim(0)}})[0], {0.5, 0.5, 0});
}

TEST_CASE("blocks, quantize") {
  Tensor x = ramp({1, 8, 1, 2});
  check(ref(Op::depth_to_space, {x}, {{"block", Dim(2)}})[0], {0, 4, 1, 5, 8, 12, 9, 13, 2, 6, 3, 7, 10, 14, 11, 15});
  check(ref(Op::depth_to_space, {x}, {{"block", Dim(2)}, {"mode", std::string("CRD")}})[0],
        {0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15});
  check(ref(Op::space_to_depth, {ramp({1, 2, 2, 4})}, {{"block", Dim(2)}})[0],
        {0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15});
  check(ref(Op::quantize,
            {tensor(DType::f32, {6}, {-3, -.25, .25, .75, 1.25, 1000}), tensor(DType::f32, {}, {0.5}),
             tensor(DType::u8, {}, {10})},
            {{"dtype", DType::u8}})[0],
        {4, 10, 10, 12, 12, 255});
  check(ref(Op::dequantize, {tensor(DType::u8, {2, 1}, {0, 255}), tensor(DType::f32, {2}, {0.5, 2}),
                             tensor(DType::u8, {2}, {10, 128})},
            {{"axis", Dim(0)}})[0],
        {-5, 254});
}

TEST_CASE("attention and lstm") {
  check(ref(Op::attention, {wave({2, 3}), wave({3, 3}), ramp({3, 2})}, {{"scale", 0.5}, {"causal", true}})[0],
        {0, 1, 1.348055, 2.348054}, 1e-5);
  auto one = ref(Op::lstm, {wave({3, 1, 2}), wave({1, 8, 2}), wave({1, 8, 2}, 1, std::cos, 1), wave({1, 16}, 0.5)});
  check(one[0], {-0.2901924, 0.02371186, -0.1153294, -0.07394673, -0.4115749, -0.03554599}, 1e-6);
  check(one[1], {-0.4115749, -0.03554599}, 1e-6);
  check(one[2], {-0.883476, -0.2047112}, 1e-6);
  auto two = ref(Op::lstm,
                 {wave({2, 1, 2}), wave({2, 8, 2}), wave({2, 8, 2}, 1, std::cos, 1), wave({2, 16}, 0.5),
                  wave({2, 1, 2}), ramp({2, 1, 2})},
                 {{"direction", std::string("bidirectional")}});
  check(two[0], {-0.02345613, 0.1653632, 0.1018442, 0.5195648, -0.05618149, 0.01753259, 0.6572902, 0.2664374}, 1e-6);
  check(two[1], {-0.05618149, 0.01753259, 0.1018442, 0.5195648}, 1e-6);
  check(two[2], {-0.294968, 0.03032589, 0.4104174, 0.8754289}, 1e-6);
}
