// The syntax of regular expressions (RE2's), turned into steps: bytes that may come next, choices, assertions.
#pragma once

#include "ir/support/result.h"

#include <bitset>
#include <cstdint>
#include <string_view>
#include <vector>

namespace kiln::onnx {

enum class RegexAssertion : uint8_t { none, text_start, text_end, line_start, line_end, boundary, no_boundary };

struct RegexStep {
  enum class Kind : uint8_t { bytes, split, assertion, match, fail };
  Kind kind = Kind::match;
  RegexAssertion assertion = RegexAssertion::none;
  std::bitset<256> bytes;
  int next = -1, other = -1; // of a split, both ways
};

using RegexProgram = std::vector<RegexStep>; // begins at step 0

Result<RegexProgram> parse_regex(std::string_view pattern);

} // namespace kiln::onnx
