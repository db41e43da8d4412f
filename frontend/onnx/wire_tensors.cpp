// The elements of TensorProtos: raw bytes, typed lists, strings, and where they lie in other files.
#include "frontend/onnx/wire.h"
#include "frontend/onnx/wire_reader.h"

#include <fmt/format.h>

#include <charconv>
#include <cstring>

namespace kiln::onnx {
namespace {

template <typename T>
void append(std::vector<T> &list, T value, int64_t limit) {
  if (int64_t(list.size()) >= limit)
    throw WireError{fmt::format("it holds more than the {} elements of its shape", limit)};
  list.push_back(value);
}

int64_t parse_number(std::string_view text, std::string_view what) {
  int64_t out = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size() || out < 0)
    throw WireError{fmt::format("the {} of its external data is '{}', not a size in bytes", what, text)};
  return out;
}

void read_external(std::string_view entry, TensorData &out) {
  auto [key, value] = string_pair(entry);
  if (key == "location")
    out.location = value;
  else if (key == "offset")
    out.offset = parse_number(value, "offset");
  else if (key == "length")
    out.length = parse_number(value, "length");
}

void read_packed_floats(pbf_reader &r, TensorData &out, int64_t limit, bool is_double) {
  std::string_view run = view(r);
  size_t size = is_double ? 8 : 4;
  if (run.size() % size != 0)
    throw WireError{"a packed list of floats ends inside an element"};
  std::string_view &whole = is_double ? out.packed_f64 : out.packed_f32;
  if (whole.empty() && out.floats.empty()) {
    whole = run;
    return;
  }
  auto unpack = [&](std::string_view from) {
    for (size_t i = 0; i < from.size(); i += size) {
      float f;
      double d;
      std::memcpy(is_double ? static_cast<void *>(&d) : &f, from.data() + i, size);
      append(out.floats, is_double ? d : double(f), limit);
    }
  };
  unpack(std::exchange(whole, {}));
  unpack(run);
}

TensorData tensor_data(const TensorView &tensor, int64_t limit) {
  TensorData out;
  auto unpacked = [&](double value) {
    if (!out.packed_f32.empty() || !out.packed_f64.empty())
      throw WireError{"a list of floats is packed in part"};
    append(out.floats, value, limit);
  };
  for (pbf_reader r = reader(tensor.message); r.next();) {
    switch (r.tag_and_type()) {
    case bytes_field(4):
      read_packed_floats(r, out, limit, false);
      break;
    case fixed32_field(4):
      unpacked(double(r.get_float()));
      break;
    case bytes_field(5):
    case bytes_field(7):
      for (int64_t i : r.get_packed_int64())
        append(out.ints, i, limit);
      break;
    case varint_field(5):
    case varint_field(7):
      append(out.ints, r.get_int64(), limit);
      break;
    case bytes_field(6):
      ++out.strings;
      r.skip();
      break;
    case bytes_field(9):
      out.has_raw = true;
      out.raw = view(r);
      break;
    case bytes_field(10):
      read_packed_floats(r, out, limit, true);
      break;
    case fixed64_field(10):
      unpacked(r.get_double());
      break;
    case bytes_field(11):
      for (uint64_t i : r.get_packed_uint64())
        append(out.ints, int64_t(i), limit);
      break;
    case varint_field(11):
      append(out.ints, int64_t(r.get_uint64()), limit);
      break;
    case bytes_field(13):
      read_external(view(r), out);
      break;
    case varint_field(14):
      out.external = r.get_int32() == 1;
      break;
    default:
      r.skip();
    }
  }
  return out;
}

} // namespace

Result<std::vector<std::string_view>> read_strings(const TensorView &tensor, int64_t limit) {
  return guarded([&] {
    std::vector<std::string_view> out;
    for (pbf_reader r = reader(tensor.message); r.next();) {
      if (r.tag_and_type() == bytes_field(6))
        append(out, view(r), limit);
      else
        r.skip();
    }
    return out;
  });
}

Result<TensorData> read_tensor_data(const TensorView &tensor, int64_t limit) {
  return guarded([&] { return tensor_data(tensor, limit); });
}

} // namespace kiln::onnx
