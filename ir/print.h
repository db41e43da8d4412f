// Pieces of the printed form that other parts of the compiler need too: names as the language's lexer
// reads them back, numbers that round-trip bit for bit.
#pragma once

#include "ir/tensor.h"

#include <string>
#include <string_view>
#include <vector>

namespace kiln {

struct Module;

// Words that cannot be names; a name among them is printed in backticks.
bool is_kir_keyword(std::string_view word);

// `h0`, `net.layers.0.weight`, or in backticks where it is not a plain dotted path: `` `/conv1/out` ``.
std::string quote_name(std::string_view name);

// "text" with \n \t \" \\ and \xHH escapes.
std::string quote_string(std::string_view text);

// Shortest decimal that reads back as the same double, always with a point, an exponent, inf or nan.
std::string float_text(double value);

// Element `i` as a literal that reads back as the same bits: decimal, inf, nan, or 0x... for a NaN with a
// payload.
std::string element_text(const Tensor &tensor, int64_t i);

// The name that each constant prints as, no two alike: what a weights file beside a dump must use.
std::vector<std::string> name_constants(const Module &module);

} // namespace kiln
