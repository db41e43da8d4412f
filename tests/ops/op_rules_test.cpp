// What a number means: the rules that no sample of random values would show. Each case is checked
// on the reference and, through the naive kernel, on the code form.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "ir/interpret.h"
#include "tests/ops/sample.h"

#include <cmath>
#include <limits>

using namespace kiln;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Tensor floats(std::vector<double> values, DType dtype = DType::f32) {
  Tensor out(dtype, {int64_t(values.size())});
  for (size_t i = 0; i < values.size(); ++i)
    out.set_f64(int64_t(i), values[i]);
  return out;
}

Tensor ints(DType dtype, std::vector<int64_t> values) {
  Tensor out(dtype, {int64_t(values.size())});
  for (size_t i = 0; i < values.size(); ++i)
    out.set_i64(int64_t(i), values[i]);
  return out;
}

std::vector<TensorType> types(const std::vector<Tensor> &inputs) {
  std::vector<TensorType> out;
  for (const Tensor &t : inputs)
    out.push_back(t.type());
  return out;
}

Result<Tensor> apply(Op op, const std::vector<Tensor> &inputs, const Attrs &attrs = {}) {
  auto module = test::sample_module(op, {types(inputs), attrs});
  if (!module)
    return module.error();
  VariableValues none;
  auto want = interpret(*module, module->functions[0], inputs, none);
  if (!want)
    return want.error();
  if (op_def(op).decompose == nullptr) {
    auto got = test::run_kernel(*module, inputs);
    if (!got)
      return got.error();
    INFO(op_def(op).name);
    CHECK(test::compare(op_def(op), (*got)[0], (*want)[0]) == "");
  }
  return (*want)[0];
}

void check_floats(const Result<Tensor> &got, const std::vector<double> &want) {
  REQUIRE(got.ok());
  for (size_t i = 0; i < want.size(); ++i) {
    INFO("element " << i);
    double value = got->at_f64(int64_t(i));
    if (std::isnan(want[i]))
      CHECK(std::isnan(value));
    else
      CHECK(value == Approx(want[i]).margin(1e-7));
  }
}

void check_ints(const Result<Tensor> &got, const std::vector<int64_t> &want) {
  REQUIRE(got.ok());
  for (size_t i = 0; i < want.size(); ++i) {
    INFO("element " << i);
    CHECK(got->at_i64(int64_t(i)) == want[i]);
  }
}

std::string error_of(Op op, std::vector<TensorType> operands, const Attrs &attrs = {}) {
  auto module = test::sample_module(op, {std::move(operands), attrs});
  return module.ok() ? "" : module.error().message;
}

using Dims = std::vector<Dim>;

} // namespace

TEST_CASE("NaN propagates through min, max, relu, clamp and reductions") {
  Tensor x = floats({kNaN, 1, kNaN, -1}), y = floats({1, kNaN, kNaN, 2});
  check_floats(apply(Op::minimum, {x, y}), {kNaN, kNaN, kNaN, -1});
  check_floats(apply(Op::maximum, {x, y}), {kNaN, kNaN, kNaN, 2});
  check_floats(apply(Op::relu, {x}), {kNaN, 1, kNaN, 0});
  check_floats(apply(Op::clamp, {x}, {{"min", 0.0}, {"max", 0.5}}), {kNaN, 0.5, kNaN, 0});
  check_floats(apply(Op::sign, {x}), {kNaN, 1, kNaN, -1});
  check_floats(apply(Op::leaky_relu, {x}), {kNaN, 1, kNaN, -0.01});
  check_floats(apply(Op::thresholded_relu, {x}), {kNaN, 0, kNaN, 0});
  check_floats(apply(Op::hard_swish, {x}), {kNaN, 2.0 / 3, kNaN, -1.0 / 3});
  for (Op op : {Op::reduce_max, Op::reduce_min, Op::reduce_sum, Op::reduce_log_sum_exp})
    check_floats(apply(op, {floats({1, kNaN, 3})}, {{"axes", Dims{0}}}), {kNaN});
  check_ints(apply(Op::argmax, {floats({1, kNaN, 3, kNaN})}, {{"axis", Dim(0)}}), {1});
  check_ints(apply(Op::argmin, {floats({1, kNaN, 3, kNaN})}, {{"axis", Dim(0)}, {"last", true}}),
             {3});
}

