// Expressions, with Python's precedence: or, and, not, comparisons, | ^ &, shifts, + -, * / % @, unary,
// **, and calls, members and subscripts.
#include "frontend/kir/parser_impl.h"

#include <array>

#include <fmt/format.h>

namespace kiln::kir {
namespace {

// Left-associative levels, loosest first; comparisons stand between level 1 and 2.
const std::array<std::vector<std::string_view>, 8> kLevels = {{
    {"or"}, {"and"}, {"|"}, {"^"}, {"&"}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "%", "@"},
}};
constexpr std::array<std::string_view, 6> kComparisons = {"==", "!=", "<=", ">=", "<", ">"};

} // namespace

ExprPtr Parser::make(ExprKind kind, const Location &where, std::string text) {
  return make(kind, where, std::move(text), {});
}

ExprPtr Parser::make(ExprKind kind, const Location &where, std::string text,
                     std::vector<ExprPtr> kids) {
  auto e = std::make_unique<Expr>();
  e->kind = kind;
  e->location = where;
  e->text = std::move(text);
  for (const ExprPtr &kid : kids)
    if (kid)
      e->depth = std::max(e->depth, kid->depth + 1);
  e->kids = std::move(kids);
  if (e->depth > kMaxDepth)
    fail_at(where, fmt::format("this expression is more than {} operations deep; name its parts on "
                               "lines of their own", kMaxDepth));
  return e;
}

namespace {

template <typename... Kids>
std::vector<ExprPtr> kids_of(Kids... kids) {
  std::vector<ExprPtr> out;
  (out.push_back(std::move(kids)), ...);
  return out;
}

} // namespace

ExprPtr Parser::expression() {
  Nest nest(*this);
  ExprPtr value = binary(0);
  if (!at("if") || !continues())
    return value;
  Location where = here();
  advance();
  ExprPtr condition = binary(0);
  expect("else", "a conditional value is written `a if condition else b`");
  ExprPtr other = expression();
  return make(ExprKind::conditional, where, "",
              kids_of(std::move(value), std::move(condition), std::move(other)));
}

ExprPtr Parser::expression_or_tuple() {
  ExprPtr first = expression();
  if (!at(",") || !continues())
    return first;
  Location where = first->location;
  std::vector<ExprPtr> kids;
  kids.push_back(std::move(first));
  while (continues() && take(","))
    kids.push_back(expression());
  return make(ExprKind::tuple, where, "", std::move(kids));
}

ExprPtr Parser::binary(int level) {
  if (level == int(kLevels.size()))
    return unary();
  auto operand = [&] { return level == 1 ? comparison() : binary(level + 1); };
  ExprPtr left = operand();
  while (continues()) {
    const Token &t = peek();
    const auto &ops = kLevels[size_t(level)];
    if (std::find_if(ops.begin(), ops.end(), [&](auto op) { return t.is(op); }) == ops.end())
      break;
    Location where = here();
    std::string op = advance().text;
    ExprPtr right = operand();
    left = make(ExprKind::binary, where, op, kids_of(std::move(left), std::move(right)));
  }
  return left;
}

ExprPtr Parser::comparison() {
  if (at("not")) {
    Nest nest(*this);
    Location where = here();
    advance();
    return make(ExprKind::unary, where, "not", kids_of(comparison()));
  }
  ExprPtr left = binary(2);
  bool compared = false;
  while (continues()) {
    bool in = at("in") && brackets_ >= 0;
    bool found = in;
    for (std::string_view op : kComparisons)
      found |= at(op);
    if (!found)
      break;
    if (compared)
      fail("comparisons do not chain; write `a < b and b < c`");
    compared = true;
    Location where = here();
    std::string op = advance().text;
    left = make(ExprKind::binary, where, op, kids_of(std::move(left), binary(2)));
  }
  return left;
}

ExprPtr Parser::unary() {
  if (!at("-") && !at("+") && !at("~"))
    return power();
  Nest nest(*this);
  Location where = here();
  std::string op = advance().text;
  return make(ExprKind::unary, where, op, kids_of(unary()));
}

