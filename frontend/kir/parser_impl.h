// The recursive-descent parser's shared parts: token stream, depth guard, expressions. Statements are
// in parser.cpp, expressions in parser_expr.cpp.
#pragma once

#include "frontend/kir/lexer.h"
#include "frontend/kir/parser.h"

namespace kiln::kir {

class Parser {
public:
  Parser(Symbol file, std::string_view text, Diagnostics &diagnostics)
      : file_(file), diagnostics_(diagnostics), tokens_(lex(file, text, diagnostics)) {}

  SourceFile parse();

private:
  // Thrown to the statement being parsed; never leaves the parser.
  struct Failure {};
  // Counts nesting for the time it lives.
  struct Nest {
    explicit Nest(Parser &parser) : parser_(parser) {
      if (++parser_.nesting_ > kMaxDepth)
        parser_.fail("this is nested too deeply (more than " + std::to_string(kMaxDepth) +
                     " levels); name the parts on lines of their own");
    }
    ~Nest() { --parser_.nesting_; }
    Parser &parser_;
  };
  // Inside ( ) and [ ] lines do not end statements.
  struct Brackets {
    explicit Brackets(Parser &parser, int depth) : parser_(parser), saved_(parser.brackets_) {
      parser.brackets_ = depth;
    }
    ~Brackets() { parser_.brackets_ = saved_; }
    Parser &parser_;
    int saved_;
  };

  const Token &peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token &advance() {
    const Token &t = peek();
    if (at_ + 1 < tokens_.size())
      ++at_;
    return t;
  }
  bool at(std::string_view symbol) const { return peek().is(symbol); }
  // Words that are keywords only where they begin a declaration; elsewhere they are names (`dim=1`).
  bool word(std::string_view text) const {
    return peek().kind == TokenKind::name && !peek().quoted && peek().text == text;
  }
  bool declares(std::string_view text) const {
    return word(text) && peek(1).kind == TokenKind::name && !peek(1).line_start;
  }
  // The next token continues the expression: it is on the same line, or brackets are open.
  bool continues() const { return brackets_ > 0 || !peek().line_start; }
  bool take(std::string_view symbol) {
    if (!at(symbol) && !(symbol == "do" && word("do")))
      return false;
    advance();
    return true;
  }
  void expect(std::string_view symbol, std::string_view context);
  Location here() const { return place(peek()); }
  Location place(const Token &t) const { return {file_, t.line, t.column, {}}; }
  [[noreturn]] void fail(std::string message) { fail_at(here(), std::move(message)); }
  [[noreturn]] void fail_at(const Location &where, std::string message);
  static std::string describe(const Token &t);
  std::string expect_name(std::string_view what);
  std::string dotted_name(std::string_view what);

  // Expressions.
  ExprPtr make(ExprKind kind, const Location &where, std::string text = "");
  ExprPtr make(ExprKind kind, const Location &where, std::string text, std::vector<ExprPtr> kids);
  ExprPtr expression();
  ExprPtr expression_or_tuple();
  ExprPtr binary(int level);
  ExprPtr comparison();
  ExprPtr unary();
  ExprPtr power();
  ExprPtr postfix();
  ExprPtr primary();
  ExprPtr bracketed_list();
  ExprPtr call(ExprPtr callee);
  ExprPtr subscript(ExprPtr base);
  ExprPtr subscript_item();
  void literal_data(Expr &literal);
  ExprPtr type();

  // Statements.
  void statements(Body &out, bool top);
  void recover(size_t begin);
  std::unique_ptr<Stmt> statement(bool top);
  std::unique_ptr<Stmt> assignment();
  std::unique_ptr<Stmt> variable();
  std::unique_ptr<Stmt> if_statement();
  std::unique_ptr<Stmt> for_statement();
  std::unique_ptr<Stmt> import_statement();
  std::unique_ptr<Stmt> dim_statement();
  std::unique_ptr<Stmt> size_statement();
  std::unique_ptr<Stmt> capacity_statement();
  std::unique_ptr<Stmt> constraint_statement();
  std::unique_ptr<FuncDecl> function();
  std::unique_ptr<ModelDecl> model();
  std::vector<Param> parameters(std::string_view close);
  Layout layout();
  std::string device();
  std::vector<Region> regions();
  Body block();
  void end_statement();
  std::unique_ptr<Stmt> make_stmt(StmtKind kind);

  Symbol file_;
  Diagnostics &diagnostics_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  int brackets_ = 0;
  std::set<std::string> refs_;
  std::set<std::string, std::less<>> skipped_;
};

} // namespace kiln::kir
