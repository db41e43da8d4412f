// One ONNX node as its handler sees it: operands, attributes, opset, and where its results go.
//
// Attribute getters return a default where the attribute is missing or of the wrong kind and remember
// the latter, so that handlers read them in one line; the importer reports it when the handler is done.
#pragma once

#include "frontend/onnx/emitter.h"
#include "frontend/onnx/wire.h"

#include <set>
#include <string>

namespace kiln::onnx {

class Importer;

class OnnxNode {
public:
  OnnxNode(Importer &importer, const NodeView &view, int64_t opset, std::vector<Val> inputs);

  // -- operands
  size_t input_count() const { return inputs_.size(); }
  bool has(size_t i) const { return i < inputs_.size() && present(i); }
  // Only for operands that the table requires, or that has() says are there.
  const Val &in(size_t i) const {
    if (!has(i))
      throw Unmet{"its input " + std::to_string(i) + " is missing"};
    return inputs_[i];
  }
  const std::vector<Val> &inputs() const { return inputs_; }
  DType dtype(size_t i = 0) const { return in(i).type.dtype; }
  Sizes shape(size_t i = 0) const { return Sizes(in(i)); }
  int rank(size_t i = 0) const { return in(i).rank(); }

  // -- attributes
  bool has_attr(std::string_view name) const { return find(name) != nullptr; }
  int64_t get_int(std::string_view name, int64_t otherwise);
  bool get_flag(std::string_view name, bool otherwise) { return get_int(name, otherwise) != 0; }
  double get_float(std::string_view name, double otherwise);
  std::string get_string(std::string_view name, std::string otherwise);
  List<int64_t> get_ints(std::string_view name, std::vector<int64_t> otherwise = {});
  List<double> get_floats(std::string_view name, std::vector<double> otherwise = {});
  List<std::string> get_strings(std::string_view name);
  const AttributeView *find(std::string_view name) const;
  Result<Tensor> get_tensor(std::string_view name);
  Result<GraphView> get_graph(std::string_view name);
  void ignore(std::initializer_list<std::string_view> names);

  // -- operands that must be known
  // What the operand holds as sizes, symbolic ones included.
  Result<List<Dim>> dims_of(size_t i, std::string_view what);
  Result<List<int64_t>> ints_of(size_t i, std::string_view what);
  Result<int64_t> int_of(size_t i, std::string_view what);
  Result<const Tensor *> constant_of(size_t i, std::string_view what);
  // An axis in [-rank, rank) as one in [0, rank); `rank` may be that of the result.
  Result<int> axis(int64_t value, int rank) const;
  Result<std::vector<int>> axes(const std::vector<int64_t> &values, int rank) const;
  // Integers that are an attribute up to some opset and an operand after it; nothing where absent.
  Result<std::optional<List<int64_t>>> ints_attr_or_input(std::string_view name, size_t i);

  // -- results
  size_t output_count() const { return view_.outputs.size(); }
  bool wants(size_t i) const { return i < view_.outputs.size() && !view_.outputs[i].empty(); }
  void set(size_t i, Val value);
  // The usual end of a handler: one op, one result.
  Status finish(Result<Val> value);
  Status finish(Op op, std::vector<Val> operands, Attrs attrs = {});

  Emitter &emitter() { return emitter_; }
  Importer &importer() { return importer_; }
  const NodeView &view() const { return view_; }
  int64_t opset() const { return opset_; }
  std::string_view type() const { return view_.op_type; }
  Result<Val> emit(Op op, std::vector<Val> operands, Attrs attrs = {}) {
    return emitter_.emit(op, std::move(operands), std::move(attrs));
  }

  // -- for the importer
  std::vector<std::optional<Val>> &outputs() { return outputs_; }
  const std::optional<std::string> &attribute_error() const { return attribute_error_; }
  std::vector<std::string> unread_attributes() const;

private:
  bool present(size_t i) const {
    return inputs_[i].id.valid() || inputs_[i].is_known() || !inputs_[i].is_tensor() || inputs_[i].failed;
  }
  const AttributeView *read(std::string_view name, AttrType type);

  Importer &importer_;
  Emitter &emitter_;
  const NodeView &view_;
  int64_t opset_;
  std::vector<Val> inputs_;
  std::vector<std::optional<Val>> outputs_; // one at least: handlers build on their first result
  std::optional<std::string> attribute_error_;
  mutable std::set<std::string_view> read_;
};

// -- small things that all handlers use
inline Attr attr_dims(const Shape &shape) { return shape; }
inline Attr attr_ints(const std::vector<int64_t> &list) { return std::vector<Dim>(list.begin(), list.end()); }
inline Attr attr_ints(const std::vector<int> &list) { return std::vector<Dim>(list.begin(), list.end()); }
inline Attr attr_int(int64_t value) { return Dim(value); }

Result<Val> reshape(Emitter &e, const Val &x, Shape shape);
Result<Val> permute(Emitter &e, const Val &x, const std::vector<int64_t> &order);
Result<Val> broadcast_to(Emitter &e, const Val &x, const Shape &shape);
Result<Val> convert(Emitter &e, const Val &x, DType dtype); // x itself where it has the dtype
// A slice along one axis, [start, start + size).
Result<Val> slice_axis(Emitter &e, const Val &x, int axis, const Dim &start, const Dim &size);

} // namespace kiln::onnx
