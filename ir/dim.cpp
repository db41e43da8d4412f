#include "ir/dim.h"

#include <algorithm>

namespace kiln {

// Builds Dims from canonical parts.
struct DimBuilder {
  static Dim from_atom(DimAtom atom) {
    Dim out;
    DimTerm term;
    term.factors.push_back(std::move(atom));
    out.terms_.push_back(std::move(term));
    return out;
  }
  static Dim from_term(DimTerm term) {
    if (term.factors.empty())
      return Dim(term.coefficient);
    Dim out;
    if (term.coefficient != 0)
      out.terms_.push_back(std::move(term));
    return out;
  }
  static int64_t &constant(Dim &d) { return d.constant_; }
  static std::vector<DimTerm> &terms(Dim &d) { return d.terms_; }
};

namespace {

using Kind = DimAtom::Kind;

std::strong_ordering compare_atoms(const DimAtom &a, const DimAtom &b) {
  if (a.kind != b.kind)
    return a.kind <=> b.kind;
  if (a.kind == Kind::symbol) {
    if (a.symbol == b.symbol)
      return std::strong_ordering::equal;
    return a.symbol.text() <=> b.symbol.text();
  }
  for (size_t i = 0; i < a.args.size() && i < b.args.size(); ++i)
    if (auto c = Dim::compare(a.args[i], b.args[i]); c != 0)
      return c;
  return a.args.size() <=> b.args.size();
}

std::strong_ordering compare_factors(const std::vector<DimAtom> &a, const std::vector<DimAtom> &b) {
  for (size_t i = 0; i < a.size() && i < b.size(); ++i)
    if (auto c = compare_atoms(a[i], b[i]); c != 0)
      return c;
  return a.size() <=> b.size();
}

int64_t floor_div(int64_t a, int64_t b) {
  int64_t q = a / b;
  return (a % b != 0 && (a % b < 0) != (b < 0)) ? q - 1 : q;
}

Dim make_atom(Kind kind, const Dim &a, const Dim &b) {
  DimAtom atom;
  atom.kind = kind;
  atom.args = {a, b};
  return DimBuilder::from_atom(std::move(atom));
}

// term / divisor where divisor is one term that divides it exactly; nothing otherwise.
std::optional<DimTerm> divide_term(const DimTerm &term, const DimTerm &divisor) {
  if (divisor.coefficient == 0 || term.coefficient % divisor.coefficient != 0)
    return std::nullopt;
  DimTerm out{term.coefficient / divisor.coefficient, term.factors};
  for (const DimAtom &factor : divisor.factors) {
    auto it = std::find_if(out.factors.begin(), out.factors.end(),
                           [&](const DimAtom &f) { return compare_atoms(f, factor) == 0; });
    if (it == out.factors.end())
      return std::nullopt;
    out.factors.erase(it);
  }
  return out;
}

// Splits a into quotient * b + rest, moving every term that b divides exactly. False if b is no
// single positive term.
bool split_multiples(const Dim &a, const Dim &b, Dim &quotient, Dim &rest) {
  DimTerm divisor;
  if (b.is_const()) {
    if (b.constant_part() <= 0)
      return false;
    divisor.coefficient = b.constant_part();
  } else if (b.constant_part() == 0 && b.terms().size() == 1 && b.terms()[0].coefficient > 0) {
    divisor = b.terms()[0];
  } else {
    return false;
  }
  quotient = 0;
  rest = 0;
  auto place = [&](const DimTerm &term) {
    if (auto q = divide_term(term, divisor))
      quotient += DimBuilder::from_term(*q);
    else
      rest += DimBuilder::from_term(term);
  };
  for (const DimTerm &term : a.terms())
    place(term);
  if (divisor.factors.empty()) {
    quotient += floor_div(a.constant_part(), divisor.coefficient);
    rest += a.constant_part() - floor_div(a.constant_part(), divisor.coefficient) * divisor.coefficient;
  } else {
    rest += a.constant_part();
  }
  return true;
}

const DimAtom *single_atom(const Dim &d) {
  if (d.constant_part() == 0 && d.terms().size() == 1 && d.terms()[0].coefficient == 1 &&
      d.terms()[0].factors.size() == 1)
    return &d.terms()[0].factors[0];
  return nullptr;
}

Dim apply(Kind kind, const Dim &a, const Dim &b) {
  switch (kind) {
  case Kind::floordiv:
    return floordiv(a, b);
  case Kind::mod:
    return mod(a, b);
  case Kind::min:
    return min(a, b);
  case Kind::max:
    return max(a, b);
  case Kind::symbol:
    break;
  }
  return Dim::invalid();
}

} // namespace

Dim::Dim() noexcept = default;
Dim::Dim(int64_t constant) noexcept : constant_(constant) {}
Dim::Dim(const Dim &) = default;
Dim::Dim(Dim &&) noexcept = default;
Dim &Dim::operator=(const Dim &) = default;
Dim &Dim::operator=(Dim &&) noexcept = default;
Dim::~Dim() = default;

Dim Dim::symbol(Symbol name) {
  DimAtom atom;
  atom.symbol = name;
  return DimBuilder::from_atom(std::move(atom));
}

Dim Dim::invalid() {
  Dim out;
  out.valid_ = false;
  return out;
}

int64_t Dim::as_const() const {
  KILN_CHECK(is_const(), "the dim " + text() + " is not a constant");
  return constant_;
}

std::optional<int64_t> Dim::try_const() const {
  return is_const() ? std::optional(constant_) : std::nullopt;
}

std::optional<Symbol> Dim::try_symbol() const {
  const DimAtom *atom = valid_ ? single_atom(*this) : nullptr;
  return atom && atom->kind == Kind::symbol ? std::optional(atom->symbol) : std::nullopt;
}

Dim Dim::operator+(const Dim &other) const {
  if (!valid_ || !other.valid_)
    return invalid();
  Dim out;
  if (__builtin_add_overflow(constant_, other.constant_, &out.constant_))
    return invalid();
  out.terms_.reserve(terms_.size() + other.terms_.size());
  auto a = terms_.begin(), b = other.terms_.begin();
  while (a != terms_.end() || b != other.terms_.end()) {
    std::strong_ordering c = a == terms_.end()         ? std::strong_ordering::greater
                             : b == other.terms_.end() ? std::strong_ordering::less
                                                       : compare_factors(a->factors, b->factors);
    if (c < 0) {
      out.terms_.push_back(*a++);
    } else if (c > 0) {
      out.terms_.push_back(*b++);
    } else {
      int64_t sum;
      if (__builtin_add_overflow(a->coefficient, b->coefficient, &sum))
        return invalid();
      if (sum != 0)
        out.terms_.push_back({sum, a->factors});
      ++a, ++b;
    }
  }
  return out;
}

Dim Dim::operator-(const Dim &other) const { return *this + other * Dim(-1); }

Dim Dim::operator*(const Dim &other) const {
  if (!valid_ || !other.valid_)
    return invalid();
  if (is_const() && other.is_const()) {
    int64_t product;
    return __builtin_mul_overflow(constant_, other.constant_, &product) ? invalid() : Dim(product);
  }
  auto scaled = [](const Dim &d, const DimTerm &by) {
    Dim out;
    auto add = [&](int64_t coefficient, const std::vector<DimAtom> &factors) {
      DimTerm term;
      if (__builtin_mul_overflow(coefficient, by.coefficient, &term.coefficient)) {
        out = invalid();
        return;
      }
      term.factors = factors;
      term.factors.insert(term.factors.end(), by.factors.begin(), by.factors.end());
      std::sort(term.factors.begin(), term.factors.end(),
                [](const DimAtom &x, const DimAtom &y) { return compare_atoms(x, y) < 0; });
      out += DimBuilder::from_term(std::move(term));
    };
    if (d.constant_ != 0)
      add(d.constant_, {});
    for (const DimTerm &term : d.terms_)
      add(term.coefficient, term.factors);
    return out;
  };
  Dim out = other.constant_ == 0 ? Dim(0) : scaled(*this, DimTerm{other.constant_, {}});
  for (const DimTerm &term : other.terms_)
    out += scaled(*this, term);
  return out;
}

bool operator==(const Dim &a, const Dim &b) { return Dim::compare(a, b) == 0; }

std::strong_ordering Dim::compare(const Dim &a, const Dim &b) {
  if (a.valid_ != b.valid_)
    return a.valid_ <=> b.valid_;
  for (size_t i = 0; i < a.terms_.size() && i < b.terms_.size(); ++i) {
    if (auto c = compare_factors(a.terms_[i].factors, b.terms_[i].factors); c != 0)
      return c;
    if (auto c = a.terms_[i].coefficient <=> b.terms_[i].coefficient; c != 0)
      return c;
  }
  if (auto c = a.terms_.size() <=> b.terms_.size(); c != 0)
    return c;
  return a.constant_ <=> b.constant_;
}

bool Dim::depends_on(Symbol name) const {
  for (const DimTerm &term : terms_)
    for (const DimAtom &factor : term.factors) {
      if (factor.kind == Kind::symbol && factor.symbol == name)
        return true;
      for (const Dim &arg : factor.args)
        if (arg.depends_on(name))
          return true;
    }
  return false;
}

std::vector<Symbol> Dim::symbols() const {
  std::vector<Symbol> out;
  for (const DimTerm &term : terms_)
    for (const DimAtom &factor : term.factors) {
      if (factor.kind == Kind::symbol)
        out.push_back(factor.symbol);
      for (const Dim &arg : factor.args)
        for (Symbol s : arg.symbols())
          out.push_back(s);
    }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::optional<Dim> Dim::coefficient_of(Symbol name) const {
  Dim out;
  for (const DimTerm &term : terms_) {
    int uses = 0;
    DimTerm rest{term.coefficient, {}};
    for (const DimAtom &factor : term.factors) {
      if (factor.kind == Kind::symbol && factor.symbol == name) {
        ++uses;
        continue;
      }
      for (const Dim &arg : factor.args)
        if (arg.depends_on(name))
          return std::nullopt;
      rest.factors.push_back(factor);
    }
    if (uses > 1)
      return std::nullopt;
    if (uses == 1)
      out += DimBuilder::from_term(std::move(rest));
  }
  return out;
}

Dim Dim::substitute(const std::function<std::optional<Dim>(Symbol)> &replace) const {
  if (!valid_)
    return *this;
  Dim out = constant_;
  for (const DimTerm &term : terms_) {
    Dim product = term.coefficient;
    for (const DimAtom &factor : term.factors) {
      if (factor.kind == Kind::symbol) {
        auto value = replace(factor.symbol);
        product *= value ? *value : symbol(factor.symbol);
      } else {
        product *= apply(factor.kind, factor.args[0].substitute(replace),
                         factor.args[1].substitute(replace));
      }
    }
    out += product;
  }
  return out;
}

Dim Dim::substitute(Symbol name, const Dim &value) const {
  if (!depends_on(name))
    return *this;
  return substitute([&](Symbol s) { return s == name ? std::optional(value) : std::nullopt; });
}

std::optional<int64_t>
Dim::evaluate(const std::function<std::optional<int64_t>(Symbol)> &lookup) const {
  if (!valid_)
    return std::nullopt;
  int64_t sum = constant_;
  for (const DimTerm &term : terms_) {
    int64_t product = term.coefficient;
    for (const DimAtom &factor : term.factors) {
      std::optional<int64_t> value;
      if (factor.kind == Kind::symbol) {
        value = lookup(factor.symbol);
      } else {
        auto a = factor.args[0].evaluate(lookup), b = factor.args[1].evaluate(lookup);
        if (!a || !b)
          return std::nullopt;
        bool divides = factor.kind == Kind::floordiv || factor.kind == Kind::mod;
        if (divides && (*b == 0 || (*b == -1 && *a == INT64_MIN)))
          return std::nullopt;
        switch (factor.kind) {
        case Kind::floordiv:
          value = floor_div(*a, *b);
          break;
        case Kind::mod:
          value = *a - floor_div(*a, *b) * *b;
          break;
        case Kind::min:
          value = std::min(*a, *b);
          break;
        default:
          value = std::max(*a, *b);
          break;
        }
      }
      if (!value || __builtin_mul_overflow(product, *value, &product))
        return std::nullopt;
    }
    if (__builtin_add_overflow(sum, product, &sum))
      return std::nullopt;
  }
  return sum;
}

Dim floordiv(const Dim &a, const Dim &b) {
  if (!a.is_valid() || !b.is_valid() || b.is_const(0))
    return Dim::invalid();
  if (b.is_const(1))
    return a;
  if (a.is_const() && b.is_const()) {
    if (b.constant_part() == -1)
      return -a;
    return floor_div(a.constant_part(), b.constant_part());
  }
  if (a == b)
    return 1;
  Dim quotient, rest;
  if (split_multiples(a, b, quotient, rest)) {
    if (rest.is_const(0))
      return quotient;
    if (b.is_const() && rest.is_const())
      return quotient + floor_div(rest.constant_part(), b.constant_part());
    const DimAtom *inner = single_atom(rest);
    if (inner && inner->kind == Kind::floordiv && inner->args[1].is_const() && b.is_const())
      return quotient + floordiv(inner->args[0], inner->args[1] * b);
    return quotient + make_atom(Kind::floordiv, rest, b);
  }
  return make_atom(Kind::floordiv, a, b);
}

Dim ceildiv(const Dim &a, const Dim &b) { return floordiv(a + b - Dim(1), b); }

Dim mod(const Dim &a, const Dim &b) {
  if (!a.is_valid() || !b.is_valid() || b.is_const(0))
    return Dim::invalid();
  if (b.is_const(1) || a == b)
    return 0;
  if (a.is_const() && b.is_const())
    return b.constant_part() == -1
               ? Dim(0)
               : Dim(a.constant_part() - floor_div(a.constant_part(), b.constant_part()) * b.constant_part());
  Dim quotient, rest;
  if (split_multiples(a, b, quotient, rest)) {
    if (rest.is_const(0))
      return 0;
    if (b.is_const() && rest.is_const())
      return rest;
    return make_atom(Kind::mod, rest, b);
  }
  return make_atom(Kind::mod, a, b);
}

Dim min(const Dim &a, const Dim &b) {
  if (!a.is_valid() || !b.is_valid())
    return Dim::invalid();
  if (auto d = (a - b).try_const())
    return *d <= 0 ? a : b;
  return Dim::compare(a, b) <= 0 ? make_atom(Kind::min, a, b) : make_atom(Kind::min, b, a);
}

Dim max(const Dim &a, const Dim &b) {
  if (!a.is_valid() || !b.is_valid())
    return Dim::invalid();
  if (auto d = (a - b).try_const())
    return *d >= 0 ? a : b;
  return Dim::compare(a, b) <= 0 ? make_atom(Kind::max, a, b) : make_atom(Kind::max, b, a);
}

} // namespace kiln
