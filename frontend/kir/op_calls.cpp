// Calls of ops: arguments sorted into operands and attributes, numbers made tensors of the operands' dtype,
// and the messages where an op refuses.
#include "frontend/kir/elaborator.h"

#include "ir/ops/op.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace kiln::kir {

Result<NodeId> Elaborator::emit_node(Op op, std::vector<ValueId> operands, Attrs attrs,
                                     std::vector<Block> regions, const Location &where) {
  const OpDef &def = op_def(op);
  if (!def.infer)
    return Error{fmt::format("the op {} is not available in this build", def.name)};
  constexpr size_t kMaxNodes = size_t(1) << 22;
  if (fn_->function.nodes.size() > kMaxNodes)
    return Error{fmt::format("the function has more than {} nodes; a loop over tensors (`for row in x`) is "
                             "not unrolled", kMaxNodes)};
  fn_->builder.set_location(node_location(where));
  return fn_->builder.emit(op, std::move(operands), std::move(attrs), std::move(regions));
}

Datum Elaborator::node_results(NodeId id) {
  std::vector<ValueId> results = fn_->function.node(id).results;
  if (results.empty())
    return {None{}};
  if (results.size() == 1)
    return tensor(results[0]);
  std::vector<Datum> out;
  for (ValueId r : results)
    out.push_back(tensor(r));
  return make_list(std::move(out), true);
}

Datum Elaborator::emit(Op op, std::vector<ValueId> operands, Attrs attrs, const Location &where) {
  if (!in_function(where))
    return {Poison{}};
  std::string types;
  for (ValueId v : operands)
    types += (types.empty() ? "" : ", ") + type_of(v).text();
  auto node = emit_node(op, std::move(operands), std::move(attrs), {}, where);
  if (node)
    return node_results(*node);
  std::vector<std::string> notes;
  if (!types.empty())
    notes.push_back("operands: " + types);
  return error(where, node.error().message, std::move(notes));
}

Result<Attr> Elaborator::to_attr(const Datum &d, int kind_number, std::string_view name) {
  AttrKind kind = AttrKind(kind_number);
  auto wrong = [&](std::string_view wanted) -> Result<Attr> {
    return Error{fmt::format("'{}' is {}, not {}", name, wanted, describe(d))};
  };
  auto number = [&](const Datum &item) -> std::optional<double> {
    if (auto *f = item.get<double>())
      return *f;
    if (auto *i = item.get<Dim>(); i && i->is_const())
      return double(i->as_const());
    return std::nullopt;
  };
  // A single value counts as a list of one.
  std::vector<Datum> items{d};
  if (auto *list = d.get<ListData *>())
    items = (*list)->items;
  switch (kind) {
  case AttrKind::boolean:
    if (auto *b = d.get<bool>())
      return Attr(*b);
    return wrong("true or false");
  case AttrKind::integer:
    if (auto *i = d.get<Dim>())
      return Attr(*i);
    return wrong("an integer");
  case AttrKind::real:
    if (auto f = number(d))
      return Attr(*f);
    return wrong("a number");
  case AttrKind::string:
    if (auto *s = d.get<std::string>())
      return Attr(*s);
    return wrong("a string");
  case AttrKind::dtype:
    if (auto *t = d.get<DType>())
      return Attr(*t);
    return wrong("a dtype such as f32");
  case AttrKind::dims: {
    std::vector<Dim> out;
    for (const Datum &item : items) {
      auto *i = item.get<Dim>();
      if (!i)
        return wrong("a list of integers");
      out.push_back(*i);
    }
    return Attr(std::move(out));
  }
  case AttrKind::reals: {
    std::vector<double> out;
    for (const Datum &item : items) {
      auto f = number(item);
      if (!f)
        return wrong("a list of numbers");
      out.push_back(*f);
    }
    return Attr(std::move(out));
  }
  case AttrKind::strings: {
    std::vector<std::string> out;
    for (const Datum &item : items) {
      auto *s = item.get<std::string>();
      if (!s)
        return wrong("a list of strings");
      out.push_back(*s);
    }
    return Attr(std::move(out));
  }
  case AttrKind::variable: {
    if (auto *v = d.get<VariableDatum *>(); v && (*v)->id.valid())
      return Attr((*v)->id);
    auto *ref = d.get<RefName>();
    if (!ref)
      return wrong("a variable such as @net.weight");
    for (size_t i = 0; i < module_.variables.size(); ++i)
      if (module_.variables[i].name == ref->name)
        return Attr(VariableId(i));
    std::vector<std::string> known;
    for (const Variable &v : module_.variables)
      known.push_back(v.name);
    std::string hint = suggestion(ref->name, known);
    return Error{fmt::format("there is no variable '{}'{}", ref->name,
                             hint.empty() ? "" : fmt::format("; did you mean '{}'?", hint))};
  }
  case AttrKind::function: {
    const auto *ref = d.get<RefName>();
    if (!ref)
      return wrong("a function such as @f");
    auto it = entry_ids_.find(ref->name);
    if (it == entry_ids_.end())
      return Error{fmt::format("there is no function '{}'", ref->name)};
    if (entry_states_[size_t(it->second)] == EntryState::running)
      return Error{fmt::format("'{}' calls itself", ref->name)};
    elaborate_function(it->second);
    return Attr(it->second);
  }
  case AttrKind::constant:
    return Error{fmt::format("'{}' is written constant(f32[2]: 1.0, 2.0)", name)};
  }
  return wrong("something else");
}