TEST_CASE("reductions of nothing give their neutral element") {
  Tensor none(DType::f32, {0});
  Attrs attrs{{"axes", Dims{0}}};
  check_floats(apply(Op::reduce_sum, {none}, attrs), {0});
  check_floats(apply(Op::reduce_prod, {none}, attrs), {1});
  check_floats(apply(Op::reduce_max, {none}, attrs), {-kInf});
  check_floats(apply(Op::reduce_mean, {none}, attrs), {kNaN});
  check_floats(apply(Op::reduce_log_sum_exp, {none}, attrs), {-kInf});
  check_ints(apply(Op::reduce_max, {Tensor(DType::i8, {0})}, attrs), {-128});
  check_ints(apply(Op::reduce_min, {Tensor(DType::u64, {0})}, attrs), {-1});
  check_ints(apply(Op::reduce_all, {Tensor(DType::bool_, {0})}, attrs), {1});
}

TEST_CASE("log_sum_exp does not overflow") {
  check_floats(apply(Op::reduce_log_sum_exp, {floats({1000, 1000})}, {{"axes", Dims{0}}}),
               {1000 + std::log(2.0)});
  check_floats(apply(Op::reduce_log_sum_exp, {floats({-kInf, -kInf})}, {{"axes", Dims{0}}}),
               {-kInf});
  check_floats(apply(Op::reduce_log_sum_exp, {floats({kInf, 1})}, {{"axes", Dims{0}}}), {kInf});
}

TEST_CASE("integers wrap") {
  int64_t least = std::numeric_limits<int64_t>::min();
  check_ints(apply(Op::add, {ints(DType::i8, {127, -128}), ints(DType::i8, {1, -1})}), {-128, 127});
  check_ints(apply(Op::mul, {ints(DType::u8, {16, 255}), ints(DType::u8, {16, 255})}), {0, 1});
  check_ints(apply(Op::neg, {ints(DType::i64, {least, 5})}), {least, -5});
  check_ints(apply(Op::abs, {ints(DType::i32, {INT32_MIN, -5})}), {INT32_MIN, 5});
  check_ints(apply(Op::div, {ints(DType::i64, {least, -7}), ints(DType::i64, {-1, 2})}),
             {least, -3});
  check_ints(apply(Op::fmod, {ints(DType::i64, {least, -7}), ints(DType::i64, {-1, 2})}), {0, -1});
  check_ints(
      apply(Op::remainder, {ints(DType::i32, {-7, 7, -7, 6}), ints(DType::i32, {2, -2, -2, -3})}),
      {1, -1, -1, 0});
  check_ints(apply(Op::div, {ints(DType::u64, {-1}), ints(DType::u64, {2})}),
             {std::numeric_limits<int64_t>::max()});
  check_ints(apply(Op::maximum, {ints(DType::u64, {-1}), ints(DType::u64, {2})}), {-1});
  check_ints(apply(Op::lt, {ints(DType::u32, {1}), ints(DType::u32, {-1})}), {1});
}

TEST_CASE("integer division by zero is an error") {
  for (Op op : {Op::div, Op::remainder, Op::fmod}) {
    auto result = apply(op, {ints(DType::i32, {4, 4}), ints(DType::i32, {2, 0})});
    REQUIRE(!result.ok());
    CHECK(result.error().message.find("division by zero") != std::string::npos);
  }
}

TEST_CASE("shifts by the width or more give 0") {
  Tensor x = ints(DType::i8, {1, 1, 1, -128, -128, 3}), by = ints(DType::i8, {1, 7, 8, 7, 8, -1});
  check_ints(apply(Op::shift_left, {x, by}), {2, -128, 0, 0, 0, 0});
  check_ints(apply(Op::shift_right, {x, by}), {0, 0, 0, -1, 0, 0});
}

TEST_CASE("conversions saturate, round and wrap") {
  auto to = [](DType dtype) { return Attrs{{"dtype", dtype}}; };
  check_ints(apply(Op::convert, {floats({300, -300, 1.9, -1.9, kNaN, kInf})}, to(DType::i8)),
             {127, -128, 1, -1, 0, 127});
  check_ints(apply(Op::convert, {floats({300, -300, 1e10})}, to(DType::u8)), {255, 0, 255});
  check_ints(apply(Op::convert, {floats({1e30, -1e30})}, to(DType::i64)),
             {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()});
  check_ints(apply(Op::convert, {ints(DType::i64, {300, -1})}, to(DType::u8)), {44, 255});
  check_ints(apply(Op::convert, {floats({0, 0.5, kNaN})}, to(DType::bool_)), {0, 1, 1});
  check_floats(apply(Op::convert, {floats({1 + 0x1p-11, 1 + 0x3p-11, 1e6})}, to(DType::f16)),
               {1, 1 + 0x1p-9, kInf});
  // One rounding: through f64 this would be 2^24 + 2.
  check_floats(apply(Op::convert, {ints(DType::i64, {(int64_t(1) << 54) + (int64_t(1) << 30) + 1})},
                     to(DType::f32)),
               {0x1p54 + 0x1p31});
}

