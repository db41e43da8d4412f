// Register tiles as they are written: their sizes, and what is asked for ahead of its use.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"
#include "tests/kernel_passes/naive.h"
#include "tests/kernel_passes/run.h"

#include <algorithm>
#include <cmath>

using namespace kiln;

namespace {

std::vector<int64_t> accumulator_counts(const Kernel &k) {
  std::vector<int64_t> out;
  visit_stmts(k.body, [&](const Stmt &s) {
    if (s.is(Stmt::Kind::alloc) && s.name.text().starts_with("acc") && s.lanes > 1)
      out.push_back(s.size);
  });
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

// Counts prefetches into the second level in a buffer of their own, one element a line.
void count_prefetches(std::vector<Stmt> &body, int64_t per_line = 16) {
  for (Stmt &s : body) {
    if (s.is(Stmt::Kind::prefetch) && s.integer == 2) {
      Dim line = floordiv(s.index, per_line);
      s = kb::store(
          Symbol("asked"), line,
          kb::add(kb::load(Symbol("asked"), DType::f32, line), kb::constant(DType::f32, 1)));
    }
    count_prefetches(s.body, per_line);
    count_prefetches(s.other, per_line);
  }
}

// The scheduled kernel computes what the naive one does, with the same bits as `like` where given.
naive::Run check(const Kernel &kernel, const Kernel &scheduled, const naive::Run *like = nullptr) {
  Status status = verify_kernel(scheduled);
  INFO(print_kernel(scheduled));
  REQUIRE((status.ok() ? "" : status.error().message) == "");
  naive::Run expected = naive::interpret(kernel, {}, false);
  naive::Run run = naive::interpret(scheduled, {}, true);
  REQUIRE(run.error == "");
  size_t out = kernel.buffers.size() - 1;
  int64_t n = int64_t(run.buffers[out].size()) / 4;
  for (int64_t i = 0; i < n; ++i) {
    double x = naive::number_at(DType::f32, expected.buffers[out], i),
           y = naive::number_at(DType::f32, run.buffers[out], i);
    if (!(std::fabs(x - y) <= 1e-4 * std::max(1.0, std::fabs(x))))
      FAIL("[" << i << "] = " << y << ", expected " << x);
  }
  if (like)
    CHECK(run.buffers[out] == like->buffers[out]);
  return run;
}

int count_allocs(const Kernel &k, std::string_view stem) {
  int n = 0;
  visit_stmts(k.body, [&](const Stmt &s) {
    n +=
        s.is(Stmt::Kind::alloc) && s.space == MemorySpace::stack && s.name.text().starts_with(stem);
  });
  return n;
}

} // namespace

// c[m, n] = sum of a[m, k] * (codes of 4 bits - 8) * scales of blocks of 32 rows; words and scales in panels.
Kernel packed_matmul(int64_t m, int64_t n, int64_t k) {
  std::string N = std::to_string(n), K = std::to_string(k), M = std::to_string(m), panels = std::to_string((n + 15) / 16);
  std::string words = std::to_string((n + 15) / 16 * 2 * k), scales = std::to_string((n + 15) / 16 * k / 2);
  std::string lanes = n % 16 ? "min(16, " + N + " - 16*o)" : "16";
  auto parsed = parse_kernels(
      "kernel packed(w: i32[" + words + "] in constant, s: f32[" + scales + "] in constant, a: f32[" + M + "*" + K + "] in, c: f32[" + M +
      "*" + N + "] out) dims() {\n  for i in 0.." + M + " parallel { for o in 0.." + panels + " parallel { for l in 0.." + lanes +
      " parallel {\n    alloc acc: f32[1] reg\n    acc[0] = f32(0)\n    for b in 0.." + K + "/32 reduce { for q in 0..4 reduce { for r in 0..8 reduce {\n"
      "      acc[0] = add(acc[0], mul(a[" + K + "*i + 32*b + 8*q + r], mul(sub(convert(f32, bit_and(shr(w[" + K + "*2*o + 64*b + 16*q + l], "
      "convert(i32, index(4*r))), i32(15))), f32(8)), s[" + K + "/2*o + 16*b + l])))\n    } } }\n    c[" + N +
      "*i + 16*o + l] = acc[0]\n  } } }\n}\n");
  INFO((parsed.ok() ? "" : parsed.error().message));
  REQUIRE(parsed.ok());
  return (*parsed)[0];
}

TEST_CASE("weights of a few bits are unpacked once for many rows, and where they are read for a few") {
  for (auto [m, n, k, made] : {std::tuple(1, 64, 64, 0), {7, 40, 32, 0}, {33, 512, 32, 1}, {33, 500, 64, 1}, {33, 64, 32, 0}})
    for (MachineDesc machine : cpu_machines()) {
      Kernel kernel = packed_matmul(m, n, k), scheduled = kernel;
      schedule(scheduled, machine);
      INFO(machine.name << ", " << m << " rows");
      CHECK(count_allocs(scheduled, "made") == made);
      naive::Run run = check(kernel, scheduled);
      if (made == 0 || k < 64)
        continue;
      machine.l2_bytes = 64 << 10; // and in pieces
      Kernel cut = kernel;
      ScheduleOptions options;
      options.tile_choice.depth = 1;
      schedule(cut, machine, options);
      check(kernel, cut);
    }
}

TEST_CASE("long reductions are cut into pieces, and sums keep their bits") {
  std::vector<Kernel> kernels = {
      naive::matmul(29, 160, 64, true),
      naive::matmul(33, 122, 45, true),
      naive::matmul(48, 96, 70, false),
      naive::matmul_transposed(2, 25, 70, 70),
      naive::conv({1, 32, 80, 7, 7, 3, 3, 1, 1, true, 0}),
      naive::conv({1, 40, 48, 6, 6, 3, 3, 1, 1, false, 0}),
  };
  for (const Kernel &kernel : kernels)
    for (MachineDesc machine : cpu_machines()) {
      Kernel whole = kernel, cut = kernel;
      schedule(whole, machine);
      naive::Run run = check(kernel, whole);
      machine.l2_bytes = 12 << 10; // pieces that the interpreter has time for
      ScheduleOptions options;
      options.tile_choice.depth = kernel.name == "conv" ? 1 : 16;
      schedule(cut, machine, options);
      INFO(machine.name);
      check(kernel, cut, &run);
    }
}

TEST_CASE("what a group shares is cut where it is more than the second level holds") {
  const MachineDesc machine = *find_machine("x86-64-v4");
  Kernel small = naive::matmul(64, 768, 1024, true), large = naive::matmul(64, 768, 4096, true);
  schedule(small, machine);
  schedule(large, machine);
  CHECK(count_allocs(small, "sum") == 0);
  CHECK(count_allocs(large, "sum") == 1);
  int asked = 0;
  visit_stmts(large.body,
              [&](const Stmt &s) { asked += s.is(Stmt::Kind::prefetch) && s.integer == 2; });
  CHECK(asked > 0);
}

TEST_CASE("lines that share cache sets are copied where many rows read them") {
  const MachineDesc machine = *find_machine("x86-64-v4");
  for (auto [m, n, copies] :
       {std::tuple(64, 1024, 1), {64, 96, 0}, {16, 1024, 0}, {64, 1000, 0}}) {
    Kernel kernel = naive::matmul(m, n, 96, false);
    Kernel scheduled = kernel;
    schedule(scheduled, machine);
    CHECK(count_allocs(scheduled, "packed") == copies);
    check(kernel, scheduled);
  }
}

TEST_CASE("columns that do not stay in the sets their steps reach are copied") {
  MachineDesc machine = *find_machine("x86-64-v4");
  machine.l2_bytes = 64 << 10;
  // 1 KiB apart, a quarter of the sets; fewer steps than those hold; rows too few; lines in all sets; more of them
  // than the level holds.
  for (auto [m, n, k, copies] :
       {std::tuple(400, 256, 96, 1), {400, 256, 64, 0}, {48, 256, 96, 0}, {400, 264, 96, 0}, {400, 264, 128, 1}}) {
    Kernel kernel = naive::matmul(m, n, k, false);
    schedule(kernel, machine);
    CHECK(count_allocs(kernel, "packed") == copies);
  }
}

// Of the panels of `kernel` on `machine`, so many lines of elements of `dtype`.
void check_next_group(Kernel kernel, std::string_view machine, int64_t lines, DType dtype) {
  INFO(kernel.name << " on " << machine);
  schedule(kernel, *find_machine(machine));
  count_prefetches(kernel.body, 64 / int64_t(dtype_bytes(dtype)));
  kernel.buffers.push_back({Symbol("asked"), DType::f32, 3 * lines, Access::inout, false});
  Status status = verify_kernel(kernel);
  REQUIRE((status.ok() ? "" : status.error().message) == "");
  auto before = naive::random_buffers(kernel, {});
  naive::Run run = naive::interpret(kernel, {}, false);
  REQUIRE(run.error == "");
  int64_t first_asked = -1;
  double most = 0;
  for (int64_t i = 0; i < lines; ++i) {
    double asked = naive::number_at(DType::f32, run.buffers.back(), i) -
                   naive::number_at(DType::f32, before.back(), i);
    INFO("line " << i);
    if (first_asked < 0 && asked > 0.5)
      first_asked = i;
    if (first_asked >= 0)
      CHECK(asked > 0.5); // nothing is left out
    most = std::max(most, asked);
  }
  CHECK(first_asked > 0);
  CHECK(first_asked <= lines / 3); // all but the first group
  CHECK(most < 5);                 // and rarely twice
}

TEST_CASE("the next group of panels is asked for while one is computed") {
  check_next_group(naive::matmul(29, 192, 64, true), "x86-64-v4", 192 * 64 / 16, DType::f32);
  for (std::string_view machine : {"x86-64-v4+avx512vnni", "x86-64-v4+avx512vnni+amxbf16"})
    check_next_group(naive::quantised_matmul(29, 192, 192), machine, 192 * 192 / 64, DType::i8);
  // Windows: the steps of the sum are not in the order of memory.
  naive::QuantisedConv conv{64, 192, 4, 10, 3, 1, 64};
  check_next_group(naive::quantised_conv(conv), "x86-64-v4+avx512vnni+amxbf16", 192 * 9 * 64 / 64, DType::i8);
}

TEST_CASE("a choice of tiles takes the place of the cost model") {
  const MachineDesc machine = *find_machine("x86-64-v4");
  auto tiles = [&](const TileChoice &choice) {
    Kernel kernel = naive::matmul(24, 192, 64, true);
    ScheduleOptions options;
    options.tile_choice = choice;
    schedule(kernel, machine, options);
    return accumulator_counts(kernel);
  };
  TileChoice choice;
  choice.rows = 8;
  choice.vectors = 3;
  CHECK(tiles(choice) == std::vector<int64_t>{24});
  choice.rows = 12;
  choice.vectors = 2;
  CHECK(tiles(choice) == std::vector<int64_t>{24});
  choice.rows = 2;
  choice.vectors = 1;
  CHECK(tiles(choice) == std::vector<int64_t>{2});
  choice.rows = 40; // more than there are registers for: as if nothing were chosen
  choice.vectors = 40;
  CHECK(tiles(choice) == tiles({}));
}

TEST_CASE("prefetches are left out where the choice says so") {
  TileChoice choice;
  choice.prefetch_next = false;
  choice.prefetch_steps = 0;
  Kernel kernel = naive::matmul(24, 192, 64, true);
  ScheduleOptions options;
  options.tile_choice = choice;
  schedule(kernel, *find_machine("x86-64-v4"), options);
  visit_stmts(kernel.body, [](const Stmt &s) { CHECK(!s.is(Stmt::Kind::prefetch)); });
}

TEST_CASE("reductions that are cut short at an edge are prefetched for like whole ones") {
  for (bool halo : {true, false}) {
    Kernel kernel = naive::conv({1, 64, 128, 14, 14, 3, 3, 1, 1, halo, 0});
    schedule(kernel, *find_machine("x86-64-v4"));
    int asked = 0;
    visit_stmts(kernel.body,
                [&](const Stmt &s) { asked += s.is(Stmt::Kind::prefetch) && s.integer == 2; });
    CHECK(asked > 0);
  }
}

TEST_CASE("operands across the columns are copied along long reductions, in what the cache holds") {
  for (int64_t k : {40, 512, 2048, 4096}) {
    const MachineDesc machine = *find_machine("x86-64-v4");
    Kernel kernel = naive::matmul_transposed(1, 64, 64, k);
    schedule(kernel, machine);
    int64_t bytes = 0;
    visit_stmts(kernel.body, [&](const Stmt &s) {
      if (s.is(Stmt::Kind::alloc) && s.space == MemorySpace::stack)
        bytes += s.size * s.lanes * dtype_bytes(s.dtype);
    });
    INFO(k);
    CHECK(bytes >= k * 16 * 4);
    CHECK(bytes <= machine.l2_bytes / 2);
    CHECK(accumulator_counts(kernel).back() >= 12);
  }
}

TEST_CASE("steps that are unrolled whole leave a register free") {
  // 224 pixels in tiles of 14 would be even; with 2 panels 28 accumulators are one too many here.
  naive::ConvShape shape;
  shape.ic = 3;
  shape.oc = 32;
  shape.h = shape.w = 232;
  shape.kh = shape.kw = 9;
  Kernel kernel = naive::first_conv(shape);
  schedule(kernel, *find_machine("x86-64-v4"));
  auto counts = accumulator_counts(kernel);
  REQUIRE(!counts.empty());
  CHECK(counts.back() <= 26);
  CHECK(counts.back() >= 22);
}

TEST_CASE("one row of panels that the second cache holds reads one after the other, in sums by the steps") {
  Kernel kernel = naive::matmul(1, 128, 1024, true);
  schedule(kernel, *find_machine("x86-64-v4"));
  int loops = 0;
  visit_stmts(kernel.body, [&](const Stmt &s) {
    if (is_loop(s, LoopKind::threads)) {
      CHECK(trip_count(s).is_const(8));
      ++loops;
    }
  });
  CHECK(loops == 1);
  for (int64_t count : accumulator_counts(kernel))
    CHECK(count == 8);
}

TEST_CASE("one row of few columns is computed in two groups, for two threads") {
  Kernel kernel = naive::matmul(1, 128, 9216, true);
  schedule(kernel, *find_machine("x86-64-v4"));
  std::optional<Dim> shares;
  visit_stmts(kernel.body, [&](const Stmt &s) {
    if (is_loop(s, LoopKind::threads))
      shares = trip_count(s);
  });
  REQUIRE(shares);
  CHECK(shares->is_const(2));
}

TEST_CASE("rows of pixels get tiles of several channels, and their ends lie in a tile of the row") {
  for (auto [machine, size, sums] : {std::tuple("x86-64-v3", 56, 8), {"x86-64-v3", 28, 8}, {"x86-64-v3", 14, 8},
                                     {"x86-64-v4", 56, 12}, {"x86-64-v4", 28, 12}}) {
    naive::ConvShape shape;
    shape.ic = shape.oc = 24;
    shape.h = shape.w = size;
    shape.kh = shape.kw = 3;
    Kernel kernel = naive::planar_conv(shape);
    schedule(kernel, *find_machine(machine));
    INFO(machine << " " << size << "\n" << print_kernel(kernel));
    auto counts = accumulator_counts(kernel);
    REQUIRE(!counts.empty());
    CHECK(counts.front() >= sums);
  }
}
