// Products by warpgroups (wgmma) on the CPU, from their descriptors alone, as PTX ISA 9.7.15 tells them:
//
//   * operands are read through the address, the offsets and the swizzle of the descriptor, from a second view of shared
//     memory in which a thread's writes and copies arrive when it passes kiln_async_fence(); until then, no number is there;
//   * a product happens as late as it may, when its thread waits for it; until then no number stands in its sums;
//   * a product without a fence before, or lanes with different descriptors, stop the program.
#pragma once

#include <stdint.h>
#include <string.h>

namespace kiln_shim {

// Where shared memory begins for descriptors: not at 0, as on a GPU.
constexpr unsigned kSharedBegin = 1024;
alignas(1024) inline unsigned char g_seen[kSharedBytes];
inline bool g_publishes; // some kernel of the library has such products

struct Written {
  const void *at;
  unsigned bytes;
};
inline Queue<Written> g_written[kMaxThreads]; // by a thread since its fence

inline bool is_shared(const void *at) {
  auto address = reinterpret_cast<uintptr_t>(at), begin = reinterpret_cast<uintptr_t>(g_dynamic);
  return address >= begin && address < begin + kSharedBytes;
}
inline void note_written(const void *at, unsigned bytes) {
  Untraced own;
  if (g_publishes && is_shared(at))
    g_written[g_current].push({at, bytes});
}
inline void publish() {
  Untraced own;
  for (const Written &w : g_written[g_current]) {
    size_t at = size_t(static_cast<const unsigned char *>(w.at) - g_dynamic);
    memcpy(g_seen + at, g_dynamic + at, w.bytes);
  }
  g_written[g_current].count = 0;
}
inline void begin_products(unsigned shared_bytes) {
  if (!g_publishes)
    return;
  memset(g_seen, 0xff, shared_bytes);
  for (Queue<Written> &list : g_written)
    list.count = 0;
}

// Bits of a descriptor: 0-13 address, 16-29 leading offset, 32-45 stride, each without its last four bits; 49-51 base offset;
// 62-63 swizzle (1: 128 bytes, 2: 64, 3: 32).
struct Matrix {
  unsigned start, leading, stride, width;
  explicit Matrix(uint64_t bits)
      : start(unsigned(bits & 0x3fff) << 4), leading(unsigned(bits >> 16 & 0x3fff) << 4), stride(unsigned(bits >> 32 & 0x3fff) << 4), width(0) {
    unsigned mode = unsigned(bits >> 62);
    if (mode == 0 || (bits >> 49 & 7) != 0)
      stop("a descriptor with no swizzle, or with a base offset");
    width = 256u >> mode;
  }
  // The byte in shared memory of byte `byte` of the element at `own`, `step`.
  unsigned place(unsigned own, unsigned step, unsigned element, bool is_across) const {
    unsigned per = width / element, at = start;
    if (is_across)
      at += own / per * leading + own % per * element + step % 8 * width + step / 8 * stride;
    else
      at += own % 8 * width + own / 8 * stride + step * element;
    at ^= (at >> 7 & (width / 16 - 1)) << 4;
    if (at < kSharedBegin || at + element > kSharedBegin + kSharedBytes)
      stop("a descriptor leads out of shared memory");
    return at - kSharedBegin;
  }
};

struct Pending {
  void (*run)(unsigned char *sums, uint64_t a, uint64_t b);
  unsigned char *sums;
  size_t bytes;
  uint64_t a, b;
  unsigned group;
};
struct Held {
  unsigned char *sums, values[512]; // of 256 columns at most
  size_t bytes;
};
inline Queue<Pending> g_products[kMaxThreads];
inline Queue<Held> g_held[kMaxThreads];
inline unsigned g_product_group[kMaxThreads];
inline bool g_is_fenced[kMaxThreads];
inline uint64_t g_descriptors[kMaxThreads][2];

__attribute__((destructor, used)) inline void give_back_products() {
  for (unsigned t = 0; t < kMaxThreads; ++t) {
    free(g_written[t].items);
    free(g_products[t].items);
    free(g_held[t].items);
  }
}

inline bool products_under_way(unsigned thread) { return !g_products[thread].empty(); }

inline unsigned char *held(unsigned char *sums, size_t bytes) {
  for (Held &h : g_held[g_current])
    if (h.sums == sums)
      return h.values;
  Held h;
  h.sums = sums;
  h.bytes = bytes;
  memcpy(h.values, sums, bytes);
  memset(sums, 0xff, bytes);
  g_held[g_current].push(h);
  return g_held[g_current].end()[-1].values;
}

// Of a thread: rows lane / 4 and 8 more of its warp's sixteen, two neighbouring columns of every eight.
template <unsigned kColumns, typename Sum, unsigned kInWord, auto A, auto B, bool kAcrossA, bool kAcrossB>
inline void run_product(unsigned char *sums, uint64_t a, uint64_t b) {
  constexpr unsigned kElement = 4 / kInWord, kSteps = 8 * kInWord;
  Matrix left(a), right(b);
  unsigned lane = g_current % 32, warp = g_current / 32 % 4;
  auto read = [&](const Matrix &m, unsigned own, unsigned step, bool is_across, bool is_noted) {
    unsigned at = m.place(own, step, kElement, is_across);
    if (is_noted)
      trace_product(g_dynamic + at, kElement);
    uint32_t word = 0;
    memcpy(&word, g_seen + at, kElement);
    return word;
  };
  auto *d = reinterpret_cast<Sum *>(sums);
  uint32_t rows[2][kSteps];
  for (unsigned i = 0; i < 2; ++i)
    for (unsigned k = 0; k < kSteps; ++k)
      rows[i][k] = read(left, warp * 16 + lane / 4 + i * 8, k, kAcrossA, lane % 4 == 0);
  for (unsigned column = 0; column < kColumns / 4; ++column)
    for (unsigned k = 0; k < kSteps; ++k) {
      uint32_t y = read(right, column / 2 * 8 + lane % 4 * 2 + column % 2, k, kAcrossB, lane / 4 == 0);
      for (unsigned i = 0; i < 2; ++i) {
        Sum &sum = d[column / 2 * 4 + i * 2 + column % 2];
        sum = Sum(sum + A(rows[i][k], 0) * B(y, 0));
      }
    }
}

template <unsigned kColumns, typename Sum, unsigned kInWord, auto A, auto B, bool kAcrossA, bool kAcrossB>
inline void wgmma(Sum *sums, uint64_t a, uint64_t b) {
  if (!g_is_fenced[g_current])
    stop("a product of a warpgroup with no fence before it");
  if (g_current / 128 * 128 + 128 > g_block_dim.x)
    stop("a product of a warpgroup in a block of other warps");
  g_descriptors[g_current][0] = a;
  g_descriptors[g_current][1] = b;
  wait(State::at_warp);
  for (unsigned i = 0; i < 2; ++i)
    if (g_descriptors[g_current][i] != g_descriptors[g_current / 32 * 32][i])
      stop("lanes of a warpgroup have different descriptors");
  wait(State::at_warp);
  Untraced own;
  auto *bytes = reinterpret_cast<unsigned char *>(sums);
  static_assert(kColumns / 2 * sizeof(Sum) <= sizeof(Held::values));
  held(bytes, kColumns / 2 * sizeof(Sum));
  g_products[g_current].push({&run_product<kColumns, Sum, kInWord, A, B, kAcrossA, kAcrossB>, bytes, kColumns / 2 * sizeof(Sum), a, b, g_product_group[g_current]});
}

inline void wait_products(unsigned groups) {
  wait(State::at_warp);
  Untraced own;
  Queue<Pending> &list = g_products[g_current];
  size_t done = 0;
  for (; done < list.count && list[done].group + groups < g_product_group[g_current]; ++done)
    list[done].run(held(list[done].sums, list[done].bytes), list[done].a, list[done].b);
  list.drop_first(done);
  // Sums of which no product is under way are the thread's again.
  size_t left = 0;
  for (const Held &h : g_held[g_current]) {
    bool is_used = false;
    for (const Pending &p : list)
      is_used |= p.sums == h.sums;
    if (is_used)
      g_held[g_current][left++] = h;
    else
      memcpy(h.sums, h.values, h.bytes);
  }
  g_held[g_current].count = left;
  g_is_fenced[g_current] = false;
}

} // namespace kiln_shim

inline void kiln_async_fence() { kiln_shim::publish(); }
inline void kiln_wgmma_fence() { kiln_shim::g_is_fenced[kiln_shim::g_current] = true; }
inline void kiln_wgmma_commit() { ++kiln_shim::g_product_group[kiln_shim::g_current]; }
template <int kGroups>
inline void kiln_wgmma_wait() {
  kiln_shim::wait_products(kGroups);
}
template <typename T>
inline void kiln_hold(T &) {}
inline uint64_t kiln_descriptor(const void *at, uint64_t bits) {
  uint64_t address = uint64_t(static_cast<const unsigned char *>(at) - kiln_shim::g_dynamic) + kiln_shim::kSharedBegin;
  return bits | (address & 0x3ffff) >> 4;
}
template <typename T>
inline void kiln_keep(T *at, T value) {
  if constexpr (sizeof(T) > 8)
    kiln_shim::move(at, &value, sizeof(T), true);
  else
    *at = value;
  kiln_shim::note_written(at, sizeof(T));
}
