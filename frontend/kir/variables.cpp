// Params and states: their names (the path to the module that declares them), their values from weights,
// and the `init` entry that computes their first values from a seed.
#include "frontend/kir/elaborator.h"

#include "ir/ops/op.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

namespace kiln::kir {

ValueId Elaborator::read(VariableDatum &variable, const Location &where) {
  if (variable.frozen && variable.value.valid()) {
    auto node = emit_node(Op::constant, {}, {{"value", variable.value}}, {}, where);
    KILN_CHECK(node.ok(), "a constant can be read");
    return fn_->function.node(*node).results[0];
  }
  if (!variable.id.valid()) {
    // A layer made inside a function: it has parameters, but nothing keeps them.
    error(where, "this param has no name: make its module at the top level (`net = ...`) or as a field of a model");
    variable.id = VariableId(module_.variables.size());
    module_.variables.push_back({"unnamed", variable.kind, variable.type, ConstantId(), variable.location});
    registered_.push_back(&variable);
  }
  bool is_first = !fn_->current.contains(variable.id);
  ValueId value = read(variable.id, where);
  if (is_first && !variable.device.empty())
    fn_->current[variable.id] = value = copied_to(value, variable.device, node_location(variable.location));
  return value;
}

ValueId Elaborator::read(VariableId id, const Location &where) {
  auto it = fn_->current.find(id);
  if (it != fn_->current.end())
    return it->second;
  auto node = emit_node(Op::read_variable, {}, {{"variable", id}}, {}, where);
  KILN_CHECK(node.ok(), "a variable can be read");
  ValueId value = fn_->function.node(*node).results[0];
  fn_->function.value(value).name = module_.variables[size_t(id)].name;
  fn_->current[id] = value;
  return value;
}

void Elaborator::register_variable(const std::string &name, VariableDatum &variable) {
  if (variable.id.valid())
    return; // shared: the first name stays
  for (const Variable &v : module_.variables)
    if (v.name == name) {
      error(variable.location, fmt::format("there are two params or states named '{}'", name));
      return;
    }
  variable.id = VariableId(module_.variables.size());
  module_.variables.push_back({name, variable.kind, variable.type, variable.value, variable.location});
  registered_.push_back(&variable);
}

void Elaborator::name_objects(const std::string &path, Datum &value) {
  Deeper deeper(*this);
  if (deeper.too_deep())
    return;
  if (auto *variable = value.get<VariableDatum *>()) {
    if (!(*variable)->value.valid()) // an imported model's have the names of its file
      register_variable(path, **variable);
  } else if (auto *list = value.get<ListData *>()) {
    for (size_t i = 0; i < (*list)->items.size(); ++i)
      if (!(*list)->items[i].is<VariableDatum *>())
        name_objects(path + "." + std::to_string(i), (*list)->items[i]);
  } else if (auto *object = value.get<Object *>()) {
    if ((*object)->named || (*object)->imported)
      return;
    (*object)->named = true;
    (*object)->path = path;
    for (auto &[name, field] : (*object)->fields)
      name_objects(name == (*object)->variadic ? path : path + "." + name, field);
  }
}

namespace {

std::string shape_note(const Tensor &t) { return t.type().text(); }

} // namespace

void Elaborator::load_weights() {
  if (options_.weights.empty())
    return;
  std::vector<std::string> missing, unexpected, available;
  for (size_t i = 0; i < module_.variables.size(); ++i) {
    Variable &v = module_.variables[i];
    auto it = options_.weights.find(v.name);
    if (it == options_.weights.end()) {
      bool computed = v.kind == VariableKind::state && i < registered_.size() && registered_[i] &&
                      registered_[i]->initial;
      if (options_.strict_weights && !v.initial.valid() && !computed)
        missing.push_back(v.name);
      continue;
    }
    used_weights_.insert(v.name);
    if (it->second.type() != v.type) {
      error(v.location, fmt::format("'{}' is {}, but the weights have {}", v.name, v.type.text(),
                                    shape_note(it->second)));
      continue;
    }
    v.initial = module_.add_constant(it->second, v.name);
  }
  for (const auto &[name, value] : options_.weights) {
    if (!used_weights_.count(name))
      unexpected.push_back(name);
  }
  Location file{main_->file.name, 0, 0, {}};
  if (!missing.empty() && options_.strict_weights) {
    std::vector<std::string> notes;
    for (const std::string &name : missing) {
      std::string hint = suggestion(name, unexpected);
      notes.push_back(name + (hint.empty() ? "" : fmt::format(" (is it '{}' in the weights?)", hint)));
    }
    error(file, fmt::format("{} param{} not in the weights", missing.size(), missing.size() == 1 ? " is" : "s are"),
          std::move(notes));
  }
  if (!unexpected.empty() && options_.strict_weights) {
    std::vector<std::string> names;
    for (const Variable &v : module_.variables)
      names.push_back(v.name);
    std::vector<std::string> notes;
    for (const std::string &name : unexpected) {
      std::string hint = suggestion(name, names);
      notes.push_back(name + (hint.empty() ? "" : fmt::format(" (is it '{}' here?)", hint)));
    }
    error(file, fmt::format("{} weight{} used by nothing", unexpected.size(), unexpected.size() == 1 ? " is" : "s are"),
          std::move(notes));
  }
}

Datum Elaborator::weight(const std::string &name, const Location &where) {
  auto it = options_.weights.find(name);
  if (it == options_.weights.end()) {
    std::vector<std::string> known;
    for (const auto &[key, value] : options_.weights)
      known.push_back(key);
    std::string hint = suggestion(name, known);
    return error(where, fmt::format("the weights have no '{}'{}", name,
                                    hint.empty() ? "" : fmt::format("; did you mean '{}'?", hint)),
                 known.empty() ? std::vector<std::string>{"no weights were given; give them with --weights"}
                               : std::vector<std::string>{});
  }
  if (!in_function(where))
    return {Poison{}};
  used_weights_.insert(name);
  auto [id, fresh] = weight_constants_.emplace(name, ConstantId());
  if (fresh)
    id->second = module_.add_constant(it->second, name);
  return emit(Op::constant, {}, {{"value", id->second}}, where);
}

namespace {

uint64_t stream_of(std::string_view name, int index) {
  uint64_t hash = 0xcbf29ce484222325u; // FNV-1a
  auto mix = [&](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3u; };
  for (char c : name)
    mix(static_cast<unsigned char>(c));
  mix(0);
  for (int shift = 0; shift < 32; shift += 8)
    mix(static_cast<unsigned char>(uint32_t(index) >> shift));
  return hash;
}

// The constant behind a value that is one number everywhere, if it is.
const Tensor *uniform_value(const Module &m, const Function &f, ValueId id) {
  const Node *n = f.def(id);
  while (n && (n->op == Op::broadcast_to || n->op == Op::reshape))
    n = f.def(n->operands[0]);
  if (!n || n->op != Op::constant)
    return nullptr;
  const Tensor &t = m.constants[size_t(n->attrs.get_constant("value"))].tensor;
  return t.count() == 1 ? &t : nullptr;
}

} // namespace

// A key of two words: the seed, and a number made of the param's name and a count, so that no two draws
// are alike and none depends on the order of the params.
Datum Elaborator::init_key(const Location &where) {
  if (!init_)
    return error(where, "init_key() is for initial values; random_key() is for functions");
  Tensor stream(DType::u64, {1});
  stream.set_i64(0, int64_t(stream_of(init_->name, init_->streams++)));
  ConstantId id = module_.add_constant(std::move(stream));
  Datum name = emit(Op::constant, {}, {{"value", id}}, where);
  Datum seed = emit(Op::reshape, {init_->seed}, {{"shape", std::vector<Dim>{Dim(1)}}}, where);
  if (name.poison() || seed.poison())
    return {Poison{}};
  return emit(Op::concat, {seed.get<TensorRef>()->id, name.get<TensorRef>()->id}, {{"axis", Dim(0)}}, where);
}

Datum Elaborator::random_key(const Location &where) {
  if (init_)
    return init_key(where);
  Tensor key(DType::u64, {2});
  key.set_i64(0, random_seed_);
  key.set_i64(1, random_count_++);
  ConstantId id = module_.add_constant(std::move(key));
  return emit(Op::constant, {}, {{"value", id}}, where);
}

void Elaborator::elaborate_init() {
  bool any = false;
  for (VariableDatum *v : registered_)
    any |= v->initial != nullptr;
  if (!any)
    return;
  bool taken = module_.find_function("init") != nullptr;
  Function f;
  f.name = "init";
  f.exported = true;
  f.location = {main_->file.name, 0, 0, {}};
  FunctionState state{f, GraphBuilder(module_, f, f.body), {}, {}, 0, {}};
  auto *saved_fn = std::exchange(fn_, &state);
  ValueId seed = f.add_argument(f.body, {DType::u64, {}}, "seed");
  bool random = false;
  for (size_t i = 0; i < registered_.size(); ++i) {
    VariableDatum &v = *registered_[i];
    if (!v.initial)
      continue;
    InitState init{v.type, module_.variables[i].name, seed, 0};
    init_ = &init;
    Frame frame;
    frame.library = v.library;
    frame.self = v.owner;
    frame.name = module_.variables[i].name;
    auto *saved_frame = std::exchange(frame_, &frame);
    Location saved_site = std::exchange(call_site_, v.library->own ? Location{} : v.location);
    Datum value = eval(*v.initial);
    std::string what = "the initial value of '" + init.name + "'";
    if (value.callable()) { // = zeros
      std::vector<Datum> shape(v.type.shape.begin(), v.type.shape.end());
      Args args;
      args.positional.push_back({make_list(std::move(shape)), v.location});
      args.named.emplace_back("dtype", Arg{{v.type.dtype}, v.location});
      value = call(value, args, v.location);
    }
    std::optional<ValueId> id;
    if (value.number()) {
      id = number_tensor(value, v.type.dtype, v.location);
      Datum wide = id ? emit(Op::broadcast_to, {*id}, {{"shape", v.type.shape}}, v.location) : Datum{Poison{}};
      id = wide.is<TensorRef>() ? std::optional(wide.get<TensorRef>()->id) : std::nullopt;
    } else if (!value.poison()) {
      id = value.is<ListData *>() ? number_tensor(value, v.type.dtype, v.location) : as_tensor(value, v.location);
    }
    if (id && type_of(*id) != v.type) {
      error(v.location, fmt::format("{} is {}, not {}", what, type_of(*id).text(), v.type.text()));
    } else if (id) {
      const Tensor *one = uniform_value(module_, f, *id);
      constexpr int64_t kLargest = int64_t(1) << 26;
      std::vector<int64_t> dims;
      for (const Dim &d : v.type.shape)
        dims.push_back(d.as_const());
      int64_t bytes = checked_bytes(v.type.dtype, dims).value_or(kLargest + 1);
      Variable &variable = module_.variables[i];
      const Node *def = f.def(*id);
      bool written_out = def && def->op == Op::constant;
      random |= init.streams > 0 || (!one && !written_out);
      if (written_out && !variable.initial.valid())
        variable.initial = def->attrs.get_constant("value");
      if (one && bytes <= kLargest && !variable.initial.valid()) {
        Tensor t(v.type.dtype, dims);
        size_t width = size_t(dtype_bytes(v.type.dtype));
        for (int64_t k = 0; k < t.count(); ++k)
          std::memcpy(t.mutable_bytes() + size_t(k) * width, one->bytes().data(), width);
        variable.initial = module_.add_constant(std::move(t), variable.name);
      }
      emit(Op::assign, {*id}, {{"variable", v.id}}, v.location);
    }
    frame_ = saved_frame;
    call_site_ = saved_site;
    init_ = nullptr;
  }
  fn_ = saved_fn;
  bool provided = !options_.weights.empty();
  if (random && !taken && !provided)
    module_.functions.push_back(std::move(f));
}

} // namespace kiln::kir
