#include "tools/peak_dots.h"

#include "runtime/package_format.h"

#include <algorithm>
#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace kiln {
namespace {

using Clock = std::chrono::steady_clock;

#if defined(__x86_64__)
// 12 independent sums, as of f32 (peak.cpp): what the empty asm holds is a value that nobody knows, so that every round multiplies.
#define KILN_DOT_LOOP(Sum, Operand, dot, zero)                                                     \
  Operand a{}, b{};                                                                                \
  Sum c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11;                                            \
  c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = c8 = c9 = c10 = c11 = zero();                            \
  for (int64_t i = 0; i < rounds; ++i) {                                                           \
    asm volatile("" : "+v"(a), "+v"(b));                                                           \
    c0 = dot(c0, a, b), c1 = dot(c1, a, b), c2 = dot(c2, a, b), c3 = dot(c3, a, b);                \
    c4 = dot(c4, a, b), c5 = dot(c5, a, b), c6 = dot(c6, a, b), c7 = dot(c7, a, b);                \
    c8 = dot(c8, a, b), c9 = dot(c9, a, b), c10 = dot(c10, a, b), c11 = dot(c11, a, b);            \
    asm volatile("" : "+v"(c0), "+v"(c1), "+v"(c2), "+v"(c3), "+v"(c4), "+v"(c5));                 \
    asm volatile("" : "+v"(c6), "+v"(c7), "+v"(c8), "+v"(c9), "+v"(c10), "+v"(c11));               \
  }

__attribute__((target("avx512f,avx512vnni"), noinline)) void byte_dots512(int64_t rounds) {
  KILN_DOT_LOOP(__m512i, __m512i, _mm512_dpbusd_epi32, _mm512_setzero_si512)
}
__attribute__((target("avxvnni"), noinline)) void byte_dots256(int64_t rounds) {
  KILN_DOT_LOOP(__m256i, __m256i, _mm256_dpbusd_avx_epi32, _mm256_setzero_si256)
}
__attribute__((target("avx512f,avx512bf16"), noinline)) void pair_dots512(int64_t rounds) {
  KILN_DOT_LOOP(__m512, __m512bh, _mm512_dpbf16_ps, _mm512_setzero_ps)
}
#undef KILN_DOT_LOOP

// Four sums and two operands: the products of a register tile without its loads.
__attribute__((target("amx-tile,amx-int8,amx-bf16"), noinline)) void tiles(int64_t rounds, bool pairs) {
  alignas(64) uint8_t configuration[64] = {1}; // ldtilecfg: palette 1, 64 bytes in each of 16 rows
  for (size_t tile = 0; tile < 8; ++tile) {
    configuration[16 + 2 * tile] = 64;
    configuration[48 + tile] = 16;
  }
  asm volatile("" : : "r"(configuration) : "memory"); // g++ takes the intrinsic to read eight bytes only
  _tile_loadconfig(configuration);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int64_t i = 0; i < rounds; ++i)
    if (pairs) {
      _tile_dpbf16ps(0, 4, 5);
      _tile_dpbf16ps(1, 4, 5);
      _tile_dpbf16ps(2, 4, 5);
      _tile_dpbf16ps(3, 4, 5);
    } else {
      _tile_dpbusd(0, 4, 5);
      _tile_dpbusd(1, 4, 5);
      _tile_dpbusd(2, 4, 5);
      _tile_dpbusd(3, 4, 5);
    }
  _tile_release();
}
#endif

// The best of three; `work` are the multiplications and additions of a round.
template <class Loop> double rate(double work, int64_t rounds, const Loop &loop) {
  double best = 0;
  for (int repeat = 0; repeat < 3; ++repeat) {
    auto start = Clock::now();
    loop(rounds);
    best = std::max(best, work * double(rounds) / std::chrono::duration<double>(Clock::now() - start).count() * 1e-9);
  }
  return best;
}

} // namespace

double dot_rate(uint32_t unit, const MachineDesc &machine, double fma_gflops) {
  const bool tile = unit == package::kByteTiles || unit == package::kPairTiles, bytes = unit == package::kByteDots || unit == package::kByteTiles;
  if (tile ? !(bytes ? machine.has_byte_tiles : machine.has_bf16_tiles) : !(bytes ? machine.byte_dots != ByteDots::none : machine.has_bf16_dots))
    return 0;
#if defined(__x86_64__)
  const double sums = 12 * machine.vector_bytes / 4;
  if (tile) // 16 x 16 sums of 64 bytes, four times
    return rate(2.0 * 4 * 16 * 16 * (bytes ? 64 : 32), 20000, [&](int64_t rounds) { tiles(rounds, !bytes); });
  if (!bytes)
    return rate(2 * sums * 2, 100000, pair_dots512);
  if (machine.byte_dots == ByteDots::vnni)
    return rate(2 * sums * 4, 100000, machine.vector_bytes == 64 ? byte_dots512 : byte_dots256);
#endif
  bool whole = machine.byte_dots == ByteDots::signed_ || machine.byte_dots == ByteDots::mixed;
  return fma_gflops * (whole ? 4 : 1); // products of 16 bits take two instructions for twice the lanes
}

} // namespace kiln
