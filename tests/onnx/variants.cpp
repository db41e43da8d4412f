// Works on the fields of a message as they are written: what a change does not touch stays byte for byte.
// Numbers of fields are those of onnx.proto.
#include "tests/onnx/variants.h"

#include "tests/onnx/model_maker.h"

#include <fmt/format.h>
#include <protozero/pbf_reader.hpp>

#include <algorithm>
#include <cmath>

namespace kiln::test {
namespace {

using protozero::pbf_reader;
using Change = void (*)(std::string_view message, const TakeVariant &take);

std::string_view view_of(protozero::data_view v) { return {v.data(), v.size()}; }

// Calls f(tag, bytes before the field, the field, the payload of one that has a length, bytes after it).
template <typename F>
void for_each_field(std::string_view message, F f) {
  pbf_reader r(message.data(), message.size());
  const char *at = message.data(), *end = message.data() + message.size();
  while (r.next()) {
    uint32_t tag = r.tag(); // the reader forgets it with the value
    std::string_view payload;
    if (r.wire_type() == protozero::pbf_wire_type::length_delimited)
      payload = view_of(r.get_view());
    else
      r.skip();
    const char *next = r.data().data();
    f(tag, std::string_view(message.data(), size_t(at - message.data())), std::string_view(at, size_t(next - at)), payload,
      std::string_view(next, size_t(end - next)));
    at = next;
  }
}

std::string message_field(uint32_t tag, std::string_view payload) {
  std::string out;
  pbf_writer(out).add_bytes(tag, payload.data(), payload.size());
  return out;
}

// The changes of each field with that tag, inside the message.
template <typename F>
void within(std::string_view message, uint32_t tag, const TakeVariant &take, F change) {
  for_each_field(message, [&](uint32_t found, std::string_view before, std::string_view, std::string_view payload, std::string_view after) {
    if (found == tag)
      change(payload, [&](const std::string &what, const std::string &bytes) {
        take(what, std::string(before) + message_field(tag, bytes) + std::string(after));
      });
  });
}

// The fields that have none of the tags.
std::string without(std::string_view message, std::initializer_list<uint32_t> tags) {
  std::string out;
  for_each_field(message, [&](uint32_t tag, std::string_view, std::string_view field, std::string_view, std::string_view) {
    if (std::find(tags.begin(), tags.end(), tag) == tags.end())
      out += field;
  });
  return out;
}

std::string string_at(std::string_view message, uint32_t tag) {
  std::string out;
  for_each_field(message, [&](uint32_t found, std::string_view, std::string_view, std::string_view payload, std::string_view) {
    if (found == tag)
      out = payload;
  });
  return out;
}

// What a varint may hold, packed or not.
std::vector<int64_t> ints_at(std::string_view message, uint32_t tag) {
  std::vector<int64_t> out;
  pbf_reader r(message.data(), message.size());
  while (r.next()) {
    if (r.tag() == tag && r.wire_type() == protozero::pbf_wire_type::varint)
      out.push_back(r.get_int64());
    else if (r.tag() == tag && r.wire_type() == protozero::pbf_wire_type::length_delimited)
      for (int64_t v : r.get_packed_int64())
        out.push_back(v);
    else
      r.skip();
  }
  return out;
}

std::string ints_field(uint32_t tag, const std::vector<int64_t> &values) {
  std::string out;
  pbf_writer w(out);
  for (int64_t v : values)
    w.add_int64(tag, v);
  return out;
}

constexpr int64_t kOdd[] = {0, 1, -1, 2, 7, int64_t(1) << 31, int64_t(1) << 62, INT64_MAX, INT64_MIN};
constexpr int kString = 8;
constexpr int kTypes[] = {1, 7, 6, 9, 2, 3, 11, 10, kString}; // f32 i64 i32 bool u8 i8 f64 f16

// -- sizes

constexpr int64_t kUnknown = -7, kNamed = -8; // a dim of a declared type without a size, and with a name

std::string size_text(int64_t d) { return d == kUnknown ? "?" : d == kNamed ? "N" : fmt::format("{}", d); }

// Shapes that are not quite `dims`.
std::vector<std::vector<int64_t>> shapes_near(const std::vector<int64_t> &dims, const std::vector<int64_t> &sizes) {
  std::vector<std::vector<int64_t>> out = {{}, {0}, {1}, {2}, {1, 1}, {2, 3, 1, 4, 1, 2, 1}};
  auto with = [&](auto change) {
    out.push_back(dims);
    change(out.back());
  };
  for (int64_t extra : {1, 2}) {
    with([&](auto &d) { d.insert(d.begin(), extra); });
    with([&](auto &d) { d.push_back(extra); });
  }
  if (!dims.empty()) {
    with([](auto &d) { d.erase(d.begin()); });
    with([](auto &d) { d.pop_back(); });
    with([](auto &d) { std::fill(d.begin(), d.end(), 0); });
    with([](auto &d) { std::reverse(d.begin(), d.end()); });
  }
  for (size_t i = 0; i < dims.size(); ++i) {
    with([&](auto &d) { ++d[i]; });
    with([&](auto &d) { --d[i]; });
    for (int64_t size : sizes)
      with([&](auto &d) { d[i] = size; });
  }
  std::vector<std::vector<int64_t>> once;
  for (auto &shape : out)
    if (shape != dims && std::find(once.begin(), once.end(), shape) == once.end())
      once.push_back(std::move(shape));
  return once;
}

std::string shape_text_of(const std::vector<int64_t> &dims) {
  std::string out;
  for (int64_t d : dims)
    out += (out.empty() ? "" : ", ") + size_text(d);
  return "[" + out + "]";
}

// -- a declared type: TypeProto.Tensor

std::string shape_message(const std::vector<int64_t> &dims) {
  std::string out;
  for (int64_t d : dims) {
    std::string dim;
    if (d == kNamed)
      pbf_writer(dim).add_string(2, "N");
    else if (d != kUnknown)
      pbf_writer(dim).add_int64(1, d);
    out += message_field(1, dim);
  }
  return out;
}

void change_tensor_type(std::string_view type, const TakeVariant &take) {
  std::vector<int64_t> dims;
  within(string_at(type, 2), 1, take, [&](std::string_view dim, const TakeVariant &) {
    auto value = ints_at(dim, 1);
    dims.push_back(value.empty() ? kUnknown : value[0]);
  });
  std::string no_shape = without(type, {2}), no_dtype = without(type, {1});
  take("no shape", no_shape);
  for (const auto &shape : shapes_near(dims, {0, 1, kUnknown, kNamed, int64_t(1) << 40}))
    take("shape " + shape_text_of(shape), no_shape + message_field(2, shape_message(shape)));
  for (int dtype : kTypes)
    take(fmt::format("dtype {}", dtype), ints_field(1, {dtype}) + no_dtype);
}

void change_type(std::string_view type, const TakeVariant &take) { // TypeProto
  within(type, 1, take, change_tensor_type);
  for (uint32_t list : {4, 9}) // a sequence, an optional
    within(type, list, take, [](std::string_view inner, const TakeVariant &t) { within(inner, 1, t, change_type); });
  if (std::string tensor = string_at(type, 1); !tensor.empty())
    take("a sequence", message_field(4, message_field(1, type)));
}

// -- a weight: TensorProto

int bits_of(int dtype) {
  switch (dtype) {
  case 2: case 3: case 9: return 8;
  case 4: case 5: case 10: case 16: return 16;
  case 1: case 6: case 12: return 32;
  case 7: case 11: case 13: return 64;
  default: return 0; // strings, complex numbers, what packs several into a byte
  }
}

std::string tensor_message(std::string_view name, int dtype, const std::vector<int64_t> &dims, std::string_view pattern) {
  int64_t count = 1;
  for (int64_t d : dims)
    count *= d;
  if (dtype == kString) {
    std::string out = ints_field(1, dims) + ints_field(2, {kString}) + message_field(8, name);
    for (int64_t i = 0; i < count; ++i)
      out += message_field(6, "a b");
    return out;
  }
  std::string raw(size_t(count * bits_of(dtype) / 8), '\0');
  for (size_t i = 0; i < raw.size() && !pattern.empty(); ++i)
    raw[i] = pattern[i % pattern.size()];
  return tensor_proto(std::string(name), dtype, dims, raw);
}

template <typename T>
std::string bytes_of(T value) {
  return std::string(reinterpret_cast<const char *>(&value), sizeof value);
}

// The elements as raw bytes, or "" where they are written otherwise.
std::string raw_of(std::string_view tensor, int dtype) {
  std::string raw = string_at(tensor, 9);
  if (raw.empty() && dtype == 7)
    for (int64_t v : ints_at(tensor, 7))
      raw += bytes_of(v);
  if (raw.empty() && dtype == 6)
    for (int64_t v : ints_at(tensor, 5))
      raw += bytes_of(int32_t(v));
  return raw;
}

std::vector<std::string> odd_elements(int dtype) {
  std::vector<std::string> out;
  if (dtype == 7)
    for (int64_t v : kOdd)
      out.push_back(bytes_of(v));
  if (dtype == 6)
    for (int32_t v : {0, 1, -1, 2, 7, INT32_MAX, INT32_MIN})
      out.push_back(bytes_of(v));
  if (dtype == 1)
    for (float v : {0.0f, -1.0f, 1e30f, float(NAN), float(INFINITY)})
      out.push_back(bytes_of(v));
  return out;
}

void change_tensor(std::string_view tensor, const TakeVariant &take) {
  std::string name = string_at(tensor, 8);
  auto dtypes = ints_at(tensor, 2), dims = ints_at(tensor, 1);
  int dtype = dtypes.empty() ? 0 : int(dtypes.back());
  double count = 1;
  for (int64_t d : dims)
    count *= double(d);
  if ((bits_of(dtype) == 0 && dtype != kString) || count > 1e5)
    return;
  std::string raw = raw_of(tensor, dtype);
  for (const auto &shape : shapes_near(dims, {0, 1}))
    if (std::all_of(shape.begin(), shape.end(), [](int64_t d) { return d >= 0; }))
      take("shape " + shape_text_of(shape), tensor_message(name, dtype, shape, raw));
  for (int other : kTypes)
    if (other != dtype)
      take(fmt::format("dtype {}", other), tensor_message(name, other, dims, ""));
  size_t size = size_t(bits_of(dtype) / 8);
  size_t k = 0;
  for (const std::string &odd : odd_elements(dtype)) {
    take(fmt::format("all elements odd {}", k), tensor_message(name, dtype, dims, odd));
    for (bool last : {false, true})
      if (raw.size() > size) {
        std::string changed = raw;
        changed.replace(last ? raw.size() - size : 0, size, odd);
        take(fmt::format("{} element odd {}", last ? "last" : "first", k), tensor_message(name, dtype, dims, changed));
      }
    ++k;
  }
}

// -- an attribute: AttributeProto

void change_graph(std::string_view graph, const TakeVariant &take);

template <typename T, typename Write>
void change_list(const std::vector<T> &list, const std::vector<T> &odd, const T &more, Write write, const TakeVariant &take) {
  take("empty", write({}));
  auto with = [&](const std::string &what, auto change) {
    std::vector<T> changed = list;
    change(changed);
    take(what, write(changed));
  };
  with("one more", [&](auto &l) { l.push_back(more); });
  if (!list.empty()) {
    with("one less", [](auto &l) { l.pop_back(); });
    with("reversed", [](auto &l) { std::reverse(l.begin(), l.end()); });
    with("twice", [&](auto &l) { l.insert(l.end(), list.begin(), list.end()); });
  }
  for (size_t k = 0; k < odd.size(); ++k) {
    with(fmt::format("all odd {}", k), [&](auto &l) { std::fill(l.begin(), l.end(), odd[k]); });
    for (size_t at : {size_t(0), list.size() / 2, list.size() - 1})
      if (list.size() > 1)
        with(fmt::format("entry {} odd {}", at, k), [&](auto &l) { l[at] = odd[k]; });
  }
}

void change_attribute(std::string_view attribute, const TakeVariant &take) {
  std::string name = string_at(attribute, 1);
  auto named = [&](const std::string &what, const std::string &bytes) { take(fmt::format("attribute '{}': {}", name, what), bytes); };
  auto types = ints_at(attribute, 20);
  switch (types.empty() ? 0 : types.back()) {
  case 1:
    for (float v : {0.0f, -1.0f, 1e30f, float(NAN), -float(INFINITY)})
      named(fmt::format("{}", v), attr_f(name, v));
    break;
  case 2:
    for (int64_t v : kOdd)
      named(fmt::format("{}", v), attr_i(name, v));
    break;
  case 3:
    for (const char *v : {"", "a", "->", "NOTSET"})
      named(fmt::format("\"{}\"", v), attr_s(name, v));
    break;
  case 6: {
    std::vector<float> list;
    for_each_field(attribute, [&](uint32_t tag, std::string_view, std::string_view field, std::string_view payload, std::string_view) {
      std::string_view bytes = tag != 7 ? std::string_view() : !payload.empty() ? payload : field.substr(1);
      for (size_t i = 0; i + 4 <= bytes.size(); i += 4) {
        float v;
        std::copy_n(bytes.data() + i, 4, reinterpret_cast<char *>(&v));
        list.push_back(v);
      }
    });
    change_list<float>(list, {0, -1, 1e30f, NAN}, 1, [&](const std::vector<float> &l) { return attr_floats(name, l); }, named);
    break;
  }
  case 7:
    change_list<int64_t>(ints_at(attribute, 8), {std::begin(kOdd), std::end(kOdd)}, 1,
                         [&](const std::vector<int64_t> &l) { return attr_ints(name, l); }, named);
    break;
  case 8: {
    Names list;
    within(attribute, 9, named, [&](std::string_view s, const TakeVariant &) { list.emplace_back(s); });
    change_list<std::string>(list, {"", "odd"}, "more", [&](const Names &l) { return attr_strings(name, l); }, named);
    break;
  }
  default:
    within(attribute, 5, named, change_tensor);
    within(attribute, 6, named, change_graph);
  }
  named("of another type", attr_ints(name, {1, 2}));
  named("of another type too", attr_s(name, "odd"));
}

// -- nodes and graphs

void change_node(std::string_view node, const TakeVariant &take) {
  std::string type = string_at(node, 4);
  auto named = [&](const std::string &what, const std::string &bytes) { take(fmt::format("{}: {}", type, what), bytes); };
  Names inputs;
  within(node, 1, named, [&](std::string_view name, const TakeVariant &) { inputs.emplace_back(name); });
  std::string rest = without(node, {1});
  auto with_inputs = [&](const std::string &what, const Names &names) {
    std::string bytes;
    for (const std::string &name : names)
      bytes += message_field(1, name);
    named(what, bytes + rest);
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    Names names = inputs;
    names[i].clear();
    with_inputs(fmt::format("without operand {}", i), names);
    names[i] = inputs[i ? 0 : inputs.size() - 1];
    with_inputs(fmt::format("another's operand {}", i), names);
    names.resize(i);
    with_inputs(fmt::format("{} operands", i), names);
  }
  if (!inputs.empty()) {
    inputs.push_back(inputs[0]);
    with_inputs("one operand more", inputs);
  }
  for_each_field(node, [&](uint32_t tag, std::string_view before, std::string_view, std::string_view payload, std::string_view after) {
    if (tag == 5)
      named("without " + string_at(payload, 1), std::string(before) + std::string(after));
    if (tag == 2)
      named("without the result " + std::string(payload), std::string(before) + message_field(2, "") + std::string(after));
  });
  within(node, 5, named, change_attribute);
  std::string more = "more_results";
  named("one result more", std::string(node) + message_field(2, more));
}

// A weight that the model is given when it runs, and an input that is a weight of ones.
void change_places(std::string_view graph, const TakeVariant &take) {
  for_each_field(graph, [&](uint32_t tag, std::string_view before, std::string_view, std::string_view payload, std::string_view after) {
    auto put = [&](const std::string &what, const std::string &field) { take(what, std::string(before) + field + std::string(after)); };
    if (tag == 5) {
      auto dtype = ints_at(payload, 2);
      std::string name = string_at(payload, 8),
                  type = ints_field(1, {dtype.empty() ? 0 : dtype.back()}) + message_field(2, shape_message(ints_at(payload, 1)));
      put(fmt::format("'{}' as an input", name), message_field(11, message_field(1, name) + message_field(2, message_field(1, type))));
    }
    if (tag == 11) {
      std::string name = string_at(payload, 1), type = string_at(string_at(payload, 2), 1);
      auto dtype = ints_at(type, 1);
      std::vector<int64_t> dims;
      within(string_at(type, 2), 1, take, [&](std::string_view dim, const TakeVariant &) {
        auto value = ints_at(dim, 1);
        dims.push_back(value.empty() ? 2 : std::clamp<int64_t>(value[0], 0, 64));
      });
      double count = 1;
      for (int64_t d : dims)
        count *= double(d);
      if (dtype.empty() || (bits_of(int(dtype[0])) == 0 && dtype[0] != kString) || count > 1e5)
        return;
      auto ones = odd_elements(int(dtype[0]));
      std::string weight = tensor_message(name, int(dtype[0]), dims, ones.empty() ? "\1" : ones[1]);
      put(fmt::format("'{}' as a weight", name), message_field(5, weight));
      change_tensor(weight, [&](const std::string &what, const std::string &bytes) {
        put(fmt::format("'{}' as a weight: {}", name, what), message_field(5, bytes));
      });
    }
  });
}

void change_graph(std::string_view graph, const TakeVariant &take) {
  within(graph, 11, take, [&](std::string_view input, const TakeVariant &t) {
    within(input, 2, [&](const std::string &what, const std::string &bytes) { t(fmt::format("input '{}': {}", string_at(input, 1), what), bytes); },
           change_type);
  });
  within(graph, 5, take, [&](std::string_view weight, const TakeVariant &t) {
    change_tensor(weight, [&](const std::string &what, const std::string &bytes) {
      t(fmt::format("weight '{}': {}", string_at(weight, 8), what), bytes);
    });
  });
  change_places(graph, take);
  within(graph, 1, take, change_node);
}

} // namespace

void for_each_variant(std::string_view model, const TakeVariant &take) {
  try {
    within(model, 7, take, change_graph);
    within(model, 25, take, [](std::string_view function, const TakeVariant &t) { within(function, 7, t, change_node); });
    within(model, 8, take, [](std::string_view opset, const TakeVariant &t) {
      for (int64_t version : {1, 5, 7, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23, 25})
        t(fmt::format("opset {}", version), without(opset, {2}) + ints_field(2, {version}));
    });
  } catch (const protozero::exception &) {
  }
}

} // namespace kiln::test
