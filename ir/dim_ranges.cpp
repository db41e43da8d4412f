// What can be shown about Dims from the ranges of their symbols, by interval arithmetic after
// replacing ranged symbols, innermost first, by the bound that makes the expression least.
#include "ir/dim.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace kiln {
namespace {

using Kind = DimAtom::Kind;

constexpr __int128 kInfinity = (__int128(1) << 100);

struct Interval {
  __int128 lo = -kInfinity, hi = kInfinity;
};

__int128 clamp_infinity(__int128 v) { return std::clamp(v, -kInfinity, kInfinity); }

__int128 saturated_product(__int128 a, __int128 b) {
  if (a == 0 || b == 0)
    return 0;
  constexpr __int128 kSmall = __int128(1) << 62;
  bool fits = a < kSmall && a > -kSmall && b < kSmall && b > -kSmall;
  if (fits)
    return clamp_infinity(a * b);
  return (a < 0) == (b < 0) ? kInfinity : -kInfinity;
}

Interval multiply(Interval a, Interval b) {
  __int128 p[4] = {saturated_product(a.lo, b.lo), saturated_product(a.lo, b.hi),
                   saturated_product(a.hi, b.lo), saturated_product(a.hi, b.hi)};
  return {*std::min_element(p, p + 4), *std::max_element(p, p + 4)};
}

Interval bounds(const Dim &a, const DimRanges &ranges, int depth);

Interval atom_bounds(const DimAtom &atom, const DimRanges &ranges, int depth) {
  if (atom.kind == Kind::symbol) {
    const DimRange *range = ranges.find(atom.symbol);
    Interval out{0, kInfinity};
    if (range && depth < 16) {
      out.lo = bounds(range->lo, ranges, depth + 1).lo;
      if (range->hi)
        out.hi = clamp_infinity(bounds(*range->hi, ranges, depth + 1).hi - 1);
    }
    return out;
  }
  Interval x = bounds(atom.args[0], ranges, depth), y = bounds(atom.args[1], ranges, depth);
  switch (atom.kind) {
  case Kind::min:
    return {std::min(x.lo, y.lo), std::min(x.hi, y.hi)};
  case Kind::max:
    return {std::max(x.lo, y.lo), std::max(x.hi, y.hi)};
  case Kind::mod:
    if (y.lo <= 0)
      return {};
    return {0, x.lo >= 0 ? std::min(x.hi, clamp_infinity(y.hi - 1)) : clamp_infinity(y.hi - 1)};
  default:
    if (y.lo <= 0 || y.lo != y.hi)
      return {x.lo >= 0 ? __int128(0) : -kInfinity, x.hi >= 0 ? x.hi : __int128(0)};
    auto div = [&](__int128 v) {
      if (v >= kInfinity || v <= -kInfinity)
        return v;
      __int128 q = v / y.lo;
      return v % y.lo < 0 ? q - 1 : q;
    };
    return {div(x.lo), div(x.hi)};
  }
}

Interval bounds(const Dim &a, const DimRanges &ranges, int depth) {
  Interval sum{a.constant_part(), a.constant_part()};
  for (const DimTerm &term : a.terms()) {
    Interval product{term.coefficient, term.coefficient};
    for (const DimAtom &factor : term.factors)
      product = multiply(product, atom_bounds(factor, ranges, depth));
    sum.lo = clamp_infinity(sum.lo + product.lo);
    sum.hi = clamp_infinity(sum.hi + product.hi);
  }
  return sum;
}

bool sign_known(const Dim &a, const DimRanges &ranges, bool &nonnegative) {
  Interval i = bounds(a, ranges, 0);
  nonnegative = i.lo >= 0;
  return i.lo >= 0 || i.hi <= 0;
}

// x = d * high + low with d a divisor of y and low in [0, d): where x and y are the numerator and the
// constant divisor of 4*i + j, j below 4, and 16. Then x / y = high / (y / d).
struct Digits {
  int64_t d = 1;
  Dim high, low;
};

std::optional<Digits> split_digits(const Dim &x, int64_t y, const DimRanges &ranges) {
  for (const DimTerm &term : x.terms()) {
    int64_t d = std::gcd(std::abs(term.coefficient), y);
    if (d <= 1 || d == y)
      continue;
    Dim low = ((x.constant_part() % d) + d) % d;
    for (Symbol s : x.symbols())
      if (auto c = x.coefficient_of(s); c && c->is_const() && c->as_const() % d != 0)
        low += *c * Dim::symbol(s);
    Dim high = x - low;
    if (low.is_const(0) || !mod(high, d).is_const(0) || !known_nonnegative(low, ranges) ||
        !known_nonnegative(Dim(d - 1) - low, ranges))
      continue;
    return Digits{d, floordiv(high, d), low};
  }
  return std::nullopt;
}

} // namespace

