// Attributes and the arena operations of functions.
#include "ir/graph.h"

#include "ir/support/check.h"

#include <algorithm>

namespace kiln {

Attrs::Attrs(std::initializer_list<std::pair<std::string_view, Attr>> list) {
  for (const auto &[name, value] : list)
    set(name, value);
}

const Attr *Attrs::find(std::string_view name) const {
  for (const auto &[key, value] : list_)
    if (key == name)
      return &value;
  return nullptr;
}

void Attrs::set(std::string_view name, Attr value) {
  auto it = std::lower_bound(list_.begin(), list_.end(), name,
                             [](const auto &entry, std::string_view key) { return entry.first < key; });
  if (it != list_.end() && it->first == name)
    it->second = std::move(value);
  else
    list_.emplace(it, std::string(name), std::move(value));
}

void Attrs::erase(std::string_view name) {
  std::erase_if(list_, [&](const auto &entry) { return entry.first == name; });
}

namespace {

template <typename T>
const T &get(const Attrs &attrs, std::string_view name) {
  const Attr *attr = attrs.find(name);
  KILN_CHECK(attr, "no attribute '" + std::string(name) + "'");
  const T *value = std::get_if<T>(attr);
  KILN_CHECK(value, "attribute '" + std::string(name) + "' is of another kind");
  return *value;
}

} // namespace

bool Attrs::get_bool(std::string_view name) const { return get<bool>(*this, name); }
int64_t Attrs::get_int(std::string_view name) const { return get<Dim>(*this, name).as_const(); }
const Dim &Attrs::get_dim(std::string_view name) const { return get<Dim>(*this, name); }
double Attrs::get_float(std::string_view name) const { return get<double>(*this, name); }
const std::string &Attrs::get_string(std::string_view name) const {
  return get<std::string>(*this, name);
}
DType Attrs::get_dtype(std::string_view name) const { return get<DType>(*this, name); }
const std::vector<Dim> &Attrs::get_dims(std::string_view name) const {
  return get<std::vector<Dim>>(*this, name);
}
std::vector<int64_t> Attrs::get_ints(std::string_view name) const {
  std::vector<int64_t> out;
  for (const Dim &d : get_dims(name))
    out.push_back(d.as_const());
  return out;
}
const std::vector<double> &Attrs::get_floats(std::string_view name) const {
  return get<std::vector<double>>(*this, name);
}
ConstantId Attrs::get_constant(std::string_view name) const { return get<ConstantId>(*this, name); }
VariableId Attrs::get_variable(std::string_view name) const { return get<VariableId>(*this, name); }
FunctionId Attrs::get_function(std::string_view name) const { return get<FunctionId>(*this, name); }

ValueId Function::add_value(TensorType type, std::string value_name) {
  values.push_back({std::move(type), {}, std::move(value_name), NodeId(), 0});
  return ValueId(values.size() - 1);
}

ValueId Function::add_argument(Block &block, TensorType type, std::string value_name) {
  ValueId id = add_value(std::move(type), std::move(value_name));
  block.args.push_back(id);
  return id;
}

const Node *Function::def(ValueId id) const {
  NodeId node_id = value(id).def;
  return node_id.valid() ? &node(node_id) : nullptr;
}

namespace {

// Calls visit(ValueId&) for every use inside a block: operands and results, nested blocks too.
template <typename F>
void visit_uses(Function &function, Block &block, const F &visit) {
  for (NodeId id : block.nodes) {
    for (ValueId &operand : function.node(id).operands)
      visit(operand);
    for (Block &region : function.node(id).regions)
      visit_uses(function, region, visit);
  }
  for (ValueId &result : block.results)
    visit(result);
}

} // namespace

void Function::replace_uses(ValueId from, ValueId to) {
  visit_uses(*this, body, [&](ValueId &use) {
    if (use == from)
      use = to;
  });
}

std::vector<int> Function::use_counts() const {
  std::vector<int> counts(values.size());
  auto &self = const_cast<Function &>(*this);
  visit_uses(self, self.body, [&](ValueId &use) { ++counts[size_t(use)]; });
  return counts;
}

void Function::compact() {
  std::vector<Node> new_nodes;
  std::vector<Value> new_values;
  std::vector<ValueId> value_map(values.size());
  auto keep_value = [&](ValueId &id) {
    KILN_CHECK(!value_map[size_t(id)].valid(), "a value is defined twice");
    new_values.push_back(std::move(values[size_t(id)]));
    ValueId fresh(new_values.size() - 1);
    value_map[size_t(id)] = fresh;
    id = fresh;
  };
  auto keep_block = [&](auto &self, Block &block) -> void {
    for (ValueId &arg : block.args)
      keep_value(arg);
    std::erase_if(block.nodes, [&](NodeId id) { return nodes[size_t(id)].removed; });
    for (NodeId &id : block.nodes) {
      Node n = std::move(nodes[size_t(id)]);
      for (ValueId &operand : n.operands)
        operand = value_map[size_t(operand)];
      for (Block &region : n.regions)
        self(self, region);
      for (ValueId &result : n.results)
        keep_value(result);
      new_nodes.push_back(std::move(n));
      id = NodeId(new_nodes.size() - 1);
      for (ValueId result : new_nodes.back().results)
        new_values[size_t(result)].def = id;
    }
    for (ValueId &result : block.results)
      result = value_map[size_t(result)];
  };
  keep_block(keep_block, body);
  nodes = std::move(new_nodes);
  values = std::move(new_values);
}

ConstantId Module::add_constant(Tensor tensor, std::string constant_name) {
  constants.push_back({std::move(constant_name), std::move(tensor)});
  return ConstantId(constants.size() - 1);
}

const Function *Module::find_function(std::string_view function_name) const {
  for (const Function &f : functions)
    if (f.name == function_name)
      return &f;
  return nullptr;
}

} // namespace kiln