ExprPtr Parser::power() {
  ExprPtr base = postfix();
  if (!at("**") || !continues())
    return base;
  Nest nest(*this);
  Location where = here();
  advance();
  return make(ExprKind::binary, where, "**", kids_of(std::move(base), unary()));
}

ExprPtr Parser::postfix() {
  ExprPtr e = primary();
  while (true) {
    if (at(".")) { // also at the start of the next line: a chain of calls
      advance();
      Location where = here();
      if (peek().kind != TokenKind::name)
        fail(fmt::format("expected a name after '.', found {}", describe(peek())));
      bool quoted = peek().quoted;
      std::string text = advance().text;
      e = make(ExprKind::member, where, std::move(text), kids_of(std::move(e)));
      e->quoted = quoted;
    } else if (at("(") && continues()) {
      e = call(std::move(e));
    } else if (at("[") && continues()) {
      e = subscript(std::move(e));
    } else {
      return e;
    }
  }
}

ExprPtr Parser::call(ExprPtr callee) {
  Nest nest(*this);
  Location where = callee->location;
  bool constant = callee->kind == ExprKind::name && callee->text == "constant";
  advance();
  Brackets brackets(*this, brackets_ + 1);
  ExprPtr out = make(ExprKind::call, where, "", kids_of(std::move(callee)));
  auto append = [&](ExprPtr kid) {
    out->depth = std::max(out->depth, kid->depth + 1);
    return kid;
  };
  while (!at(")")) {
    if (peek().kind == TokenKind::name && peek(1).is("=")) {
      std::string key = advance().text;
      advance();
      for (const auto &[other, value] : out->keywords)
        if (other == key)
          fail(fmt::format("the argument '{}' is given twice", key));
      out->keywords.emplace_back(key, append(expression()));
    } else if (at("*")) {
      Location star = here();
      advance();
      out->kids.push_back(append(make(ExprKind::spread, star, "", kids_of(expression()))));
    } else {
      if (!out->keywords.empty())
        fail("arguments without a name come before those with one");
      out->kids.push_back(append(expression()));
      if (constant && out->kids.size() == 2 && take(":")) {
        out->kind = ExprKind::literal;
        out->kids.erase(out->kids.begin());
        literal_data(*out);
        break;
      }
    }
    if (!take(","))
      break;
  }
  expect(")", "arguments are separated by commas");
  if (out->depth > kMaxDepth)
    fail_at(where, fmt::format("this expression is more than {} operations deep; name its parts on "
                               "lines of their own", kMaxDepth));
  return out;
}

void Parser::literal_data(Expr &literal) {
  if (peek().kind == TokenKind::name && peek().text == "splat") {
    advance();
    literal.text = "splat";
  }
  while (!at(")")) {
    std::string text = take("-") ? "-" : "";
    const Token &t = peek();
    bool number = t.kind == TokenKind::integer || t.kind == TokenKind::real;
    if (!number && !t.is("inf") && !t.is("nan") && !t.is("true") && !t.is("false"))
      fail(fmt::format("expected a number, true, false, inf or nan, found {}", describe(t)));
    literal.data.push_back(text + advance().text);
    if (!take(","))
      break;
  }
}

ExprPtr Parser::subscript_item() {
  Location where = here();
  if (at("..."))
    return advance(), make(ExprKind::ellipsis, where);
  if (take("*")) // f32[*shape]
    return make(ExprKind::spread, where, "", kids_of(expression()));
  ExprPtr start;
  if (!at(":")) {
    start = expression();
    if (!at(":"))
      return start;
  }
  ExprPtr stop, step;
  auto ends = [&] { return at(":") || at(",") || at("]"); };
  expect(":", "");
  if (!ends())
    stop = expression();
  if (take(":") && !ends())
    step = expression();
  return make(ExprKind::slice, where, "", kids_of(std::move(start), std::move(stop), std::move(step)));
}

ExprPtr Parser::subscript(ExprPtr base) {
  Nest nest(*this);
  Location where = base->location;
  advance();
  Brackets brackets(*this, brackets_ + 1);
  std::vector<ExprPtr> kids = kids_of(std::move(base));
  while (!at("]")) {
    kids.push_back(subscript_item());
    if (!take(","))
      break;
  }
  expect("]", "subscripts are separated by commas");
  return make(ExprKind::index, where, "", std::move(kids));
}

