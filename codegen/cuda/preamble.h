// What every translation unit begins with.
#pragma once

#include <string_view>

namespace kiln::cuda {

extern const std::string_view kPreamble;

} // namespace kiln::cuda
