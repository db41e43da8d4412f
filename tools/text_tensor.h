// Tensors of strings outside of the compiler: u8, the bytes of each string in the last dim with zeros behind them
// (ir/argument_notes.h says which arguments are such).
#pragma once

#include "ir/support/result.h"
#include "ir/tensor.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kiln {

// As wide as the longest string.
Result<Tensor> text_tensor(const std::vector<std::string> &strings, std::vector<int64_t> shape);
std::vector<std::string> strings_of_text(const Tensor &text);
// More zeros behind each string; nothing where a string has more than `width` bytes.
std::optional<Tensor> with_text_width(const Tensor &text, int64_t width);
// `text[2, 2] [["a", "b"], ...`; at most `limit` strings.
std::string text_tensor_text(const Tensor &text, int64_t limit = 1000);

} // namespace kiln