ExprPtr Parser::bracketed_list() {
  Nest nest(*this);
  Location where = here();
  advance();
  Brackets brackets(*this, brackets_ + 1);
  std::vector<ExprPtr> kids;
  while (!at("]")) {
    if (at("*")) {
      Location star = here();
      advance();
      kids.push_back(make(ExprKind::spread, star, "", kids_of(expression())));
    } else {
      kids.push_back(expression());
    }
    if (kids.size() == 1 && at("for")) {
      advance();
      std::vector<std::string> names{expect_name("the loop's variable")};
      while (take(","))
        names.push_back(expect_name("the loop's variable"));
      expect("in", "a list is built with `[f(i) for i in range(n)]`");
      kids.push_back(binary(0));
      if (take("if"))
        kids.push_back(binary(0));
      expect("]", "a list ends with ]");
      ExprPtr out = make(ExprKind::each, where, "", std::move(kids));
      out->names = std::move(names);
      return out;
    }
    if (!take(","))
      break;
  }
  expect("]", "the elements of a list are separated by commas");
  return make(ExprKind::list, where, "", std::move(kids));
}

ExprPtr Parser::primary() {
  Nest nest(*this);
  Location where = here();
  const Token &t = peek();
  switch (t.kind) {
  case TokenKind::integer:
    return make(ExprKind::integer, where, advance().text);
  case TokenKind::real:
    return make(ExprKind::real, where, advance().text);
  case TokenKind::string:
    return make(ExprKind::string, where, advance().text);
  case TokenKind::name: {
    bool quoted = t.quoted;
    ExprPtr e = make(ExprKind::name, where, advance().text);
    e->quoted = quoted;
    return e;
  }
  case TokenKind::keyword:
    if (t.is("true") || t.is("True"))
      return advance(), make(ExprKind::boolean, where, "true");
    if (t.is("false") || t.is("False"))
      return advance(), make(ExprKind::boolean, where, "false");
    if (t.is("none") || t.is("None"))
      return advance(), make(ExprKind::none, where);
    if (t.is("inf") || t.is("nan"))
      return make(ExprKind::real, where, advance().text);
    // The ops of these names: y: f32[] = if(c) { yield a } else { yield b }
    if ((t.is("if") || t.is("while")) && peek(1).is("("))
      return make(ExprKind::name, where, advance().text);
    break;
  default:
    break;
  }
  if (at("["))
    return bracketed_list();
  if (at("...")) {
    advance();
    return make(ExprKind::ellipsis, where);
  }
  if (at("@")) {
    advance();
    std::string name = dotted_name("a variable or function");
    refs_.insert(name);
    return make(ExprKind::ref, where, std::move(name));
  }
  if (at("(")) {
    advance();
    Brackets brackets(*this, brackets_ + 1);
    std::vector<ExprPtr> kids;
    bool comma = false;
    while (!at(")")) {
      kids.push_back(expression());
      if (!(comma = take(",")))
        break;
    }
    expect(")", "a parenthesis is not closed");
    if (kids.size() == 1 && !comma)
      return std::move(kids[0]);
    return make(ExprKind::tuple, where, "", std::move(kids));
  }
  fail(fmt::format("expected a value, found {}", describe(t)));
}

// A type: a name, perhaps with a shape.
ExprPtr Parser::type() {
  Brackets brackets(*this, brackets_ + 1);
  if (at("none") || at("None"))
    return primary();
  if (peek().kind != TokenKind::name)
    fail(fmt::format("expected a type such as f32[N, 10], found {}", describe(peek())));
  ExprPtr e = primary();
  while (at(".") && peek(1).kind == TokenKind::name) {
    advance();
    Location where = here();
    e = make(ExprKind::member, where, advance().text, kids_of(std::move(e)));
  }
  return at("[") && !peek().line_start ? subscript(std::move(e)) : std::move(e);
}

} // namespace kiln::kir
