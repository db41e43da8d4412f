// Fills the caller's KilnError without stdio, which would double the size of a static program.
//
//   return fail(error, KILN_ERROR_SHAPE, "input '", name, "' has shape ", Dims{dims, rank});
//
// Text that does not fit is cut and ends in "...". Every function returns `code`.
#pragma once

#include <cstdint>

#include "runtime/include/kiln/kiln.h"

namespace kiln::rt {

struct Dims {
  const int64_t *dims;
  uint32_t rank;
};

// Appends to a fixed buffer that is always NUL-terminated.
class Text {
public:
  Text(char *buffer, uint32_t size) : begin_(buffer), at_(buffer), end_(buffer + size - 1) {
    *at_ = 0;
  }
  Text &operator<<(const char *text);
  Text &operator<<(uint64_t value);
  Text &operator<<(int64_t value);
  Text &operator<<(uint32_t value) { return *this << uint64_t{value}; }
  Text &operator<<(int32_t value) { return *this << int64_t{value}; }
  Text &operator<<(Dims shape);

private:
  char *begin_;
  char *at_;
  char *end_;
};

// The system's words for an errno value ("No such file or directory"), without locale or
// allocation.
const char *errno_text(int number);

void clear_error(KilnError *error);

template <typename... Parts>
int32_t fail(KilnError *error, int32_t code, const Parts &...parts) {
  if (error != nullptr) {
    clear_error(error);
    error->code = code;
    Text text(error->message, sizeof error->message);
    (text << ... << parts);
  }
  return code;
}

const char *dtype_name(uint32_t code);
// Bytes of an element; 0 where no dtype has that code.
uint32_t dtype_size(uint32_t code);

// The bytes of a dense tensor; false where they exceed INT64_MAX or a dim is negative.
bool tensor_size(uint32_t dtype, const int64_t *dims, uint32_t rank, uint64_t *size);

} // namespace kiln::rt
