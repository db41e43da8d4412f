// Where nests are cut for threads, and how short products use a core: rows at once, chains of sums.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"
#include "tests/kernel_passes/naive.h"
#include "tests/kernel_passes/run.h"

#include <cmath>

using namespace kiln;

namespace {

Kernel parsed(const std::string &text) {
  auto kernels = parse_kernels(text);
  REQUIRE((kernels.ok() ? "" : kernels.error().message) == "");
  return (*kernels)[0];
}

MachineDesc wide_machine() { return *find_machine("x86-64-v4"); }

// The loops above the innermost statements, the first branch of each.
std::string loops_of(const Kernel &kernel) {
  std::string out;
  const std::vector<Stmt> *body = &kernel.body;
  while (!body->empty() && body->back().is(Stmt::Kind::loop)) {
    const Stmt &s = body->back();
    out += std::string(s.name.text()) + " " + std::string(loop_kind_name(s.loop)) + "; ";
    body = &s.body;
  }
  return out;
}

Kernel scaled_rows(int64_t groups, int64_t rows, const std::string &weight_size) {
  std::string g = std::to_string(groups), r = std::to_string(rows);
  std::string x = std::to_string(rows * 1024), y = std::to_string(groups * rows * 1024);
  return parsed("kernel k(x: f32[" + x + "] in, w: f32[" + weight_size + "] in constant, y: f32[" + y +
                "] out) dims() {\n  for g in 0.." + g + " parallel {\n    for r in 0.." + r +
                " parallel {\n      for c in 0..1024 step 16 parallel {\n        y[" + x + "*g + 1024*r + c; x16] = "
                "mul(x[1024*r + c; x16], broadcast(w[g], 16))\n      }\n    }\n  }\n}\n");
}

void same_results(const Kernel &before, const Kernel &after) {
  INFO(print_kernel(after));
  Status status = verify_kernel(after);
  REQUIRE((status.ok() ? "" : status.error().message) == "");
  naive::Run expected = naive::interpret(before, {}, false);
  for (bool reverse : {false, true}) {
    naive::Run got = naive::interpret(after, {}, reverse);
    REQUIRE(got.error == "");
    int64_t n = int64_t(got.buffers.back().size()) / 4;
    for (int64_t i = 0; i < n; ++i) {
      double x = naive::number_at(DType::f32, expected.buffers.back(), i);
      double y = naive::number_at(DType::f32, got.buffers.back(), i);
      REQUIRE(std::fabs(x - y) <= 1e-5 * std::max(1.0, std::fabs(x)));
    }
  }
}

int64_t most_accumulators(const Kernel &kernel) {
  int64_t most = 0;
  visit_stmts(kernel.body, [&](const Stmt &s) {
    if (s.is(Stmt::Kind::alloc) && s.lanes > 1)
      most = std::max(most, s.size);
  });
  return most;
}

} // namespace

TEST_CASE("rows are cut where all groups read the same rows, and groups run around them") {
  Kernel kernel = scaled_rows(8, 64, "8");
  Kernel cut = kernel;
  REQUIRE(parallelise(cut, wide_machine()));
  CHECK(loops_of(cut) == "r threads; g parallel; c serial; ");
  same_results(kernel, cut);
}

TEST_CASE("groups are cut where their weights are larger than what they read") {
  Kernel cut = scaled_rows(64, 8, "40000000");
  REQUIRE(parallelise(cut, wide_machine()));
  CHECK(loops_of(cut) == "g threads; r serial; c parallel; ");
}

TEST_CASE("loops are merged where one of them is too short for many threads") {
  Kernel kernel = scaled_rows(3, 40, "3");
  Kernel cut = kernel;
  REQUIRE(parallelise(cut, wide_machine()));
  REQUIRE(cut.body.size() == 1);
  CHECK(cut.body[0].loop == LoopKind::threads);
  CHECK((cut.body[0].end - cut.body[0].begin).as_const() >= 48);
  same_results(kernel, cut);
}

TEST_CASE("short work stays on one thread") {
  Kernel kernel = scaled_rows(1, 1, "1");
  CHECK(!parallelise(kernel, wide_machine()));
}

TEST_CASE("rows that share an operand are reduced together") {
  Kernel kernel = naive::matmul_transposed(1, 1, 30, 256);
  Kernel jammed = kernel;
  schedule(jammed, wide_machine());
  int64_t accumulators = 0;
  visit_stmts(jammed.body, [&](const Stmt &s) {
    if (!s.is(Stmt::Kind::loop) || s.loop == LoopKind::unroll)
      return;
    int64_t here = 0;
    for (const Stmt &inner : s.body)
      here += inner.is(Stmt::Kind::alloc) && inner.lanes == 16;
    accumulators = std::max(accumulators, here);
  });
  CHECK(accumulators == 4);
  same_results(kernel, jammed);
}

TEST_CASE("one row of a product has a chain of sums for each unrolled step") {
  Kernel kernel = naive::matmul(1, 64, 100, true);
  Kernel split = kernel;
  schedule(split, wide_machine());
  CHECK(most_accumulators(split) == 8);
  same_results(kernel, split);
  Kernel many = naive::matmul(12, 64, 100, true);
  schedule(many, wide_machine());
  CHECK(most_accumulators(many) == 24); // enough as it is
}

TEST_CASE("the order of panels that changes from turn to turn changes no bit of the sums") {
  for (int64_t rows : {1, 7, 70}) {
    Kernel kernel = naive::matmul(rows, 400, 96, true);
    kernel.dims.push_back(Symbol("turn"));
    kernel.body[0].index = Dim::symbol(Symbol("turn"));
    MachineDesc machine = wide_machine();
    machine.l2_bytes = 100 << 10; // 154 KB of weights
    Kernel scheduled = kernel;
    schedule(scheduled, machine);
    INFO(print_kernel(scheduled));
    auto again = parse_kernels(print_kernel(scheduled));
    REQUIRE((again.ok() && (*again)[0] == scheduled));
    bool turns = false;
    visit_stmts(scheduled.body, [&](const Stmt &s) {
      turns |= s.is(Stmt::Kind::loop) && s.index == Dim::symbol(Symbol("turn")) && s.integer == 2;
    });
    CHECK(turns == (rows < 70)); // the others ask for the next group ahead
    naive::Run even = naive::interpret(scheduled, {4}, false), odd = naive::interpret(scheduled, {5}, false);
    REQUIRE(even.error == "");
    CHECK(even.buffers == odd.buffers);
    machine.l2_bytes = 1 << 20;
    schedule(kernel, machine);
    visit_stmts(kernel.body, [&](const Stmt &s) { CHECK((!s.is(Stmt::Kind::loop) || s.index.is_const(0))); });
  }
}

TEST_CASE("work whose inner bounds depend on loops around is counted by the first of their iterations") {
  auto copy = [](const std::string &rows) {
    return parsed("kernel k(x: f32[80000] in, y: f32[80000] out) dims() {\n  for i in 0..2 parallel {\n    for j in 0.." +
                  rows + " parallel {\n      for l in 0..min(16, 24 - 16*i) parallel {\n"
                         "        y[16*j + l] = x[33*l + j]\n      }\n    }\n  }\n}\n");
  };
  Kernel small = copy("33"), large = copy("2000"); // 33 of 16 elements: a microsecond
  CHECK(!parallelise(small, wide_machine()));
  CHECK(parallelise(large, wide_machine()));
}