TEST_CASE("a zero that is left over has the dividend's or the divisor's sign") {
  for (DType dtype : {DType::f32, DType::f64, DType::f16}) {
    Tensor a = floats({0.0, -0.0, 0.0, -0.0, -4, 4}, dtype), b = floats({-2, 2, 2, -2, 2, -2}, dtype);
    auto inverse = [](const Result<Tensor> &r) { return apply(Op::reciprocal, {*r}); };
    check_floats(inverse(apply(Op::fmod, {a, b})), {kInf, -kInf, kInf, -kInf, -kInf, kInf});
    check_floats(inverse(apply(Op::remainder, {a, b})), {-kInf, kInf, kInf, -kInf, kInf, -kInf});
  }
}

TEST_CASE("fmod and remainder of floats") {
  Tensor a = floats({5.5, -5.5, 5.5, -5.5, 1, kInf, 1, 0, 1e10}),
         b = floats({2, 2, -2, -2, kInf, 2, 0, 3, 0.7});
  check_floats(apply(Op::fmod, {a, b}),
               {1.5, -1.5, 1.5, -1.5, 1, kNaN, kNaN, 0, std::fmod(1e10, double(0.7f))});
  check_floats(
      apply(Op::remainder, {floats({5.5, -5.5, 5.5, -5.5, -1}), floats({2, 2, -2, -2, kInf})}),
      {1.5, 0.5, -0.5, -1.5, kInf});
}

TEST_CASE("activations at the ends of their range") {
  Tensor x = floats({-100, 100, 0});
  check_floats(apply(Op::softplus, {x}), {0, 100, std::log(2.0)});
  check_floats(apply(Op::mish, {x}), {0, 100, 0});
  check_floats(apply(Op::silu, {x}), {0, 100, 0});
  check_floats(apply(Op::elu, {x}), {-1, 100, 0});
  check_floats(apply(Op::gelu, {x}), {0, 100, 0});
  check_floats(apply(Op::sigmoid, {x}), {0, 1, 0.5});
  check_floats(apply(Op::is_inf, {floats({kInf, -kInf, kNaN})}, {{"negative", false}}), {1, 0, 0});
  check_floats(apply(Op::round, {floats({0.5, 1.5, 2.5, -0.5})}), {0, 2, 2, 0});
}

// The published known answers of Philox 4x32-10.
TEST_CASE("random_bits is Philox 4x32-10") {
  auto zero = apply(Op::random_bits, {ints(DType::u64, {0, 0})}, {{"shape", Dims{4}}});
  check_ints(zero, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  auto other = apply(Op::random_bits, {ints(DType::u64, {7, 9})}, {{"shape", Dims{2, 4}}});
  auto flat = apply(Op::random_bits, {ints(DType::u64, {7, 9})}, {{"shape", Dims{8}}});
  REQUIRE(other.ok());
  for (int64_t i = 0; i < 8; ++i)
    CHECK(other->at_i64(i) == flat->at_i64(i));
}

TEST_CASE("errors name sizes, dtypes and attributes") {
  TensorType x{DType::f32, {2, 2}}, y{DType::f32, {2, 3}}, i{DType::i64, {2, 2}};
  auto contains = [](const std::string &text, const std::string &part) {
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  contains(error_of(Op::add, {x, y}),
           "The size of tensor a (2) must match the size of tensor b (3) at dimension 1");
  contains(error_of(Op::add, {x, i}), "convert one of them");
  contains(error_of(Op::exp, {i}), "i64");
  contains(error_of(Op::reduce_sum, {x}, {{"axes", Dims{2}}}), "axis 2");
  contains(error_of(Op::dot, {x, TensorType{DType::f32, {3, 4}}}),
           "mat1 and mat2 shapes cannot be multiplied (2x2 and 3x4)");
  Attrs conv{{"stride", Dims{1, 1}}, {"pad", Dims{0, 0, 0, 0}}, {"dilation", Dims{1, 1}}};
  contains(error_of(Op::conv, {{DType::f32, {1, 3, 5, 5}}, {DType::f32, {4, 2, 3, 3}}}, conv),
           "expected input[1, 3, 5, 5] to have 2 channels, but got 3 channels");
  contains(error_of(Op::conv, {{DType::f32, {1, 2, 2, 5}}, {DType::f32, {4, 2, 3, 3}}}, conv),
           "Kernel size can't be greater than actual input size");
  conv.set("stride", Dims{0, 1});
  contains(error_of(Op::conv, {{DType::f32, {1, 2, 5, 5}}, {DType::f32, {4, 2, 3, 3}}}, conv),
           "'stride'");
  contains(error_of(Op::clamp, {i}, {{"min", 0.5}}), "whole numbers");
  contains(error_of(Op::gelu, {x}, {{"approximate", std::string("sigmoid")}}), "\"tanh\"");
  contains(error_of(Op::where, {x, x, x}), "bool");
}
