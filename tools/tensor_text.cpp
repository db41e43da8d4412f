// The C++ library prints and parses the shortest decimal that gives the same number back.
#include "tools/tensor_text.h"

#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

namespace kiln::tools {
namespace {

constexpr uint64_t kMaxWritten = uint64_t{1} << 32; // bytes of a tensor written out

float half_to_float(uint16_t half) {
  uint32_t sign = static_cast<uint32_t>(half >> 15) << 31;
  uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 0)
    return (sign != 0 ? -1.0f : 1.0f) * std::ldexp(static_cast<float>(fraction), -24);
  if (exponent == 31)
    return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

// Rounds to nearest, ties to even.
uint16_t float_to_half(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  float size = std::fabs(value);
  if (std::isnan(value))
    return sign | 0x7e00;
  if (size >= 65520.0f)
    return sign | 0x7c00;
  if (size < 6.103515625e-05f) // below the smallest normal: steps of 2^-24
    return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(size, 24)));
  uint32_t magnitude = bits & 0x7fffffff;
  magnitude += 0xfff + (magnitude >> 13 & 1);
  return sign | static_cast<uint16_t>((magnitude >> 13) - (112u << 10));
}

uint16_t float_to_bfloat(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value))
    return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

template <typename T>
bool parse_as(const std::string &text, T &value) {
  const char *end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end;
}

template <typename T>
bool put(const std::string &text, uint8_t *out) {
  T value{};
  if (!parse_as(text, value))
    return false;
  std::memcpy(out, &value, sizeof value);
  return true;
}

bool put_16(const std::string &text, uint16_t (*convert)(float), uint8_t *out) {
  float value = 0;
  if (!parse_as(text, value))
    return false;
  uint16_t bits = convert(value);
  std::memcpy(out, &bits, sizeof bits);
  return true;
}

// Integers as numbers, floats as codes: this program does not round.
bool put_code(uint32_t dtype, const std::string &text, uint8_t *out) {
  int value = 0, bits = narrow_bits(dtype);
  int low = dtype == KILN_I4 || dtype == KILN_I2 ? -(1 << (bits - 1)) : 0;
  if (!parse_as(text, value) || value < low || value >= low + (1 << bits))
    return false;
  *out = static_cast<uint8_t>(value);
  return true;
}

bool parse_element(uint32_t dtype, const std::string &text, uint8_t *out) {
  switch (dtype) {
  case KILN_F64:
    return put<double>(text, out);
  case KILN_F32:
    return put<float>(text, out);
  case KILN_F16:
    return put_16(text, float_to_half, out);
  case KILN_BF16:
    return put_16(text, float_to_bfloat, out);
  case KILN_I64:
    return put<int64_t>(text, out);
  case KILN_I32:
    return put<int32_t>(text, out);
  case KILN_I16:
    return put<int16_t>(text, out);
  case KILN_I8:
    return put<int8_t>(text, out);
  case KILN_U64:
    return put<uint64_t>(text, out);
  case KILN_U32:
    return put<uint32_t>(text, out);
  case KILN_U16:
    return put<uint16_t>(text, out);
  case KILN_U8:
    return put<uint8_t>(text, out);
  case KILN_I4:
  case KILN_I2:
  case KILN_U4:
  case KILN_U2:
  case KILN_F8E4M3FN:
  case KILN_F8E4M3FNUZ:
  case KILN_F8E5M2:
  case KILN_F8E5M2FNUZ:
  case KILN_F8E8M0:
  case KILN_F4E2M1:
    return put_code(dtype, text, out);
  case KILN_BOOL:
    *out = text == "true" || text == "1" ? 1 : 0;
    return *out == 1 || text == "false" || text == "0";
  }
  return false;
}

