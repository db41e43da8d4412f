// Dots (ir/kernel/dot.h) are exact on every target: the largest products, wrapping sums, and the order in
// which pairs of bf16 round.
#include "tests/cpu/harness.h"

#include "ir/kernel/dot.h"
#include "ir/kernel/interpret.h"
#include "passes/kernel/schedule.h"
#include "tests/kernel_passes/naive.h"
#include "tests/kernel_passes/run.h"

#include <catch2/catch.hpp>

#include <cmath>
#include <random>

namespace kiln::test {
namespace {

// out[i] += a of all (shared: the first few) lanes by b, for `lanes` sums.
Kernel dot_kernel(DType a, DType b, DType sum, int lanes, bool shared) {
  int width = dot_width(a, b, sum);
  Expr left = kb::load(name("a"), a, 0, shared ? width : width * lanes);
  Expr right = kb::load(name("b"), b, 0, width * lanes);
  Expr value = kb::fma(left, right, kb::load(name("out"), sum, 0, lanes));
  KernelBuffer result = out("out", sum, lanes);
  result.access = Access::inout;
  return make_kernel("dot", {in("a", a, width * lanes), in("b", b, width * lanes), result}, {},
                     {kb::store(name("out"), 0, value)});
}

std::vector<int> lane_counts(const MachineDesc &machine) {
  std::vector<int> out{1, 3};
  for (int lanes = 4; lanes <= machine.lanes(DType::i32); lanes *= 2)
    out.push_back(lanes);
  return out;
}

TEST_CASE("sums of four products of bytes") {
  std::mt19937 random(5);
  for (bool shared : {false, true})
    for (int round = 0; round < 6; ++round)
      for (const MachineDesc &machine : runnable_machines())
        for (int lanes : lane_counts(machine)) {
          std::vector<uint8_t> a(size_t(4 * lanes));
          std::vector<int8_t> b(size_t(4 * lanes));
          std::vector<int32_t> sums(size_t(lanes), 0), want;
          for (auto &x : a)
            x = round == 0 ? 255 : round == 1 ? 128 : uint8_t(random());
          for (auto &x : b)
            x = round == 0 ? -128 : round == 1 ? 127 : int8_t(random());
          for (auto &x : sums)
            x = round == 2 ? std::numeric_limits<int32_t>::max() - 7 : int32_t(random() % 100000);
          for (size_t i = 0; i < sums.size(); ++i) {
            uint32_t sum = uint32_t(sums[i]);
            for (size_t k = 0; k < 4; ++k)
              sum += uint32_t(int32_t(a[shared ? k : 4 * i + k]) * b[4 * i + k]);
            want.push_back(int32_t(sum));
          }
          Run run;
          run.args = {bytes_of(a), bytes_of(b), bytes_of(sums)};
          Program program =
              make_program({dot_kernel(DType::u8, DType::i8, DType::i32, lanes, shared)});
          INFO(machine.name << ", " << lanes << " lanes, round " << round);
          CHECK(values_of<int32_t>(execute(compile(program, machine), run).args[2]) == want);
        }
}

// Tiles of them, whose steps share what corrects signed codes.
TEST_CASE("matrix products of bytes") {
  std::mt19937 random(3);
  for (auto [m, n, k] : {std::tuple(5, 64, 72), {9, 40, 20}, {1, 16, 132}}) {
    Kernel kernel = naive::quantised_matmul(m, n, k);
    std::vector<std::vector<std::byte>> buffers = naive::random_buffers(kernel, {});
    for (auto &bytes : buffers)
      for (std::byte &b : bytes)
        b = std::byte(random());
    Run run;
    for (const auto &bytes : buffers) {
      const auto *at = reinterpret_cast<const uint8_t *>(bytes.data());
      run.args.emplace_back(at, at + bytes.size());
    }
    std::vector<std::span<std::byte>> views(buffers.begin(), buffers.end());
    REQUIRE(interpret_kernel(kernel, views, {}, {}).ok());
    const auto *want = reinterpret_cast<const uint8_t *>(buffers.back().data());
    for (const MachineDesc &machine : runnable_machines()) {
      Kernel scheduled = kernel;
      ScheduleOptions options;
      options.parallelise = false;
      schedule(scheduled, machine, options);
      INFO(machine.name << ": " << m << " x " << n << " x " << k);
      CHECK(execute(compile(make_program({scheduled}), machine), run).args.back() ==
            Bytes(want, want + buffers.back().size()));
    }
  }
}

TEST_CASE("sums of two products of bf16 round after each, the odd one first") {
  std::mt19937 random(9);
  for (bool shared : {false, true})
    for (const MachineDesc &machine : runnable_machines())
      for (int lanes : lane_counts(machine)) {
        std::vector<uint16_t> a(size_t(2 * lanes)), b(size_t(2 * lanes));
        std::vector<float> sums(size_t(lanes), 0), want;
        auto some = [&] { return uint16_t((random() & 1) << 15 | (118 + random() % 16) << 7 | random() % 128); };
        for (auto &x : a)
          x = some();
        for (auto &x : b)
          x = some();
        for (auto &x : sums)
          x = float(random() % 1000) / 7;
        for (size_t i = 0; i < sums.size(); ++i) {
          float sum = sums[i];
          for (size_t k : {1, 0}) {
            float x = bf16_to_f32(a[shared ? k : 2 * i + k]), y = bf16_to_f32(b[2 * i + k]);
            sum = machine.has_fma ? std::fma(x, y, sum) : x * y + sum;
          }
          want.push_back(sum);
        }
        Run run;
        run.args = {bytes_of(a), bytes_of(b), bytes_of(sums)};
        Program program =
            make_program({dot_kernel(DType::bf16, DType::bf16, DType::f32, lanes, shared)});
        INFO(machine.name << ", " << lanes << " lanes");
        CHECK(values_of<float>(execute(compile(program, machine), run).args[2]) == want);
      }
}

// The instruction that each target has for a whole vector.
TEST_CASE("dots are instructions") {
  auto text = [](const char *target, DType a, DType b, DType sum) {
    MachineDesc machine = *find_machine(target);
    Program program = make_program({dot_kernel(a, b, sum, machine.lanes(sum), true)});
    auto assembly = cpu::emit_assembly(program, program.kernels, machine);
    REQUIRE(assembly.ok());
    return *assembly;
  };
  auto bytes = [&](const char *target) { return text(target, DType::u8, DType::i8, DType::i32); };
  CHECK(bytes("x86-64-v2").find("pmaddwd") != std::string::npos);
  CHECK(bytes("x86-64-v3").find("vpmaddwd") != std::string::npos);
  CHECK(bytes("x86-64-v3+avxvnni").find("{vex}\tvpdpbusd") != std::string::npos);
  CHECK(bytes("x86-64-v4").find("vpmaddwd") != std::string::npos);
  CHECK(bytes("x86-64-v4+avx512vnni").find("vpdpbusd") != std::string::npos);
  CHECK(bytes("aarch64").find("sadalp") != std::string::npos);
  CHECK(bytes("aarch64+dotprod").find("sdot") != std::string::npos);
  std::string mixed = bytes("aarch64+dotprod+i8mm");
  CHECK((mixed.find("usdot") != std::string::npos || mixed.find("sudot") != std::string::npos));
  CHECK(text("x86-64-v4+avx512vnni+avx512bf16", DType::bf16, DType::bf16, DType::f32)
            .find("vdpbf16ps") != std::string::npos);
}

} // namespace
} // namespace kiln::test
