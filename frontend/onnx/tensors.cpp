#include "frontend/onnx/tensors.h"

#include "frontend/onnx/value.h"
#include "ir/narrow.h"

#include <fmt/format.h>

#include <cstring>

namespace kiln::onnx {
namespace {

constexpr int64_t kAlwaysCopied = 4096; // bytes: the ops read small constants all the time
constexpr size_t kMaxExternalFiles = 4096;

struct TypeName {
  int code;
  const char *name;
  std::optional<DType> dtype;
};
const TypeName kTypes[] = {
    {1, "float", DType::f32},      {2, "uint8", DType::u8},     {3, "int8", DType::i8},
    {4, "uint16", DType::u16},     {5, "int16", DType::i16},    {6, "int32", DType::i32},
    {7, "int64", DType::i64},      {8, "string", {}},           {9, "bool", DType::bool_},
    {10, "float16", DType::f16},   {11, "double", DType::f64},  {12, "uint32", DType::u32},
    {13, "uint64", DType::u64},    {14, "complex64", {}},       {15, "complex128", {}},
    {16, "bfloat16", DType::bf16}, {17, "float8e4m3fn", DType::f8e4m3fn},
    {18, "float8e4m3fnuz", DType::f8e4m3fnuz},
    {19, "float8e5m2", DType::f8e5m2},
    {20, "float8e5m2fnuz", DType::f8e5m2fnuz},
    {21, "uint4", DType::u4},      {22, "int4", DType::i4},     {23, "float4e2m1", DType::f4e2m1},
    {24, "float8e8m0", DType::f8e8m0},
    {25, "uint2", DType::u2},      {26, "int2", DType::i2}};

// Any byte but 0 is true, but the language's bools are 0 or 1.
Tensor normalized_bools(std::vector<int64_t> dims, std::span<const std::byte> bytes) {
  Tensor out(DType::bool_, std::move(dims));
  for (size_t i = 0; i < bytes.size(); ++i)
    out.mutable_bytes()[i] = std::byte(bytes[i] != std::byte(0));
  return out;
}

Tensor from_bytes(DType dtype, std::vector<int64_t> dims, std::span<const std::byte> bytes) {
  if (is_bool(dtype))
    return normalized_bools(std::move(dims), bytes);
  if (dtype_bits(dtype) < 8)
    return unpack_narrow(dtype, std::move(dims), bytes);
  if (int64_t(bytes.size()) > kAlwaysCopied)
    return Tensor(dtype, std::move(dims), bytes);
  Tensor out(dtype, std::move(dims));
  if (!bytes.empty())
    std::memcpy(out.mutable_bytes(), bytes.data(), bytes.size());
  return out;
}

std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

Result<Tensor> from_external(const TensorData &data, DType dtype, const std::vector<int64_t> &dims,
                             int64_t size, ExternalFiles &files) {
  KILN_TRY(file, files.bytes(data.location));
  int64_t length = data.length.value_or(size);
  if (length != size)
    return Error{fmt::format("its external data is {} bytes, but its shape needs {}", length, size)};
  if (data.offset > int64_t(file.size()) || length > int64_t(file.size()) - data.offset)
    return Error{fmt::format("its external data ends at byte {} + {} of '{}', which has {}", data.offset,
                             length, data.location, file.size())};
  return from_bytes(dtype, dims, file.subspan(size_t(data.offset), size_t(length)));
}

} // namespace

std::optional<DType> dtype_from_onnx(int64_t type) {
  for (const TypeName &t : kTypes)
    if (t.code == type)
      return t.dtype;
  return std::nullopt;
}

std::string onnx_type_name(int64_t type) {
  for (const TypeName &t : kTypes)
    if (t.code == type)
      return t.name;
  return fmt::format("type {}", type);
}

Result<std::span<const std::byte>> ExternalFiles::bytes(std::string_view location) {
  if (!folder_)
    return Error{"its data is in another file, which a model in memory cannot name"};
  auto it = files_.find(location);
  if (it == files_.end()) {
    if (files_.size() >= kMaxExternalFiles)
      return Error{"the model refers to too many files"};
    KILN_TRY(file, MappedFile::open_beneath(*folder_, location));
    it = files_.emplace(std::string(location), file).first;
  }
  return it->second->bytes();
}

Result<Tensor> make_tensor(const TensorView &view, ExternalFiles &files) {
  auto dtype = dtype_from_onnx(view.data_type);
  if (!dtype)
    return Error{fmt::format("its element type {} is not supported", onnx_type_name(view.data_type))};
  if (view.dims.size() > size_t(kMaxRank))
    return Error{fmt::format("it has {} dims; at most {} are supported", view.dims.size(), kMaxRank)};
  auto size = checked_bytes(*dtype, view.dims);
  if (!size)
    return Error{"its dims are negative or too large"};
  int64_t count = *size / dtype_bytes(*dtype);
  *size = packed_bytes(*dtype, count); // in the file
  KILN_TRY(data, read_tensor_data(view, count));
  if (data.external)
    return from_external(data, *dtype, view.dims, *size, files);
  auto wrong = [&](int64_t found, std::string_view what) {
    return Error{fmt::format("it holds {} {}, but its shape {} needs {}", found, what,
                             shape_text(Shape(view.dims.begin(), view.dims.end())),
                             what == "elements" ? count : *size)};
  };
  if (data.has_raw) {
    if (int64_t(data.raw.size()) != *size)
      return wrong(int64_t(data.raw.size()), "bytes");
    return from_bytes(*dtype, view.dims, as_bytes(data.raw));
  }
  if (*dtype == DType::f32 || *dtype == DType::f64) {
    std::string_view packed = *dtype == DType::f32 ? data.packed_f32 : data.packed_f64;
    if (!packed.empty() || count == 0) {
      if (int64_t(packed.size()) != *size)
        return wrong(int64_t(packed.size()), "bytes");
      return from_bytes(*dtype, view.dims, as_bytes(packed));
    }
    if (int64_t(data.floats.size()) != count)
      return wrong(int64_t(data.floats.size()), "elements");
    Tensor out(*dtype, view.dims);
    for (int64_t i = 0; i < count; ++i)
      out.set_f64(i, data.floats[size_t(i)]);
    return out;
  }
  bool packed = dtype_bits(*dtype) < 8; // the bytes of raw data, one in a number
  if (int64_t(data.ints.size()) != (packed ? *size : count))
    return wrong(int64_t(data.ints.size()), packed ? "packed numbers" : "elements");
  if (is_narrow(*dtype)) {
    std::vector<std::byte> bytes;
    for (int64_t number : data.ints)
      bytes.push_back(std::byte(uint8_t(number)));
    return unpack_narrow(*dtype, view.dims, bytes);
  }
  Tensor out(*dtype, view.dims);
  for (int64_t i = 0; i < count; ++i) {
    if (is_float(*dtype)) { // f16 and bf16 are stored as their bits
      uint16_t bits = uint16_t(data.ints[size_t(i)]);
      std::memcpy(out.mutable_bytes() + 2 * i, &bits, 2);
    } else {
      out.set_i64(i, data.ints[size_t(i)]);
    }
  }
  return out;
}

} // namespace kiln::onnx
