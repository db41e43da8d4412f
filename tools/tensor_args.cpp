// Tensors on the command line: "x=@x.npy", "x=2x2xf32=1,2,3,4", and random ones.
#include "tools/cli.h"

#include "tools/text_tensor.h"

#include "frontend/data/npy.h"
#include "frontend/data/npz.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <span>

namespace kiln {

std::optional<int64_t> parse_int(std::string_view text) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return std::nullopt;
  return value;
}

std::optional<std::vector<int64_t>> parse_shape(std::string_view text) {
  std::vector<int64_t> out;
  while (!text.empty()) {
    size_t x = text.find('x');
    auto value = parse_int(text.substr(0, x));
    if (!value || *value < 0)
      return std::nullopt;
    out.push_back(*value);
    text = x == std::string_view::npos ? std::string_view() : text.substr(x + 1);
  }
  return out;
}

// "a,b" with \, for a comma and \\ for a backslash; one string fills all.
Result<std::pair<std::string, Tensor>> parse_strings(const std::string &name, std::vector<int64_t> dims,
                                                     std::string_view list) {
  auto count = checked_bytes(DType::u8, dims);
  if (!count)
    return Error{fmt::format("--input {}: the shape is too large", name)};
  std::vector<std::string> strings(1);
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i] == ',')
      strings.emplace_back();
    else if (list[i] == '\\' && i + 1 < list.size() && (list[i + 1] == ',' || list[i + 1] == '\\'))
      strings.back() += list[++i];
    else
      strings.back() += list[i];
  }
  if (int64_t(strings.size()) != *count && strings.size() != 1)
    return Error{fmt::format("--input {}: {} strings for {} elements", name, strings.size(), *count)};
  if (*count > (int64_t(1) << 28))
    return Error{fmt::format("--input {}: {} strings are too many to write out", name, *count)};
  strings.resize(size_t(*count), strings[0]);
  auto tensor = text_tensor(strings, std::move(dims));
  if (!tensor)
    return Error{fmt::format("--input {}: {}", name, tensor.error().message)};
  return std::pair(name, std::move(*tensor));
}

Result<Tensor> read_npy_stream() {
  std::string bytes(std::istreambuf_iterator<char>(std::cin), {});
  auto tensor = parse_npy(std::as_bytes(std::span(bytes)));
  if (!tensor)
    return Error{fmt::format("standard input: {}", tensor.error().message)};
  return tensor;
}

// An element written as text; false where it is no number of that dtype.
bool set_element(Tensor &tensor, int64_t i, const std::string &item) {
  auto integer = parse_int(item);
  if (integer && !holds_floats(tensor.dtype())) {
    tensor.set_i64(i, *integer);
    return tensor.at_i64(i) == *integer && (*integer >= 0 || tensor.dtype() != DType::u64);
  }
  char *end = nullptr;
  double number = std::strtod(item.c_str(), &end);
  if (end == item.c_str() || *end)
    return false;
  if (uint64_t wide = 0; tensor.dtype() == DType::u64 && std::from_chars(item.data(), item.data() + item.size(), wide).ptr == item.data() + item.size())
    tensor.set_i64(i, int64_t(wide));
  else
    tensor.set_f64(i, number);
  return holds_floats(tensor.dtype()) || tensor.dtype() == DType::u64 || tensor.at_f64(i) == number;
}

