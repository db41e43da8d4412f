// Generated code for AMX, run with the instructions emulated where the processor lacks them: the same bits as the
// kernel interpreter's for matrix products and convolutions that do and do not fill their tiles. Products of bf16 are
// added up in another order than the interpreter's: sums that need no rounding have its bits, others differ by
// no more than roundings of both.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "ir/kernel/interpret.h"
#include "ir/kernel/tile_product.h"
#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"
#include "tests/cpu/harness.h"
#include "tests/emulate/amx.h"
#include "tests/kernel_passes/naive.h"
#include "tests/kernel_passes/run.h"

#include <cmath>
#include <cstring>
#include <random>

namespace kiln::test {
namespace {

constexpr const char *kBase = "x86-64-v4+avx512vnni+avx512bf16", *kTiles = "x86-64-v4+avx512vnni+amxbf16";

using Buffers = std::vector<std::vector<std::byte>>;

// All values of both operands, and sums that are not there yet.
Buffers operands(const Kernel &kernel, const std::vector<int64_t> &dims) {
  std::mt19937 random(11);
  auto out = naive::random_buffers(kernel, dims);
  for (auto &bytes : out)
    for (std::byte &b : bytes)
      b = std::byte(random());
  return out;
}

Bytes expected(const Kernel &kernel, const std::vector<int64_t> &dims, Buffers buffers) {
  std::vector<std::span<std::byte>> views(buffers.begin(), buffers.end());
  auto trap = interpret_kernel(kernel, views, dims, {});
  REQUIRE(trap.ok());
  const auto *at = reinterpret_cast<const uint8_t *>(buffers.back().data());
  return Bytes(at, at + buffers.back().size());
}

Bytes computed(Kernel kernel, const std::vector<int64_t> &dims, const Buffers &buffers, int opt_level, bool threads = true) {
  MachineDesc machine = *find_machine(kTiles);
  Run run;
  run.dims = dims;
  for (const auto &buffer : buffers) {
    const auto *at = reinterpret_cast<const uint8_t *>(buffer.data());
    run.args.emplace_back(at, at + buffer.size());
  }
  ScheduleOptions schedule_options;
  schedule_options.parallelise = threads;
  schedule(kernel, machine, schedule_options);
  int products = 0;
  visit_stmts(kernel.body, [&](const Stmt &s) { products += tile_product(s).has_value(); });
  CHECK(products > 0);
  cpu::CpuOptions options;
  options.opt_level = opt_level;
  Program program = make_program({kernel});
  auto assembly = cpu::emit_assembly(program, program.kernels, machine, options);
  REQUIRE(assembly.ok());
  bool is_bf16 = kernel.buffers[0].dtype == DType::bf16;
  CHECK(assembly->find(is_bf16 ? "tdpbf16ps" : "tdpbusd") != std::string::npos);
  Run done = execute(compile(program, machine, options), run);
  CHECK(done.code == 0);
  return done.args.back();
}

bool can_run() {
  if (!runs_here(*find_machine(kBase))) {
    WARN("this processor lacks AVX-512 VNNI or BF16: nothing is run");
    return false;
  }
  enable_amx();
  return true;
}

void check(const Kernel &kernel, const std::vector<int64_t> &dims, const Buffers &buffers) {
  Bytes want = expected(kernel, dims, buffers);
  for (int opt_level : {2, 0})
    for (bool threads : {true, false}) {
      INFO(kernel.name << " -O" << opt_level << (threads ? "" : ", one thread"));
      CHECK(computed(kernel, dims, buffers, opt_level, threads) == want);
    }
}

void check(const Kernel &kernel, const std::vector<int64_t> &dims = {}) { check(kernel, dims, operands(kernel, dims)); }

// Every bf16 of the operands by `f`, which is given its place.
template <class F> Buffers with_halves(Buffers buffers, F &&f) {
  for (size_t i = 0; i < 2; ++i)
    for (size_t at = 0; at + 1 < buffers[i].size(); at += 2) {
      uint16_t half;
      std::memcpy(&half, &buffers[i][at], 2);
      half = f(half);
      std::memcpy(&buffers[i][at], &half, 2);
    }
  return buffers;
}

// Of `depth` products each.
void check_bf16(const Kernel &kernel, int64_t depth, const std::vector<int64_t> &dims = {}) {
  std::mt19937 random(5);
  Buffers any = naive::random_buffers(kernel, dims);
  auto small = [&](uint16_t) {
    float number = float(int(random() % 15) - 7);
    uint32_t bits;
    std::memcpy(&bits, &number, 4);
    return uint16_t(bits >> 16);
  };
  check(kernel, dims, with_halves(any, small));

  // Each order rounds once for a product: depth * 2^-24 of the sum of magnitudes for either of them.
  auto sums = values_of<float>(expected(kernel, dims, with_halves(any, [](uint16_t x) { return uint16_t(x & 0x7fff); })));
  auto want = values_of<float>(expected(kernel, dims, any)), got = values_of<float>(computed(kernel, dims, any, 2));
  CHECK(computed(kernel, dims, any, 2, false) == bytes_of(got)); // whatever the threads
  for (size_t i = 0; i < want.size(); ++i)
    if (!(std::fabs(got[i] - want[i]) <= float(2 * depth) * 0x1p-24f * sums[i]))
      FAIL("element " << i << ": " << got[i] << " instead of " << want[i]);
}

TEST_CASE("matrix products of bytes") {
  if (!can_run())
    return;
  for (auto [m, n, k] : {std::tuple(16, 16, 64), {32, 32, 64}, {64, 64, 128}, {4, 16, 64}, {16, 64, 20},
                         {17, 48, 64}, {37, 70, 100}, {49, 33, 132}, {64, 16, 68}, {33, 100, 1028}}) {
    INFO(m << " x " << n << " x " << k);
    check(naive::quantised_matmul(m, n, k));
  }
}

TEST_CASE("matrix products of bytes with any number of rows") {
  if (!can_run())
    return;
  Kernel kernel = naive::quantised_matmul(Dim::symbol("M"), 80, 76, {Symbol("M")});
  for (int64_t m : {0, 1, 15, 32, 47, 66}) {
    INFO(m << " rows");
    check(kernel, {m});
  }
}

TEST_CASE("convolutions of bytes") {
  if (!can_run())
    return;
  using Conv = naive::QuantisedConv;
  check(naive::quantised_conv(Conv{32, 32, 7, 22, 3, 1, 16}));  // blocks: products of 16 bytes
  check(naive::quantised_conv(Conv{128, 48, 5, 9, 3, 1, 128})); // channels last
  check(naive::quantised_conv(Conv{20, 48, 7, 21, 3, 2, 20}));
  check(naive::quantised_conv(Conv{96, 32, 6, 7, 1, 1, 96}));
}

TEST_CASE("matrix products of bf16") {
  if (!can_run())
    return;
  for (auto [m, n, k] : {std::tuple(16, 16, 32), {32, 32, 32}, {64, 64, 64}, {4, 16, 32}, {16, 64, 10}, {17, 48, 32},
                         {37, 70, 50}, {49, 33, 66}, {33, 100, 514}}) {
    INFO(m << " x " << n << " x " << k);
    check_bf16(naive::paired_matmul(m, n, k), k);
  }
  Kernel kernel = naive::paired_matmul(Dim::symbol("M"), 80, 38, {Symbol("M")});
  for (int64_t m : {0, 1, 15, 32, 47, 66}) {
    INFO(m << " rows");
    check_bf16(kernel, 38, {m});
  }
}

// Unrolled steps of vectors look like a product.
TEST_CASE("products that the target lacks are left to vectors") {
  MachineDesc machine = *find_machine("x86-64-v4+avx512vnni+amxint8");
  Kernel kernel = naive::paired_matmul(4, 16, 8);
  schedule(kernel, machine);
  Program program = make_program({kernel});
  auto assembly = cpu::emit_assembly(program, program.kernels, machine);
  REQUIRE(assembly.ok());
  CHECK(assembly->find("tdpbf16ps") == std::string::npos);
  CHECK(assembly->find("vdpbf16ps") != std::string::npos);
}

TEST_CASE("products that are hardly filled are left to vectors") {
  MachineDesc machine = *find_machine(kTiles);
  auto takes_tiles = [&](Kernel kernel) {
    schedule(kernel, machine);
    Program program = make_program({kernel});
    auto assembly = cpu::emit_assembly(program, program.kernels, machine);
    REQUIRE(assembly.ok());
    return assembly->find("tdpb") != std::string::npos;
  };
  CHECK(!takes_tiles(naive::quantised_matmul(4, 16, 16)));
  CHECK(!takes_tiles(naive::quantised_matmul(6, 32, 20)));
  CHECK(takes_tiles(naive::paired_matmul(4, 16, 8))); // dots of bf16 are slow there
  CHECK(takes_tiles(naive::quantised_matmul(8, 32, 64)));
  CHECK(takes_tiles(naive::paired_matmul(16, 32, 20)));
}

// Configuring takes as long as ten products: tiles of two heights, and of a rest of the sum, do it where they change.
TEST_CASE("a function keeps a configuration until another is wanted") {
  MachineDesc machine = *find_machine(kTiles);
  Kernel kernel = naive::quantised_matmul(197, 64, 128);
  schedule(kernel, machine);
  Program program = make_program({kernel});
  auto assembly = cpu::emit_assembly(program, program.kernels, machine);
  REQUIRE(assembly.ok());
  CHECK(assembly->find("ldtilecfg") != assembly->rfind("ldtilecfg"));
  CHECK(assembly->find("tilerelease") == assembly->rfind("tilerelease"));
  if (can_run())
    check(naive::quantised_matmul(197, 64, 128));
}

// Sums that do not begin with zeros, and codes that are the columns.
TEST_CASE("products that add to what is there, signed by unsigned") {
  if (!can_run())
    return;
  Kernel kernel = parse_kernels(R"(kernel k(a: i8[1024] in, b: u8[2048] in, c: i32[512] inout) dims() {
  alloc sums: i32x16[32] reg
  for r in 0..16 unroll {
    for p in 0..2 unroll {
      sums[p + 2*r; x16] = c[16*p + 32*r; x16]
    }
  }
  for k in 0..16 unroll {
    alloc col: u8x64[2] reg
    for p in 0..2 unroll {
      col[p; x64] = b[64*k + 1024*p; x64]
    }
    for r in 0..16 unroll {
      let row: i8x4 = a[4*k + 64*r; x4]
      for p in 0..2 unroll {
        sums[p + 2*r; x16] = fma(col[p; x64], row, sums[p + 2*r; x16])
      }
    }
  }
  for r in 0..16 unroll {
    for p in 0..2 unroll {
      c[16*p + 32*r; x16] = sums[p + 2*r; x16]
    }
  }
}
)").value()[0];
  Status status = verify_kernel(kernel);
  REQUIRE((status.ok() ? "" : status.error().message) == "");
  MachineDesc machine = *find_machine(kTiles);
  Run run;
  for (const auto &buffer : operands(kernel, {})) {
    const auto *at = reinterpret_cast<const uint8_t *>(buffer.data());
    run.args.emplace_back(at, at + buffer.size());
  }
  Program program = make_program({kernel});
  auto assembly = cpu::emit_assembly(program, program.kernels, machine);
  REQUIRE(assembly.ok());
  CHECK(assembly->find("tdpbsud") != std::string::npos);
  // One configuration for the function, released once.
  CHECK(assembly->find("ldtilecfg") == assembly->rfind("ldtilecfg"));
  CHECK(assembly->find("tilerelease") == assembly->rfind("tilerelease"));
  CHECK(execute(compile(program, machine), run).args.back() == expected(kernel, {}, operands(kernel, {})));
}

} // namespace
} // namespace kiln::test
