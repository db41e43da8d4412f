// Names, strings and numbers as the language writes them.
#include "ir/print.h"

#include "ir/narrow.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include <fmt/format.h>

namespace kiln {
namespace {

constexpr std::array<std::string_view, 24> kKeywords = {
    "and", "assert", "break", "continue", "elif", "else", "export", "false",
    "False", "for", "func", "if", "in", "inf", "nan", "none",
    "None", "not", "or", "return", "true", "True", "while", "yield"};

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Dotted path: the first piece starts with a letter, later ones may be numbers.
bool is_plain(std::string_view name) {
  size_t begin = 0;
  for (bool first = true;; first = false) {
    size_t end = std::min(name.find('.', begin), name.size());
    std::string_view piece = name.substr(begin, end - begin);
    if (piece.empty())
      return false;
    bool number = is_digit(piece[0]);
    if (number && first)
      return false;
    for (char c : piece)
      if (!is_digit(c) && (number || !is_letter(c)))
        return false;
    if (first && is_kir_keyword(piece))
      return false;
    if (end == name.size())
      return true;
    begin = end + 1;
  }
}

std::string escaped(std::string_view text, char quote) {
  std::string out(1, quote);
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == quote || c == '\\')
      out += '\\', out += c;
    else if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  return out + quote;
}

std::string with_point(std::string text) {
  if (text.find_first_of(".en") == std::string::npos) // "n": inf and nan
    text += ".0";
  return text;
}

template <typename Bits>
Bits bits_of(const Tensor &tensor, int64_t i) {
  Bits bits;
  std::memcpy(&bits, tensor.bytes().data() + size_t(i) * sizeof(Bits), sizeof(Bits));
  return bits;
}

} // namespace

bool is_kir_keyword(std::string_view word) {
  return std::find(kKeywords.begin(), kKeywords.end(), word) != kKeywords.end();
}

std::string quote_name(std::string_view name) {
  return is_plain(name) ? std::string(name) : escaped(name, '`');
}

std::string quote_string(std::string_view text) { return escaped(text, '"'); }

std::string float_text(double value) {
  if (std::isnan(value))
    return "nan";
  return with_point(fmt::format("{}", value));
}

std::string element_text(const Tensor &tensor, int64_t i) {
  switch (tensor.dtype()) {
  case DType::bool_:
    return tensor.at_i64(i) ? "true" : "false";
  case DType::u64:
    return fmt::format("{}", bits_of<uint64_t>(tensor, i));
  case DType::f64: {
    uint64_t bits = bits_of<uint64_t>(tensor, i);
    double value = std::bit_cast<double>(bits);
    if (std::isnan(value))
      return bits == 0x7ff8000000000000u ? "nan" : fmt::format("{:#x}", bits);
    return float_text(value);
  }
  case DType::f32: {
    uint32_t bits = bits_of<uint32_t>(tensor, i);
    float value = std::bit_cast<float>(bits);
    if (std::isnan(value))
      return bits == 0x7fc00000u ? "nan" : fmt::format("{:#x}", bits);
    return with_point(fmt::format("{}", value));
  }
  case DType::f16:
  case DType::bf16: {
    uint16_t bits = bits_of<uint16_t>(tensor, i);
    bool half = tensor.dtype() == DType::f16;
    float value = half ? f16_to_f32(bits) : bf16_to_f32(bits);
    if (std::isnan(value))
      return bits == (half ? 0x7e00u : 0x7fc0u) ? "nan" : fmt::format("{:#x}", bits);
    return with_point(fmt::format("{}", value));
  }
  default:
    break;
  }
  if (!holds_floats(tensor.dtype()))
    return fmt::format("{}", tensor.at_i64(i));
  auto code = narrow_code(tensor.dtype(), bits_of<uint8_t>(tensor, i));
  double value = tensor.at_f64(i);
  // The shortest decimal that rounds to the value, as a float's.
  bool plain = !std::isnan(value) && to_narrow(tensor.dtype(), value) == code;
  return plain ? with_point(fmt::format("{}", float(value))) : fmt::format("{:#x}", code);
}

} // namespace kiln
