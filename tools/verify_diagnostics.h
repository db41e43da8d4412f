// Errors against what comments in the source expect: `// expected-error@+0 {{part of the message}}`, where
// +0 counts lines from the comment's own. Notes are searched too. For text tests.
#pragma once

#include "ir/support/diagnostic.h"

#include <string>
#include <string_view>

namespace kiln {

// What is missing and what was not expected, one a line; empty where all is as expected.
std::string check_expected(std::string_view source, const Diagnostics &diagnostics);

} // namespace kiln
