// Writes small ONNX models for tests, field by field, so that wrong ones can be written too.
#pragma once

#include "ir/tensor.h"

#include <protozero/pbf_writer.hpp>

#include <initializer_list>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace kiln::test {

using protozero::pbf_writer;
using Names = std::vector<std::string>;

inline int onnx_type(DType d) {
  switch (d) {
  case DType::f32:
    return 1;
  case DType::i64:
    return 7;
  case DType::i32:
    return 6;
  case DType::bool_:
    return 9;
  case DType::f64:
    return 11;
  case DType::u8:
    return 2;
  default:
    return 0;
  }
}

// -- attributes, as the bytes of an AttributeProto
inline std::string attr_i(const std::string &name, int64_t value) {
  std::string out;
  pbf_writer w(out);
  w.add_string(1, name), w.add_int64(3, value), w.add_int32(20, 2);
  return out;
}
inline std::string attr_f(const std::string &name, float value) {
  std::string out;
  pbf_writer w(out);
  w.add_string(1, name), w.add_float(2, value), w.add_int32(20, 1);
  return out;
}
inline std::string attr_s(const std::string &name, const std::string &value) {
  std::string out;
  pbf_writer w(out);
  w.add_string(1, name), w.add_bytes(4, value), w.add_int32(20, 3);
  return out;
}
inline std::string attr_ints(const std::string &name, const std::vector<int64_t> &values) {
  std::string out;
  pbf_writer w(out);
  w.add_string(1, name);
  for (int64_t v : values)
    w.add_int64(8, v);
  w.add_int32(20, 7);
  return out;
}
inline std::string attr_floats(const std::string &name, const std::vector<float> &values) {
  std::string out;
  pbf_writer w(out);
  w.add_string(1, name);
  for (float v : values)
    w.add_float(7, v);
  w.add_int32(20, 6);
  return out;
}
inline std::string attr_strings(const std::string &name, const Names &values) {
  std::string out;
  pbf_writer w(out);
  w.add_string(1, name);
  for (const std::string &v : values)
    w.add_bytes(9, v);
  w.add_int32(20, 8);
  return out;
}
inline std::string attr_bytes(const std::string &name, int field, int type, const std::string &bytes) {
  std::string out;
  pbf_writer w(out);
  w.add_string(1, name), w.add_message(uint32_t(field), bytes), w.add_int32(20, type);
  return out;
}
inline std::string attr_tensor(const std::string &name, const std::string &tensor) {
  return attr_bytes(name, 5, 4, tensor);
}
inline std::string attr_graph(const std::string &name, const std::string &graph) {
  return attr_bytes(name, 6, 5, graph);
}

// An f32 tensor `w` that lies in another file.
inline std::string external_tensor(const std::vector<std::pair<std::string, std::string>> &entries, std::vector<int64_t> dims = {2}) {
  std::string out;
  pbf_writer w(out);
  for (int64_t d : dims)
    w.add_int64(1, d);
  w.add_int32(2, 1), w.add_string(8, "w");
  for (const auto &[key, value] : entries) {
    std::string entry;
    pbf_writer e(entry);
    e.add_string(1, key), e.add_string(2, value);
    w.add_message(13, entry);
  }
  w.add_int32(14, 1);
  return out;
}

// -- tensors
inline std::string tensor_proto(const std::string &name, int type, const std::vector<int64_t> &dims,
                                const std::string &raw) {
  std::string out;
  pbf_writer w(out);
  for (int64_t d : dims)
    w.add_int64(1, d);
  w.add_int32(2, type), w.add_string(8, name), w.add_bytes(9, raw);
  return out;
}
inline std::string tensor_proto(const std::string &name, const Tensor &t) {
  return tensor_proto(name, onnx_type(t.dtype()), t.dims(),
                      std::string(reinterpret_cast<const char *>(t.bytes().data()), t.bytes().size()));
}
inline Tensor floats(std::vector<int64_t> dims, const std::vector<double> &values) {
  Tensor out(DType::f32, std::move(dims));
  for (size_t i = 0; i < values.size(); ++i)
    out.set_f64(int64_t(i), values[i]);
  return out;
}
inline Tensor ints(const std::vector<int64_t> &values) { return Tensor::from_i64(values); }

using TestDim = std::variant<int64_t, std::string>; // a size, or a name ("" for none)

