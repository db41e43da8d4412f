#include "ir/clone.h"

namespace kiln {
namespace {

Dim substituted(const Dim &dim, const DimMap &dims) {
  if (dims.empty() || dim.is_const())
    return dim;
  return dim.substitute([&](Symbol s) -> std::optional<Dim> {
    auto it = dims.find(s);
    return it == dims.end() ? std::nullopt : std::optional(it->second);
  });
}

ValueId mapped(const ValueMap &values, ValueId value) {
  auto it = values.find(value);
  return it == values.end() ? value : it->second;
}

} // namespace

TensorType substituted(const TensorType &type, const DimMap &dims) {
  TensorType out = type;
  for (Dim &d : out.shape)
    d = substituted(d, dims);
  return out;
}

Attrs substituted(const Attrs &attrs, const DimMap &dims) {
  Attrs out;
  for (const auto &[name, value] : attrs.all()) {
    if (const Dim *dim = std::get_if<Dim>(&value)) {
      out.set(name, substituted(*dim, dims));
    } else if (const auto *list = std::get_if<std::vector<Dim>>(&value)) {
      std::vector<Dim> copy = *list;
      for (Dim &d : copy)
        d = substituted(d, dims);
      out.set(name, std::move(copy));
    } else {
      out.set(name, value);
    }
  }
  return out;
}

Status clone_node(GraphBuilder &b, const Function &from, NodeId id, ValueMap &values,
                  const DimMap &dims) {
  // A copy, since `from` may be the function that grows.
  Node node = from.node(id);
  std::vector<ValueId> operands;
  for (ValueId operand : node.operands)
    operands.push_back(mapped(values, operand));
  std::vector<Block> regions;
  for (const Block &region : node.regions) {
    Block copy;
    for (ValueId arg : region.args) {
      Value value = from.value(arg);
      values[arg] = b.function().add_argument(copy, substituted(value.type, dims), value.name);
    }
    GraphBuilder inner(b.module(), b.function(), copy);
    KILN_RETURN_IF_ERROR(clone_nodes(inner, from, region, values, dims));
    for (ValueId result : region.results)
      copy.results.push_back(mapped(values, result));
    regions.push_back(std::move(copy));
  }
  Location outer = b.location();
  b.set_location(node.location);
  Attrs attrs = substituted(node.attrs, dims);
  if (node.op == Op::bind_size)
    if (auto it = dims.find(Symbol(node.attrs.get_string("symbol"))); it != dims.end() && it->second.try_symbol())
      attrs.set("symbol", std::string(it->second.try_symbol()->text()));
  auto emitted = b.emit(node.op, std::move(operands), std::move(attrs), std::move(regions));
  b.set_location(outer);
  KILN_TRY(fresh, std::move(emitted));
  for (size_t i = 0; i < node.results.size(); ++i) {
    const Value &old = from.value(node.results[i]);
    std::string name = old.name;
    Layout layout = old.layout;
    ValueId result = b.function().node(fresh).results[i];
    b.function().value(result).name = std::move(name);
    b.function().value(result).layout = std::move(layout);
    values[node.results[i]] = result;
  }
  return Unit{};
}

Status clone_nodes(GraphBuilder &b, const Function &from, const Block &block, ValueMap &values,
                   const DimMap &dims) {
  std::vector<NodeId> nodes = block.nodes;
  for (NodeId id : nodes)
    KILN_RETURN_IF_ERROR(clone_node(b, from, id, values, dims));
  return Unit{};
}

} // namespace kiln
