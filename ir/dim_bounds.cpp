// Bounds of Dims over sizes that only a run knows: by interval arithmetic whose ends are Dims over the
// sizes that are known before. Memory is planned for the greatest value of everything.
//
//     K <= N:   4*K + 16  is at most  4*N + 16,   N - K  at most  N,   K % 8  at most  7
#include "ir/dim.h"

namespace kiln {
namespace {

using Kind = DimAtom::Kind;
using Lookup = std::function<std::optional<Dim>(Symbol)>;

bool is_nonnegative(const Dim &a) { return known_nonnegative(a, DimRanges()); }

Dim of_atom(const DimAtom &atom) {
  switch (atom.kind) {
  case Kind::symbol:
    return Dim::symbol(atom.symbol);
  case Kind::floordiv:
    return floordiv(atom.args[0], atom.args[1]);
  case Kind::mod:
    return mod(atom.args[0], atom.args[1]);
  case Kind::min:
    return min(atom.args[0], atom.args[1]);
  default:
    return max(atom.args[0], atom.args[1]);
  }
}

// Below 0 only where that cannot be ruled out.
Dim at_most_zero(const Dim &a) { return is_nonnegative(a) ? Dim(0) : min(a, 0); }
Dim at_least_zero(const Dim &a) { return is_nonnegative(a) ? a : max(a, 0); }

DimBounds atom_bounds(const DimAtom &atom, const Lookup &greatest) {
  if (atom.kind == Kind::symbol) {
    if (auto bound = greatest(atom.symbol))
      return {0, *bound};
    return {of_atom(atom), of_atom(atom)};
  }
  DimBounds a = bounds_of(atom.args[0], greatest), b = bounds_of(atom.args[1], greatest);
  if (a.least == a.greatest && b.least == b.greatest)
    return {of_atom(atom), of_atom(atom)};
  switch (atom.kind) {
  case Kind::floordiv: // by 1 at least
    if (b.least == b.greatest)
      return {floordiv(a.least, b.least), floordiv(a.greatest, b.least)};
    return {at_most_zero(a.least), at_least_zero(a.greatest)};
  case Kind::mod:
    return {0, at_least_zero(b.greatest - Dim(1))};
  case Kind::min:
    return {min(a.least, b.least), min(a.greatest, b.greatest)};
  default:
    return {max(a.least, b.least), max(a.greatest, b.greatest)};
  }
}

DimBounds product(const DimBounds &a, const DimBounds &b) {
  if (a.least == a.greatest && b.least == b.greatest)
    return {a.least * b.least, a.least * b.least};
  if (is_nonnegative(a.least) && is_nonnegative(b.least))
    return {a.least * b.least, a.greatest * b.greatest};
  Dim largest = max(a.greatest, -a.least) * max(b.greatest, -b.least);
  return {-largest, largest};
}

} // namespace

DimBounds bounds_of(const Dim &a, const Lookup &greatest) {
  if (!a.is_valid())
    return {a, a};
  DimBounds sum{a.constant_part(), a.constant_part()};
  for (const DimTerm &term : a.terms()) {
    DimBounds value{1, 1};
    for (const DimAtom &factor : term.factors)
      value = product(value, atom_bounds(factor, greatest));
    bool negative = term.coefficient < 0;
    sum.least += (negative ? value.greatest : value.least) * Dim(term.coefficient);
    sum.greatest += (negative ? value.least : value.greatest) * Dim(term.coefficient);
  }
  return sum;
}

} // namespace kiln
