#include "frontend/data/npy.h"

#include "frontend/files/file_writer.h"
#include "frontend/files/mapped_file.h"
#include "ir/narrow.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

namespace kiln {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kMaxHeader = 1 << 20;
constexpr size_t kMaxDims = 32;

struct Descr {
  std::string_view text; // without the byte order
  DType dtype;
};
constexpr Descr kDescrs[] = {{"f8", DType::f64}, {"f4", DType::f32}, {"f2", DType::f16},
                             {"V2", DType::bf16}, {"i8", DType::i64}, {"i4", DType::i32},
                             {"i2", DType::i16}, {"i1", DType::i8},  {"u8", DType::u64},
                             {"u4", DType::u32}, {"u2", DType::u16}, {"u1", DType::u8},
                             {"b1", DType::bool_}};

// The header is a Python dict of three known keys; this reads exactly that.
class HeaderParser {
public:
  explicit HeaderParser(std::string_view text) : text_(text) {}

  Status parse(NpyHeader &out) {
    bool descr = false, order = false, shape = false;
    if (!eat('{'))
      return wrong("'{'");
    while (!eat('}')) {
      auto key = quoted();
      if (!key || !eat(':'))
        return wrong("a key");
      bool *seen = *key == "descr" ? &descr : *key == "fortran_order" ? &order : *key == "shape" ? &shape : nullptr;
      if (!seen || std::exchange(*seen, true))
        return Error{fmt::format("the header has the key '{}' twice or not expected", *key)};
      KILN_RETURN_IF_ERROR(seen == &descr ? parse_descr(out) : seen == &order ? parse_order(out) : parse_shape(out));
      if (!eat(',') && !peek('}'))
        return wrong("',' or '}'");
    }
    skip_space();
    if (at_ != text_.size())
      return wrong("the end");
    if (!descr || !order || !shape)
      return Error{"the header lacks 'descr', 'fortran_order' or 'shape'"};
    if (out.is_text && out.fortran_order && out.dims.size() > 1)
      return Error{"strings in Fortran order are not supported"};
    if (out.is_text)
      out.dims.push_back(text_width_);
    return Unit{};
  }

private:
  Error wrong(std::string_view expected) const {
    return Error{fmt::format("the header is damaged at its byte {}: expected {}", at_, expected)};
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t'))
      ++at_;
  }
  bool peek(char c) {
    skip_space();
    return at_ < text_.size() && text_[at_] == c;
  }
  bool eat(char c) {
    bool found = peek(c);
    at_ += found;
    return found;
  }
  bool eat_word(std::string_view word) {
    skip_space();
    bool found = text_.substr(at_).starts_with(word);
    at_ += found ? word.size() : 0;
    return found;
  }
  std::optional<std::string_view> quoted() {
    skip_space();
    if (at_ >= text_.size() || (text_[at_] != '\'' && text_[at_] != '"'))
      return std::nullopt;
    size_t end = text_.find(text_[at_], at_ + 1);
    if (end == std::string_view::npos)
      return std::nullopt;
    std::string_view out = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return out;
  }
  Status parse_descr(NpyHeader &out) {
    auto text = quoted();
    if (!text)
      return Error{"records of several fields are not supported"};
    char order = text->empty() ? '?' : text->front();
    if (order == '<' || order == '>' || order == '|' || order == '=')
      text->remove_prefix(1);
    for (const Descr &d : kDescrs)
      if (d.text == *text) {
        out.dtype = d.dtype;
        out.big_endian = order == '>';
        return Unit{};
      }
    if (auto [end, error] = std::from_chars(text->data() + 1, text->data() + text->size(), text_width_);
        (text->starts_with('S') || text->starts_with('U')) && error == std::errc() && text_width_ >= 0 &&
        end == text->data() + text->size()) {
      out.is_text = true;
      out.unicode = text->front() == 'U';
      out.dtype = out.unicode ? DType::u32 : DType::u8;
      out.big_endian = order == '>';
      return Unit{};
    }
    return Error{fmt::format("elements of type '{}' are not supported", *text)};
  }
  Status parse_order(NpyHeader &out) {
    if (eat_word("True"))
      out.fortran_order = true;
    else if (!eat_word("False"))
      return wrong("True or False");
    return Unit{};
  }
  Status parse_shape(NpyHeader &out) {
    if (!eat('('))
      return wrong("'('");
    while (!eat(')')) {
      skip_space();
      int64_t value = 0;
      size_t start = at_;
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, text_[at_] - '0', &value))
          return Error{"a size of the shape overflows"};
      if (at_ == start)
        return wrong("a size");
      if (out.dims.size() >= kMaxDims)
        return Error{fmt::format("it has more than {} dims", kMaxDims)};
      out.dims.push_back(value);
      if (!eat(',') && !peek(')'))
        return wrong("',' or ')'");
    }
    return Unit{};
  }

  std::string_view text_;
  size_t at_ = 0;
  int64_t text_width_ = 0;
};

void swap_bytes(std::byte *data, size_t count, size_t size) {
  for (size_t i = 0; i < count; ++i)
    std::reverse(data + i * size, data + (i + 1) * size);
}

