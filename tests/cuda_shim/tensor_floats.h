// Sums of tf32 products as tensor cores make them: four exact products and the sum so far are aligned to the largest of them and cut off
// one bit behind the 24 of f32, and what they add up to is cut off to f32. From Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA
// tensor cores" (2021), who found no rounding on any GPU; later ones keep more bits, so errors here are no smaller than theirs.
#pragma once
#pragma GCC diagnostic ignored "-Wpsabi" // of vectors that functions hand on: all are inlined

namespace kiln_shim {

// Eight columns of a row.
struct CutOff {
  using Number = double;
  typedef double Eight __attribute__((vector_size(64)));
  typedef int64_t Bits __attribute__((vector_size(64)));
  typedef float Floats __attribute__((vector_size(32)));

  static Eight absolute(Eight x) { return Eight(Bits(x) & INT64_MAX); }

  static Eight four_steps(Eight sum, const double *a, const double (*b)[8]) {
    constexpr int64_t kBits = 24; // behind the largest number's first
    Eight terms[5] = {sum}, most = absolute(sum), plain = sum;
    for (int i = 0; i < 4; ++i) {
      Eight y;
      memcpy(&y, b[i], sizeof y);
      terms[i + 1] = a[i] * y;
      plain += terms[i + 1];
      Eight size = absolute(terms[i + 1]);
      most = size > most ? size : most;
    }
    Bits exponent = Bits(most) >> 52, total = {}; // of no denormal of double: none is small enough
    Eight up = Eight((2 * 1023 + kBits - exponent) << 52), down = Eight((exponent - kBits) << 52);
    for (const Eight &term : terms)
      total += __builtin_convertvector(term * up, Bits);
    Eight cut = Eight(Bits(__builtin_convertvector(total, Eight) * down) & ~((int64_t(1) << 29) - 1)), infinity = {};
    infinity += double(INFINITY);
    Bits is_cut = (absolute(plain) < infinity) & (most != 0.0);
    return __builtin_convertvector(__builtin_convertvector(is_cut ? cut : plain, Floats), Eight);
  }

  static void add(float *sums, const double *a, const double (*b)[8]) {
    Floats c;
    memcpy(&c, sums, sizeof c);
    c = __builtin_convertvector(four_steps(four_steps(__builtin_convertvector(c, Eight), a, b), a + 4, b + 4), Floats);
    memcpy(sums, &c, sizeof c);
  }
};

} // namespace kiln_shim
