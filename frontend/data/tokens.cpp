#include "frontend/data/tokens.h"

#include "frontend/files/mapped_file.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <set>
#include <tuple>

namespace kiln::data {
namespace {

constexpr size_t kMostTokens = 1 << 24, kLongest = 1 << 12;

// The bytes of the character that begins here; 0 where none does.
size_t character(std::string_view text) {
  auto byte = [&](size_t i) { return i < text.size() ? uint8_t(text[i]) : 0u; };
  auto follows = [&](size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  if (byte(0) < 0x80)
    return 1;
  if (byte(0) >= 0xC2 && byte(0) < 0xE0)
    return follows(1) ? 2 : 0;
  if (byte(0) >= 0xE0 && byte(0) < 0xF0) {
    bool fine = byte(0) == 0xE0 ? byte(1) >= 0xA0 : byte(0) == 0xED ? byte(1) < 0xA0 : true;
    return fine && follows(1) && follows(2) ? 3 : 0;
  }
  if (byte(0) >= 0xF0 && byte(0) < 0xF5) {
    bool fine = byte(0) == 0xF0 ? byte(1) >= 0x90 : byte(0) == 0xF4 ? byte(1) < 0x90 : true;
    return fine && follows(1) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

int64_t line_of(std::string_view text, size_t at) { return 1 + std::count(text.begin(), text.begin() + int64_t(at), '\n'); }

bool in_word(uint8_t c) { return c >= 0x80 || std::isalnum(c) != 0 || c == '\'' || c == '_'; }
bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }

size_t word(std::string_view text) {
  size_t n = 0;
  while (n < text.size() && n < kLongest && in_word(uint8_t(text[n])))
    ++n;
  return std::max<size_t>(n, 1);
}

} // namespace

Result<std::vector<std::string>> find_tokens(std::string_view text, const std::string &kind, bool with_newline) {
  std::vector<std::string> out;
  if (kind == "bytes") {
    for (int i = 0; i < 256; ++i)
      out.emplace_back(1, char(i));
    return out;
  }
  if (kind != "chars" && kind != "words")
    return Error{fmt::format("tokens={} must be chars, bytes or words; vocabulary=FILE takes a list of your own", kind)};
  std::set<std::string_view> found;
  for (size_t at = 0; at < text.size();) {
    size_t n = kind == "words" ? word(text.substr(at)) : character(text.substr(at));
    if (n == 0)
      return Error{fmt::format("line {}: no UTF-8 text; tokens=bytes takes any bytes", line_of(text, at))};
    if (kind != "words" || !is_space(text[at]))
      found.insert(text.substr(at, n));
    at += n;
  }
  if (with_newline)
    found.insert("\n");
  if (found.size() > kMostTokens)
    return Error{fmt::format("there are {} different tokens, more than {}", found.size(), kMostTokens)};
  out.assign(found.begin(), found.end());
  return out;
}

Result<std::vector<std::string>> read_tokens(const std::string &path) {
  KILN_TRY(file, MappedFile::open(path));
  auto bytes = file->bytes();
  const char *text = reinterpret_cast<const char *>(bytes.data());
  // Depth 1 is all that a list of strings has.
  auto json = nlohmann::json::parse(text, text + bytes.size(), [](int depth, auto, auto &) { return depth <= 1; }, false);
  std::vector<std::string> out;
  bool fine = json.is_array() && !json.empty() && json.size() <= kMostTokens;
  for (size_t i = 0; fine && i < json.size(); ++i) {
    fine = json[i].is_string() && !json[i].get_ref<const std::string &>().empty() && json[i].get_ref<const std::string &>().size() <= kLongest;
    if (fine)
      out.push_back(json[i].get<std::string>());
  }
  if (!fine)
    return Error{fmt::format("'{}' is no vocabulary: it must be a JSON list of strings, as in [\"a\", \"b\"]", path)};
  return out;
}

Result<std::vector<int64_t>> tokenise(std::string_view text, const std::vector<std::string> &tokens, bool skip_spaces) {
  // By first byte, the longest first.
  std::array<std::vector<int64_t>, 256> begins;
  int64_t unknown = -1;
  for (size_t i = 0; i < tokens.size(); ++i) {
    begins[uint8_t(tokens[i][0])].push_back(int64_t(i));
    if (tokens[i] == "<unk>")
      unknown = int64_t(i);
  }
  for (auto &list : begins)
    std::sort(list.begin(), list.end(), [&](int64_t a, int64_t b) { return std::tie(tokens[size_t(a)], a) < std::tie(tokens[size_t(b)], b); });
  // The last token <= the rest begins it, or shares `n` bytes with it, and then no token of more than n bytes begins it.
  auto longest = [&](std::string_view rest) -> int64_t {
    const auto &list = begins[uint8_t(rest[0])];
    for (size_t length = std::min(rest.size(), kLongest); length > 0;) {
      auto it = std::upper_bound(list.begin(), list.end(), rest.substr(0, length),
                                 [&](std::string_view value, int64_t token) { return value < std::string_view(tokens[size_t(token)]); });
      if (it == list.begin())
        return -1;
      const std::string &token = tokens[size_t(*--it)];
      size_t n = 0;
      while (n < token.size() && n < rest.size() && token[n] == rest[n])
        ++n;
      if (n == token.size())
        return *it;
      length = n;
    }
    return -1;
  };
  std::vector<int64_t> out;
  out.reserve(text.size() / 2);
  for (size_t at = 0; at < text.size();) {
    if (skip_spaces && is_space(text[at])) {
      ++at;
      continue;
    }
    std::string_view rest = text.substr(at);
    if (skip_spaces)
      rest = rest.substr(0, word(rest));
    int64_t token = longest(rest);
    if (token < 0 && unknown < 0)
      return Error{fmt::format("line {}: no token begins '{}'; add the vocabulary's \"<unk>\" to take it as unknown", line_of(text, at),
                               rest.substr(0, std::max<size_t>(character(rest), 1)))};
    out.push_back(token < 0 ? unknown : token);
    at += token < 0 ? std::max<size_t>(skip_spaces ? rest.size() : character(rest), 1) : tokens[size_t(token)].size();
  }
  return out;
}

} // namespace kiln::data
