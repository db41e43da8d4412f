#include "ir/support/check.h"

#include <cstdio>
#include <cstdlib>

namespace kiln {

void check_failed(const char *file, int line, const char *condition, std::string_view message) {
  std::fprintf(stderr, "kiln: internal error at %s:%d: %s: %.*s\n", file, line, condition,
               int(message.size()), message.data());
  std::fflush(stderr);
  std::_Exit(4);
}

} // namespace kiln
