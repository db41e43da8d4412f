// Integer expressions over symbols: the sizes of tensors (`N`, `N + 1`, `N*H`) and, in kernels, the
// index arithmetic over loop variables. One class serves both, because lowering turns the one into the
// other and because keeping every expression in one canonical form makes equality, substitution and
// "what is the stride of i here?" trivial.
//
// A Dim is a polynomial: a constant plus terms, each an integer coefficient times a product of atoms.
// An atom is a symbol or floor division, modulo, minimum or maximum of two Dims. Construction
// canonicalises (terms sorted by text, common cases of / % min max folded), so == is structural.
// Arithmetic is checked: an overflow of int64 gives an invalid Dim, which absorbs what it meets and
// which the verifier refuses.
#pragma once

#include "ir/support/result.h"
#include "ir/support/symbol.h"

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kiln {

struct DimTerm;
struct DimAtom;

class Dim {
public:
  Dim() noexcept;
  Dim(int64_t constant) noexcept; // NOLINT: a number is a Dim
  Dim(const Dim &);
  Dim(Dim &&) noexcept;
  Dim &operator=(const Dim &);
  Dim &operator=(Dim &&) noexcept;
  ~Dim();

  static Dim symbol(Symbol name);
  static Dim symbol(std::string_view name) { return symbol(Symbol(name)); }
  static Dim invalid();

  bool is_valid() const { return valid_; }
  bool is_const() const { return valid_ && terms_.empty(); }
  bool is_const(int64_t value) const { return is_const() && constant_ == value; }
  int64_t as_const() const; // KILN_CHECKs is_const()
  std::optional<int64_t> try_const() const;
  // The symbol, if this is one and nothing else.
  std::optional<Symbol> try_symbol() const;

  int64_t constant_part() const { return constant_; }
  const std::vector<DimTerm> &terms() const { return terms_; }

  Dim operator+(const Dim &other) const;
  Dim operator-(const Dim &other) const;
  Dim operator*(const Dim &other) const;
  Dim operator-() const { return Dim(0) - *this; }
  Dim &operator+=(const Dim &other) { return *this = *this + other; }
  Dim &operator*=(const Dim &other) { return *this = *this * other; }

  friend bool operator==(const Dim &a, const Dim &b);
  // A total order by structure and text, the same in every run.
  static std::strong_ordering compare(const Dim &a, const Dim &b);

  bool depends_on(Symbol name) const;
  std::vector<Symbol> symbols() const; // each once, sorted by text

  // c in `c * name + rest` where neither c nor rest contains `name`; nothing if it is not linear.
  std::optional<Dim> coefficient_of(Symbol name) const;

  // Replaces symbols at once; `replace` returns nothing for those that stay.
  Dim substitute(const std::function<std::optional<Dim>(Symbol)> &replace) const;
  Dim substitute(Symbol name, const Dim &value) const;

  // The value, given those of the symbols; nothing if one is missing, or on overflow or division by 0.
  std::optional<int64_t> evaluate(const std::function<std::optional<int64_t>(Symbol)> &lookup) const;

  std::string text() const;

private:
  friend struct DimBuilder;
  int64_t constant_ = 0;
  bool valid_ = true;
  std::vector<DimTerm> terms_;
};

struct DimAtom {
  enum class Kind : uint8_t { symbol, floordiv, mod, min, max };
  Kind kind = Kind::symbol;
  Symbol symbol;          // kind symbol
  std::vector<Dim> args;  // two, for the others
};

struct DimTerm {
  int64_t coefficient = 1;
  std::vector<DimAtom> factors; // sorted, at least one
};

// Rounded towards minus infinity. The divisor is taken to be positive.
Dim floordiv(const Dim &a, const Dim &b);
Dim ceildiv(const Dim &a, const Dim &b);
Dim mod(const Dim &a, const Dim &b); // a - b * floordiv(a, b)
Dim min(const Dim &a, const Dim &b);
Dim max(const Dim &a, const Dim &b);

// What is known of symbols: lo <= symbol, and symbol < hi where there is an upper bound. Bounds may
// use symbols declared earlier (a loop's bound uses the dims and the loops around it).
struct DimRange {
  Dim lo = 0;
  std::optional<Dim> hi; // exclusive
};

class DimRanges {
public:
  void set(Symbol name, DimRange range);
  const DimRange *find(Symbol name) const;
  const std::vector<std::pair<Symbol, DimRange>> &all() const { return list_; }
  // Forgets everything declared after the first `size` entries.
  void truncate(size_t size) { list_.resize(size); }
  size_t size() const { return list_.size(); }

private:
  std::vector<std::pair<Symbol, DimRange>> list_;
};

// True only if a >= 0 can be shown from the ranges. Symbols without a range are taken to be >= 0.
bool known_nonnegative(const Dim &a, const DimRanges &ranges);
// Uses the ranges to remove / % min max where they do nothing: (16*i + j) / 16 is i for 0 <= j < 16.
Dim simplify(const Dim &a, const DimRanges &ranges);

// The least and the greatest value that a Dim can have where some of its symbols are only known to lie
// between 0 and a greatest value (`greatest` gives it, over the other symbols, or nothing).
struct DimBounds {
  Dim least, greatest;
};
DimBounds bounds_of(const Dim &a, const std::function<std::optional<Dim>(Symbol)> &greatest);

// Inverse of text(): integers, identifiers, + - * / % ( ) min max.
Result<Dim> parse_dim(std::string_view text);

using Shape = std::vector<Dim>;

std::string shape_text(std::span<const Dim> shape); // "[N, 3, 224, 224]"
// Product of the dims; invalid on overflow.
Dim element_count(std::span<const Dim> shape);
bool is_static(std::span<const Dim> shape);

} // namespace kiln
