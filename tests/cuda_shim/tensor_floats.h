// Sums of tf32 products as tensor cores make them: four exact products and the sum so far are aligned to the largest of them and cut off
// one bit behind the 24 of f32, and what they add up to is cut off to f32. From Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA
// tensor cores" (2021), who found no rounding on any GPU; later ones keep more bits, so errors here are no smaller than theirs.
#pragma once

namespace kiln_shim {

inline double cut_to_f32(double value) {
  uint64_t bits;
  memcpy(&bits, &value, 8);
  bits &= ~((uint64_t(1) << 29) - 1);
  memcpy(&value, &bits, 8);
  return value;
}

inline float add_cut(float sum, const float *a, const float *b) {
  constexpr int kBits = 24; // behind the largest number's first
  double terms[5] = {double(sum)}, most = fabs(terms[0]), plain = terms[0];
  for (int i = 0; i < 4; ++i) {
    double term = double(a[i]) * double(b[i]);
    terms[i + 1] = term;
    plain += term;
    most = fabs(term) > most ? fabs(term) : most;
  }
  if (!(fabs(plain) < INFINITY) || most == 0)
    return float(plain);
  uint64_t exponent;
  memcpy(&exponent, &most, 8);
  exponent = exponent >> 52; // a positive number's; none is small enough to be a denormal of double
  uint64_t up_bits = (2 * 1023 + kBits - exponent) << 52, down_bits = (exponent - kBits) << 52;
  double up, down;
  memcpy(&up, &up_bits, 8);
  memcpy(&down, &down_bits, 8);
  int64_t total = 0;
  for (double term : terms)
    total += int64_t(term * up);
  return float(cut_to_f32(double(total) * down));
}

// As `mma`: 16x8 sums, eight steps of 32 bits.
inline void mma_floats(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  memcpy(g_fragments[g_current], a, 16);
  g_fragments[g_current][4] = b0;
  g_fragments[g_current][5] = b1;
  wait(State::at_warp);
  unsigned first = g_current / 32 * 32, lane = g_current % 32;
  for (unsigned e = 0; e < 4; ++e) {
    unsigned row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
    for (unsigned half = 0; half < 2; ++half) {
      float x[4], y[4];
      for (unsigned i = 0; i < 4; ++i) {
        x[i] = at_f32(g_fragments[first + row % 8 * 4 + i][half * 2 + row / 8], 0);
        y[i] = at_f32(g_fragments[first + column * 4 + i][4 + half], 0);
      }
      d[e] = add_cut(d[e], x, y);
    }
  }
  wait(State::at_warp);
}

} // namespace kiln_shim
