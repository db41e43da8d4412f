#include "tools/text_tensor.h"

#include "frontend/onnx/text.h"
#include "tools/cli.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace kiln {
namespace {

std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\')
      out += '\\';
    out += uint8_t(c) < 32 || c == 127 ? fmt::format("\\x{:02x}", uint8_t(c)) : std::string(1, c);
  }
  return out + '"';
}

} // namespace

Result<Tensor> text_tensor(const std::vector<std::string> &strings, std::vector<int64_t> shape) {
  return onnx::make_text(std::vector<std::string_view>(strings.begin(), strings.end()), std::move(shape));
}

std::vector<std::string> strings_of_text(const Tensor &text) { return onnx::strings_of(text); }

std::optional<Tensor> with_text_width(const Tensor &text, int64_t width) {
  std::vector<int64_t> shape = text.dims();
  int64_t old = shape.back(), rows = 1;
  shape.back() = width;
  for (size_t i = 0; i + 1 < shape.size(); ++i)
    rows *= shape[i];
  if (!checked_bytes(DType::u8, shape))
    return std::nullopt;
  Tensor out(DType::u8, shape);
  const std::byte *from = text.bytes().data();
  for (int64_t i = 0; i < rows; ++i, from += old) {
    int64_t used = old;
    while (used > 0 && from[used - 1] == std::byte(0))
      --used;
    if (used > width)
      return std::nullopt;
    if (used > 0)
      std::memcpy(out.mutable_bytes() + i * width, from, size_t(used));
  }
  return out;
}

std::string text_tensor_text(const Tensor &text, int64_t limit) {
  std::vector<int64_t> shape(text.dims().begin(), text.dims().end() - 1);
  std::vector<std::string> strings = strings_of_text(text);
  return "text" + shape_text(Shape(shape.begin(), shape.end())) + " " +
         nested_text(shape, limit, [&](int64_t i) { return in_quotes(strings[size_t(i)]); });
}

} // namespace kiln
