#include "frontend/kir/lexer.h"

#include "ir/print.h"

#include <array>

#include <fmt/format.h>

namespace kiln::kir {
namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
int hex_value(char c) {
  if (is_digit(c))
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  return -1;
}

// Longest first.
constexpr std::array<std::string_view, 41> kSymbols = {
    "...", "**=", "<<", ">>", "**", "->", "==", "!=", "<=", ">=", "+=", "-=", "*=", "/=",
    "..",  "+",   "-",  "*",  "/",  "%",  "@",  "=",  "<",  ">",  "(",  ")",  "[",  "]",
    "{",   "}",   ",",  ":",  ";",  ".",  "&",  "|",  "^",  "~",  "!",  "?",  "$"};

class Lexer {
public:
  Lexer(Symbol file, std::string_view text, Diagnostics &diagnostics)
      : file_(file), text_(text), diagnostics_(diagnostics) {}

  std::vector<Token> run() {
    while (true) {
      skip_space();
      token_ = Token();
      token_.line = line_;
      token_.column = int(at_ - line_begin_) + 1;
      token_.line_start = line_start_;
      token_.glued = !spaced_;
      if (at_ >= text_.size())
        break;
      line_start_ = spaced_ = false;
      if (next())
        out_.push_back(std::move(token_));
    }
    token_.line_start = true;
    out_.push_back(token_);
    return std::move(out_);
  }

private:
  char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  void error(std::string message) {
    diagnostics_.error({file_, token_.line, token_.column, {}}, std::move(message));
  }

  void skip_space() {
    while (at_ < text_.size()) {
      char c = text_[at_];
      if (c == '\n') {
        ++at_, ++line_;
        line_begin_ = at_;
        line_start_ = true;
      } else if (c == ' ' || c == '\t' || c == '\r') {
        ++at_;
      } else if (c == '/' && peek(1) == '/') {
        while (at_ < text_.size() && text_[at_] != '\n')
          ++at_;
      } else {
        return;
      }
      spaced_ = true;
    }
  }

  bool next() {
    char c = peek();
    bool after_dot = !out_.empty() && out_.back().is(".") && token_.glued;
    if (is_letter(c))
      return word();
    if (is_digit(c))
      return after_dot ? piece() : number();
    if (c == '"' || c == '\'')
      return quoted(c, TokenKind::string);
    if (c == '`')
      return quoted(c, TokenKind::name);
    for (std::string_view s : kSymbols) {
      if (text_.substr(at_, s.size()) != s)
        continue;
      at_ += s.size();
      token_.kind = TokenKind::symbol;
      token_.text = s;
      return true;
    }
    auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f)
      error(fmt::format("unexpected character '{}'{}", c,
                        c == '#' ? "; comments begin with //" : ""));
    else
      error(fmt::format("unexpected byte 0x{:02x}; names with other letters go in backticks", byte));
    // One report for a run of such bytes.
    while (at_ < text_.size() && (static_cast<unsigned char>(text_[at_]) >= 0x7f || text_[at_] == c ||
                                  (c == '#' && text_[at_] != '\n')))
      ++at_;
    return false;
  }

  bool word() {
    size_t begin = at_;
    while (is_letter(peek()) || is_digit(peek()))
      ++at_;
    token_.text = text_.substr(begin, at_ - begin);
    bool after_dot = !out_.empty() && out_.back().is(".") && token_.glued;
    token_.kind = !after_dot && is_kir_keyword(token_.text) ? TokenKind::keyword : TokenKind::name;
    return true;
  }

  // `0` in layers.0.weight
  bool piece() {
    size_t begin = at_;
    while (is_digit(peek()))
      ++at_;
    token_.text = text_.substr(begin, at_ - begin);
    token_.kind = TokenKind::name;
    return true;
  }

  void digits() {
    while (is_digit(peek()) || (peek() == '_' && is_digit(peek(1)))) {
      if (peek() != '_')
        token_.text += peek();
      ++at_;
    }
  }

  bool number() {
    token_.kind = TokenKind::integer;
    if (peek() == '0' && (peek(1) == 'x' || peek(1) == 'X')) {
      at_ += 2;
      token_.text = "0x";
      while (hex_value(peek()) >= 0)
        token_.text += text_[at_++];
      if (token_.text.size() == 2)
        error("0x needs hexadecimal digits");
      return token_.text.size() > 2;
    }
    digits();
    if (peek() == '.' && is_digit(peek(1))) {
      token_.kind = TokenKind::real;
      token_.text += text_[at_++];
      digits();
    } else if (peek() == '.' && peek(1) != '.' && !is_letter(peek(1))) { // 1.
      token_.kind = TokenKind::real;
      token_.text += text_[at_++];
    }
    if (peek() == 'e' || peek() == 'E') {
      bool sign = peek(1) == '+' || peek(1) == '-';
      if (is_digit(peek(sign ? 2 : 1))) {
        token_.kind = TokenKind::real;
        token_.text += text_.substr(at_, sign ? 2 : 1);
        at_ += sign ? 2 : 1;
        digits();
      }
    }
    if (is_letter(peek())) {
      error(fmt::format("a number runs into the letter '{}'; put a space or an operator between", peek()));
      while (is_letter(peek()) || is_digit(peek()))
        ++at_;
    }
    return true;
  }

  bool quoted(char quote, TokenKind kind) {
    token_.kind = kind;
    token_.quoted = kind == TokenKind::name;
    ++at_;
    while (true) {
      char c = peek();
      if (at_ >= text_.size() || c == '\n') {
        error(fmt::format("a {} is not closed on its line", quote == '`' ? "name in backticks" : "string"));
        return true;
      }
      ++at_;
      if (c == quote)
        break;
      if (c != '\\') {
        token_.text += c;
        continue;
      }
      escape();
    }
    if (token_.quoted && token_.text.empty()) {
      error("a name needs at least one character");
      token_.text = "_";
    }
    return true;
  }

  void escape() {
    char c = peek();
    if (at_ >= text_.size() || c == '\n')
      return;
    ++at_;
    if (c == 'n')
      token_.text += '\n';
    else if (c == 't')
      token_.text += '\t';
    else if (c == 'x' && hex_value(peek()) >= 0 && hex_value(peek(1)) >= 0) {
      token_.text += char(hex_value(peek()) * 16 + hex_value(peek(1)));
      at_ += 2;
    } else
      token_.text += c;
  }

  Symbol file_;
  std::string_view text_;
  Diagnostics &diagnostics_;
  std::vector<Token> out_;
  Token token_;
  size_t at_ = 0, line_begin_ = 0;
  int line_ = 1;
  bool line_start_ = true, spaced_ = true;
};

} // namespace

std::vector<Token> lex(Symbol file, std::string_view text, Diagnostics &diagnostics) {
  return Lexer(file, text, diagnostics).run();
}

} // namespace kiln::kir
