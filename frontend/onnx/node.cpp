#include "frontend/onnx/node.h"

#include "frontend/onnx/importer.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::onnx {
namespace {

std::string_view type_name(AttrType type) {
  constexpr std::string_view kNames[] = {"nothing", "a float", "an integer", "a string", "a tensor",
                                         "a graph", "floats", "integers", "strings", "tensors",
                                         "graphs", "a sparse tensor", "sparse tensors", "a type", "types"};
  size_t i = size_t(type);
  return i < std::size(kNames) ? kNames[i] : "unknown";
}

} // namespace

OnnxNode::OnnxNode(Importer &importer, const NodeView &view, int64_t opset, std::vector<Val> inputs)
    : importer_(importer), emitter_(importer.emitter()), view_(view), opset_(opset),
      inputs_(std::move(inputs)), outputs_(std::max<size_t>(view.outputs.size(), 1)) {}

const AttributeView *OnnxNode::find(std::string_view name) const {
  for (const AttributeView &a : view_.attributes)
    if (a.name == name) {
      read_.insert(a.name);
      return &a;
    }
  return nullptr;
}

const AttributeView *OnnxNode::read(std::string_view name, AttrType type) {
  const AttributeView *a = find(name);
  if (!a || a->type == type)
    return a;
  if (!attribute_error_)
    attribute_error_ = fmt::format("the attribute '{}' is {}, but must be {}", name, type_name(a->type),
                                   type_name(type));
  return nullptr;
}

int64_t OnnxNode::get_int(std::string_view name, int64_t otherwise) {
  const AttributeView *a = read(name, AttrType::i);
  return a ? a->i : otherwise;
}

double OnnxNode::get_float(std::string_view name, double otherwise) {
  const AttributeView *a = read(name, AttrType::f);
  return a ? double(a->f) : otherwise;
}

std::string OnnxNode::get_string(std::string_view name, std::string otherwise) {
  const AttributeView *a = read(name, AttrType::s);
  return a ? std::string(a->s) : otherwise;
}

List<int64_t> OnnxNode::get_ints(std::string_view name, std::vector<int64_t> otherwise) {
  const AttributeView *a = read(name, AttrType::ints);
  return {a ? a->ints : std::move(otherwise), name};
}

List<double> OnnxNode::get_floats(std::string_view name, std::vector<double> otherwise) {
  const AttributeView *a = read(name, AttrType::floats);
  return {a ? std::vector<double>(a->floats.begin(), a->floats.end()) : std::move(otherwise), name};
}

List<std::string> OnnxNode::get_strings(std::string_view name) {
  const AttributeView *a = read(name, AttrType::strings);
  return {a ? std::vector<std::string>(a->strings.begin(), a->strings.end()) : std::vector<std::string>(), name};
}

Result<Tensor> OnnxNode::get_tensor(std::string_view name) {
  const AttributeView *a = read(name, AttrType::tensor);
  if (!a)
    return Error{fmt::format("the attribute '{}' must be a tensor", name)};
  auto view = read_tensor(a->message, importer_.budget());
  if (!view)
    return Error{fmt::format("the attribute '{}': {}", name, view.error().message)};
  auto tensor = make_tensor(*view, importer_.files());
  if (!tensor)
    return Error{fmt::format("the attribute '{}': {}", name, tensor.error().message)};
  return tensor;
}

Result<GraphView> OnnxNode::get_graph(std::string_view name) {
  const AttributeView *a = read(name, AttrType::graph);
  if (!a)
    return Error{fmt::format("the attribute '{}' must be a graph", name)};
  return read_graph(a->message, importer_.budget());
}

void OnnxNode::ignore(std::initializer_list<std::string_view> names) {
  for (std::string_view name : names)
    find(name);
}

std::vector<std::string> OnnxNode::unread_attributes() const {
  std::vector<std::string> out;
  for (const AttributeView &a : view_.attributes)
    if (!read_.contains(a.name))
      out.emplace_back(a.name);
  return out;
}

