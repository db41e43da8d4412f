// Elementwise arithmetic, and what numbers mean at their edges, on every target.
#include "tests/cpu/harness.h"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>

namespace kiln::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

// out[i] = op(a[i], b[i]) for `lanes` at a time; the size is a multiple of the lanes.
Kernel binary_kernel(BinaryOp op, DType dtype, int64_t size, int lanes) {
  Dim i = sym("i");
  Expr value =
      kb::binary(op, kb::load(name("a"), dtype, i, lanes), kb::load(name("b"), dtype, i, lanes));
  KernelBuffer result = out("out", value.dtype, size);
  return make_kernel(
      "binary", {in("a", dtype, size), in("b", dtype, size), result}, {},
      {kb::loop(name("i"), 0, size, LoopKind::serial, {kb::store(name("out"), i, value)}, lanes)});
}

template <typename T, typename R = T>
void check_binary(BinaryOp op, DType dtype, std::vector<T> a, std::vector<T> b,
                  const std::vector<R> &expected) {
  INFO(binary_name(op) << " " << dtype_name(dtype));
  std::vector<R> want = expected;
  while (a.size() % 16 != 0) {
    a.push_back(a[0]);
    b.push_back(b[0]);
    want.push_back(want[0]);
  }
  Run run;
  run.args = {bytes_of(a), bytes_of(b), Bytes(want.size() * sizeof(R))};
  for (int lanes : {1, 4, 16}) {
    Program program = make_program({binary_kernel(op, dtype, int64_t(a.size()), lanes)});
    on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
      INFO(lanes << " lanes");
      std::vector<R> got = values_of<R>(done.args[2]);
      for (size_t k = 0; k < want.size(); ++k) {
        INFO("element " << k);
        if constexpr (std::is_floating_point_v<R>) {
          if (std::isnan(want[k])) {
            CHECK(std::isnan(got[k]));
            continue;
          }
        }
        CHECK(got[k] == want[k]);
      }
    });
  }
}

TEST_CASE("floats: arithmetic, NaN through min and max, comparisons") {
  std::vector<float> a{1.5f, -2.0f, kNan, 3.0f, kNan, kInf, -kInf, 0.25f};
  std::vector<float> b{0.5f, 4.0f, 1.0f, kNan, kNan, -1.0f, 5.0f, 0.25f};
  check_binary<float>(BinaryOp::add, DType::f32, a, b,
                      {2.0f, 2.0f, kNan, kNan, kNan, kInf, -kInf, 0.5f});
  check_binary<float>(BinaryOp::div, DType::f32, a, b,
                      {3.0f, -0.5f, kNan, kNan, kNan, -kInf, -kInf, 1.0f});
  check_binary<float>(BinaryOp::min, DType::f32, a, b,
                      {0.5f, -2.0f, kNan, kNan, kNan, -1.0f, -kInf, 0.25f});
  check_binary<float>(BinaryOp::max, DType::f32, a, b,
                      {1.5f, 4.0f, kNan, kNan, kNan, kInf, 5.0f, 0.25f});
  check_binary<float, uint8_t>(BinaryOp::lt, DType::f32, a, b, {0, 1, 0, 0, 0, 0, 1, 0});
  check_binary<float, uint8_t>(BinaryOp::ne, DType::f32, a, b, {1, 1, 1, 1, 1, 1, 1, 0});
  check_binary<float, uint8_t>(BinaryOp::ge, DType::f32, a, b, {1, 0, 0, 0, 0, 1, 0, 1});
}

TEST_CASE("relu keeps NaN") {
  Dim i = sym("i");
  Expr x = kb::load(name("a"), DType::f32, i, 8);
  Expr zero = kb::number(DType::f32, 0, 8);
  for (bool swapped : {false, true}) {
    Expr value = swapped ? kb::max(zero, x) : kb::max(x, zero);
    Program program = make_program({make_kernel(
        "relu", {in("a", DType::f32, 8), out("o", DType::f32, 8)}, {},
        {kb::loop(name("i"), 0, 8, LoopKind::serial, {kb::store(name("o"), i, value)}, 8)})});
    Run run;
    run.args = {bytes_of<float>({1, -1, kNan, kInf, -kInf, 0, -3, kNan}), Bytes(32)};
    on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
      auto got = values_of<float>(done.args[1]);
      CHECK(got[0] == 1);
      CHECK(got[1] == 0);
      CHECK(std::isnan(got[2]));
      CHECK(got[3] == kInf);
      CHECK(got[4] == 0);
      CHECK(std::isnan(got[7]));
    });
  }
}

