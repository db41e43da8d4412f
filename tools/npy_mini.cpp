// The format: "\x93NUMPY", two bytes of version, the header's length (2 or 4 bytes), a Python dict
// in text, padded with spaces and closed by a newline, and the elements.
#include "tools/npy_mini.h"

#include "runtime/file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

namespace kiln::tools {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr size_t kMaxHeader = 1 << 16;
constexpr size_t kMaxRank = 16;

enum class Form { Float, BFloat, Int, UInt, Bool, Code, IntCode };
struct Kind {
  const char *name;
  uint32_t bits;
  uint32_t code;
  Form form;
};

// As NumPy writes it on a little-endian machine. bf16 is unknown to NumPy itself: ml_dtypes stores
// it as two opaque bytes. Narrow dtypes are arrays of their codes.
std::string descr_of(const Kind &kind) {
  if (kind.form == Form::Code || kind.form == Form::IntCode)
    return kind.form == Form::Code ? "|u1" : "|i1";
  std::string name = kind.name;
  if (name == "bf16")
    return "<V2";
  if (name == "bool")
    return "|b1";
  std::string bytes = std::to_string(std::stoi(name.substr(1)) / 8);
  return (bytes == "1" ? "|" : "<") + name.substr(0, 1) + bytes;
}

constexpr Kind kKinds[] = {
#define KILN_DTYPE(name, bits, kind, code) {#name, bits, code, Form::kind},
#include "runtime/dtypes.def"
#undef KILN_DTYPE
};

// Reads the header's dict: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class HeaderParser {
public:
  explicit HeaderParser(const std::string &text) : text_(text) {}

  bool parse() {
    if (!take('{'))
      return false;
    while (!take('}')) {
      std::string key;
      if (!take_string(key) || !take(':') || !take_value(key))
        return false;
      if (!take(',') && !is_next('}'))
        return false;
    }
    skip_spaces();
    return at_ == text_.size() && has_descr_ && has_order_ && has_shape_;
  }

  std::string descr;
  bool is_column_major = false;
  std::vector<int64_t> shape;

private:
  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n'))
      ++at_;
  }
  bool is_next(char wanted) {
    skip_spaces();
    return at_ < text_.size() && text_[at_] == wanted;
  }
  bool take(char wanted) {
    bool is_there = is_next(wanted);
    at_ += is_there ? 1 : 0;
    return is_there;
  }
  bool take_word(const char *word) {
    skip_spaces();
    size_t size = std::strlen(word);
    bool is_there = text_.compare(at_, size, word) == 0;
    at_ += is_there ? size : 0;
    return is_there;
  }
  bool take_string(std::string &value) {
    if (!is_next('\'') && !is_next('"'))
      return false;
    char quote = text_[at_++];
    size_t end = text_.find(quote, at_);
    if (end == std::string::npos)
      return false;
    value = text_.substr(at_, end - at_);
    at_ = end + 1;
    return true;
  }
  // Each key once, and no others.
  bool take_value(const std::string &key) {
    if (key == "descr" && !has_descr_)
      return has_descr_ = take_string(descr);
    if (key == "fortran_order" && !has_order_) {
      is_column_major = take_word("True");
      return has_order_ = is_column_major || take_word("False");
    }
    return key == "shape" && !has_shape_ && (has_shape_ = take_shape());
  }
  bool take_shape() {
    if (!take('('))
      return false;
    while (!take(')')) {
      int64_t dim = 0;
      if (shape.size() == kMaxRank || !take_number(dim) || (!take(',') && !is_next(')')))
        return false;
      shape.push_back(dim);
    }
    return true;
  }
  bool take_number(int64_t &value) {
    skip_spaces();
    size_t start = at_;
    value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      if (__builtin_mul_overflow(value, int64_t{10}, &value) ||
          __builtin_add_overflow(value, int64_t{text_[at_] - '0'}, &value))
        return false;
    return at_ != start;
  }

  const std::string &text_;
  size_t at_ = 0;
  bool has_descr_ = false, has_order_ = false, has_shape_ = false;
};

