// The random numbers of the tests: splitmix64, the same on every machine.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <vector>

namespace kiln::test {

struct Random {
  uint64_t state;

  uint64_t next() {
    uint64_t z = state += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return int64_t(next() % uint64_t(n)); } // [0, n), n > 0
  int64_t between(int64_t lo, int64_t hi) { return lo + below(hi - lo + 1); }
  double uniform() { return double(next() >> 11) * 0x1p-53; }
  double uniform(double lo, double hi) { return lo + (hi - lo) * uniform(); }
  bool chance(double p) { return uniform() < p; }
  template <typename T>
  const T &pick(const std::vector<T> &list) {
    return list[size_t(below(int64_t(list.size())))];
  }
  int64_t one_of(std::initializer_list<int64_t> list) { return list.begin()[below(int64_t(list.size()))]; }
};

} // namespace kiln::test
