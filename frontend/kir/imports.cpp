// `import "base.onnx" as base`: a model file as a module. Its weights are params of the file's own names, whose values stay
// where the file is mapped; base(x) copies its graph to where it is called, for the sizes of x.
//
//   import "squeezenet.onnx" as base
//   freeze(base)
//   head = nn.Linear(512, 10)
//   func net(x) { return head(mean(base(x, outputs="fire9/concat_2"), [2, 3])) }
#include "frontend/kir/elaborator.h"

#include "ir/clone.h"
#include "ir/ops/op.h"

#include <algorithm>

#include <fmt/format.h>

namespace kiln::kir {
namespace {

template <typename F>
void for_each_block(Function &f, Block &block, const F &visit) {
  visit(block);
  for (NodeId id : std::vector<NodeId>(block.nodes))
    for (Block &region : f.node(id).regions)
      for_each_block(f, region, visit);
}

// Only floats that have dims are trained: neither sizes nor a lone number.
bool trainable(const Tensor &t) { return is_float(t.dtype()) && t.rank() > 0; }

} // namespace

Datum Elaborator::import_model(const Stmt &s, const Library &library) {
  const std::string &name = s.names[0];
  if (!options_.import_model)
    return error(s.location, "model files cannot be imported here");
  Module part;
  std::set<std::string> weights;
  if (!options_.import_model({name, s.text, {}, {}, &weights}, part, diagnostics_))
    return error(s.location, fmt::format("'{}' cannot be imported", s.text),
                 {"the file lies beside this one; --import " + name + "=FILE takes another"});
  KILN_CHECK(part.functions.size() == 1, "a model file is one function");
  ImportedModel &model = imported_.emplace_back();
  model.name = name;
  model.file = s.text;
  model.decl.name = name;
  model.decl.location = s.location;
  const Function &main = part.functions[0];
  for (ValueId arg : main.body.args)
    model.inputs.push_back(main.value(arg).name);
  objects_.push_back({&model.decl, &library, {}, "", name, true, &model});
  model.object = &objects_.back();
  for (const Constant &c : part.constants) {
    if (!weights.count(c.name) || !trainable(c.tensor) || model.weights.count(c.name))
      continue;
    variable_data_.push_back({VariableKind::param, c.tensor.type(), nullptr, nullptr, &library, s.location, VariableId()});
    VariableDatum *variable = &variable_data_.back();
    variable->value = module_.add_constant(c.tensor, name + "." + c.name);
    model.weights.emplace(c.name, variable);
    model.object->fields.emplace_back(c.name, Datum{variable});
  }
  module_.keep_alive.insert(module_.keep_alive.end(), part.keep_alive.begin(), part.keep_alive.end());
  return {model.object};
}

// After all files have run: those that are frozen by then are constants and need no name.
void Elaborator::name_imported() {
  for (ImportedModel &model : imported_)
    for (auto &[name, field] : model.object->fields)
      if (auto *variable = field.get<VariableDatum *>(); !(*variable)->frozen)
        register_variable(model.name + "." + name, **variable);
}

Datum Elaborator::call_imported(const ImportedModel &model, const Args &args, const Location &where) {
  if (!in_function(where))
    return {Poison{}};
  std::vector<std::optional<ValueId>> given(model.inputs.size());
  std::vector<std::string> results;
  bool many = false, ok = true;
  auto usage = [&] {
    std::string list;
    for (const std::string &input : model.inputs)
      list += (list.empty() ? "" : ", ") + input;
    return fmt::format("{} takes ({}, outputs=\"the name of a value within it\")", model.name, list);
  };
  auto place = [&](size_t i, const Arg &arg) {
    if (given[i]) {
      error(arg.location, fmt::format("the argument '{}' is given twice", model.inputs[i]));
      ok = false;
      return;
    }
    given[i] = as_tensor(arg.value, arg.location);
    ok &= given[i].has_value();
  };
  if (args.positional.size() > given.size())
    return error(where, fmt::format("{} takes {} arguments, but {} are given", model.name, given.size(), args.positional.size()), {usage()});
  for (size_t i = 0; i < args.positional.size(); ++i)
    place(i, args.positional[i]);
  for (const auto &[name, arg] : args.named) {
    auto it = std::find(model.inputs.begin(), model.inputs.end(), name);
    if (it != model.inputs.end()) {
      place(size_t(it - model.inputs.begin()), arg);
      continue;
    }
    auto *one = arg.value.get<std::string>();
    auto *list = arg.value.get<ListData *>();
    many = list != nullptr;
    if (one)
      results.push_back(*one);
    for (const Datum &item : list ? (*list)->items : std::vector<Datum>())
      if (auto *text = item.get<std::string>())
        results.push_back(*text);
    if (name != "outputs" || results.empty() || (list && results.size() != (*list)->items.size()))
      return error(arg.location, name == "outputs" ? "outputs is the name of a value within the model, or a list of them"
                                                   : fmt::format("{} has no input '{}'", model.name, name), {usage()});
  }
  for (size_t i = 0; ok && i < given.size(); ++i)
    if (!given[i])
      return error(where, fmt::format("{} needs the argument '{}'", model.name, model.inputs[i]), {usage()});
  if (!ok)
    return {Poison{}};
  Module part;
  std::set<std::string> weights;
  ModelRequest request{model.name, model.file, {}, std::move(results), &weights};
  std::vector<ValueId> arguments;
  for (size_t i = 0; i < given.size(); ++i) {
    arguments.push_back(*given[i]);
    request.shapes[model.inputs[i]] = type_of(*given[i]).shape;
  }
  if (!options_.import_model(request, part, diagnostics_))
    return error(where, fmt::format("{} does not fit these arguments", model.name));
  auto values = place_imported(model, part, arguments, where);
  if (!values)
    return {Poison{}};
  if (values->size() == 1 && !many)
    return tensor(values->front());
  std::vector<Datum> items;
  for (ValueId id : *values)
    items.push_back(tensor(id));
  return make_list(std::move(items), true);
}

// Copies the function of `part` to where the builder stands.
std::optional<std::vector<ValueId>> Elaborator::place_imported(const ImportedModel &model, Module &part,
                                                               std::span<const ValueId> arguments, const Location &where) {
  Function &from = part.functions[0];
  if (!spend(int64_t(from.nodes.size()), where))
    return std::nullopt;
  ValueMap values;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const TensorType &wanted = from.type(from.body.args[i]), &given = type_of(arguments[i]);
    if (wanted != given) {
      error(where, fmt::format("the argument '{}' of {} is {}, not {}", model.inputs[i], model.name, wanted.text(), given.text()));
      return std::nullopt;
    }
    values[from.body.args[i]] = arguments[i];
  }
  if (!part.variables.empty()) {
    error(where, fmt::format("{} draws random numbers or has state of its own, which an imported model cannot", model.name));
    return std::nullopt;
  }
  std::vector<ConstantId> constants(part.constants.size());
  for_each_block(from, from.body, [&](Block &block) {
    std::erase_if(block.nodes, [&](NodeId id) {
      Node &node = from.node(id);
      if (node.op != Op::constant)
        return false;
      size_t index = size_t(node.attrs.get_constant("value"));
      const Constant &c = part.constants[index];
      auto weight = model.weights.find(c.name);
      if (weight != model.weights.end()) {
        values[node.results[0]] = read(*weight->second, where);
        return true;
      }
      if (!constants[index].valid())
        constants[index] = module_.add_constant(c.tensor, c.name.empty() ? "" : model.name + "." + c.name);
      node.attrs.set("value", constants[index]);
      return false;
    });
  });
  Status copied = clone_nodes(fn_->builder, from, from.body, values);
  fn_->builder.set_location(node_location(where));
  if (!copied) {
    error(where, fmt::format("{}: {}", model.name, copied.error().message));
    return std::nullopt;
  }
  module_.constraints.insert(module_.constraints.end(), part.constraints.begin(), part.constraints.end());
  module_.keep_alive.insert(module_.keep_alive.end(), part.keep_alive.begin(), part.keep_alive.end());
  std::vector<ValueId> out;
  for (ValueId result : from.body.results) {
    auto it = values.find(result);
    KILN_CHECK(it != values.end(), "a result is computed by the model");
    out.push_back(it->second);
  }
  return out;
}

} // namespace kiln::kir
