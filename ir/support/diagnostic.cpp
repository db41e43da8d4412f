#include "ir/support/diagnostic.h"

#include <fmt/format.h>

namespace kiln {
namespace {

std::string_view severity_name(Severity severity) {
  switch (severity) {
  case Severity::error:
    return "error";
  case Severity::warning:
    return "warning";
  case Severity::note:
    return "note";
  }
  return "error";
}

// Line `number` (1-based) of `text`, without its end.
std::string_view source_line(std::string_view text, int number) {
  size_t begin = 0;
  for (int i = 1; i < number; ++i) {
    size_t end = text.find('\n', begin);
    if (end == std::string_view::npos)
      return {};
    begin = end + 1;
  }
  std::string_view line = text.substr(begin, text.find('\n', begin) - begin);
  constexpr size_t kWidth = 160;
  return line.substr(0, kWidth);
}

size_t utf8_length(unsigned char lead) {
  if (lead < 0x80)
    return 1;
  if (lead >= 0xc2 && lead < 0xe0)
    return 2;
  if (lead >= 0xe0 && lead < 0xf0)
    return 3;
  if (lead >= 0xf0 && lead < 0xf5)
    return 4;
  return 0;
}

// What a file calls something may hold anything; a terminal gets no control character of it.
std::string printable(std::string_view text) {
  std::string out;
  for (char c : text)
    if ((uint8_t(c) < 32 && c != '\n' && c != '\t') || c == 127)
      out += fmt::format("\\x{:02x}", uint8_t(c));
    else
      out += c;
  return out;
}

} // namespace

std::string Location::text() const {
  std::string out(file.text());
  if (line > 0)
    out += fmt::format(":{}:{}", line, column);
  if (!node.empty())
    out += fmt::format("{}node '{}'", out.empty() ? "" : ": ", node.text());
  return out;
}

Diagnostic &Diagnostics::add(Severity severity, const Location &where, std::string message) {
  if (severity == Severity::error)
    ++errors_;
  if (list_.size() >= limit_) {
    dropped_ = {severity, where, std::move(message), {}};
    return dropped_;
  }
  list_.push_back({severity, where, std::move(message), {}});
  return list_.back();
}

Diagnostic &Diagnostics::error(const Location &where, std::string message) {
  return add(Severity::error, where, std::move(message));
}

Diagnostic &Diagnostics::warning(const Location &where, std::string message) {
  return add(Severity::warning, where, std::move(message));
}

Diagnostic &Diagnostics::note(const Location &where, std::string message) {
  return add(Severity::note, where, std::move(message));
}

void Diagnostics::add_source(Symbol file, std::string text) {
  sources_.emplace_back(file, std::move(text));
}

std::string Diagnostics::render() const {
  std::string out;
  for (const Diagnostic &d : list_) {
    std::string where = d.location.text();
    out += fmt::format("{}{}{}: {}\n", printable(where), where.empty() ? "" : ": ", severity_name(d.severity),
                       printable(d.message));
    for (const auto &[file, text] : sources_) {
      if (file != d.location.file || d.location.line <= 0)
        continue;
      std::string_view line = source_line(text, d.location.line);
      if (line.empty())
        continue;
      out += fmt::format("  {}\n  ", line);
      for (int i = 1; i < d.location.column && size_t(i) <= line.size(); ++i)
        out += line[size_t(i - 1)] == '\t' ? '\t' : ' ';
      out += "^\n";
    }
    for (const std::string &note : d.notes)
      out += fmt::format("  note: {}\n", printable(note));
  }
  if (errors_ > list_.size())
    out += fmt::format("{} errors in all; the first {} are shown\n", errors_, list_.size());
  return out;
}

std::string Diagnostics::render_json() const {
  std::string out = "[";
  for (const Diagnostic &d : list_) {
    out += fmt::format("{}{{\"severity\": {}, \"file\": {}, \"line\": {}, \"column\": {}, \"node\": {}, "
                       "\"message\": {}, \"notes\": [",
                       out.size() > 1 ? ", " : "", json_quote(severity_name(d.severity)),
                       json_quote(d.location.file.text()), d.location.line, d.location.column,
                       json_quote(d.location.node.text()), json_quote(d.message));
    for (size_t i = 0; i < d.notes.size(); ++i)
      out += (i ? ", " : "") + json_quote(d.notes[i]);
    out += "]}";
  }
  return out + "]";
}

std::string json_quote(std::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned char c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += char(c);
    } else if (c < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04x}", c);
    } else {
      size_t length = utf8_length(c);
      bool valid = length > 0 && i + length <= text.size();
      for (size_t k = 1; valid && k < length; ++k)
        valid = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
      if (valid) {
        out += text.substr(i, length);
        i += length - 1;
      } else {
        out += "\\ufffd";
      }
    }
  }
  return out + '"';
}

} // namespace kiln
