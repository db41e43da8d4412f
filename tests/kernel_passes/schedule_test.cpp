// Scheduled kernels compute what naive ones do, on every machine, for shapes with and without
// tails.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "ir/kernel/dot.h"
#include "ir/kernel/interpret.h"
#include "ir/kernel/tile_product.h"
#include "ir/kernel/visit.h"
#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"
#include "tests/kernel_passes/naive.h"
#include "tests/kernel_passes/run.h"

#include <cmath>
#include <cstring>

using namespace kiln;

namespace {

struct Expectation {
  double tolerance = 1e-5;
  bool vectors = true; // somewhere in the scheduled kernel
};

void compare(const Kernel &k, const naive::Run &expected, const naive::Run &got, double tolerance) {
  REQUIRE(got.error == "");
  CHECK(got.trap == expected.trap);
  for (size_t b = 0; b < k.buffers.size(); ++b) {
    DType d = k.buffers[b].dtype;
    int64_t n = int64_t(got.buffers[b].size()) / dtype_bytes(d);
    for (int64_t i = 0; i < n; ++i) {
      double x = naive::number_at(d, expected.buffers[b], i),
             y = naive::number_at(d, got.buffers[b], i);
      bool same = x == y || (std::isnan(x) && std::isnan(y)) ||
                  std::fabs(x - y) <= tolerance * std::max(1.0, std::fabs(x));
      if (!same)
        FAIL(k.buffers[b].name.text() << "[" << i << "] = " << y << ", expected " << x);
    }
  }
}

void check(const Kernel &kernel, const std::vector<int64_t> &dims = {},
           Expectation expectation = {}) {
  Status status = verify_kernel(kernel);
  INFO(print_kernel(kernel));
  REQUIRE((status.ok() ? "" : status.error().message) == "");
  naive::Run expected = naive::interpret(kernel, dims, false);
  REQUIRE(expected.error == "");
  for (const MachineDesc &machine : cpu_machines()) {
    Kernel k = kernel;
    schedule(k, machine);
    INFO(machine.name << "\n" << print_kernel(k));
    bool vectors = false;
    visit_exprs(k.body, [&](const Expr &e) { vectors |= e.lanes > 1; });
    if (expectation.vectors)
      CHECK(vectors);
    for (bool reverse : {false, true})
      compare(k, expected, naive::interpret(k, dims, reverse), expectation.tolerance);
  }
}

Symbol sym(const char *s) {
  return Symbol(s);
}
Dim dim(const char *s) {
  return Dim::symbol(s);
}

} // namespace