uint32_t dtype_of_descr(const std::string &descr) {
  for (const Kind &kind : kKinds) {
    std::string wanted = descr_of(kind); // plain ones come first
    // One byte has no order, and two opaque ones have been written with either mark.
    bool is_same = descr == wanted || (kind.bits == 8 && descr.substr(1) == wanted.substr(1)) ||
                   (wanted == "<V2" && descr == "|V2");
    if (is_same)
      return kind.code;
  }
  return 0;
}

void make_row_major(Tensor &tensor) {
  size_t rank = tensor.dims.size(), bytes = element_size(tensor.dtype);
  std::vector<uint8_t> sorted(tensor.data.size());
  std::vector<int64_t> at(rank), stride(rank, 1);
  for (size_t i = 1; i < rank; ++i)
    stride[i] = stride[i - 1] * tensor.dims[i - 1];
  for (size_t out = 0; out < sorted.size(); out += bytes) {
    int64_t from = 0;
    for (size_t i = 0; i < rank; ++i)
      from += at[i] * stride[i];
    std::memcpy(&sorted[out], &tensor.data[static_cast<size_t>(from) * bytes], bytes);
    for (size_t i = rank; i-- > 0 && ++at[i] == tensor.dims[i];)
      at[i] = 0;
  }
  tensor.data = std::move(sorted);
}

struct CloseFile {
  void operator()(FILE *file) const { std::fclose(file); }
};
using File = std::unique_ptr<FILE, CloseFile>;

std::string read_all(FILE *file, std::vector<uint8_t> &bytes) {
  uint8_t buffer[1 << 16];
  while (size_t size = std::fread(buffer, 1, sizeof buffer, file))
    bytes.insert(bytes.end(), buffer, buffer + size);
  return std::ferror(file) ? std::strerror(errno) : "";
}

std::string header_of(const Tensor &tensor) {
  std::string shape;
  for (int64_t dim : tensor.dims)
    shape += std::to_string(dim) + (tensor.dims.size() == 1 ? "," : ", ");
  if (tensor.dims.size() > 1)
    shape.resize(shape.size() - 2);
  std::string descr;
  for (const Kind &kind : kKinds)
    if (kind.code == tensor.dtype)
      descr = descr_of(kind);
  std::string text = "{'descr': '" + descr +
                     "', 'fortran_order': False, 'shape': (" + shape + "), }";
  constexpr size_t kPreamble = 10, kUnit = 64;
  text.resize((kPreamble + text.size() + 1 + kUnit - 1) / kUnit * kUnit - kPreamble - 1, ' ');
  text += '\n';
  std::string header(kMagic, 6);
  header += '\x01';
  header += '\x00';
  header += static_cast<char>(text.size() & 0xff);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

} // namespace

void take_as_codes(uint32_t wanted, Tensor &tensor) {
  int bits = narrow_bits(wanted);
  bool is_signed = wanted == KILN_I4 || wanted == KILN_I2, is_integer = is_signed || wanted == KILN_U4 || wanted == KILN_U2;
  bool has_bytes = tensor.dtype == KILN_U8 || (tensor.dtype == KILN_I8 && is_integer);
  if (bits == 0 || !has_bytes)
    return;
  for (uint8_t byte : tensor.data) {
    int value = tensor.dtype == KILN_I8 ? int{static_cast<int8_t>(byte)} : int{byte};
    int low = is_signed ? -(1 << (bits - 1)) : 0;
    if (value < low || value >= low + (1 << bits))
      return;
  }
  tensor.dtype = wanted;
}

int narrow_bits(uint32_t dtype) {
  switch (dtype) {
  case KILN_F8E4M3FN:
  case KILN_F8E4M3FNUZ:
  case KILN_F8E5M2:
  case KILN_F8E5M2FNUZ:
  case KILN_F8E8M0:
    return 8;
  case KILN_F4E2M1:
  case KILN_I4:
  case KILN_U4:
    return 4;
  case KILN_I2:
  case KILN_U2:
    return 2;
  default:
    return 0;
  }
}

uint32_t element_size(uint32_t dtype) {
  for (const Kind &kind : kKinds)
    if (kind.code == dtype)
      return kind.bits / 8;
  return 0;
}