namespace {

// axis= and axes= may also be written dim=, as PyTorch does; keepdims= as keepdim=.
std::string_view alias(const OpDef &def, std::string_view name) {
  auto has = [&](std::string_view key) {
    return std::any_of(def.attrs.begin(), def.attrs.end(), [&](const AttrSpec &s) { return s.name == key; });
  };
  if (has(name))
    return name;
  for (auto [from, to] : std::initializer_list<std::pair<std::string_view, std::string_view>>{
           {"dim", "axis"}, {"dim", "axes"}, {"axis", "axes"}, {"keepdim", "keepdims"},
           {"eps", "epsilon"}, {"padding", "pad"}, {"kernel_size", "kernel"}})
    if (name == from && has(to))
      return to;
  return name;
}

} // namespace

namespace {

// Whether a call is in the op's own form: tensors by position, attributes by the schema's names. PyTorch's
// forms (argmax(x, 1), sum(x, dim=1)) are for the prelude's function of the name, where there is one.
bool is_op_form(const OpDef &def, const Args &args) {
  for (const auto &[key, arg] : args.named)
    if (std::none_of(def.attrs.begin(), def.attrs.end(), [&, k = std::string_view(key)](const AttrSpec &s) {
          return s.name == k;
        }))
      return false;
  for (const Arg &arg : args.positional) {
    auto *list = arg.value.get<ListData *>();
    bool tensors = list && def.max_operands < 0 && !(*list)->items.empty() && !(*list)->items[0].number();
    bool number = arg.value.number() && def.has(kElementwise);
    bool constant = arg.value.is<TensorRef>() || arg.value.is<VariableDatum *>() || arg.value.is<RefName>();
    if (!constant && !tensors && !number && !arg.value.none())
      return false;
  }
  return true;
}

} // namespace

Result<Elaborator::OpArgs> Elaborator::match_op(Op op, const Args &args) {
  const OpDef &def = op_def(op);
  OpArgs out;
  std::vector<Datum> operands;
  std::vector<Location> places;
  size_t next_attr = 0;
  bool elementwise = def.has(kElementwise);
  auto set = [&](const AttrSpec &spec, const Datum &value) -> Status {
    KILN_TRY(attr, to_attr(value, int(spec.kind), spec.name));
    out.attrs.set(spec.name, std::move(attr));
    return Unit{};
  };
  for (const Arg &arg : args.positional) {
    const Datum &d = arg.value;
    bool is_tensor = d.is<TensorRef>() || d.is<VariableDatum *>();
    if (is_tensor && def.name != "read_variable" && !(d.is<VariableDatum *>() && op == Op::assign && operands.empty() && !out.attrs.has("variable"))) {
      operands.push_back(d);
      places.push_back(arg.location);
      continue;
    }
    bool room = def.max_operands < 0 || int(operands.size()) < def.max_operands;
    if (d.number() && elementwise && room) {
      operands.push_back(d);
      places.push_back(arg.location);
      continue;
    }
    if (auto *list = d.get<ListData *>(); list && def.max_operands < 0 && operands.empty() &&
                                          !(*list)->items.empty() && !(*list)->items[0].number()) {
      for (const Datum &item : (*list)->items) {
        operands.push_back(item);
        places.push_back(arg.location);
      }
      continue;
    }
    if (d.none() && room)
      continue; // an optional operand that is left out
    if (next_attr >= def.attrs.size())
      return Error{fmt::format("{} takes no argument {} here", def.name, describe(d))};
    KILN_RETURN_IF_ERROR(set(def.attrs[next_attr++], d));
  }
  for (const auto &[key, arg] : args.named) {
    std::string_view name = alias(def, key);
    auto spec = std::find_if(def.attrs.begin(), def.attrs.end(),
                             [&](const AttrSpec &s) { return s.name == name; });
    if (spec == def.attrs.end()) {
      std::string list;
      std::vector<std::string> known;
      for (const AttrSpec &s : def.attrs) {
        list += (list.empty() ? "" : ", ") + std::string(s.name);
        known.emplace_back(s.name);
      }
      std::string hint = suggestion(key, known);
      return Error{fmt::format("{} has no attribute '{}'{}; it has: {}", def.name, key,
                               hint.empty() ? "" : fmt::format(" (did you mean '{}'?)", hint),
                               list.empty() ? "none" : list)};
    }
    if (out.attrs.has(name))
      return Error{fmt::format("{}: '{}' is given twice", def.name, name)};
    KILN_RETURN_IF_ERROR(set(*spec, arg.value));
  }
  // Numbers take the dtype of the first tensor that is not a condition.
  std::optional<DType> dtype;
  bool skip_bool = op == Op::where;
  for (size_t i = skip_bool ? 1 : 0; i < operands.size() && !dtype; ++i) {
    if (auto *t = operands[i].get<TensorRef>())
      dtype = type_of(t->id).dtype;
    else if (auto *v = operands[i].get<VariableDatum *>())
      dtype = (*v)->type.dtype;
  }
  for (size_t i = 0; i < operands.size(); ++i) {
    auto id = operands[i].number() && dtype ? number_tensor(operands[i], *dtype, places[i])
                                            : as_tensor(operands[i], places[i]);
    if (!id)
      return Error{""};
    out.operands.push_back(*id);
  }
  return out;
}

