#include "tools/peak.h"

#include "tools/peak_dots.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <numeric>
#include <string>
#include <thread>
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

// Four accumulators keep more loads under way than a core has ports for.
#define KILN_READ_LOOP(Vector)                                                                     \
  auto *v = reinterpret_cast<const Vector *>(data);                                                \
  Vector s0{}, s1{}, s2{}, s3{};                                                                   \
  for (size_t i = 0; i + 4 <= bytes / sizeof(Vector); i += 4) {                                    \
    s0 |= v[i];                                                                                    \
    s1 |= v[i + 1];                                                                                \
    s2 |= v[i + 2];                                                                                \
    s3 |= v[i + 3];                                                                                \
  }                                                                                                \
  return (s0 | s1 | s2 | s3)[0];

typedef long long Words128 __attribute__((vector_size(16)));
#if defined(__x86_64__)
typedef long long Words512 __attribute__((vector_size(64)));
typedef long long Words256 __attribute__((vector_size(32)));
__attribute__((target("avx512f"), noinline)) long long read512(const void *data, size_t bytes) {
  KILN_READ_LOOP(Words512)
}
__attribute__((target("avx2"), noinline)) long long read256(const void *data, size_t bytes) {
  KILN_READ_LOOP(Words256)
}
#endif
__attribute__((noinline)) long long read128(const void *data, size_t bytes) {
  KILN_READ_LOOP(Words128)
}

volatile float sink;
volatile long long read_sink;

// The widest vectors of this machine that are no wider than asked for.
int usable_bytes(int vector_bytes) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (vector_bytes >= 64 && __builtin_cpu_supports("avx512f"))
    return 64;
  if (vector_bytes >= 32 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return 32;
#else
  (void)vector_bytes;
#endif
  return 16;
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double fma_rate(int vector_bytes) {
  float (*loop)(int64_t) = loop128;
#if defined(__x86_64__)
  loop = vector_bytes == 64 ? loop512 : vector_bytes == 32 ? loop256 : loop128;
#endif
  constexpr int64_t kRounds = 100000;
  double best = 0;
  for (int repeat = 0; repeat < 3; ++repeat) {
    auto start = Clock::now();
    sink = loop(kRounds);
    best = std::max(best, 2.0 * 12 * (vector_bytes / 4) * kRounds / seconds_since(start) * 1e-9);
  }
  return best;
}

// Reads the block again and again: what a cache does not hold comes from where it has to.
double read_rate(const std::byte *block, size_t bytes, size_t total) {
  long long (*loop)(const void *, size_t) = read128;
#if defined(__x86_64__)
  int width = usable_bytes(64);
  loop = width == 64 ? read512 : width == 32 ? read256 : read128;
#endif
  read_sink = loop(block, bytes);
  double best = 0;
  size_t passes = std::max<size_t>(1, total / bytes);
  for (int repeat = 0; repeat < 2; ++repeat) {
    auto start = Clock::now();
    for (size_t pass = 0; pass < passes; ++pass)
      read_sink = loop(block, bytes);
    best = std::max(best, double(bytes * passes) / seconds_since(start) * 1e-9);
  }
  return best;
}

// The sum over threads that work at the same time: cores may share units, caches and the way to memory.
template <class Work> double together(int threads, const Work &work) {
  std::vector<double> rates(size_t(std::max(1, threads)));
  std::atomic<size_t> ready{0};
  auto run = [&](size_t i) {
    ready.fetch_add(1);
    while (ready.load() < rates.size())
      std::this_thread::yield();
    rates[i] = work(i);
  };
  std::vector<std::thread> others;
  for (size_t i = 1; i < rates.size(); ++i)
    others.emplace_back(run, i);
  run(0);
  for (std::thread &t : others)
    t.join();
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

// "32768K"; 0 where the system does not say.
size_t cache_bytes(int index, size_t otherwise) {
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
  size_t size = 0;
  char unit = 0;
  if (!(file >> size) || size == 0)
    return otherwise;
  file >> unit;
  return unit == 'M' ? size << 20 : size << 10;
}

} // namespace

CacheSizes cache_sizes() {
  return {cache_bytes(2, size_t(1) << 20), cache_bytes(3, size_t(16) << 20)};
}

double MachineLimits::peak(uint32_t units) const {
  double best = 0;
  for (size_t i = 0; i < dot_gops.size(); ++i)
    best = std::max(best, units >> i & 1 ? dot_gops[i] : 0);
  return best > 0 ? best : fma_gflops;
}

MachineLimits measure_limits(const MachineDesc &machine, uint32_t units, int threads) {
  static const CacheSizes caches = cache_sizes();
  MachineLimits limits;
  int width = usable_bytes(machine.vector_bytes);
  limits.fma_gflops = together(threads, [&](size_t) { return fma_rate(width); });
  for (size_t i = 0; i < limits.dot_gops.size(); ++i)
    if (uint32_t unit = units & 1u << i)
      limits.dot_gops[i] = together(threads, [&](size_t) { return dot_rate(unit, machine, fma_rate(width)); });
  size_t lanes = size_t(std::max(1, threads));
  // Half of L2, so that other data may lie there too; some L2s, but little of L3; several L3s.
  size_t in_l2 = caches.l2 / 2, in_l3 = std::max(caches.l2 * 4, caches.l3 / 4 / lanes);
  size_t in_memory = std::clamp(caches.l3 * 3 / lanes, size_t(32) << 20, size_t(256) << 20);
  static std::vector<std::byte> block;
  block.resize(std::max(in_memory, in_l3) * lanes + 64);
  std::byte *start = block.data() + (64 - reinterpret_cast<uintptr_t>(block.data()) % 64) % 64;
  auto measure = [&](size_t bytes, size_t total) {
    bytes = bytes / 256 * 256;
    return together(threads, [&](size_t i) { return read_rate(start + bytes * i, bytes, total); });
  };
  limits.l2_gbps = measure(in_l2, size_t(64) << 20);
  limits.l3_gbps = measure(in_l3, size_t(32) << 20);
  limits.memory_gbps = measure(in_memory, in_memory);
  return limits;
}

} // namespace kiln