class GraphMaker {
public:
  GraphMaker() : w_(bytes_) {}
  GraphMaker(const GraphMaker &) = delete;

  GraphMaker &input(const std::string &name, DType dtype, const std::vector<TestDim> &dims) {
    w_.add_message(11, value_info(name, onnx_type(dtype), &dims));
    return *this;
  }
  GraphMaker &input_without_shape(const std::string &name, DType dtype) {
    w_.add_message(11, value_info(name, onnx_type(dtype), nullptr));
    return *this;
  }
  // An input or output of any type: tensor_type(...), sequence_of(...), optional_of(...).
  GraphMaker &typed_input(const std::string &name, const std::string &type) {
    w_.add_message(11, named_type(name, type));
    return *this;
  }
  GraphMaker &typed_output(const std::string &name, const std::string &type) {
    w_.add_message(12, named_type(name, type));
    return *this;
  }
  static std::string tensor_type(int type, const std::vector<TestDim> *dims) {
    std::string shape, tensor, out;
    for (size_t i = 0; dims && i < dims->size(); ++i) {
      std::string dim;
      pbf_writer w(dim);
      if (const int64_t *value = std::get_if<int64_t>(&(*dims)[i]))
        w.add_int64(1, *value);
      else if (const std::string &param = std::get<std::string>((*dims)[i]); !param.empty())
        w.add_string(2, param);
      pbf_writer(shape).add_message(1, dim);
    }
    pbf_writer t(tensor);
    t.add_int32(1, type);
    if (dims)
      t.add_message(2, shape);
    pbf_writer(out).add_message(1, tensor);
    return out;
  }
  static std::string tensor_type(DType dtype, const std::vector<TestDim> &dims) {
    return tensor_type(onnx_type(dtype), &dims);
  }
  static std::string sequence_of(const std::string &element) { return wrapped(4, element); }
  static std::string optional_of(const std::string &element) { return wrapped(9, element); }
  GraphMaker &output(const std::string &name) {
    w_.add_message(12, value_info(name, 1, nullptr));
    return *this;
  }
  GraphMaker &weight(const std::string &name, const Tensor &t) { return raw_weight(tensor_proto(name, t)); }
  GraphMaker &raw_weight(const std::string &proto) {
    w_.add_message(5, proto);
    return *this;
  }
  GraphMaker &node(const std::string &type, const Names &inputs, const Names &outputs,
                   const std::vector<std::string> &attributes = {}, const std::string &name = "",
                   const std::string &domain = "") {
    w_.add_message(1, node_proto(type, inputs, outputs, attributes, name, domain));
    return *this;
  }
  static std::string node_proto(const std::string &type, const Names &inputs, const Names &outputs,
                                const std::vector<std::string> &attributes = {}, const std::string &name = "",
                                const std::string &domain = "") {
    std::string out;
    pbf_writer w(out);
    for (const std::string &i : inputs)
      w.add_string(1, i);
    for (const std::string &o : outputs)
      w.add_string(2, o);
    if (!name.empty())
      w.add_string(3, name);
    w.add_string(4, type);
    for (const std::string &a : attributes)
      w.add_message(5, a);
    if (!domain.empty())
      w.add_string(7, domain);
    return out;
  }
  const std::string &bytes() const { return bytes_; }

  // The whole model around this graph; `extra` are more fields of the ModelProto.
  std::string model(int64_t opset = 17, const std::string &extra = "") const {
    std::string out;
    pbf_writer w(out);
    w.add_int64(1, 8);
    w.add_message(7, bytes_);
    std::string set;
    pbf_writer s(set);
    s.add_string(1, ""), s.add_int64(2, opset);
    w.add_message(8, set);
    return out + extra;
  }

private:
  static std::string value_info(const std::string &name, int type, const std::vector<TestDim> *dims) {
    return named_type(name, tensor_type(type, dims));
  }
  static std::string named_type(const std::string &name, const std::string &type) {
    std::string out;
    pbf_writer v(out);
    v.add_string(1, name), v.add_message(2, type);
    return out;
  }
  static std::string wrapped(uint32_t field, const std::string &element) {
    std::string inner, out;
    pbf_writer(inner).add_message(1, element);
    pbf_writer(out).add_message(field, inner);
    return out;
  }

  std::string bytes_;
  pbf_writer w_;
};

} // namespace kiln::test