const char *element_name(uint32_t dtype) {
  for (const Kind &kind : kKinds)
    if (kind.code == dtype)
      return kind.name;
  return "unknown";
}

uint32_t find_dtype(const std::string &name) {
  for (const Kind &kind : kKinds)
    if (name == kind.name)
      return kind.code;
  return 0;
}

bool dense_size(uint32_t dtype, const std::vector<int64_t> &dims, uint64_t &size) {
  int64_t bytes = element_size(dtype);
  bool is_empty = false;
  for (int64_t dim : dims) {
    if (dim < 0)
      return false;
    is_empty = is_empty || dim == 0;
    if (dim != 0 && __builtin_mul_overflow(bytes, dim, &bytes))
      return false;
  }
  size = is_empty ? 0 : static_cast<uint64_t>(bytes);
  return true;
}

std::string parse_npy(const std::vector<uint8_t> &bytes, Tensor &tensor) {
  if (bytes.size() < 10 || std::memcmp(bytes.data(), kMagic, 6) != 0)
    return "not a .npy file";
  uint32_t version = bytes[6];
  size_t preamble = version == 1 ? 10 : 12;
  if (version < 1 || version > 3 || bytes.size() < preamble)
    return "a .npy file of version " + std::to_string(version) + ", or a truncated one";
  size_t size = bytes[8] | size_t{bytes[9]} << 8;
  if (version > 1)
    size |= size_t{bytes[10]} << 16 | size_t{bytes[11]} << 24;
  if (size > kMaxHeader || size > bytes.size() - preamble)
    return "its header of " + std::to_string(size) + " bytes is truncated or longer than " +
           std::to_string(kMaxHeader);
  std::string text(bytes.begin() + static_cast<std::ptrdiff_t>(preamble),
                   bytes.begin() + static_cast<std::ptrdiff_t>(preamble + size));
  HeaderParser header(text);
  if (!header.parse())
    return "its header is malformed";
  tensor.dtype = dtype_of_descr(header.descr);
  if (tensor.dtype == 0)
    return "its dtype '" + header.descr + "' is none of Kiln's (little-endian f, i, u, b)";
  tensor.dims = header.shape;
  uint64_t wanted = 0;
  uint64_t got = bytes.size() - preamble - size;
  if (!dense_size(tensor.dtype, tensor.dims, wanted))
    return "its shape is too large";
  if (wanted != got)
    return "it holds " + std::to_string(got) + " bytes of elements, and its header says " +
           std::to_string(wanted);
  tensor.data.assign(bytes.begin() + static_cast<std::ptrdiff_t>(preamble + size), bytes.end());
  if (header.is_column_major && tensor.dims.size() > 1)
    make_row_major(tensor);
  return {};
}

std::string read_npy(const std::string &path, Tensor &tensor) {
  std::vector<uint8_t> bytes;
  std::string error;
  if (path == "-") {
    error = read_all(stdin, bytes);
  } else {
    File file(std::fopen(path.c_str(), "rbe"));
    if (!file)
      return "cannot open '" + path + "': " + std::strerror(errno);
    error = read_all(file.get(), bytes);
  }
  if (error.empty())
    error = parse_npy(bytes, tensor);
  return error.empty() ? "" : "cannot read '" + path + "': " + error;
}

std::string write_npy(const std::string &path, const Tensor &tensor) {
  std::string header = header_of(tensor);
  if (path == "-") {
    bool is_fine = std::fwrite(header.data(), 1, header.size(), stdout) == header.size() &&
                   std::fwrite(tensor.data.data(), 1, tensor.data.size(), stdout) == tensor.data.size() &&
                   std::fflush(stdout) == 0;
    return is_fine ? "" : "cannot write '-': " + std::string(std::strerror(errno));
  }
  rt::WholeFile file;
  KilnError error{};
  (void)(file.create(path.c_str(), &error) || file.put(0, header.data(), header.size(), &error) ||
         file.put(header.size(), tensor.data.data(), tensor.data.size(), &error) || file.commit(&error));
  return error.message;
}

} // namespace kiln::tools
