// The libraries written in the language (frontend/kir/lib/*.kir), embedded when the compiler is built.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kiln::kir {

std::optional<std::string_view> embedded_library(std::string_view name);
std::vector<std::string> embedded_library_names();

} // namespace kiln::kir
