// Regular expressions in RE2's syntax, as tables for a loop over bytes: a deterministic automaton, made while a
// model is imported, of a bounded number of states. Text is UTF-8, a character of a class may take several bytes.
//
// Assertions (^ $ \A \z \b \B) look at the byte before and the byte after a place. A state therefore is a set of
// places in the expression and the kind of the byte before them, and which places an assertion lets through is
// decided when the next byte, or the end, is seen.
//
// Beyond a full match nothing is asked, so that captures are groups and lazy repeats are repeats. What RE2 has and this
// lacks (Unicode classes \p{...}, flags other than i, m, s, U) is an error that names it.
#pragma once

#include "ir/support/result.h"

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace kiln::onnx {

struct RegexDfa {
  std::array<uint8_t, 256> kind{}; // bytes of one kind lead from every state to the same one
  int kinds = 0;
  std::vector<int32_t> next; // [states, kinds]; state 0 is the start
  std::vector<bool> accepts; // whether text that ends here matches
  int states() const { return int(accepts.size()); }
};

Result<RegexDfa> compile_regex(std::string_view pattern);

} // namespace kiln::onnx
