// Statements and declarations.
#include "frontend/kir/parser.h"

#include "frontend/kir/parser_impl.h"
#include "ir/print.h"

#include <charconv>

#include <fmt/format.h>

namespace kiln::kir {

std::string Parser::describe(const Token &t) {
  switch (t.kind) {
  case TokenKind::end:
    return "the end of the file";
  case TokenKind::string:
    return "a string";
  case TokenKind::keyword:
    return fmt::format("the keyword '{}'", t.text);
  default:
    return fmt::format("'{}'", t.text);
  }
}

void Parser::fail_at(const Location &where, std::string message) {
  diagnostics_.error(where, std::move(message));
  throw Failure();
}

void Parser::expect(std::string_view symbol, std::string_view context) {
  if (take(symbol))
    return;
  fail(fmt::format("expected '{}', found {}{}{}", symbol, describe(peek()), context.empty() ? "" : ": ",
                   context));
}

std::string Parser::expect_name(std::string_view what) {
  if (peek().kind == TokenKind::keyword)
    fail(fmt::format("expected {}, found the keyword '{}'; write `{}` in backticks to use it as a name",
                     what, peek().text, peek().text));
  if (peek().kind != TokenKind::name)
    fail(fmt::format("expected {}, found {}", what, describe(peek())));
  return advance().text;
}

std::string Parser::dotted_name(std::string_view what) {
  std::string out = expect_name(what);
  while (at(".") && peek().glued && peek(1).kind == TokenKind::name) {
    advance();
    out += "." + advance().text;
  }
  return out;
}

std::unique_ptr<Stmt> Parser::make_stmt(StmtKind kind) {
  auto s = std::make_unique<Stmt>();
  s->kind = kind;
  s->location = here();
  return s;
}

void Parser::end_statement() {
  if (take(";") || at("}") || peek().line_start)
    return;
  fail(fmt::format("unexpected {} after a statement; put the next one on a line of its own",
                   describe(peek())));
}

// To the first token of a line, or past a ';', outside any block that opens on the way.
void Parser::recover(size_t begin) {
  brackets_ = 0;
  int depth = 0;
  while (peek().kind != TokenKind::end) {
    if (depth == 0 && (at("}") || (peek().line_start && at_ > begin)))
      break;
    if (at("{"))
      ++depth;
    if (at("}"))
      --depth;
    if (take(";") && depth == 0)
      break;
    advance();
  }
  // What was defined there is not "unknown" later on.
  for (size_t i = begin; i < at_; ++i)
    if (tokens_[i].kind == TokenKind::name)
      skipped_.insert(tokens_[i].text);
}

void Parser::statements(Body &out, bool top) {
  while (peek().kind != TokenKind::end) {
    if (at("}")) {
      if (!top)
        return;
      diagnostics_.error(here(), "'}' closes nothing");
      advance();
      continue;
    }
    if (take(";"))
      continue;
    int nesting = nesting_;
    size_t begin = at_;
    try {
      if (auto s = statement(top))
        out.push_back(std::move(s));
    } catch (const Failure &) {
      nesting_ = nesting;
      recover(begin);
      if (at_ == begin)
        advance();
    }
  }
}

Body Parser::block() {
  Nest nest(*this);
  Location open = here();
  expect("{", "a block stands in braces");
  Body out;
  {
    Brackets brackets(*this, 0);
    statements(out, false);
  }
  if (!take("}"))
    fail_at(open, "this '{' is never closed");
  return out;
}

std::unique_ptr<Stmt> Parser::statement(bool top) {
  std::unique_ptr<Stmt> s;
  if (at("func") || (at("export") && peek(1).is("func"))) {
    s = make_stmt(StmtKind::func);
    s->func = function();
    return s;
  }
  if (declares("model")) {
    s = make_stmt(StmtKind::model);
    s->model = model();
    return s;
  }
  if (at("export"))
    fail("'export' stands before 'func'");
  if (at("if"))
    return if_statement();
  if (at("for"))
    return for_statement();
  if (at("while")) {
    s = make_stmt(StmtKind::while_);
    advance();
    s->value = expression();
    s->body = block();
    return s;
  }
  bool computed_name = (word("param") || word("state")) && peek(1).is("(");
  if (declares("param") || declares("state") || computed_name) {
    s = variable();
  } else if (declares("import") || (word("import") && peek(1).kind == TokenKind::string)) {
    s = import_statement();
  } else if (declares("dim") && top) {
    s = dim_statement();
  } else if (word("size") && peek(1).kind == TokenKind::name && peek(2).is("<=")) {
    s = size_statement();
  } else if (top && declares("capacity")) {
    s = capacity_statement();
  } else if (top && word("constraint") && !peek(1).is("=") && !peek(1).is(":")) {
    s = constraint_statement();
  } else if (top && word("metadata") && peek(1).kind == TokenKind::string) {
    s = make_stmt(StmtKind::metadata);
    advance();
    if (peek().kind != TokenKind::string)
      fail("metadata is written `metadata \"key\" = \"value\"`");
    s->names.push_back(advance().text);
    expect("=", "metadata is written `metadata \"key\" = \"value\"`");
    if (peek().kind != TokenKind::string)
      fail("metadata is written `metadata \"key\" = \"value\"`");
    s->text = advance().text;
  } else if (at("return") || at("yield")) {
    s = make_stmt(at("return") ? StmtKind::return_ : StmtKind::yield);
    advance();
    if (!peek().line_start && !at("}") && !at(";"))
      s->value = expression_or_tuple();
  } else if (at("break") || at("continue")) {
    s = make_stmt(at("break") ? StmtKind::break_ : StmtKind::continue_);
    advance();
  } else if (at("assert")) {
    s = make_stmt(StmtKind::assert_);
    advance();
    s->value = expression();
    if (take(","))
      s->message = expression();
  } else {
    s = assignment();
  }
  end_statement();
  return s;
}

std::unique_ptr<Stmt> Parser::assignment() {
  auto s = make_stmt(StmtKind::assign);
  bool typed = false;
  do {
    Target target;
    target.expr = expression();
    if (at(":") && continues()) {
      advance();
      target.type = type();
      target.layout = layout();
      typed = true;
    }
    s->targets.push_back(std::move(target));
  } while (continues() && take(","));
  for (std::string_view op : {"+=", "-=", "*=", "/=", "**="})
    if (at(op)) {
      s->text = std::string(op.substr(0, op.size() - 1));
      if (s->targets.size() != 1 || typed)
        fail(fmt::format("'{}' takes one target", op));
      advance();
      s->value = expression_or_tuple();
      return s;
    }
  if (continues() && take("=")) {
    s->value = expression_or_tuple();
  } else if (s->targets.size() == 1 && !typed) {
    s->kind = StmtKind::expr;
    s->value = std::move(s->targets[0].expr);
    s->targets.clear();
  } else {
    fail(fmt::format("expected '=', found {}", describe(peek())));
  }
  if (at("{") && !peek().line_start)
    s->regions = regions();
  return s;
}

// {order 0 1 2 3, block 1:16, halo 2:1:1}
Layout Parser::layout() {
  Layout out;
  if (!at("{") || peek().line_start || peek(1).kind != TokenKind::name)
    return out;
  advance();
  Brackets brackets(*this, brackets_ + 1);
  auto number = [&]() -> int64_t {
    int64_t value = 0;
    const std::string &text = peek().text;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (peek().kind != TokenKind::integer || error != std::errc() || end != text.data() + text.size() ||
        value > (int64_t(1) << 30))
      fail("expected a number in a layout");
    advance();
    return value;
  };
  do {
    std::string word = expect_name("order, block or halo");
    if (word == "order") {
      while (peek().kind == TokenKind::integer)
        out.order.push_back(int(number()));
    } else if (word == "block" || word == "halo") {
      int dim = int(number());
      expect(":", "a layout is written {block 1:16, halo 2:1:1}");
      int64_t first = number();
      if (word == "block") {
        out.blocks.push_back({dim, first});
        continue;
      }
      expect(":", "a layout is written {block 1:16, halo 2:1:1}");
      out.halos.push_back({dim, first, number()});
    } else {
      fail(fmt::format("a layout has order, block and halo, not '{}'", word));
    }
  } while (take(","));
  expect("}", "a layout is written {block 1:16, halo 2:1:1}");
  return out;
}

std::vector<Region> Parser::regions() {
  std::vector<Region> out;
  do {
    Nest nest(*this);
    Region region;
    region.location = here();
    expect("{", "a region stands in braces");
    Brackets brackets(*this, 0);
    if (at("(") && peek(1).kind == TokenKind::name) {
      advance();
      region.args = parameters(")");
      expect("->", "a region's arguments are written { (a: f32[N]) ->");
    }
    statements(region.body, false);
    if (!take("}"))
      fail_at(region.location, "this '{' is never closed");
    out.push_back(std::move(region));
  } while (!peek().line_start && (take("else") || take("do") || at("{")));
  return out;
}

std::unique_ptr<Stmt> Parser::variable() {
  auto s = make_stmt(StmtKind::variable);
  s->text = advance().text;
  Target target;
  Location where = here();
  if (at("(")) // param ("w" + str(i)): f32[3]
    target.expr = primary();
  else
    target.expr = make(ExprKind::name, where, dotted_name("the variable's name"));
  expect(":", fmt::format("a variable has a type: `{} w: f32[3, 4]`", s->text));
  target.type = type();
  target.device = device();
  s->targets.push_back(std::move(target));
  if (take("="))
    s->value = expression();
  return s;
}

std::unique_ptr<Stmt> Parser::if_statement() {
  Nest nest(*this);
  auto s = make_stmt(StmtKind::if_);
  advance();
  s->value = expression();
  s->body = block();
  if (at("elif") || (at("else") && peek(1).is("if"))) {
    if (take("else")) {
    }
    s->other.push_back(if_statement());
  } else if (take("else")) {
    s->other = block();
  }
  return s;
}

std::unique_ptr<Stmt> Parser::for_statement() {
  auto s = make_stmt(StmtKind::for_);
  advance();
  do
    s->names.push_back(expect_name("the loop's variable"));
  while (take(","));
  expect("in", "a loop is written `for i in range(n) { ... }`");
  s->value = expression();
  s->body = block();
  return s;
}

std::unique_ptr<Stmt> Parser::import_statement() {
  auto s = make_stmt(StmtKind::import);
  advance();
  if (peek().kind == TokenKind::string) { // import "base.onnx" as base
    s->text = advance().text;
    if (peek().kind != TokenKind::name || peek().text != "as")
      fail("a model file is imported under a name: `import \"base.onnx\" as base`");
    advance();
    s->names.push_back(expect_name("the name of the imported model"));
    return s;
  }
  do
    s->names.push_back(dotted_name("a library's name"));
  while (take(","));
  return s;
}

// dim N = 1..64, dim N = 0..256 from held
std::unique_ptr<Stmt> Parser::dim_statement() {
  auto s = make_stmt(StmtKind::dim);
  advance();
  s->names.push_back(dotted_name("a dim's name"));
  expect("=", "bounds are written `dim N = 1..64`");
  s->value = binary(0);
  expect("..", "bounds are written `dim N = 1..64`");
  auto at_from = [&] { return !peek().line_start && peek().kind == TokenKind::name && peek().text == "from"; };
  if (!peek().line_start && !at(";") && !at_from())
    s->message = binary(0);
  if (at_from()) {
    advance();
    s->text = dotted_name("a state of type i64[]");
  }
  return s;
}

// size K <= N*M = count
std::unique_ptr<Stmt> Parser::size_statement() {
  auto s = make_stmt(StmtKind::size);
  advance();
  s->names.push_back(dotted_name("the name of a size"));
  expect("<=", "a size is written `size K <= N = count`");
  s->value = binary(2);
  expect("=", "a size is written `size K <= N = count`");
  s->message = expression();
  return s;
}

// capacity C = 256
std::unique_ptr<Stmt> Parser::capacity_statement() {
  auto s = make_stmt(StmtKind::capacity);
  advance();
  s->names.push_back(dotted_name("the name of a capacity"));
  expect("=", "a capacity is written `capacity C = 256`");
  s->value = binary(0);
  return s;
}

std::unique_ptr<Stmt> Parser::constraint_statement() {
  auto s = make_stmt(StmtKind::constraint);
  advance();
  s->value = binary(2);
  expect("==", "a constraint is written `constraint M == 2*N, \"why\"`");
  s->message = binary(2);
  if (take(",")) {
    if (peek().kind != TokenKind::string)
      fail("a constraint is written `constraint M == 2*N, \"why\"`");
    s->text = advance().text;
  }
  return s;
}

// device cuda
std::string Parser::device() {
  if (peek().kind != TokenKind::name || peek().text != "device" || peek().line_start)
    return "";
  advance();
  std::string name = expect_name("cpu or cuda");
  if (at(":"))
    fail("which GPU it is, is said when the program runs: `device cuda` here, and --device cuda:1 there");
  if (name != "cpu" && name != "cuda")
    fail(fmt::format("there is no device '{}': write `device cpu` or `device cuda`", name));
  return name;
}

std::vector<Param> Parser::parameters(std::string_view close) {
  Brackets brackets(*this, brackets_ + 1);
  std::vector<Param> out;
  while (!at(close)) {
    Param p;
    p.variadic = take("*");
    p.location = here();
    p.name = dotted_name("a parameter");
    for (const Param &other : out)
      if (other.name == p.name)
        fail_at(p.location, fmt::format("the parameter '{}' is declared twice", p.name));
    if (take(":")) {
      p.type = type();
      p.layout = layout();
    }
    p.device = device();
    if (take("="))
      p.default_value = expression();
    else if (!p.variadic && !out.empty() && out.back().default_value)
      fail_at(p.location, "parameters without a default come before those with one");
    out.push_back(std::move(p));
    if (!take(","))
      break;
  }
  expect(close, "parameters are separated by commas");
  return out;
}

std::unique_ptr<FuncDecl> Parser::function() {
  auto f = std::make_unique<FuncDecl>();
  f->exported = take("export");
  expect("func", "");
  f->location = here();
  f->name = dotted_name("the function's name");
  expect("(", "a function has parameters: `func f(x: f32[N]) { ... }`");
  f->params = parameters(")");
  auto gradient = [&] { // func f(x: f32[N]) -> f32[N] grad g { ... }
    if (peek().kind != TokenKind::name || peek().text != "grad")
      return;
    advance();
    f->grad = dotted_name("the function that gives the gradient");
  };
  if (take("->")) {
    f->typed_results = true;
    auto result = [&] {
      ResultDecl r;
      if (peek().kind == TokenKind::name) {
        size_t saved = at_;
        std::string name = dotted_name("a result");
        if (take(":"))
          r.name = std::move(name);
        else
          at_ = saved;
      }
      r.type = type();
      f->results.push_back(std::move(r));
    };
    if (take("(")) {
      Brackets brackets(*this, brackets_ + 1);
      while (!at(")")) {
        result();
        if (!take(","))
          break;
      }
      expect(")", "results are separated by commas");
    } else {
      do
        result();
      while (take(","));
    }
  }
  gradient();
  f->device_location = here();
  f->device = device();
  gradient();
  f->body = block();
  return f;
}

std::unique_ptr<ModelDecl> Parser::model() {
  auto m = std::make_unique<ModelDecl>();
  advance();
  m->location = here();
  m->name = expect_name("the model's name");
  if (take("("))
    m->params = parameters(")");
  Body body = block();
  for (auto &s : body) {
    if (s->kind == StmtKind::func)
      m->methods.push_back(std::move(s->func));
    else
      m->body.push_back(std::move(s));
  }
  return m;
}

SourceFile Parser::parse() {
  SourceFile out;
  out.name = file_;
  statements(out.body, true);
  out.refs = std::move(refs_);
  out.skipped = std::move(skipped_);
  return out;
}

SourceFile parse_file(Symbol name, std::string_view text, Diagnostics &diagnostics) {
  return Parser(name, text, diagnostics).parse();
}

} // namespace kiln::kir