template <typename T>
T get(const uint8_t *at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <typename T>
std::string print_as(T value) {
  char text[64];
  auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return std::string(text, end);
}

std::string print_element(uint32_t dtype, const uint8_t *at) {
  switch (dtype) {
  case KILN_F64:
    return print_as(get<double>(at));
  case KILN_F32:
    return print_as(get<float>(at));
  case KILN_F16:
    return print_as(half_to_float(get<uint16_t>(at)));
  case KILN_BF16:
    return print_as(std::bit_cast<float>(uint32_t{get<uint16_t>(at)} << 16));
  case KILN_I64:
    return print_as(get<int64_t>(at));
  case KILN_I32:
    return print_as(get<int32_t>(at));
  case KILN_I16:
    return print_as(get<int16_t>(at));
  case KILN_I8:
  case KILN_I4:
  case KILN_I2:
    return print_as(int32_t{get<int8_t>(at)});
  case KILN_U64:
    return print_as(get<uint64_t>(at));
  case KILN_U32:
    return print_as(get<uint32_t>(at));
  case KILN_U16:
    return print_as(get<uint16_t>(at));
  case KILN_U8:
  case KILN_U4:
  case KILN_U2:
  case KILN_F8E4M3FN:
  case KILN_F8E4M3FNUZ:
  case KILN_F8E5M2:
  case KILN_F8E5M2FNUZ:
  case KILN_F8E8M0:
  case KILN_F4E2M1:
    return print_as(uint32_t{*at});
  case KILN_BOOL:
    return *at != 0 ? "true" : "false";
  }
  return "?";
}

std::vector<std::string> split(const std::string &text, char separator) {
  std::vector<std::string> parts(1);
  for (char c : text) {
    if (c == separator)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

std::string print_value(const KilnValueInfo &info) {
  std::string text = std::string(info.name) + ": " + element_name(info.dtype) + "[";
  for (uint32_t i = 0; i < info.rank; ++i)
    text += (i != 0 ? ", " : "") + std::string(info.dims[i].text);
  return text + "]";
}

std::string print_shape(const int64_t *dims, size_t rank) {
  std::string text = "[";
  for (size_t i = 0; i < rank; ++i)
    text += (i != 0 ? ", " : "") + std::to_string(dims[i]);
  return text + "]";
}

std::string describe_entry(const KilnApi &kiln, const KilnModule *module, uint32_t entry) {
  KilnEntryInfo info;
  kiln.entry_info(module, entry, &info);
  std::string text = std::string("  ") + info.name + "(";
  KilnValueInfo value;
  for (uint32_t i = 0; kiln.input_info(module, entry, i, &value) == KILN_OK; ++i)
    text += (i != 0 ? ", " : "") + print_value(value);
  text += ") -> (";
  for (uint32_t i = 0; kiln.output_info(module, entry, i, &value) == KILN_OK; ++i)
    text += (i != 0 ? ", " : "") + print_value(value);
  text += ")  " + std::to_string(info.kernel_count) + " kernels";
  KilnSymbolInfo symbol;
  for (uint32_t i = 0; kiln.symbol_info(module, entry, i, &symbol) == KILN_OK; ++i)
    text += std::string("\n    ") + symbol.name + ": " + std::to_string(symbol.min) + ".." +
            (symbol.max == INT64_MAX ? "" : std::to_string(symbol.max));
  return text + "\n";
}

} // namespace

std::string parse_tensor(const std::string &text, Tensor &tensor) {
  size_t equals = text.find('=');
  std::vector<std::string> shape = split(text.substr(0, equals), 'x');
  tensor.dtype = find_dtype(shape.back());
  if (equals == std::string::npos || tensor.dtype == 0)
    return "'" + text + "' is neither @FILE.npy nor like 2x3xf32=1,2,3,4,5,6";
  for (size_t i = 0; i + 1 < shape.size(); ++i)
    if (!parse_as(shape[i], tensor.dims.emplace_back()) || tensor.dims.back() < 0)
      return "'" + shape[i] + "' is no size";
  uint64_t bytes = 0;
  if (!dense_size(tensor.dtype, tensor.dims, bytes) || bytes > kMaxWritten)
    return "the shape " + print_shape(tensor.dims.data(), tensor.dims.size()) + " is too large";
  size_t unit = element_size(tensor.dtype), count = bytes / unit;
  std::vector<std::string> values = split(text.substr(equals + 1), ',');
  if (values.size() != count && values.size() != 1)
    return std::to_string(values.size()) + " values for " + std::to_string(count) + " elements";
  tensor.data.resize(bytes);
  for (size_t i = 0; i < count; ++i)
    if (!parse_element(tensor.dtype, values[values.size() == 1 ? 0 : i], &tensor.data[i * unit]))
      return "'" + values[values.size() == 1 ? 0 : i] + "' is no " + element_name(tensor.dtype);
  return {};
}

std::string print_tensor(const Tensor &tensor) {
  constexpr size_t kShown = 8;
  std::string text =
      element_name(tensor.dtype) + print_shape(tensor.dims.data(), tensor.dims.size());
  size_t unit = element_size(tensor.dtype), count = tensor.data.size() / unit;
  for (size_t i = 0; i < count; ++i) {
    if (count > 2 * kShown && i == kShown) {
      text += " ...";
      i = count - kShown;
    }
    text += " " + print_element(tensor.dtype, &tensor.data[i * unit]);
  }
  return text;
}

std::string describe_module(const KilnApi &kiln, const KilnModule *module) {
  KilnModuleInfo info;
  kiln.module_info(module, &info);
  std::string text = std::string("model ") + info.name + ", by " + info.producer + ", for " +
                     info.target + "\nweights: " + std::to_string(info.weights_size) +
                     " bytes\nentries:\n";
  for (uint32_t i = 0; i < info.entry_count; ++i)
    text += describe_entry(kiln, module, i);
  if (info.variable_count != 0)
    text += "variables:\n";
  KilnVariableInfo variable;
  for (uint32_t i = 0; kiln.variable_info(module, i, &variable) == KILN_OK; ++i)
    text += std::string(variable.is_param ? "  param " : "  state ") + variable.name + ": " +
            element_name(variable.dtype) + print_shape(variable.dims, variable.rank) + "\n";
  const char *key = nullptr, *value = nullptr;
  for (uint32_t i = 0; kiln.metadata(module, i, &key, &value) == KILN_OK; ++i)
    text += std::string(key) + ": " + value + "\n";
  return text;
}

} // namespace kiln::tools
