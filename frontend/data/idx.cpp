#include "frontend/data/idx.h"

#include "frontend/files/mapped_file.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>

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

struct Header {
  DType dtype = DType::u8;
  std::vector<int64_t> dims;
  size_t begin = 0; // of the elements
  uint64_t size = 0; // of the elements, in bytes
};

// `bytes`: the file's first kMostHeader bytes, or all of it.
constexpr size_t kMostHeader = 4 + 4 * 255;
Result<Header> parse_header(std::span<const std::byte> bytes) {
  auto byte = [&](size_t i) { return std::to_integer<int>(bytes[i]); };
  if (bytes.size() < 4 || byte(0) != 0 || byte(1) != 0)
    return Error{"it is no IDX file: it does not begin with two zero bytes"};
  Header out;
  KILN_TRY(dtype, element_type(byte(2)));
  out.dtype = dtype;
  auto rank = size_t(byte(3));
  out.begin = 4 + 4 * rank;
  if (bytes.size() < out.begin)
    return Error{fmt::format("it ends within its {} dims", rank)};
  for (size_t d = 0; d < rank; ++d) {
    int64_t size = 0;
    for (size_t i = 0; i < 4; ++i)
      size = size << 8 | byte(4 + 4 * d + i);
    out.dims.push_back(size);
  }
  auto size = checked_bytes(out.dtype, out.dims);
  if (!size || uint64_t(*size) > kMostBytes)
    return Error{fmt::format("{} elements of {} are more than {} bytes", fmt::join(out.dims, "x"), dtype_name(out.dtype), kMostBytes)};
  out.size = uint64_t(*size);
  return out;
}

Result<std::vector<std::byte>> unpacked(const std::string &path) {
  struct Closer {
    void operator()(gzFile_s *file) const { gzclose(file); }
  };
  std::error_code failed;
  if (std::filesystem::exists(path, failed) && !std::filesystem::is_regular_file(path, failed))
    return Error{fmt::format("'{}' is no regular file", path)};
  std::unique_ptr<gzFile_s, Closer> file(gzopen(path.c_str(), "rb"));
  if (!file)
    return Error{fmt::format("cannot open '{}': {}", path, std::strerror(errno))};
  std::vector<std::byte> out;
  constexpr size_t kStep = 1 << 20;
  std::optional<Header> header; // says how much there should be; one byte more is enough to see that there is more
  while (true) {
    size_t size = out.size(), step = header ? std::min<size_t>(kStep, header->begin + size_t(header->size) + 1 - size) : kMostHeader;
    if (step == 0)
      return out;
    out.resize(size + step);
    int n = gzread(file.get(), out.data() + size, unsigned(step));
    int code = Z_OK;
    const char *why = gzerror(file.get(), &code);
    if (n < 0 || (code != Z_OK && code != Z_STREAM_END))
      return Error{fmt::format("'{}' is damaged: {}", path, why)};
    out.resize(size + size_t(n));
    if (n == 0)
      return out;
    if (!header) {
      auto parsed = parse_header(out);
      if (!parsed)
        return Error{fmt::format("'{}': {}", path, parsed.error().message)};
      header = std::move(*parsed);
      if (out.size() > header->begin + size_t(header->size))
        return out;
    }
  }
}

} // namespace

Result<Tensor> parse_idx(std::span<const std::byte> bytes) {
  KILN_TRY(header, parse_header(bytes));
  if (header.size != bytes.size() - header.begin)
    return Error{fmt::format("{} elements of {} are {} bytes, but {} follow its header: it is {}", fmt::join(header.dims, "x"), dtype_name(header.dtype),
                             header.size, bytes.size() - header.begin, header.size > bytes.size() - header.begin ? "cut off" : "too long")};
  Tensor out(header.dtype, header.dims);
  std::copy_n(bytes.data() + header.begin, size_t(header.size), out.mutable_bytes());
  auto width = size_t(dtype_bytes(header.dtype));
  for (size_t i = 0; width > 1 && i < size_t(header.size); i += width)
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