Result<std::pair<std::string, Tensor>> parse_input(const std::string &text) {
  size_t equals = text.find('=');
  Error error{fmt::format("--input {}: write NAME=@FILE.npy, NAME=2x2xf32=1,2,3,4 or NAME=2xstr=abc,def", text)};
  if (equals == std::string::npos || equals == 0)
    return error;
  std::string name = text.substr(0, equals), value = text.substr(equals + 1);
  if (value.starts_with('@')) {
    std::string path = value.substr(1);
    if (std::filesystem::path(path).extension() == ".npz") {
      auto arrays = read_npz(path);
      if (!arrays)
        return arrays.error();
      auto it = std::find_if(arrays->begin(), arrays->end(), [&](const auto &a) { return a.first == name; });
      if (it == arrays->end())
        return Error{fmt::format("{} has no array '{}'", path, name)};
      return std::pair(name, std::move(it->second));
    }
    auto tensor = path == "-" ? read_npy_stream() : read_npy(path);
    if (!tensor)
      return tensor.error();
    return std::pair(name, std::move(*tensor));
  }
  size_t second = value.find('=');
  if (second == std::string::npos)
    return error;
  std::string_view type = std::string_view(value).substr(0, second);
  size_t x = type.rfind('x');
  auto dtype = dtype_from_name(x == std::string_view::npos ? type : type.substr(x + 1));
  bool strings = (x == std::string_view::npos ? type : type.substr(x + 1)) == "str";
  auto dims = x == std::string_view::npos ? std::optional(std::vector<int64_t>()) : parse_shape(type.substr(0, x));
  if (strings && dims)
    return parse_strings(name, *dims, std::string_view(value).substr(second + 1));
  auto bytes = dtype && dims ? checked_bytes(*dtype, *dims) : std::nullopt;
  if (!bytes)
    return error;
  int64_t count = *bytes / dtype_bytes(*dtype), given = 1;
  std::string_view list = std::string_view(value).substr(second + 1);
  for (char c : list)
    given += c == ',';
  if (list.empty())
    given = 0;
  if (given != count && given != 1)
    return Error{fmt::format("--input {}: {} values for {} elements", name, given, count)};
  Tensor tensor(*dtype, *dims);
  size_t at = 0;
  for (int64_t i = 0; i < count; ++i) {
    std::string item(list.substr(at, list.find(',', at) - at));
    if (!set_element(tensor, i, item))
      return Error{fmt::format("--input {}: '{}' is no {}", name, item, holds_floats(*dtype) ? "number" : dtype_name(*dtype))};
    if (given > 1)
      at = list.find(',', at) == std::string_view::npos ? list.size() : list.find(',', at) + 1;
  }
  return std::pair(name, std::move(tensor));
}

Result<std::vector<std::pair<std::string, Tensor>>> parse_inputs(const std::vector<std::string> &texts) {
  std::vector<std::pair<std::string, Tensor>> out;
  for (const std::string &text : texts) {
    auto input = parse_input(text);
    if (!input)
      return input.error();
    out.push_back(std::move(*input));
  }
  return out;
}

Tensor random_tensor(const std::string &name, DType dtype, std::vector<int64_t> dims, uint64_t seed) {
  Tensor out(dtype, std::move(dims));
  uint64_t state = seed * 0x9e3779b97f4a7c15u;
  for (char c : name)
    state = (state ^ uint8_t(c)) * 0x100000001b3u;
  for (int64_t i = 0; i < out.count(); ++i) {
    uint64_t z = state += 0x9e3779b97f4a7c15u; // splitmix64
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    if (holds_floats(dtype))
      out.set_f64(i, double(z >> 11) * 0x1p-52 - 1);
    else
      out.set_i64(i, int64_t(z >> 63));
  }
  return out;
}

std::string nested_text(std::span<const int64_t> dims, int64_t limit, const std::function<std::string(int64_t)> &element) {
  int64_t count = 1;
  for (int64_t d : dims)
    count *= d;
  if (count == 0)
    return "[]";
  std::string out;
  int64_t shown = std::min(limit, count);
  for (int64_t i = 0; i < shown; ++i) {
    int64_t inner = 1;
    std::string open;
    for (size_t d = dims.size(); d-- > 0;) {
      inner *= dims[d];
      if (i % inner == 0)
        open += '[';
    }
    if (i > 0)
      out += open.empty() ? ", " : std::string(open.size(), ']') + ",\n ";
    out += open + element(i);
  }
  if (shown < count)
    out += fmt::format(", ... {} more", count - shown);
  return out + std::string(dims.size(), ']');
}

std::string tensor_text(const Tensor &tensor, int64_t limit) {
  return tensor.type().text() + " " + nested_text(tensor.dims(), limit, [&](int64_t i) -> std::string {
           if (holds_floats(tensor.dtype()))
             return fmt::format("{:.6g}", tensor.at_f64(i));
           if (is_bool(tensor.dtype()))
             return tensor.at_i64(i) ? "true" : "false";
           if (tensor.dtype() == DType::u64)
             return fmt::format("{}", uint64_t(tensor.at_i64(i)));
           return fmt::format("{}", tensor.at_i64(i));
         });
}

} // namespace kiln