TEST_CASE("matmul with packed weights") {
  for (auto [m, n, k] : {std::tuple(1, 16, 3),
                         {1, 40, 9},
                         {5, 10, 4},
                         {13, 33, 17},
                         {14, 64, 8},
                         {7, 130, 5},
                         {29, 3, 6}})
    check(naive::matmul(m, n, k, true));
  check(naive::matmul(0, 16, 4, true), {}, {0, false});
  check(naive::matmul(3, 16, 0, true), {}, {0, false});
}
TEST_CASE("matmul of quantised operands") {
  for (auto [m, n, k] : {std::tuple(1, 16, 8), {5, 40, 12}, {14, 64, 36}, {7, 130, 4}, {29, 3, 20}})
    check(naive::quantised_matmul(m, n, k));
  check(naive::quantised_matmul(dim("M"), 48, 16, {sym("M")}), {9});
  for (const MachineDesc &machine : cpu_machines()) {
    Kernel k = naive::quantised_matmul(6, 48, 16);
    schedule(k, machine);
    int dots = 0;
    visit_exprs(k.body, [&](const Expr &e) {
      dots += dot_width(e) == 4 && e.lanes == machine.lanes(DType::i32);
    });
    INFO(machine.name);
    CHECK(dots > 0);
  }
}
// Products of tiles in a scheduled kernel.
int tile_products(const std::vector<Stmt> &body) {
  int count = 0;
  visit_stmts(body, [&](const Stmt &s) { count += tile_product(s).has_value(); });
  return count;
}
TEST_CASE("quantised products on matrix registers") {
  using Conv = naive::QuantisedConv;
  MachineDesc machine = *find_machine("x86-64-v4+avx512vnni+amxint8");
  auto products = [&](Kernel k) {
    schedule(k, machine);
    return tile_products(k.body);
  };
  for (auto [m, n, k] : {std::tuple(4, 16, 64), {37, 70, 100}, {64, 64, 64}, {33, 16, 68}}) {
    check(naive::quantised_matmul(m, n, k));
    CHECK(products(naive::quantised_matmul(m, n, k)) > 0);
  }
  for (int64_t m : {1, 35, 47})
    check(naive::quantised_matmul(dim("M"), 48, 40, {sym("M")}), {m});
  CHECK(products(naive::quantised_matmul(dim("M"), 48, 40, {sym("M")})) > 0);
  for (const Conv &c : {Conv{32, 32, 7, 22, 3, 1, 16}, Conv{48, 16, 6, 9, 1, 1, 48},
                        Conv{20, 48, 7, 21, 3, 2, 20}}) {
    check(naive::quantised_conv(c));
    CHECK(products(naive::quantised_conv(c)) > 0);
  }
  // A few rows are left to vectors, and so are machines without such registers.
  CHECK(products(naive::quantised_matmul(3, 48, 64)) == 0);
  CHECK(products(naive::quantised_matmul(64, 48, 12)) == 0);
  Kernel vectors = naive::quantised_matmul(64, 64, 64);
  schedule(vectors, *find_machine("x86-64-v4+avx512vnni"));
  CHECK(tile_products(vectors.body) == 0);
}
TEST_CASE("products of bf16 on matrix registers") {
  for (auto [m, n, k] : {std::tuple(16, 16, 8), {37, 70, 50}, {64, 64, 64}}) {
    Kernel kernel = naive::paired_matmul(m, n, k);
    schedule(kernel, *find_machine("x86-64-v4+avx512vnni+amxbf16"));
    INFO(m << " x " << n << " x " << k);
    CHECK(tile_products(kernel.body) > 0);
  }
  Kernel wide = naive::paired_matmul(64, 64, 64); // 16 steps of two
  schedule(wide, *find_machine("x86-64-v4+avx512vnni+amxbf16"));
  visit_stmts(wide.body, [&](const Stmt &s) {
    if (auto p = tile_product(s))
      CHECK((p->depth == 16 && p->rows == 32 && p->columns == 2 && p->dtype == DType::f32));
  });
}
TEST_CASE("depthwise windows of quantised operands") {
  for (int64_t width : {2, 3, 4})
    check(naive::quantised_depthwise(16, 5, 9, width));
  for (const MachineDesc &machine : cpu_machines()) {
    Kernel k = naive::quantised_depthwise(32, 5, 9, 3);
    schedule(k, machine);
    int dots = 0;
    visit_exprs(k.body, [&](const Expr &e) { dots += dot_width(e) == 4; });
    INFO(machine.name);
    CHECK(dots > 0);
  }
}
TEST_CASE("matmul of pairs of bf16") {
  for (auto [m, n, k] : {std::tuple(1, 16, 8), {5, 40, 12}, {14, 64, 36}, {7, 130, 4}, {29, 3, 20}})
    check(naive::paired_matmul(m, n, k), {}, {1e-4, true});
  Kernel k = naive::paired_matmul(6, 48, 16);
  schedule(k, *find_machine("x86-64-v4+avx512vnni+avx512bf16"));
  int dots = 0;
  visit_exprs(k.body, [&](const Expr &e) { dots += dot_width(e) == 2 && e.lanes == 16; });
  CHECK(dots > 0);
}
TEST_CASE("matmul of activations") {
  for (auto [m, n, k] :
       {std::tuple(1, 16, 3), {5, 10, 4}, {13, 33, 17}, {14, 64, 8}, {7, 130, 5}, {29, 3, 6}})
    check(naive::matmul(m, n, k, false));
}
TEST_CASE("matmul with symbolic dims") {
  for (bool panels : {false, true})
    for (int64_t m : {0, 1, 5, 11, 17})
      for (int64_t n : {1, 16, 37, 70}) {
        check(naive::matmul(dim("M"), n, 5, panels, DType::f32, {sym("M")}), {m}, {1e-5, n > 1});
        check(naive::matmul(dim("M"), dim("N"), dim("K"), panels, DType::f32,
                            {sym("M"), sym("N"), sym("K")}),
              {m, n, 6});
      }
}
TEST_CASE("matmul of other dtypes") {
  for (DType d :
       {DType::f64, DType::i32, DType::i8, DType::f16, DType::bf16, DType::i64, DType::u8})
    for (bool panels : {false, true})
      check(naive::matmul(7, 37, 9, panels, d), {}, {1e-2, true});
}
TEST_CASE("matmul, transposed operand") {
  check(naive::matmul_transposed(2, 5, 7, 33));
  check(naive::matmul_transposed(dim("B"), 5, dim("N"), 64, {sym("B"), sym("N")}), {2, 9});
}
TEST_CASE("convolution") {
  check(naive::conv({1, 16, 32, 7, 7, 3, 3, 1, 1, true, 0}));
  check(naive::conv({2, 20, 40, 6, 5, 3, 3, 2, 1, true, 1}));
  check(naive::conv({1, 16, 16, 9, 9, 1, 1, 1, 0, true, 0}));
  check(naive::conv({1, 16, 64, 5, 19, 3, 3, 1, 1, false, 0}));
  check(naive::conv({1, 16, 16, 7, 9, 5, 5, 2, 2, false, 0}));
  check(naive::conv({1, 16, 24, 2, 2, 3, 3, 1, 1, false, 0}));
  check(naive::first_conv({1, 3, 32, 11, 11, 7, 7, 2, 3, true, 0}));
  check(naive::planar_conv({1, 5, 3, 9, 40, 3, 3, 1, 1, true, 0}));
  check(naive::planar_conv({1, 3, 7, 9, 21, 5, 5, 1, 2, false, 0}));
  check(naive::planar_conv({2, 3, 7, 12, 12, 3, 3, 2, 1, true, 0}));
}
TEST_CASE("windows") {
  check(naive::depthwise({1, 32, 32, 9, 17, 3, 3, 1, 1, true, 0}));
  check(naive::depthwise({1, 24, 24, 9, 9, 5, 5, 2, 2, false, 0}));
  check(naive::max_pool({1, 32, 32, 9, 17, 3, 3, 2, 1, false, 0}));
  check(naive::max_pool({1, 16, 16, 8, 8, 2, 2, 2, 0, true, 0}));
}
TEST_CASE("elementwise") {
  for (DType d : {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i32, DType::i8})
    for (int64_t n : {2, 7, 16, 33, 100})
      check(naive::elementwise({3, n}, UnaryOp::neg, d));
  for (int64_t n : {0, 1, 31, 64})
    check(naive::elementwise({dim("N"), 5}, UnaryOp::abs, DType::f32, {sym("N")}), {n});
  for (int64_t n : {5, 40})
    check(naive::gelu(n));
  check(naive::transpose(19, 35));
  check(naive::transpose(16, 32));
  check(naive::transpose(5, 40));
  check(naive::transpose(dim("N"), 40, {sym("N")}), {21});
  check(naive::transpose(3, 3), {}, {0, false});
  check(naive::embedding(5, 3, 20));
}
TEST_CASE("rows") {
  for (int64_t w : {5, 16, 70, 200}) {
    check(naive::softmax(3, w));
    check(naive::softmax(dim("N"), w, {sym("N")}), {2});
    check(naive::layer_norm(3, w));
  }
  check(naive::instance_norm(2, 16, 9));
  check(naive::instance_norm(2, 7, 9));
  check(naive::blocked_copy(2, 16, 3, 5));
  check(naive::blocked_copy(2, 5, 3, 5));
  check(naive::reflect_pad(16, 37, 3));
  check(naive::reflect_pad(5, 8, 1));
}
TEST_CASE("sums") {
  check(naive::column_sum(2, 5, 37));
  check(naive::column_sum(dim("A"), dim("B"), dim("C"), {sym("A"), sym("B"), sym("C")}),
        {2, 3, 70});
  for (DType d : {DType::f32, DType::f64, DType::i32, DType::u8, DType::i8})
    for (BinaryOp op : {BinaryOp::add, BinaryOp::max, BinaryOp::min, BinaryOp::mul})
      check(naive::row_sum(3, 75, d, op), {}, {1e-4, true});
  check(naive::row_sum(3, dim("N"), DType::f32, BinaryOp::add, {sym("N")}), {300});
}
// acc = acc < x ? x : acc
TEST_CASE("maxima without NaN") {
  for (int64_t width : {5, 75, 200}) {
    Kernel kernel = naive::row_sum(3, width, DType::f32, BinaryOp::max);
    visit_stmts(kernel.body, [](Stmt &s) {
      if (!s.is(Stmt::Kind::store) || !s.value.is(Expr::Kind::binary) || s.value.binary != BinaryOp::max)
        return;
      Expr acc = s.value.args[0], x = s.value.args[1];
      s.value = kb::select(kb::lt(acc, x), x, acc);
    });
    check(kernel);
    Kernel k = kernel;
    schedule(k, *find_machine("x86-64-v4"));
    auto buffers = naive::random_buffers(k, {});
    float nan = std::nanf("");
    std::memcpy(buffers[0].data() + 8, &nan, sizeof nan);
    std::vector<std::span<std::byte>> views(buffers.begin(), buffers.end());
    REQUIRE(interpret_kernel(k, views, {}).ok());
    CHECK_FALSE(std::isnan(naive::number_at(DType::f32, buffers[2], 0)));
  }
}
