#include "frontend/data/safetensors.h"

#include "frontend/files/file_writer.h"
#include "frontend/files/mapped_file.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

namespace kiln {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeader = 100'000'000; // the format's own limit
constexpr size_t kMaxDims = 32;

struct Name {
  std::string_view text;
  DType dtype;
};
constexpr Name kNames[] = {{"F64", DType::f64}, {"F32", DType::f32}, {"F16", DType::f16},
                           {"BF16", DType::bf16}, {"I64", DType::i64}, {"I32", DType::i32},
                           {"I16", DType::i16}, {"I8", DType::i8},   {"U64", DType::u64},
                           {"U32", DType::u32}, {"U16", DType::u16}, {"U8", DType::u8},
                           {"BOOL", DType::bool_}, {"F8_E4M3", DType::f8e4m3fn}, {"F8_E5M2", DType::f8e5m2},
                           {"F8_E8M0", DType::f8e8m0}};

// Stops at the first key that an object has twice, and at nesting that the format does not have.
class StrictKeys {
public:
  bool operator()(int depth, json::parse_event_t event, json &value) {
    if (depth > 4)
      failed_ = true;
    if (event == json::parse_event_t::object_start)
      seen_.emplace_back();
    else if (event == json::parse_event_t::object_end && !seen_.empty())
      seen_.pop_back();
    else if (event == json::parse_event_t::key && !seen_.empty())
      failed_ |= !seen_.back().insert(value.get<std::string>()).second;
    return !failed_;
  }
  bool failed() const { return failed_; }

private:
  std::vector<std::set<std::string>> seen_;
  bool failed_ = false;
};

struct Located {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> dims;
  uint64_t begin = 0, end = 0;
};

Result<Located> parse_entry(const std::string &name, const json &entry) {
  auto refuse = [&](std::string_view why) { return Error{fmt::format("the tensor '{}': {}", name, why)}; };
  if (!entry.is_object() || entry.size() != 3 || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets"))
    return refuse("its entry must have 'dtype', 'shape' and 'data_offsets'");
  const json &dtype = entry["dtype"], &shape = entry["shape"], &offsets = entry["data_offsets"];
  Located out;
  out.name = name;
  bool known = false;
  for (const Name &n : kNames)
    if (dtype.is_string() && dtype.get<std::string>() == n.text)
      out.dtype = n.dtype, known = true;
  if (!known)
    return refuse(fmt::format("the dtype {} is not supported", dtype.dump(-1, ' ', true, json::error_handler_t::replace)));
  if (!shape.is_array() || shape.size() > kMaxDims)
    return refuse("its shape is no list, or too long");
  for (const json &d : shape) {
    if (!d.is_number_unsigned() || d.get<uint64_t>() > uint64_t(INT64_MAX))
      return refuse("its shape holds something that is no size");
    out.dims.push_back(int64_t(d.get<uint64_t>()));
  }
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
    return refuse("its data_offsets must be two numbers");
  out.begin = offsets[0].get<uint64_t>();
  out.end = offsets[1].get<uint64_t>();
  auto size = checked_bytes(out.dtype, out.dims);
  if (!size || out.end < out.begin || out.end - out.begin != uint64_t(*size))
    return refuse("its data_offsets do not fit its shape");
  return out;
}

Status check_metadata(const json &entry, std::map<std::string, std::string> &out) {
  if (!entry.is_object())
    return Error{"__metadata__ is no object"};
  for (const auto &[key, value] : entry.items()) {
    if (!value.is_string())
      return Error{fmt::format("__metadata__: '{}' is no string", key)};
    out.emplace(key, value.get<std::string>());
  }
  return Unit{};
}

Result<Tensor> view(const Located &at, std::span<const std::byte> data) {
  std::span<const std::byte> bytes = data.subspan(at.begin, at.end - at.begin);
  if (is_bool(at.dtype))
    for (std::byte b : bytes)
      if (b > std::byte(1))
        return Error{fmt::format("the tensor '{}' holds bools other than 0 and 1", at.name)};
  return Tensor(at.dtype, at.dims, bytes);
}

} // namespace

Result<Safetensors> parse_safetensors(std::span<const std::byte> bytes) {
  uint64_t length = 0;
  if (bytes.size() < 8)
    return Error{"it ends inside the header"};
  std::memcpy(&length, bytes.data(), 8);
  if (length > kMaxHeader || length > bytes.size() - 8)
    return Error{fmt::format("its header would be {} bytes, but the file has {}", length, bytes.size())};
  const char *text = reinterpret_cast<const char *>(bytes.data()) + 8;
  StrictKeys keys;
  json header = json::parse(text, text + length, std::ref(keys), false);
  if (keys.failed())
    return Error{"its header has a name twice, or is nested too deeply"};
  if (!header.is_object())
    return Error{"its header is not a JSON object"};
  Safetensors out;
  std::vector<Located> entries;
  for (const auto &[name, entry] : header.items()) {
    if (name == "__metadata__") {
      KILN_RETURN_IF_ERROR(check_metadata(entry, out.metadata));
      continue;
    }
    KILN_TRY(located, parse_entry(name, entry));
    entries.push_back(std::move(located));
  }
  std::sort(entries.begin(), entries.end(), [](const Located &a, const Located &b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::span<const std::byte> data = bytes.subspan(8 + size_t(length));
  uint64_t at = 0;
  for (const Located &entry : entries) {
    if (entry.begin != at || entry.end > data.size())
      return Error{fmt::format("the tensor '{}' overlaps another, leaves a gap or lies past the end", entry.name)};
    at = entry.end;
    KILN_TRY(tensor, view(entry, data));
    out.tensors.emplace_back(entry.name, std::move(tensor));
  }
  if (at != data.size())
    return Error{fmt::format("{} bytes after the tensors belong to none", data.size() - at)};
  return out;
}

Result<Safetensors> read_safetensors(const std::string &path) {
  KILN_TRY(file, MappedFile::open(path));
  auto out = parse_safetensors(file->bytes());
  if (!out)
    return Error{fmt::format("{}: {}", path, out.error().message)};
  out->keep_alive = file;
  return out;
}

Status write_safetensors(const std::string &path, const std::vector<std::pair<std::string, Tensor>> &tensors,
                         const std::map<std::string, std::string> &metadata) {
  std::vector<const std::pair<std::string, Tensor> *> order;
  for (const auto &t : tensors)
    order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const auto *a, const auto *b) {
    int64_t x = dtype_bytes(a->second.dtype()), y = dtype_bytes(b->second.dtype());
    return x != y ? x > y : a->first < b->first;
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty())
    header["__metadata__"] = metadata;
  uint64_t at = 0;
  for (const auto *t : order) {
    if (t->first == "__metadata__" || header.contains(t->first))
      return Error{fmt::format("a tensor cannot be named '{}' here: the name is taken", t->first)};
    std::string dtype;
    for (const Name &n : kNames)
      if (n.dtype == t->second.dtype())
        dtype = n.text;
    uint64_t size = t->second.bytes().size();
    header[t->first] = {{"dtype", dtype}, {"shape", t->second.dims()}, {"data_offsets", {at, at + size}}};
    at += size;
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  text.append((8 - text.size() % 8) % 8, ' ');
  uint64_t length = text.size();
  KILN_TRY(writer, FileWriter::create(path));
  KILN_RETURN_IF_ERROR(writer.write(std::as_bytes(std::span(&length, 1))));
  KILN_RETURN_IF_ERROR(writer.write(text));
  for (const auto *t : order)
    KILN_RETURN_IF_ERROR(writer.write(t->second.bytes()));
  return writer.commit();
}

} // namespace kiln
