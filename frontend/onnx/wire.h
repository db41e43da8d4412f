// ONNX's wire format, read in place: light structs of views into the bytes of a model, so that tensor
// data stays in the mapped file. Lengths and varints are checked by protozero, the number of messages
// and their nesting by a budget, so that a hostile file costs memory in proportion to its size at most.
// Names and field numbers are those of onnx.proto (IR version 11).
#pragma once

#include "ir/support/result.h"

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace kiln::onnx {

struct TensorView {
  std::string_view name;
  int data_type = 0;
  std::vector<int64_t> dims;
  std::string_view message; // the whole TensorProto: the elements are decoded when asked for
};

struct DimView {
  std::optional<int64_t> value;
  std::string_view param;
};

// The type of a graph's input or output: a tensor, or a sequence of tensors, or either of them as an
// optional; the element type and shape are those of the tensors. A map is none of these and has map_key.
struct ValueInfoView {
  std::string_view name;
  bool is_tensor = false;                          // a plain one
  bool is_sequence = false, is_optional = false;   // ... of tensors
  int map_key = 0;                                 // of a map, the type of its keys; elem_type is that of its values
  int elem_type = 0;
  bool has_shape = false;
  std::vector<DimView> shape;
};

enum class AttrType : int {
  undefined = 0, f = 1, i = 2, s = 3, tensor = 4, graph = 5, floats = 6, ints = 7, strings = 8,
  tensors = 9, graphs = 10, sparse_tensor = 11, sparse_tensors = 12, type_proto = 13, type_protos = 14
};

struct AttributeView {
  std::string_view name;
  AttrType type = AttrType::undefined;
  float f = 0;
  int64_t i = 0;
  std::string_view s;
  std::string_view message; // of a tensor (sparse or not) or a graph
  std::vector<float> floats;
  std::vector<int64_t> ints;
  std::vector<std::string_view> strings;
  std::string_view ref_attr_name; // inside a model-local function
};

struct NodeView {
  std::string_view name, op_type, domain, overload;
  std::vector<std::string_view> inputs, outputs; // "" where an optional one is left out
  std::vector<AttributeView> attributes;
};

struct GraphView {
  std::string_view name;
  std::vector<NodeView> nodes;
  std::vector<TensorView> initializers;
  std::vector<ValueInfoView> inputs, outputs;
  std::vector<std::string_view> sparse_initializers; // messages
};

struct OpsetView {
  std::string_view domain;
  int64_t version = 0;
};

struct FunctionView {
  std::string_view name, domain, overload;
  std::vector<std::string_view> inputs, outputs, attributes;
  std::vector<AttributeView> attribute_defaults;
  std::vector<NodeView> nodes;
  std::vector<OpsetView> opsets;
};

struct ModelView {
  int64_t ir_version = 0;
  std::string_view producer;
  std::vector<OpsetView> opsets;
  std::vector<std::pair<std::string_view, std::string_view>> metadata;
  std::vector<FunctionView> functions;
  GraphView graph;
};

// Counts what a file makes us allocate; one for each file.
struct WireBudget {
  int64_t messages = 4'000'000; // nodes, attributes, tensors, value infos
  int64_t items = 64'000'000;   // elements of repeated fields outside of tensors
};

Result<ModelView> read_model(std::string_view bytes, WireBudget &budget);
Result<GraphView> read_graph(std::string_view message, WireBudget &budget);
Result<TensorView> read_tensor(std::string_view message, WireBudget &budget);

// A SparseTensorProto, whose name is that of its values: elements that are not zero, and where they stand.
struct SparseView {
  TensorView values, indices;
  std::vector<int64_t> dims;
};
Result<SparseView> read_sparse(std::string_view message, WireBudget &budget);

// The elements of a TensorProto as they are stored: raw_data, or one of the typed repeated fields, or
// a reference to another file.
struct TensorData {
  bool external = false;
  std::string_view location;             // external: file, offset, length
  int64_t offset = 0;
  std::optional<int64_t> length;
  bool has_raw = false;
  std::string_view raw;
  // The typed fields, converted: floats holds float_data and double_data, ints int32_data, int64_data
  // and uint64_data. At most `limit` elements are read; more are an error.
  std::vector<double> floats;
  std::vector<int64_t> ints;
  std::string_view packed_f32; // all of float_data, where it is one packed run (then floats is empty)
  std::string_view packed_f64;
  int64_t strings = 0;
};
Result<TensorData> read_tensor_data(const TensorView &tensor, int64_t limit);
// The elements of a TensorProto of strings, at most `limit`.
Result<std::vector<std::string_view>> read_strings(const TensorView &tensor, int64_t limit);

// A stored value of a test case: a TensorProto, or a SequenceProto or OptionalProto of tensors.
struct StoredView {
  std::string_view name;
  bool present = true; // an optional may hold nothing
  std::vector<TensorView> tensors; // one, or those of the sequence
};
Result<StoredView> read_stored(std::string_view message, bool is_sequence, bool is_optional, WireBudget &budget);

} // namespace kiln::onnx
