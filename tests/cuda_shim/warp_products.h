// What a whole warp does at once: mma.sync and ldmatrix, as the PTX manual spreads their fragments over the lanes. Each lane hands in
// what it has and waits; the first one that goes on does the work of all, with eight columns at a time. Lanes that are not all at the same
// product, or are too few, stop the program.
#pragma once

namespace kiln_shim {

inline unsigned g_warp_turn[kMaxThreads], g_warp_done[kMaxThreads / 32];
alignas(64) inline unsigned char g_operands[kMaxThreads / 32][3072];
inline void *g_lane_results[kMaxThreads];

// Calls `work` once for the warp, when all of its lanes are here.
template <typename F>
inline void together(void *result, F work) {
  g_lane_results[g_current] = result;
  unsigned warp = g_current / 32, turn = ++g_warp_turn[g_current];
  wait(State::at_warp);
  if (g_warp_done[warp] == turn)
    return;
  Untraced own;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (g_warp_turn[warp * 32 + lane] != turn)
      stop("lanes of a warp are at different products");
  work(g_lane_results + warp * 32);
  g_warp_done[warp] = turn;
}

template <typename Number, unsigned kDepth>
struct Operands {
  Number a[16][kDepth], b[kDepth][8];
};

// Sums of a row, step by step.
template <typename Sum, unsigned kDepth>
struct InOrder {
  using Number = Sum;
  typedef Sum Eight __attribute__((vector_size(8 * sizeof(Sum))));
  static void add(Sum *sums, const Sum *a, const Sum (*b)[8]) {
    Eight c, y;
    memcpy(&c, sums, sizeof c);
    for (unsigned k = 0; k < kDepth; ++k) {
      memcpy(&y, b[k], sizeof y);
      c = c + a[k] * y;
    }
    memcpy(sums, &c, sizeof c);
  }
};

// 32 bytes along the sum: four lanes hold 4 bytes each of the first 16, and of the others.
template <typename Sum, unsigned kInWord, auto A, auto B, typename Row = InOrder<Sum, 8 * kInWord>>
inline void mma(Sum (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  using All = Operands<typename Row::Number, 8 * kInWord>;
  static_assert(sizeof(All) <= sizeof g_operands[0]);
  unsigned lane = g_current % 32, own = lane / 4, step = lane % 4;
  All &all = *reinterpret_cast<All *>(g_operands[g_current / 32]);
  for (unsigned i = 0; i < kInWord; ++i) {
    for (unsigned word = 0; word < 4; ++word)
      all.a[own + word % 2 * 8][(word / 2 * 4 + step) * kInWord + i] = A(a[word], i);
    all.b[step * kInWord + i][own] = B(b0, i);
    all.b[(4 + step) * kInWord + i][own] = B(b1, i);
  }
  together(d, [&all](void **lanes) {
    Sum c[16][8];
    for (unsigned l = 0; l < 32; ++l)
      for (unsigned e = 0; e < 4; ++e)
        c[l / 4 + e / 2 * 8][l % 4 * 2 + e % 2] = static_cast<Sum *>(lanes[l])[e];
    for (unsigned row = 0; row < 16; ++row)
      Row::add(c[row], all.a[row], all.b);
    for (unsigned l = 0; l < 32; ++l)
      for (unsigned e = 0; e < 4; ++e)
        static_cast<Sum *>(lanes[l])[e] = c[l / 4 + e / 2 * 8][l % 4 * 2 + e % 2];
  });
}

inline const unsigned char *g_rows[kMaxThreads];
template <bool kAcross>
inline void ldmatrix(uint32_t (&out)[4], const void *row) {
  note(row, 16);
  g_rows[g_current] = static_cast<const unsigned char *>(row);
  const unsigned char *const *all = g_rows + g_current / 32 * 32;
  together(out, [all](void **lanes) {
    for (unsigned lane = 0; lane < 32; ++lane)
      for (unsigned block = 0; block < 4; ++block) {
        const unsigned char *const *rows = all + block * 8;
        auto *to = static_cast<unsigned char *>(lanes[lane]) + block * 4;
        if (kAcross)
          for (unsigned i = 0; i < 2; ++i)
            memcpy(to + i * 2, rows[lane % 4 * 2 + i] + lane / 4 * 2, 2);
        else
          memcpy(to, rows[lane / 4] + lane % 4 * 4, 4);
      }
  });
}

} // namespace kiln_shim
