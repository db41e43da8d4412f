#include "tools/peak.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

namespace kiln {
namespace {

using Clock = std::chrono::steady_clock;

// 12 independent chains hide the latency of any FMA unit of today (4 or 5 cycles, 2 a cycle). They are
// variables and not an array, which g++ would keep in memory; the empty asm keeps the loop as it is
// written. Macros, since a function that is inlined would need each function's target.
#define KILN_FMA_LOOP(Vector, fma, set, keep)                                                      \
  Vector a = set(0.5f), b = set(1.0f), c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11;           \
  c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = c8 = c9 = c10 = c11 = set(0.0f);                         \
  for (int64_t i = 0; i < rounds; ++i) {                                                           \
    KILN_STEP(c0, fma, keep) KILN_STEP(c1, fma, keep) KILN_STEP(c2, fma, keep)                     \
    KILN_STEP(c3, fma, keep) KILN_STEP(c4, fma, keep) KILN_STEP(c5, fma, keep)                     \
    KILN_STEP(c6, fma, keep) KILN_STEP(c7, fma, keep) KILN_STEP(c8, fma, keep)                     \
    KILN_STEP(c9, fma, keep) KILN_STEP(c10, fma, keep) KILN_STEP(c11, fma, keep)                   \
  }                                                                                                \
  return (c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9 + c10 + c11)[0];
#define KILN_STEP(c, fma, keep)                                                                    \
  c = fma(c, a, b);                                                                                \
  asm volatile("" : keep(c));

#if defined(__x86_64__)
__attribute__((target("avx512f"), noinline)) float loop512(int64_t rounds) {
  KILN_FMA_LOOP(__m512, _mm512_fmadd_ps, _mm512_set1_ps, "+v")
}
__attribute__((target("avx2,fma"), noinline)) float loop256(int64_t rounds) {
  KILN_FMA_LOOP(__m256, _mm256_fmadd_ps, _mm256_set1_ps, "+x")
}
__m128 multiply_add(__m128 x, __m128 y, __m128 z) { return x * y + z; }
__attribute__((noinline)) float loop128(int64_t rounds) {
  KILN_FMA_LOOP(__m128, multiply_add, _mm_set1_ps, "+x")
}
#else
float32x4_t multiply_add(float32x4_t x, float32x4_t y, float32x4_t z) { return vfmaq_f32(z, x, y); }
__attribute__((noinline)) float loop128(int64_t rounds) {
  KILN_FMA_LOOP(float32x4_t, multiply_add, vdupq_n_f32, "+w")
}
#endif

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
