// KILN_CHECK: our own bugs. Always compiled in. It prints what broke and where, and ends the process
// with status 4, so that a bug of the compiler is never mistaken for a mistake in the input.
#pragma once

#include <string>
#include <string_view>

namespace kiln {

[[noreturn]] void check_failed(const char *file, int line, const char *condition,
                               std::string_view message);

} // namespace kiln

#define KILN_CHECK(condition, message)                                                             \
  do {                                                                                             \
    if (!(condition)) [[unlikely]]                                                                 \
      ::kiln::check_failed(__FILE__, __LINE__, #condition, (message));                             \
  } while (false)
