// Characters to tokens. Newlines are not tokens: a token knows whether a line began before it, and the
// parser decides whether that ends a statement.
#pragma once

#include "ir/support/diagnostic.h"

#include <string>
#include <string_view>
#include <vector>

namespace kiln::kir {

enum class TokenKind : uint8_t {
  end,
  name,    // text without backticks, escapes resolved
  keyword, // and, func, true, inf, ...
  integer, // decimal or 0x, underscores removed
  real,
  string,  // text with escapes resolved
  symbol,  // operators and punctuation
};

struct Token {
  TokenKind kind = TokenKind::end;
  bool line_start = false; // the first token of its line
  bool glued = false;      // no space before it
  bool quoted = false;     // a name in backticks
  int line = 1, column = 1;
  std::string text;

  bool is(std::string_view symbol) const {
    return (kind == TokenKind::symbol || kind == TokenKind::keyword) && text == symbol;
  }
};

// The last token is `end`. Bad characters are reported and skipped.
std::vector<Token> lex(Symbol file, std::string_view text, Diagnostics &diagnostics);

} // namespace kiln::kir
