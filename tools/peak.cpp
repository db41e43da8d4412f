#include "tools/peak.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kiln {
namespace {

using Clock = std::chrono::steady_clock;

// 12 independent chains hide the latency of any FMA unit of today (4 or 5 cycles, 2 a cycle). The empty
// asm keeps the accumulators in registers and the loop as it is written.
template <typename Vector>
__attribute__((always_inline)) inline float fma_loop(int64_t rounds, Vector a, Vector b) {
  Vector acc[12] = {};
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < 12; ++k) {
      acc[k] = acc[k] * a + b;
#if defined(__x86_64__)
      asm volatile("" : "+v"(acc[k]));
#else
      asm volatile("" : "+w"(acc[k]));
#endif
    }
  }
  Vector sum = {};
  for (const Vector &v : acc)
    sum += v;
  return sum[0];
}

typedef float Float4 __attribute__((vector_size(16)));

#if defined(__x86_64__)
typedef float Float8 __attribute__((vector_size(32)));
typedef float Float16 __attribute__((vector_size(64)));

__attribute__((target("avx512f,fma"), noinline)) float loop512(int64_t rounds) {
  return fma_loop<Float16>(rounds, Float16{} + 0.5f, Float16{} + 1.0f);
}
__attribute__((target("avx2,fma"), noinline)) float loop256(int64_t rounds) {
  return fma_loop<Float8>(rounds, Float8{} + 0.5f, Float8{} + 1.0f);
}
#endif
__attribute__((noinline)) float loop128(int64_t rounds) {
  return fma_loop<Float4>(rounds, Float4{} + 0.5f, Float4{} + 1.0f);
}

volatile float sink;

} // namespace

double measure_fma_peak() {
  float (*loop)(int64_t) = loop128;
  int lanes = 4;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) {
    loop = loop512;
    lanes = 16;
  } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    loop = loop256;
    lanes = 8;
  }
#endif
  constexpr int64_t kRounds = 100000;
  double best = 0;
  for (int repeat = 0; repeat < 3; ++repeat) {
    auto start = Clock::now();
    sink = loop(kRounds);
    std::chrono::duration<double> spent = Clock::now() - start;
    double gflops = 2.0 * 12 * lanes * kRounds / spent.count() * 1e-9;
    best = gflops > best ? gflops : best;
  }
  return best;
}

double measure_read_bandwidth() {
  static const std::vector<uint64_t> memory(size_t(64) << 17, 1); // 64 MiB
  auto start = Clock::now();
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= memory.size(); i += 8)
    for (size_t k = 0; k < 8; ++k)
      sums[k] += memory[i + k];
  uint64_t sum = 0;
  for (uint64_t s : sums)
    sum += s;
  sink = float(sum);
  std::chrono::duration<double> spent = Clock::now() - start;
  return double(memory.size()) * 8 / spent.count() * 1e-9;
}

} // namespace kiln