void DimRanges::set(Symbol name, DimRange range) { list_.emplace_back(name, std::move(range)); }

const DimRange *DimRanges::find(Symbol name) const {
  for (auto it = list_.rbegin(); it != list_.rend(); ++it)
    if (it->first == name)
      return &it->second;
  return nullptr;
}

bool known_nonnegative(const Dim &a, const DimRanges &ranges) {
  if (!a.is_valid())
    return false;
  if (a.is_const())
    return a.constant_part() >= 0;
  if (bounds(a, ranges, 0).lo >= 0)
    return true;
  Dim least = a;
  for (auto it = ranges.all().rbegin(); it != ranges.all().rend(); ++it) {
    if (!least.depends_on(it->first))
      continue;
    auto coefficient = least.coefficient_of(it->first);
    bool nonnegative = false;
    if (!coefficient || !sign_known(*coefficient, ranges, nonnegative))
      continue;
    if (nonnegative)
      least = least.substitute(it->first, it->second.lo);
    else if (it->second.hi)
      least = least.substitute(it->first, *it->second.hi - Dim(1));
    if (!least.is_valid())
      return false; // the bound of a range is too far away to compute with
    if (bounds(least, ranges, 0).lo >= 0)
      return true;
  }
  return false;
}

Dim simplify(const Dim &a, const DimRanges &ranges) {
  if (!a.is_valid() || a.is_const())
    return a;
  Dim out = a.constant_part();
  for (const DimTerm &term : a.terms()) {
    Dim product = term.coefficient;
    for (const DimAtom &factor : term.factors) {
      if (factor.kind == Kind::symbol) {
        product *= Dim::symbol(factor.symbol);
        continue;
      }
      Dim x = simplify(factor.args[0], ranges), y = simplify(factor.args[1], ranges);
      switch (factor.kind) {
      case Kind::floordiv:
      case Kind::mod: {
        if (known_nonnegative(x, ranges) && known_nonnegative(y - Dim(1) - x, ranges)) {
          product *= factor.kind == Kind::floordiv ? Dim(0) : x;
          break;
        }
        if (y.is_const() && y.as_const() > 1)
          if (auto digits = split_digits(x, y.as_const(), ranges)) {
            Dim rest = y.as_const() / digits->d;
            product *= factor.kind == Kind::floordiv
                           ? simplify(floordiv(digits->high, rest), ranges)
                           : simplify(mod(digits->high, rest), ranges) * Dim(digits->d) + digits->low;
            break;
          }
        // Folding moves multiples of y out of x; what is left may now lie within [0, y).
        Dim folded = factor.kind == Kind::floordiv ? floordiv(x, y) : mod(x, y);
        bool same = folded.constant_part() == 0 && folded.terms().size() == 1 &&
                    folded.terms()[0].factors.size() == 1 &&
                    folded.terms()[0].factors[0].kind == factor.kind &&
                    folded.terms()[0].factors[0].args[0] == x;
        product *= same ? folded : simplify(folded, ranges);
        break;
      }
      case Kind::min:
        product *= known_nonnegative(y - x, ranges)   ? x
                   : known_nonnegative(x - y, ranges) ? y
                                                      : min(x, y);
        break;
      default:
        product *= known_nonnegative(x - y, ranges)   ? x
                   : known_nonnegative(y - x, ranges) ? y
                                                      : max(x, y);
        break;
      }
    }
    out += product;
  }
  return out;
}

} // namespace kiln