template <typename T>
void check_integers(DType dtype) {
  constexpr T least = std::numeric_limits<T>::min(), most = std::numeric_limits<T>::max();
  constexpr int bits = int(sizeof(T)) * 8;
  T minus = T(-1);
  std::vector<T> a{7, T(-7), least, least, most, 5, 100, least};
  std::vector<T> b{2, 2, minus, 3, minus, T(-2), 7, 1};
  std::vector<T> quotient, remainder, product;
  for (size_t k = 0; k < a.size(); ++k) {
    bool wraps = std::is_signed_v<T> && a[k] == least && b[k] == minus;
    quotient.push_back(wraps ? least : T(a[k] / b[k]));
    remainder.push_back(wraps ? T(0) : T(a[k] % b[k]));
    product.push_back(T(uint64_t(a[k]) * uint64_t(b[k])));
  }
  check_binary<T>(BinaryOp::div, dtype, a, b, quotient);
  check_binary<T>(BinaryOp::rem, dtype, a, b, remainder);
  check_binary<T>(BinaryOp::mul, dtype, a, b, product);
  T amount = T(bits);
  std::vector<T> shifted{1, minus, minus, most, minus, minus, 64, least};
  std::vector<T> by{1, T(bits - 1), amount, T(bits + 1), minus, 0, 3, 1};
  std::vector<T> left, right;
  for (size_t k = 0; k < by.size(); ++k) {
    bool past = std::make_unsigned_t<T>(by[k]) >= unsigned(bits);
    left.push_back(past ? T(0) : T(uint64_t(shifted[k]) << by[k]));
    right.push_back(past ? T(0) : T(shifted[k] >> by[k]));
  }
  check_binary<T>(BinaryOp::shl, dtype, shifted, by, left);
  check_binary<T>(BinaryOp::shr, dtype, shifted, by, right);
}

TEST_CASE("integers: division wraps, shifts past the width are 0") {
  check_integers<int8_t>(DType::i8);
  check_integers<int32_t>(DType::i32);
  check_integers<int64_t>(DType::i64);
  check_integers<uint16_t>(DType::u16);
  check_integers<uint32_t>(DType::u32);
}

TEST_CASE("division by zero in lanes that do not count does not fault") {
  Dim i = sym("i");
  Expr a = kb::load(name("a"), DType::i32, i, 8), b = kb::load(name("b"), DType::i32, i, 8);
  a.count = b.count = Dim(5);
  Stmt store = kb::store(name("o"), i, kb::div(a, b));
  store.count = Dim(5);
  Program program = make_program({make_kernel(
      "tail", {in("a", DType::i32, 5), in("b", DType::i32, 5), out("o", DType::i32, 5)}, {},
      {kb::loop(name("i"), 0, 5, LoopKind::serial, {store}, 8)})});
  Run run;
  run.args = {bytes_of<int32_t>({10, 20, 30, 40, 50}), bytes_of<int32_t>({1, 2, 3, 4, 5}),
              Bytes(20)};
  on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
    CHECK(values_of<int32_t>(done.args[2]) == std::vector<int32_t>(5, 10));
  });
}

TEST_CASE("unary operations and reductions over lanes") {
  std::vector<float> a{1.5f, -2.5f, 2.5f, 0.5f, -0.5f, 9.0f, 16.0f, 3.75f};
  struct Case {
    UnaryOp op;
    std::vector<float> expected;
  };
  std::vector<Case> cases{{UnaryOp::round, {2, -2, 2, 0, -0.0f, 9, 16, 4}},
                          {UnaryOp::floor, {1, -3, 2, 0, -1, 9, 16, 3}},
                          {UnaryOp::ceil, {2, -2, 3, 1, -0.0f, 9, 16, 4}},
                          {UnaryOp::trunc, {1, -2, 2, 0, -0.0f, 9, 16, 3}},
                          {UnaryOp::neg, {-1.5f, 2.5f, -2.5f, -0.5f, 0.5f, -9, -16, -3.75f}},
                          {UnaryOp::abs, {1.5f, 2.5f, 2.5f, 0.5f, 0.5f, 9, 16, 3.75f}}};
  Run run;
  run.args = {bytes_of(a), Bytes(32), Bytes(8)};
  for (const Case &c : cases) {
    INFO(unary_name(c.op));
    for (int lanes : {1, 8}) {
      Expr x = kb::load(name("a"), DType::f32, sym("i"), lanes);
      Expr all = kb::load(name("a"), DType::f32, 0, 8);
      Program program = make_program({make_kernel(
          "unary", {in("a", DType::f32, 8), out("o", DType::f32, 8), out("r", DType::f32, 2)}, {},
          {kb::loop(name("i"), 0, 8, LoopKind::serial,
                    {kb::store(name("o"), sym("i"), kb::unary(c.op, x))}, lanes),
           kb::store(name("r"), 0, kb::reduce(BinaryOp::add, all)),
           kb::store(name("r"), 1, kb::reduce(BinaryOp::max, all))})});
      on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
        CHECK(values_of<float>(done.args[1]) == c.expected);
        CHECK(values_of<float>(done.args[2]) == std::vector<float>{30.25f, 16});
      });
    }
  }
}

TEST_CASE("fma rounds once where the target has it") {
  float x = 1.0f + 0x1p-12f;
  Expr a = kb::load(name("a"), DType::f32, 0, 4);
  Expr value = kb::fma(a, a, kb::number(DType::f32, -1.0, 4));
  Program program =
      make_program({make_kernel("fma", {in("a", DType::f32, 4), out("o", DType::f32, 4)}, {},
                                {kb::store(name("o"), 0, value)})});
  Run run;
  run.args = {bytes_of<float>({x, x, x, x}), Bytes(16)};
  on_every_machine(program, run, [&](const MachineDesc &machine, const Run &done) {
    float expected = machine.has_fma ? std::fma(x, x, -1.0f) : float(x * x) - 1.0f;
    CHECK(values_of<float>(done.args[1])[2] == expected);
  });
}

} // namespace
} // namespace kiln::test
