#include "frontend/data/idx.h"

#include "frontend/files/mapped_file.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace kiln {
namespace {

constexpr size_t kMostBytes = size_t(8) << 30;

Result<DType> element_type(int code) {
  switch (code) {
  case 0x08:
    return DType::u8;
  case 0x09:
    return DType::i8;
  case 0x0B:
    return DType::i16;
  case 0x0C:
    return DType::i32;
  case 0x0D:
    return DType::f32;
  case 0x0E:
    return DType::f64;
  default:
    return Error{fmt::format("0x{:02x} is no element type of IDX files", code)};
  }
}

Result<std::vector<std::byte>> unpacked(const std::string &path) {
  struct Closer {
    void operator()(gzFile_s *file) const { gzclose(file); }
  };
  std::unique_ptr<gzFile_s, Closer> file(gzopen(path.c_str(), "rb"));
  if (!file)
    return Error{fmt::format("cannot open '{}': {}", path, std::strerror(errno))};
  std::vector<std::byte> out;
  constexpr unsigned kStep = 1 << 20;
  while (true) {
    size_t size = out.size();
    if (size > kMostBytes)
      return Error{fmt::format("'{}' unpacks to more than {} bytes", path, kMostBytes)};
    out.resize(size + kStep);
    int n = gzread(file.get(), out.data() + size, kStep);
    int code = Z_OK;
    const char *why = gzerror(file.get(), &code);
    if (n < 0 || (code != Z_OK && code != Z_STREAM_END))
      return Error{fmt::format("'{}' is damaged: {}", path, why)};
    out.resize(size + size_t(n));
    if (n == 0)
      return out;
  }
}

} // namespace

Result<Tensor> parse_idx(std::span<const std::byte> bytes) {
  auto byte = [&](size_t i) { return std::to_integer<int>(bytes[i]); };
  if (bytes.size() < 4 || byte(0) != 0 || byte(1) != 0)
    return Error{"it is no IDX file: it does not begin with two zero bytes"};
  KILN_TRY(dtype, element_type(byte(2)));
  size_t rank = size_t(byte(3)), at = 4 + 4 * rank;
  if (bytes.size() < at)
    return Error{fmt::format("it ends within its {} dims", rank)};
  std::vector<int64_t> dims;
  for (size_t d = 0; d < rank; ++d) {
    int64_t size = 0;
    for (size_t i = 0; i < 4; ++i)
      size = size << 8 | byte(4 + 4 * d + i);
    dims.push_back(size);
  }
  auto size = checked_bytes(dtype, dims);
  if (!size || uint64_t(*size) != bytes.size() - at)
    return Error{fmt::format("{} elements of {} do not fill its {} bytes", fmt::join(dims, "x"), dtype_name(dtype), bytes.size() - at)};
  Tensor out(dtype, dims);
  std::memcpy(out.mutable_bytes(), bytes.data() + at, size_t(*size));
  size_t width = size_t(dtype_bytes(dtype));
  for (size_t i = 0; width > 1 && i < size_t(*size); i += width)
    std::reverse(out.mutable_bytes() + i, out.mutable_bytes() + i + width);
  return out;
}

Result<Tensor> read_idx(const std::string &path) {
  KILN_TRY(bytes, unpacked(path)); // files that are not packed are read as they are
  auto out = parse_idx(bytes);
  if (!out)
    return Error{fmt::format("'{}': {}", path, out.error().message)};
  return out;
}

} // namespace kiln