// Row-major from column-major.
Tensor transposed(const Tensor &from) {
  Tensor out(from.dtype(), from.dims());
  size_t size = size_t(dtype_bytes(from.dtype())), rank = from.dims().size();
  std::vector<int64_t> index(rank, 0), stride(rank, 1);
  for (size_t i = 1; i < rank; ++i)
    stride[i] = stride[i - 1] * from.dims()[i - 1];
  int64_t offset = 0;
  for (int64_t i = 0; i < from.count(); ++i) {
    std::memcpy(out.mutable_bytes() + size_t(i) * size, from.bytes().data() + size_t(offset) * size, size);
    for (size_t d = rank; d-- > 0;) {
      offset += stride[d];
      if (++index[d] < from.dims()[d])
        break;
      offset -= stride[d] * index[d];
      index[d] = 0;
    }
  }
  return out;
}

// Characters as UTF-8, four bytes of room for each; what is no character becomes U+FFFD.
Tensor utf8(const Tensor &characters) {
  std::vector<int64_t> dims = characters.dims();
  int64_t width = dims.back();
  dims.back() *= 4;
  Tensor out(DType::u8, std::move(dims));
  for (int64_t row = 0; width > 0 && row < characters.count() / width; ++row) {
    std::byte *at = out.mutable_bytes() + row * width * 4;
    auto put = [&](uint32_t byte) { *at++ = std::byte(byte); };
    int64_t used = width;
    while (used > 0 && characters.at_i64(row * width + used - 1) == 0)
      --used;
    for (int64_t i = 0; i < used; ++i) {
      auto c = uint32_t(characters.at_i64(row * width + i));
      if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        c = 0xfffd;
      if (c >= 0x80) {
        int more = c >= 0x10000 ? 3 : c >= 0x800 ? 2 : 1;
        put((0xf00u >> (more + 1) & 0xff) | c >> 6 * more);
        for (; more-- > 0;)
          put(0x80 | (c >> 6 * more & 0x3f));
      } else {
        put(c);
      }
    }
  }
  return out;
}

} // namespace

Result<NpyHeader> parse_npy_header(std::span<const std::byte> bytes) {
  std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  if (!text.starts_with(kMagic) || text.size() < 10)
    return Error{"it is no .npy file"};
  int major = int(text[6]);
  if (major < 1 || major > 3)
    return Error{fmt::format("its format version {} is not supported", major)};
  size_t prefix = major == 1 ? 10 : 12, length = 0;
  if (text.size() < prefix)
    return Error{"it ends inside the header"};
  for (size_t i = prefix; i-- > 8;)
    length = length << 8 | size_t(uint8_t(text[i]));
  if (length > kMaxHeader || length > text.size() - prefix)
    return Error{"it ends inside the header"};
  NpyHeader out;
  KILN_RETURN_IF_ERROR(HeaderParser(text.substr(prefix, length)).parse(out));
  auto size = checked_bytes(out.dtype, out.dims);
  if (!size)
    return Error{"its size overflows"};
  out.data_offset = prefix + length;
  out.data_bytes = *size;
  return out;
}

Result<Tensor> parse_npy(std::span<const std::byte> bytes) {
  KILN_TRY(header, parse_npy_header(bytes));
  std::span<const std::byte> data = bytes.subspan(header.data_offset);
  if (int64_t(data.size()) != header.data_bytes)
    return Error{fmt::format("it holds {} bytes of elements, but its shape needs {}", data.size(), header.data_bytes)};
  Tensor out(header.dtype, header.dims);
  if (data.empty())
    return out;
  std::memcpy(out.mutable_bytes(), data.data(), data.size());
  size_t size = size_t(dtype_bytes(out.dtype()));
  if (header.big_endian && size > 1)
    swap_bytes(out.mutable_bytes(), size_t(out.count()), size);
  if (is_bool(out.dtype()))
    for (int64_t i = 0; i < out.count(); ++i)
      out.mutable_bytes()[i] = std::byte(out.mutable_bytes()[i] != std::byte(0));
  if (header.unicode)
    return utf8(out);
  return header.fortran_order && !header.is_text && out.rank() > 1 ? transposed(out) : std::move(out);
}

Result<Tensor> read_npy(const std::string &path) {
  KILN_TRY(file, MappedFile::open(path));
  auto tensor = parse_npy(file->bytes());
  if (!tensor)
    return Error{fmt::format("{}: {}", path, tensor.error().message)};
  return tensor;
}

std::vector<std::byte> npy_bytes(const Tensor &tensor, bool text) {
  std::string descr;
  for (const Descr &d : kDescrs)
    if (d.dtype == storage_dtype(tensor.dtype()))
      descr = fmt::format("{}{}", dtype_bytes(d.dtype) == 1 ? '|' : '<', d.text);
  std::vector<int64_t> dims = tensor.dims();
  if (text) {
    descr = fmt::format("|S{}", dims.back());
    dims.pop_back();
  }
  std::string shape;
  for (int64_t d : dims)
    shape += fmt::format("{},{}", d, dims.size() == 1 ? "" : " ");
  if (dims.size() > 1)
    shape.resize(shape.size() - 2);
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr, shape);
  // The elements start at a multiple of 64.
  header.append(63 - (kMagic.size() + 4 + header.size()) % 64, ' ');
  header += '\n';
  std::string start(kMagic);
  start += '\1';
  start += '\0';
  start += char(header.size() & 0xff);
  start += char(header.size() >> 8);
  start += header;
  std::vector<std::byte> out(start.size() + tensor.bytes().size());
  std::memcpy(out.data(), start.data(), start.size());
  if (!tensor.bytes().empty())
    std::memcpy(out.data() + start.size(), tensor.bytes().data(), tensor.bytes().size());
  return out;
}

Status write_npy(const std::string &path, const Tensor &tensor, bool text) {
  return write_file(path, npy_bytes(tensor, text));
}

} // namespace kiln