Datum Elaborator::call_op(Op op, const Args &args, const Location &where, const FuncRef *fallback) {
  const OpDef &def = op_def(op);
  bool tensors = false;
  for (const Arg &a : args.positional)
    tensors |= !a.value.number();
  if (!tensors && !args.positional.empty() && args.named.empty()) {
    Datum folded = op_on_numbers(op, args);
    if (!folded.none())
      return folded;
  }
  if (op == Op::constant)
    return call_named("named_constant", args, where);
  if (!in_function(where))
    return {Poison{}};
  bool own_form = frame_->library == prelude_ && fallback && frame_->name == fallback->decl->name;
  if (fallback && !own_form && !is_op_form(def, args))
    return call_function(*fallback, args, where);
  size_t errors = diagnostics_.error_count();
  auto matched = match_op(op, args);
  std::string message = matched ? "" : matched.error().message;
  std::string types;
  if (matched) {
    for (ValueId v : matched->operands)
      types += (types.empty() ? "" : ", ") + type_of(v).text();
    VariableId written;
    if (op == Op::assign)
      if (const Attr *a = matched->attrs.find("variable"))
        written = std::get<VariableId>(*a);
    std::vector<ValueId> operands = matched->operands;
    auto node = emit_node(op, std::move(matched->operands), std::move(matched->attrs), {}, where);
    if (node) {
      if (written.valid() && !operands.empty()) {
        if (fn_->function.node(*node).attrs.get_dim("at").is_const(-1))
          fn_->current[written] = operands[0];
        else
          fn_->current.erase(written); // rows of it: the next use reads it again
      }
      return node_results(*node);
    }
    message = node.error().message;
  }
  if (diagnostics_.error_count() != errors)
    return {Poison{}};
  // pad(x, [1, 1]) is not the op's own form; the prelude may know what it means.
  if (fallback && !own_form)
    return call_function(*fallback, args, where);
  if (!message.starts_with(def.name))
    message = std::string(def.name) + ": " + message;
  std::vector<std::string> notes;
  if (!types.empty())
    notes.push_back("operands: " + types);
  return error(where, std::move(message), std::move(notes));
}

// sqrt(5): computed now.
Datum Elaborator::op_on_numbers(Op op, const Args &args) {
  auto value = [&](size_t i) {
    const Datum &d = args.positional[i].value;
    if (auto *f = d.get<double>())
      return *f;
    if (auto *b = d.get<bool>())
      return double(*b);
    auto c = d.get<Dim>()->try_const();
    return c ? double(*c) : std::nan("");
  };
  for (const Arg &a : args.positional)
    if (auto *d = a.value.get<Dim>(); d && !d->is_const())
      return {None{}};
  if (args.positional.size() == 1) {
    double x = value(0);
    bool whole = args.positional[0].value.is<Dim>();
    switch (op) {
    case Op::sqrt:
      return {std::sqrt(x)};
    case Op::rsqrt:
      return {1 / std::sqrt(x)};
    case Op::exp:
      return {std::exp(x)};
    case Op::log:
      return {std::log(x)};
    case Op::sin:
      return {std::sin(x)};
    case Op::cos:
      return {std::cos(x)};
    case Op::tanh:
      return {std::tanh(x)};
    case Op::neg:
    case Op::abs:
      return whole ? Datum{Dim(int64_t(op == Op::neg || x < 0 ? -x : x))}
                   : Datum{op == Op::neg || x < 0 ? -x : x};
    case Op::floor:
    case Op::ceil:
    case Op::round: {
      double y = op == Op::floor ? std::floor(x) : op == Op::ceil ? std::ceil(x) : std::nearbyint(x);
      if (std::fabs(y) < 9e18)
        return {Dim(int64_t(y))};
      return {y};
    }
    default:
      return {None{}};
    }
  }
  if (args.positional.size() == 2 && op == Op::pow)
    return binary("**", args.positional[0].value, args.positional[1].value, args.positional[0].location);
  return {None{}};
}

} // namespace kiln::kir