Result<List<Dim>> OnnxNode::dims_of(size_t i, std::string_view what) {
  if (!is_integer(dtype(i)))
    return Error{fmt::format("its {} must be integers, not {}", what, in(i).type.text())};
  auto list = emitter_.dims(in(i));
  if (!list)
    return Error{fmt::format("its {} ('{}') must be known at compile time, or follow from the sizes of the "
                             "inputs",
                             what, in(i).name)};
  return List<Dim>(*std::move(list), what);
}

Result<List<int64_t>> OnnxNode::ints_of(size_t i, std::string_view what) {
  KILN_TRY(list, dims_of(i, what));
  std::vector<int64_t> out;
  for (const Dim &d : list) {
    if (!d.is_const())
      return Error{fmt::format("its {} must be constants, but one is {}", what, d.text())};
    out.push_back(d.as_const());
  }
  return List<int64_t>(std::move(out), what);
}

Result<int64_t> OnnxNode::int_of(size_t i, std::string_view what) {
  KILN_TRY(list, ints_of(i, what));
  if (list.size() != 1)
    return Error{fmt::format("its {} must be one number, not {}", what, list.size())};
  return list[0];
}

Result<const Tensor *> OnnxNode::constant_of(size_t i, std::string_view what) {
  if (!in(i).constant)
    return Error{fmt::format("its {} ('{}') must be known at compile time", what, in(i).name)};
  return in(i).constant;
}

Result<int> OnnxNode::axis(int64_t value, int rank) const {
  if (value < -rank || value >= rank)
    return Error{fmt::format("the axis {} is outside of a tensor of {} dims", value, rank)};
  return int(value < 0 ? value + rank : value);
}

Result<std::vector<int>> OnnxNode::axes(const std::vector<int64_t> &values, int rank) const {
  std::vector<int> out;
  for (int64_t value : values) {
    KILN_TRY(one, axis(value, rank));
    if (std::find(out.begin(), out.end(), one) != out.end())
      return Error{fmt::format("the axis {} is named twice", value)};
    out.push_back(one);
  }
  return out;
}

Result<std::optional<List<int64_t>>> OnnxNode::ints_attr_or_input(std::string_view name,
                                                                         size_t i) {
  using Out = std::optional<List<int64_t>>;
  if (has(i)) {
    KILN_TRY(list, ints_of(i, name));
    return Out(list);
  }
  if (has_attr(name))
    return Out(get_ints(name));
  return Out();
}

void OnnxNode::set(size_t i, Val value) {
  if (i < outputs_.size())
    outputs_[i] = std::move(value);
}

Status OnnxNode::finish(Result<Val> value) {
  if (!value)
    return value.error();
  set(0, *std::move(value));
  return Unit{};
}

Status OnnxNode::finish(Op op, std::vector<Val> operands, Attrs attrs) {
  return finish(emit(op, std::move(operands), std::move(attrs)));
}

Result<Val> reshape(Emitter &e, const Val &x, Shape shape) {
  if (x.type.shape == shape)
    return x;
  return e.emit(Op::reshape, {x}, {{"shape", std::move(shape)}});
}

Result<Val> permute(Emitter &e, const Val &x, const std::vector<int64_t> &order) {
  if (std::is_sorted(order.begin(), order.end()))
    return x;
  return e.emit(Op::permute, {x}, {{"dims", attr_ints(order)}});
}

Result<Val> broadcast_to(Emitter &e, const Val &x, const Shape &shape) {
  if (x.type.shape == shape)
    return x;
  return e.emit(Op::broadcast_to, {x}, {{"shape", shape}});
}

Result<Val> convert(Emitter &e, const Val &x, DType dtype) {
  if (x.dtype() == dtype)
    return x;
  return e.emit(Op::convert, {x}, {{"dtype", dtype}});
}

Result<Val> slice_axis(Emitter &e, const Val &x, int axis, const Dim &start, const Dim &size) {
  if (start.is_const(0) && size == x.dim(axis))
    return x;
  return e.emit(Op::slice, {x},
                {{"axes", attr_ints(std::vector<int>{axis})},
                 {"starts", std::vector<Dim>{start}},
                 {"ends", std::vector<Dim>{start + size}},
                 {"steps", std::vector<Dim>{1}}});
}

} // namespace kiln::onnx
