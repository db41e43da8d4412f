// Interned strings: names of dims, loop variables, files and nodes. Comparing two is comparing two
// integers. The table lives as long as the process and may be used from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace kiln {

class Symbol {
public:
  Symbol() = default; // the empty string
  explicit Symbol(std::string_view text);

  std::string_view text() const;
  bool empty() const { return id_ == 0; }
  uint32_t id() const { return id_; } // not stable between runs: never print it or sort output by it

  friend bool operator==(Symbol, Symbol) = default;
  // By text, so that everything sorted by symbol prints the same in every run.
  friend bool operator<(Symbol a, Symbol b) { return a.id_ != b.id_ && a.text() < b.text(); }

private:
  uint32_t id_ = 0;
};

// A name that no other call returns: `stem`, a dot, and a number. Use it for loop variables that are
// renamed before printing, never for names a user sees.
Symbol fresh_symbol(std::string_view stem);

} // namespace kiln

template <>
struct std::hash<kiln::Symbol> {
  size_t operator()(kiln::Symbol s) const { return s.id(); }
};
