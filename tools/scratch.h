// A program that grows by a line at a time, run by the interpreter: `kiln eval` and `kiln repl`. What earlier lines made is
// computed again for each new one (less what it does not need), so everything of the language works between lines, and
// random numbers are those of the same lines in a file.
#pragma once

#include "ir/graph.h"
#include "ir/support/diagnostic.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kiln {

class Scratch {
public:
  explicit Scratch(int64_t seed) : seed_(seed) {}

  // Statements, one at least; where the last is an expression, its value is appended to `shown`. On an error nothing of
  // `text` is kept.
  bool add(std::string_view text, std::string &shown, Diagnostics &diagnostics);

  // False where a bracket or brace is still open: more lines belong to it.
  static bool complete(std::string_view text);

private:
  struct Statement {
    std::string text;
    Location at; // in what is being added; unknown of what was added before
  };
  struct Program {
    std::vector<Statement> top, body; // functions, imports, modules; statements
  };
  // The program's graph; what is known without running it is appended to `plain`, a line each. Places are those in what
  // is being added.
  bool elaborate(const Program &program, const Statement &last, bool show, Module &module, std::string &plain,
                 Diagnostics &diagnostics) const;
  bool run(const Program &program, const Statement &last, bool show, std::string &shown, Diagnostics &diagnostics) const;
  bool makes_module(const Program &program, const Statement &statement, const std::string &name) const;

  int64_t seed_;
  Program program_;
  std::string added_;
};

} // namespace kiln
