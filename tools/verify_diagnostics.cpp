#include "tools/verify_diagnostics.h"

#include <cstdlib>
#include <vector>

namespace kiln {
namespace {

struct Expected {
  Severity severity;
  int line;
  std::string text;
  bool found = false;
};

std::vector<Expected> parse_expected(std::string_view source) {
  std::vector<Expected> out;
  int number = 0;
  for (size_t at = 0; at < source.size();) {
    ++number;
    size_t end = std::min(source.find('\n', at), source.size());
    std::string_view line = source.substr(at, end - at);
    at = end + 1;
    for (size_t from = 0;;) {
      size_t begin = line.find("expected-", from);
      if (begin == std::string_view::npos)
        break;
      from = begin + 9;
      std::string_view rest = line.substr(from);
      Severity severity = rest.starts_with("warning") ? Severity::warning : Severity::error;
      if (!rest.starts_with("error") && !rest.starts_with("warning"))
        continue;
      int target = number;
      size_t sign = rest.find('@'), open = rest.find("{{"), close = rest.find("}}");
      if (open == std::string_view::npos || close == std::string_view::npos || close < open)
        continue;
      if (sign != std::string_view::npos && sign < open)
        target += std::atoi(std::string(rest.substr(sign + 1, open - sign - 1)).c_str());
      out.push_back({severity, target, std::string(rest.substr(open + 2, close - open - 2))});
      from += close;
    }
  }
  return out;
}

bool contains(const Diagnostic &d, const std::string &text) {
  if (d.message.find(text) != std::string::npos)
    return true;
  for (const std::string &note : d.notes)
    if (note.find(text) != std::string::npos)
      return true;
  return false;
}

} // namespace

std::string check_expected(std::string_view source, const Diagnostics &diagnostics) {
  std::vector<Expected> expected = parse_expected(source);
  std::string out;
  for (const Diagnostic &d : diagnostics.all()) {
    bool matched = false;
    for (Expected &e : expected) {
      // Several comments may describe one error: its message and its notes.
      if (e.severity == d.severity && e.line == d.location.line && contains(d, e.text))
        matched = e.found = true;
    }
    if (!matched)
      out += d.location.text() + ": unexpected: " + d.message + "\n";
  }
  for (const Expected &e : expected)
    if (!e.found)
      out += "line " + std::to_string(e.line) + ": expected and not seen: " + e.text + "\n";
  return out;
}

} // namespace kiln
