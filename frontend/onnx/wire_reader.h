// What the readers of ONNX's messages share: fields by number and type, and how a damaged message ends.
#pragma once

#include "ir/support/result.h"

#include <fmt/format.h>
#include <protozero/pbf_message.hpp>
#include <protozero/pbf_reader.hpp>

#include <string>
#include <string_view>
#include <utility>

namespace kiln::onnx {

using protozero::pbf_reader;
using protozero::pbf_wire_type;

// Thrown while a message is read; guarded() turns it and protozero's own into an Error.
struct WireError {
  std::string message;
};

constexpr uint32_t bytes_field(uint32_t tag) {
  return protozero::tag_and_type(tag, pbf_wire_type::length_delimited);
}
constexpr uint32_t varint_field(uint32_t tag) {
  return protozero::tag_and_type(tag, pbf_wire_type::varint);
}
constexpr uint32_t fixed32_field(uint32_t tag) {
  return protozero::tag_and_type(tag, pbf_wire_type::fixed32);
}
constexpr uint32_t fixed64_field(uint32_t tag) {
  return protozero::tag_and_type(tag, pbf_wire_type::fixed64);
}

inline std::string_view view(pbf_reader &r) {
  protozero::data_view v = r.get_view();
  return {v.data(), v.size()};
}

inline pbf_reader reader(std::string_view bytes) { return pbf_reader(bytes.data(), bytes.size()); }

inline std::pair<std::string_view, std::string_view> string_pair(std::string_view bytes) {
  std::pair<std::string_view, std::string_view> out;
  for (pbf_reader r = reader(bytes); r.next();) {
    if (r.tag_and_type() == bytes_field(1))
      out.first = view(r);
    else if (r.tag_and_type() == bytes_field(2))
      out.second = view(r);
    else
      r.skip();
  }
  return out;
}

template <typename F>
auto guarded(F body) -> Result<decltype(body())> {
  try {
    return body();
  } catch (const WireError &e) {
    return Error{e.message};
  } catch (const protozero::exception &e) {
    return Error{fmt::format("it is damaged or no ONNX file ({})", e.what())};
  }
}

} // namespace kiln::onnx
