// Dims as text and back, and the few helpers over shapes.
#include "ir/dim.h"

#include <cctype>
#include <charconv>

namespace kiln {
namespace {

using Kind = DimAtom::Kind;

std::string parenthesised(const Dim &d) {
  bool simple = d.is_const() ? d.constant_part() >= 0 : d.try_symbol().has_value();
  return simple ? d.text() : "(" + d.text() + ")";
}

std::string atom_text(const DimAtom &atom) {
  switch (atom.kind) {
  case Kind::symbol:
    return std::string(atom.symbol.text());
  case Kind::floordiv:
    return parenthesised(atom.args[0]) + " / " + parenthesised(atom.args[1]);
  case Kind::mod:
    return parenthesised(atom.args[0]) + " % " + parenthesised(atom.args[1]);
  case Kind::min:
    return "min(" + atom.args[0].text() + ", " + atom.args[1].text() + ")";
  case Kind::max:
    return "max(" + atom.args[0].text() + ", " + atom.args[1].text() + ")";
  }
  return "";
}

std::string product_text(const DimTerm &term, int64_t coefficient) {
  std::string out;
  if (coefficient != 1)
    out = std::to_string(coefficient);
  for (const DimAtom &factor : term.factors) {
    bool divides = factor.kind == Kind::floordiv || factor.kind == Kind::mod;
    bool alone = coefficient == 1 && term.factors.size() == 1;
    std::string text = atom_text(factor);
    out += (out.empty() ? "" : "*") + (divides && !alone ? "(" + text + ")" : text);
  }
  return out;
}

class DimParser {
public:
  explicit DimParser(std::string_view text) : text_(text) {}

  Result<Dim> parse() {
    Dim out = sum();
    skip();
    if (!failed_ && at_ != text_.size())
      failed_ = true;
    if (failed_ || !out.is_valid())
      return Error{"'" + std::string(text_.substr(0, 80)) +
                   "' is no size expression: use integers, names, + - * / % ( ) min(a, b) max(a, b)"};
    return out;
  }

private:
  void skip() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])))
      ++at_;
  }
  bool take(char c) {
    skip();
    if (at_ < text_.size() && text_[at_] == c) {
      ++at_;
      return true;
    }
    return false;
  }
  Dim fail() {
    failed_ = true;
    return Dim::invalid();
  }

  Dim sum() {
    if (++depth_ > 64)
      return fail();
    Dim out = product();
    while (!failed_) {
      if (take('+'))
        out = out + product();
      else if (take('-'))
        out = out - product();
      else
        break;
    }
    --depth_;
    return out;
  }

  Dim product() {
    Dim out = atom();
    while (!failed_) {
      if (take('*'))
        out = out * atom();
      else if (take('/'))
        out = floordiv(out, atom());
      else if (take('%'))
        out = mod(out, atom());
      else
        break;
    }
    return out;
  }

  Dim atom() {
    int negations = 0;
    while (take('-'))
      ++negations;
    Dim out = primary();
    return negations % 2 ? -out : out;
  }

  Dim primary() {
    skip();
    if (take('(')) {
      Dim out = sum();
      return take(')') ? out : fail();
    }
    size_t begin = at_;
    if (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_]))) {
      int64_t value = 0;
      auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
      if (error != std::errc())
        return fail();
      at_ = size_t(end - text_.data());
      return value;
    }
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) ||
                                  text_[at_] == '_' || text_[at_] == '.'))
      ++at_;
    std::string_view name = text_.substr(begin, at_ - begin);
    if (name.empty())
      return fail();
    if ((name == "min" || name == "max") && take('(')) {
      Dim a = sum();
      if (!take(','))
        return fail();
      Dim b = sum();
      if (!take(')'))
        return fail();
      return name == "min" ? min(a, b) : max(a, b);
    }
    return Dim::symbol(name);
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  bool failed_ = false;
};

} // namespace

std::string Dim::text() const {
  if (!valid_)
    return "<overflow>";
  std::string out;
  for (const DimTerm &term : terms_) {
    bool negative = term.coefficient < 0 && term.coefficient != INT64_MIN;
    if (out.empty())
      out = negative ? "-" : "";
    else
      out += negative ? " - " : " + ";
    out += product_text(term, negative ? -term.coefficient : term.coefficient);
  }
  if (out.empty())
    return std::to_string(constant_);
  if (constant_ > 0)
    out += " + " + std::to_string(constant_);
  else if (constant_ < 0)
    out += " - " + std::to_string(constant_).substr(1);
  return out;
}

Result<Dim> parse_dim(std::string_view text) { return DimParser(text).parse(); }

std::string shape_text(std::span<const Dim> shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i)
    out += (i ? ", " : "") + shape[i].text();
  return out + "]";
}

Dim element_count(std::span<const Dim> shape) {
  Dim out = 1;
  for (const Dim &d : shape)
    out *= d;
  return out;
}

bool is_static(std::span<const Dim> shape) {
  for (const Dim &d : shape)
    if (!d.is_const())
      return false;
  return true;
}

} // namespace kiln
