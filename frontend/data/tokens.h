// Text as numbers: what the tokens of a text are, and which number each has.
#pragma once

#include "ir/support/result.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kiln::data {

// `kind` is chars (the characters that the text has, UTF-8), bytes (all 256), or words (runs of letters and digits, other characters
// and line ends one by one, spaces left out). Tokens are in the order of their bytes. "\n" is one of them where `with_newline`.
Result<std::vector<std::string>> find_tokens(std::string_view text, const std::string &kind, bool with_newline);
// A JSON list of strings.
Result<std::vector<std::string>> read_tokens(const std::string &path);

// The text's numbers: those of the longest tokens from left to right, of "<unk>" where there is none and the list has it. Errors begin with
// the line. For `words`, spaces that are no tokens are skipped.
Result<std::vector<int64_t>> tokenise(std::string_view text, const std::vector<std::string> &tokens, bool skip_spaces);

} // namespace kiln::data
