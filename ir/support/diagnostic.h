// Diagnostics: a user's mistakes, each with a place and what to do about it. They are collected, so
// that all errors of a file are reported in one go; rendering (source line, caret, JSON) is here too.
#pragma once

#include "ir/support/symbol.h"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace kiln {

// A place in a source: file:line:column (1-based, 0 = unknown) for text, or the name of a node of an
// ONNX graph ("Conv#17" where it has none).
struct Location {
  Symbol file;
  int line = 0;
  int column = 0;
  Symbol node;

  bool known() const { return !file.empty() || !node.empty(); }
  std::string text() const; // "digits.kir:4:11", "model.onnx: node 'conv1'"
  friend bool operator==(const Location &, const Location &) = default;
};

enum class Severity { error, warning, note };

struct Diagnostic {
  Severity severity = Severity::error;
  Location location;
  std::string message;
  std::vector<std::string> notes; // further lines: types involved, the chain of shapes, what to do
};

class Diagnostics {
public:
  explicit Diagnostics(size_t limit = 100) : limit_(limit) {}

  // Returns the stored diagnostic so that notes can be added. Past the limit errors are only counted.
  Diagnostic &error(const Location &where, std::string message);
  Diagnostic &warning(const Location &where, std::string message);
  // What the user asked to be told.
  Diagnostic &note(const Location &where, std::string message);

  bool has_errors() const { return errors_ > 0; }
  size_t error_count() const { return errors_; }
  const std::vector<Diagnostic> &all() const { return list_; }

  // Keeps a source's text so that render() can show the line and a caret.
  void add_source(Symbol file, std::string text);

  // "file:line:col: error: message", the source line, a caret, the notes; one diagnostic after another.
  std::string render() const;
  std::string render_json() const;

private:
  Diagnostic &add(Severity severity, const Location &where, std::string message);

  size_t limit_;
  size_t errors_ = 0;
  std::vector<Diagnostic> list_;
  Diagnostic dropped_;
  std::vector<std::pair<Symbol, std::string>> sources_;
};

// A string as it stands in JSON, quotes included; invalid UTF-8 is replaced.
std::string json_quote(std::string_view text);

} // namespace kiln
