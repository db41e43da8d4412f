#include "runtime/wide_digest.h"

#include "runtime/cpu_target.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace kiln::rt {

namespace {

void absorb_one_by_one(uint64_t *lanes, const uint8_t *bytes, uint64_t stripes) {
  package::absorb_words(lanes, bytes, stripes);
}

} // namespace

#if defined(__x86_64__)
namespace {

constexpr uint64_t kVectors = package::kDigestLanes * sizeof(uint64_t) / sizeof(__m256i);

__attribute__((target("avx2"))) void absorb_with_avx2(uint64_t *into, const uint8_t *bytes,
                                                      uint64_t stripes) {
  __m256i lanes[kVectors];
  const __m256i prime = _mm256_set1_epi64x(package::kDigestPrime);
  auto *words = reinterpret_cast<const __m256i_u *>(bytes);
  for (uint64_t i = 0; i < kVectors; ++i)
    lanes[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i_u *>(into) + i);
  for (; stripes != 0; --stripes, words += kVectors)
#pragma GCC unroll 4
    for (uint64_t i = 0; i < kVectors; ++i) {
      __m256i x = _mm256_xor_si256(lanes[i], _mm256_loadu_si256(words + i));
      __m256i high = _mm256_slli_epi64(_mm256_mul_epu32(_mm256_srli_epi64(x, 32), prime), 32);
      x = _mm256_add_epi64(_mm256_mul_epu32(x, prime), high);
      lanes[i] = _mm256_xor_si256(x, _mm256_srli_epi64(x, 31));
    }
  for (uint64_t i = 0; i < kVectors; ++i)
    _mm256_storeu_si256(reinterpret_cast<__m256i_u *>(into) + i, lanes[i]);
}

// Half the steps from one word to the next that use it, and those are what bounds the loop.
__attribute__((target("avx512f,avx512dq"))) void absorb_with_avx512(uint64_t *into, const uint8_t *bytes,
                                                                    uint64_t stripes) {
  const __m512i prime = _mm512_set1_epi64(package::kDigestPrime);
  __m512i low = _mm512_loadu_si512(into), high = _mm512_loadu_si512(into + 8);
  for (; stripes != 0; --stripes, bytes += 2 * sizeof(__m512i)) {
    low = _mm512_mullo_epi64(_mm512_xor_si512(low, _mm512_loadu_si512(bytes)), prime);
    high = _mm512_mullo_epi64(_mm512_xor_si512(high, _mm512_loadu_si512(bytes + sizeof(__m512i))), prime);
    low = _mm512_xor_si512(low, _mm512_srli_epi64(low, 31));
    high = _mm512_xor_si512(high, _mm512_srli_epi64(high, 31));
  }
  _mm512_storeu_si512(into, low);
  _mm512_storeu_si512(into + 8, high);
}

} // namespace

package::AbsorbStripes fastest_absorb() {
  return target_rank("x86-64-v4") >= 0   ? absorb_with_avx512
         : target_rank("x86-64-v3") >= 0 ? absorb_with_avx2
                                         : absorb_one_by_one;
}

#else

package::AbsorbStripes fastest_absorb() {
  return absorb_one_by_one;
}

#endif

} // namespace kiln::rt
