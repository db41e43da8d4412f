// Text for errors and the facts about dtypes that errors need.
#include "runtime/errors.h"

#include <cerrno>

namespace kiln::rt {

Text &Text::operator<<(const char *text) {
  for (; *text != 0 && at_ != end_; ++text)
    *at_++ = *text;
  *at_ = 0;
  if (*text != 0 && end_ - begin_ > 3)
    for (char *dot = end_ - 3; dot != end_; ++dot)
      *dot = '.';
  return *this;
}

Text &Text::operator<<(uint64_t value) {
  char digits[21];
  char *at = digits + sizeof digits;
  *--at = 0;
  do {
    *--at = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  return *this << at;
}

Text &Text::operator<<(int64_t value) {
  if (value < 0)
    return *this << "-" << (~static_cast<uint64_t>(value) + 1);
  return *this << static_cast<uint64_t>(value);
}

Text &Text::operator<<(Dims shape) {
  *this << "[";
  for (uint32_t i = 0; i < shape.rank; ++i)
    *this << (i != 0 ? ", " : "") << shape.dims[i];
  return *this << "]";
}

const char *errno_text(int number) {
  switch (number) {
  case ENOENT:
    return "no such file or folder";
  case EACCES:
  case EPERM:
    return "permission denied";
  case EISDIR:
    return "it is a folder";
  case ENOTDIR:
    return "a part of the path is not a folder";
  case ENOSPC:
    return "no space left on the device";
  case EROFS:
    return "the file system is read-only";
  case ENAMETOOLONG:
    return "the name is too long";
  case ELOOP:
    return "its links lead in a circle";
  case EMFILE:
  case ENFILE:
    return "too many open files";
  case ENOMEM:
    return "out of memory";
  case EIO:
    return "input or output error";
  case EFBIG:
  case EDQUOT:
    return "the file would be larger than allowed";
  case EAGAIN:
    return "a resource limit is reached";
  case ESPIPE:
    return "a pipe cannot be written in this order";
  case EEXIST:
    return "a temporary file is in the way";
  default:
    return "the system refuses";
  }
}

void clear_error(KilnError *error) {
  if (error == nullptr)
    return;
  error->code = KILN_OK;
  error->message[0] = 0;
  error->node[0] = 0;
  error->location[0] = 0;
}

const char *dtype_name(uint32_t code) {
  switch (code) {
#define KILN_DTYPE(name, bits, kind, number)                                                       \
  case number:                                                                                     \
    return #name;
#include "runtime/dtypes.def"
#undef KILN_DTYPE
  }
  return "unknown dtype";
}

uint32_t dtype_size(uint32_t code) {
  switch (code) {
#define KILN_DTYPE(name, bits, kind, number)                                                       \
  case number:                                                                                     \
    return bits / 8;
#include "runtime/dtypes.def"
#undef KILN_DTYPE
  }
  return 0;
}

bool tensor_size(uint32_t dtype, const int64_t *dims, uint32_t rank, uint64_t *size) {
  bool is_empty = false;
  int64_t bytes = dtype_size(dtype);
  for (uint32_t i = 0; i < rank; ++i) {
    if (dims[i] < 0)
      return false;
    if (dims[i] == 0)
      is_empty = true;
    else if (__builtin_mul_overflow(bytes, dims[i], &bytes))
      return false;
  }
  *size = is_empty ? 0 : static_cast<uint64_t>(bytes);
  return true;
}

} // namespace kiln::rt
