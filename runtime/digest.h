// The integrity digest of packages: catches damage at memory bandwidth, in a few dozen lines.
//
// Every package is checked in full before its code runs, weights included, so the digest must not
// be slower than reading the file. A cryptographic hash (about 1 GB/s a core) would be;
// authenticity is the business of a signature. Sixteen 64-bit lanes take one word each of a
// 128-byte stripe:
//
//   lane = (lane ^ word) * prime;   lane ^= lane >> 31
//
// Both steps are bijections of the lane for a fixed word and of the word for a fixed lane, and so
// is the folding of the lanes into four words at the end. Hence damage confined to one aligned
// 8-byte word (a flipped bit, a flipped byte) changes the digest with certainty; any other damage
// goes unseen with odds of about 2^-64. The prime has 32 bits so that a product is two SSE2/NEON
// ones; one by one they are half of what a core reads from memory. wide_digest.h has wider ones.
#pragma once

#include <cstdint>
#include <cstring>

#include "runtime/package_format.h"

namespace kiln::package {

inline constexpr uint64_t kDigestLanes = 16;
inline constexpr uint64_t kDigestPrime = 0x9e3779b1;

// Takes stripes of 128 bytes into the lanes.
using AbsorbStripes = void (*)(uint64_t *lanes, const uint8_t *bytes, uint64_t stripes);

// Inlined everywhere: whose copy a linker keeps must not decide how it was compiled.
[[gnu::always_inline]] inline void absorb_words(uint64_t *lanes, const uint8_t *bytes, uint64_t stripes) {
  for (; stripes != 0; --stripes, bytes += kDigestLanes * sizeof(uint64_t)) {
    uint64_t words[kDigestLanes];
    std::memcpy(words, bytes, sizeof words);
    for (uint64_t i = 0; i < kDigestLanes; ++i) {
      uint64_t x = (lanes[i] ^ words[i]) * kDigestPrime;
      lanes[i] = x ^ (x >> 31);
    }
  }
}

inline void absorb_stripes(uint64_t *lanes, const uint8_t *bytes, uint64_t stripes) {
  absorb_words(lanes, bytes, stripes);
}

class Digester {
public:
  explicit Digester(AbsorbStripes absorb_with = absorb_stripes) : absorb_with_(absorb_with) {
    for (uint64_t i = 0; i < kLanes; ++i)
      lanes_[i] = avalanche((i + 1) * kGolden);
  }

  void update(const void *data, uint64_t size) {
    auto *bytes = static_cast<const uint8_t *>(data);
    total_ += size;
    if (held_ != 0) {
      uint64_t take = size < kStripe - held_ ? size : kStripe - held_;
      std::memcpy(stripe_ + held_, bytes, take);
      held_ += take, bytes += take, size -= take;
      if (held_ < kStripe)
        return;
      absorb(stripe_, 1);
      held_ = 0;
    }
    absorb(bytes, size / kStripe);
    held_ = size % kStripe;
    if (held_ != 0)
      std::memcpy(stripe_, bytes + size - held_, held_);
  }

  void update_zeros(uint64_t size) {
    static constexpr uint8_t kZeros[512] = {};
    for (; size > sizeof kZeros; size -= sizeof kZeros)
      update(kZeros, sizeof kZeros);
    update(kZeros, size);
  }

  // The last stripe is padded with zeros; the length goes into every word of the result.
  Digest finish() {
    if (held_ != 0) {
      std::memset(stripe_ + held_, 0, kStripe - held_);
      absorb(stripe_, 1);
    }
    Digest digest;
    for (uint64_t i = 0; i < 4; ++i) {
      uint64_t word = avalanche(total_ + (i + 1) * kGolden);
      for (uint64_t j = 0; j < kLanes / 4; ++j)
        word = avalanche(word ^ lanes_[i + 4 * j]);
      digest.word[i] = word;
    }
    return digest;
  }

private:
  static constexpr uint64_t kLanes = kDigestLanes;
  static constexpr uint64_t kStripe = kLanes * sizeof(uint64_t);
  static constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;

  static uint64_t avalanche(uint64_t x) {
    x ^= x >> 32;
    x *= kGolden;
    x ^= x >> 29;
    x *= kGolden;
    return x ^ (x >> 32);
  }

  void absorb(const uint8_t *bytes, uint64_t stripes) { absorb_with_(lanes_, bytes, stripes); }

  AbsorbStripes absorb_with_;
  uint64_t lanes_[kLanes];
  uint64_t total_ = 0;
  uint64_t held_ = 0;
  uint8_t stripe_[kStripe];
};

inline Digest digest_of(const void *data, uint64_t size, AbsorbStripes absorb_with = absorb_stripes) {
  Digester digester(absorb_with);
  digester.update(data, size);
  return digester.finish();
}

inline bool same_digest(const Digest &a, const Digest &b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

} // namespace kiln::package
