// Statements. An error poisons what the statement would have defined and goes on with the next.
#include "frontend/kir/elaborator.h"

#include <fmt/format.h>

namespace kiln::kir {

Datum Elaborator::stop(const Location &where, std::string message) {
  if (!stopped_)
    error(where, std::move(message));
  stopped_ = true;
  return {Poison{}};
}

bool Elaborator::spend(int64_t steps, const Location &where) {
  constexpr int64_t kMaxSteps = 4'000'000;
  steps_ += steps;
  if (steps_ > kMaxSteps)
    stop(where, fmt::format("the program takes more than {} steps at compile time; a loop over a tensor "
                            "(`for row in x`) is not unrolled", kMaxSteps));
  return !stopped_;
}

Flow Elaborator::run_body(const Body &body) {
  for (const auto &s : body) {
    Flow flow = run_statement(*s);
    if (flow != Flow::next)
      return flow;
  }
  return Flow::next;
}

std::optional<bool> Elaborator::condition(const Datum &d, const Location &where) {
  if (auto *b = d.get<bool>())
    return *b;
  if (auto *dim = d.get<Dim>()) {
    if (dim->is_const())
      return dim->as_const() != 0;
    error(where, fmt::format("whether {} is zero is not known at compile time", dim->text()));
    return std::nullopt;
  }
  if (auto *f = d.get<double>())
    return *f != 0;
  if (auto *s = d.get<std::string>())
    return !s->empty();
  if (auto *list = d.get<ListData *>())
    return !(*list)->items.empty();
  if (d.none())
    return false;
  if (!d.poison() && !d.is<TensorRef>())
    return true;
  if (!d.poison())
    error(where, fmt::format("a compile-time condition is needed here, not {}", describe(d)));
  return std::nullopt;
}

Flow Elaborator::run_statement(const Stmt &s) {
  if (!spend(1, s.location))
    return Flow::error;
  if (fn_)
    fn_->builder.set_location(node_location(s.location));
  switch (s.kind) {
  case StmtKind::expr:
    if (!s.regions.empty())
      region_call(s);
    else
      eval(*s.value);
    return Flow::next;
  case StmtKind::assign:
    run_assign(s);
    return Flow::next;
  case StmtKind::variable:
    declare_variable(s);
    return Flow::next;
  case StmtKind::return_:
  case StmtKind::yield:
    if ((s.kind == StmtKind::yield) != frame_->in_region) {
      error(s.location, s.kind == StmtKind::yield
                            ? "yield ends a region such as `while_(x) { ... }`; a function ends with return"
                            : "a region ends with yield");
      return Flow::error;
    }
    frame_->result = s.value ? eval(*s.value) : Datum{None{}};
    return Flow::return_;
  case StmtKind::if_: {
    Datum c = eval(*s.value);
    if (auto *v = c.get<VariableDatum *>())
      c = tensor(read(**v, s.value->location));
    if (auto *t = c.get<TensorRef>())
      return tensor_if(s, t->id);
    auto truth = condition(c, s.value->location);
    if (!truth)
      return Flow::error;
    return run_body(*truth ? s.body : s.other);
  }
  case StmtKind::for_: {
    Datum over = eval(*s.value);
    if (auto *v = over.get<VariableDatum *>())
      over = tensor(read(**v, s.value->location));
    if (auto *t = over.get<TensorRef>())
      return tensor_for(s, t->id);
    auto items = iterate(over, s.value->location);
    if (!items)
      return Flow::error;
    for (const Datum &item : *items) {
      if (s.names.size() == 1) {
        frame_->locals[s.names[0]] = item;
      } else {
        auto parts = iterate(item, s.value->location);
        if (!parts || parts->size() != s.names.size()) {
          if (parts)
            error(s.location, fmt::format("{} names for {} values", s.names.size(), parts->size()));
          return Flow::error;
        }
        for (size_t i = 0; i < parts->size(); ++i)
          frame_->locals[s.names[i]] = (*parts)[i];
      }
      Flow flow = run_body(s.body);
      if (flow == Flow::break_)
        break;
      if (flow == Flow::return_ || flow == Flow::error)
        return flow;
    }
    return Flow::next;
  }
  case StmtKind::while_:
    return tensor_while(s);
  case StmtKind::break_:
    return Flow::break_;
  case StmtKind::continue_:
    return Flow::continue_;
  case StmtKind::assert_:
    check_assert(s);
    return Flow::next;
  case StmtKind::import:
    if (!s.text.empty()) {
      error(s.location, "a model file is imported at the top of a file");
      return Flow::error;
    }
    for (const std::string &name : s.names)
      if (const Library *library = load_library(name, s.location))
        frame_->locals[name] = {library};
    return Flow::next;
  case StmtKind::func:
  case StmtKind::model:
    error(s.location, "functions and models are defined at the top level or in a model");
    return Flow::next;
  case StmtKind::size:
    bind_size(s);
    return Flow::next;
  case StmtKind::dim:
  case StmtKind::capacity:
  case StmtKind::constraint:
  case StmtKind::metadata:
    error(s.location, "this stands at the top level of a file");
    return Flow::next;
  }
  return Flow::next;
}

void Elaborator::check_assert(const Stmt &s) {
  Datum d = eval(*s.value);
  auto truth = condition(d, s.value->location);
  if (!truth || *truth)
    return;
  std::string message = "the assertion does not hold";
  if (s.message) {
    Datum text = eval(*s.message);
    if (auto *string = text.get<std::string>())
      message = *string;
  }
  // A library's assertion is about its caller's arguments.
  error(s.location, message);
}

void Elaborator::run_assign(const Stmt &s) {
  if (!s.text.empty()) { // x += 1
    Datum old = eval(*s.targets[0].expr);
    Datum value = binary(s.text, old, eval(*s.value), s.location);
    assign_target(s.targets[0], value, false);
    return;
  }
  Datum value = s.regions.empty() ? eval(*s.value) : region_call(s);
  if (s.targets.size() == 1) {
    assign_target(s.targets[0], value, false);
    return;
  }
  if (value.poison()) {
    for (const Target &t : s.targets)
      assign_target(t, {Poison{}}, false);
    return;
  }
  auto items = iterate(value, s.location);
  if (!items || items->size() != s.targets.size()) {
    if (items)
      error(s.location, fmt::format("{} names for {} values", s.targets.size(), items->size()));
    for (const Target &t : s.targets)
      assign_target(t, {Poison{}}, false);
    return;
  }
  for (size_t i = 0; i < s.targets.size(); ++i)
    assign_target(s.targets[i], (*items)[i], true);
}

namespace {

// a.b.c as text; empty where the expression is something else.
std::string dotted_text(const Expr &e) {
  if (e.kind == ExprKind::name)
    return e.text;
  if (e.kind != ExprKind::member)
    return "";
  std::string base = dotted_text(*e.kids[0]);
  return base.empty() ? "" : base + "." + e.text;
}

} // namespace

void Elaborator::assign_target(const Target &target, Datum value, bool) {
  const Expr &e = *target.expr;
  if (target.type) {
    std::string name = dotted_text(e);
    if (name.empty()) {
      error(e.location, "only a name can be declared with a type");
      return;
    }
    if (!value.poison() && !unify(*target.type, value, "'" + name + "'", e.location))
      value = {Poison{}};
    if (auto *t = value.get<TensorRef>()) {
      if (!target.layout.is_row_major())
        fn_->function.value(t->id).layout = target.layout;
      name_value(value, name, true);
    }
    if (e.kind == ExprKind::member)
      frame_->locals[name] = value;
    else
      assign_name(e, name, value);
    return;
  }
  switch (e.kind) {
  case ExprKind::name:
  case ExprKind::member:
  case ExprKind::index:
    assign_place(e, value);
    return;
  case ExprKind::tuple:
  case ExprKind::list: {
    if (value.poison())
      return;
    auto items = iterate(value, e.location);
    if (!items)
      return;
    if (items->size() != e.kids.size()) {
      error(e.location, fmt::format("{} names for {} values", e.kids.size(), items->size()));
      return;
    }
    for (size_t i = 0; i < e.kids.size(); ++i) {
      if (e.kids[i]->kind == ExprKind::name)
        assign_name(*e.kids[i], e.kids[i]->text, (*items)[i]);
      else if (e.kids[i]->kind == ExprKind::member)
        assign_member(*e.kids[i], (*items)[i]);
      else
        error(e.kids[i]->location, "this cannot be assigned to");
    }
    return;
  }
  default:
    error(e.location, "this cannot be assigned to; assign to a name");
  }
}

void Elaborator::name_value(const Datum &value, const std::string &name, bool force) {
  auto *t = value.get<TensorRef>();
  if (!t || !fn_)
    return;
  Value &v = fn_->function.value(t->id);
  if (force || (v.name.empty() && own()))
    v.name = name;
}

void Elaborator::assign_name(const Expr &target, const std::string &name, Datum value) {
  bool local = frame_->locals.count(name) > 0;
  if (!local && !frame_->constructing) {
    Datum *field = frame_->self ? frame_->self->find(name) : nullptr;
    const Datum *slot = field;
    if (!slot && fn_) {
      auto it = frame_->library->globals.find(name);
      if (it != frame_->library->globals.end() && it->second.is<VariableDatum *>())
        slot = &it->second;
    }
    if (slot)
      if (auto *variable = slot->get<VariableDatum *>()) {
        assign_variable(**variable, value, target.location);
        return;
      }
    if (field && field->is<Object *>()) {
      error(target.location, fmt::format("'{}' is a module of this model and stays what it is", name));
      return;
    }
  }
  name_value(value, name, false);
  if (frame_->constructing) {
    if (Datum *field = frame_->self->find(name))
      *field = value;
    else
      frame_->self->fields.emplace_back(name, value);
    return;
  }
  frame_->locals[name] = std::move(value);
}

void Elaborator::assign_member(const Expr &target, Datum value) {
  Datum base = eval(*target.kids[0]);
  if (base.poison())
    return;
  auto *object = base.get<Object *>();
  if (!object) {
    error(target.location, fmt::format("{} has no fields to assign to", describe(base)));
    return;
  }
  Datum *field = (*object)->find(target.text);
  if (field && field->is<VariableDatum *>() && !frame_->constructing && fn_) {
    assign_variable(**field->get<VariableDatum *>(), value, target.location);
    return;
  }
  if (fn_) {
    error(target.location, fmt::format("'{}' is not a param or state; functions cannot change it", target.text));
    return;
  }
  if (!field) {
    error(target.location, fmt::format("{} has no field '{}'", describe(base), target.text));
    return;
  }
  *field = value; // tied weights: head.weight = embed.weight
}

void Elaborator::assign_item(const Expr &target, Datum value) {
  Datum base = eval(*target.kids[0]);
  if (base.poison())
    return;
  if (base.is<TensorRef>() || base.is<VariableDatum *>()) {
    Datum changed = with_elements(base, target, value);
    if (!changed.poison())
      assign_place(*target.kids[0], changed);
    return;
  }
  auto *list = base.get<ListData *>();
  if (!list) {
    error(target.location, fmt::format("{} has no elements to assign to", describe(base)));
    return;
  }
  Datum index = target.kids.size() == 2 ? eval(*target.kids[1]) : Datum{None{}};
  auto *dim = index.get<Dim>();
  int64_t size = int64_t((*list)->items.size());
  int64_t i = dim && dim->is_const() ? dim->as_const() : size;
  if (i < 0)
    i += size;
  if (!dim || i < 0 || i >= size) {
    error(target.location, fmt::format("the index is not within the list's {} elements", size));
    return;
  }
  if ((*list)->region_depth != region_depth()) {
    error(target.location, "a list made outside cannot change within an if, while or for over tensors");
    return;
  }
  (*list)->items[size_t(i)] = std::move(value);
}

void Elaborator::assign_place(const Expr &target, Datum value) {
  if (target.kind == ExprKind::name)
    assign_name(target, target.text, std::move(value));
  else if (target.kind == ExprKind::member)
    assign_member(target, std::move(value));
  else if (target.kind == ExprKind::index)
    assign_item(target, std::move(value));
  else
    error(target.location, "only a name, a field or an element can be changed in place");
}

// x[...] = value as a new tensor: the same subscripts of a tensor of positions say where the value goes.
Datum Elaborator::with_elements(const Datum &x, const Expr &target, const Datum &value) {
  const Location &where = target.location;
  auto id = as_tensor(x, where);
  if (!id || value.poison())
    return {Poison{}};
  TensorType type = type_of(*id);
  auto values = value.number() || value.is<ListData *>() ? number_tensor(value, type.dtype, where) : as_tensor(value, where);
  if (!values)
    return {Poison{}};
  if (type_of(*values).dtype != type.dtype)
    return error(where, fmt::format("elements of {} cannot become {}; convert with .to()", type.text(), type_of(*values).text()));
  auto arg = [&](Datum d) { return Arg{std::move(d), where}; };
  if (target.kids.size() == 2) {
    ExprKind kind = target.kids[1]->kind;
    if (kind != ExprKind::slice && kind != ExprKind::ellipsis && kind != ExprKind::none) {
      Datum selector = eval(*target.kids[1]);
      auto *mask = selector.get<TensorRef>();
      if (mask && is_bool(type_of(mask->id).dtype)) {
        Datum shape = make_list(std::vector<Datum>(type.shape.begin(), type.shape.end()));
        Datum whole = call_named("where", {{arg(selector), arg(tensor(*values)), arg(x)}, {}}, where);
        return whole.poison() ? whole : call_named("broadcast_to", {{arg(whole)}, {{"shape", arg(shape)}}}, where);
      }
    }
  }
  Dim count = 1;
  for (const Dim &d : type.shape)
    count = count * d;
  Datum all = emit(Op::iota, {}, {{"shape", std::vector<Dim>{count}}, {"axis", Dim(0)}, {"dtype", DType::i64}}, where);
  auto reshaped = [&](const Datum &d, std::vector<Dim> shape) {
    return d.poison() ? d : emit(Op::reshape, {d.get<TensorRef>()->id}, {{"shape", std::move(shape)}}, where);
  };
  all = reshaped(all, type.shape);
  Datum places = all.poison() ? all : index_tensor(all.get<TensorRef>()->id, target);
  if (places.poison())
    return places;
  Shape spots = type_of(places.get<TensorRef>()->id).shape;
  Datum spread = call_named("broadcast_to", {{arg(tensor(*values))}, {{"shape", arg(make_list(std::vector<Datum>(spots.begin(), spots.end())))}}}, where);
  Dim changed = 1;
  for (const Dim &d : spots)
    changed = changed * d;
  Datum flat = reshaped(tensor(*id), {count}), to = reshaped(places, {changed}), from = reshaped(spread, {changed});
  if (flat.poison() || to.poison() || from.poison())
    return {Poison{}};
  Datum out = emit(Op::scatter_elements, {flat.get<TensorRef>()->id, to.get<TensorRef>()->id, from.get<TensorRef>()->id},
                   {{"axis", Dim(0)}, {"reduction", std::string("none")}}, where);
  return reshaped(out, type.shape);
}

void Elaborator::assign_variable(VariableDatum &variable, const Datum &value, const Location &where) {
  if (value.poison() || !in_function(where))
    return;
  if (!variable.id.valid()) {
    error(where, "this param or state has no name yet; bind its module to a name at the top level");
    return;
  }
  std::optional<ValueId> id = value.number() ? number_tensor(value, variable.type.dtype, where)
                                             : as_tensor(value, where);
  if (!id)
    return;
  const std::string &name = module_.variables[size_t(variable.id)].name;
  const TensorType &type = type_of(*id);
  bool fits = type.dtype == variable.type.dtype && type.rank() == variable.type.rank();
  for (size_t i = 0; fits && i < type.shape.size(); ++i)
    fits = require_equal(type.shape[i], variable.type.shape[i], where, name);
  if (!fits) {
    error(where, fmt::format("'{}' is {} and cannot become {}", name, variable.type.text(), type.text()));
    return;
  }
  if (fn_->region_depth == 0)
    emit(Op::assign, {*id}, {{"variable", variable.id}}, where);
  fn_->current[variable.id] = *id;
  fn_->written.insert(variable.id);
}

void Elaborator::declare_variable(const Stmt &s) {
  const Expr &target = *s.targets[0].expr;
  std::string name = target.text;
  if (target.kind != ExprKind::name) {
    Datum computed = eval(target);
    auto *text = computed.get<std::string>();
    if (!text && !computed.poison())
      error(target.location, fmt::format("the name of a {} is a string, not {}", s.text, describe(computed)));
    if (!text)
      return;
    name = *text;
  }
  if (fn_) {
    error(s.location, fmt::format("a {} is declared in a model or at the top level", s.text));
    return;
  }
  Datum value{Poison{}};
  if (auto type = concrete_type(*s.targets[0].type)) {
    for (Dim &d : type->shape) {
      d = d.substitute([&](Symbol symbol) -> std::optional<Dim> {
        auto it = options_.dims.find(std::string(symbol.text()));
        return it == options_.dims.end() ? std::nullopt : std::optional<Dim>(it->second);
      });
      if (!d.is_const()) {
        error(s.targets[0].type->location,
              fmt::format("the {} '{}' needs sizes that are numbers, not {}", s.text, name, d.text()));
        type.reset();
        break;
      }
    }
    if (type) {
      std::vector<int64_t> dims;
      for (const Dim &d : type->shape)
        dims.push_back(d.as_const());
      auto bytes = checked_bytes(type->dtype, dims);
      if (!bytes || *bytes > (int64_t(1) << 46)) {
        error(s.location, fmt::format("the {} '{}' of type {} is too large", s.text, name, type->text()));
      } else {
        variable_data_.push_back({s.text == "param" ? VariableKind::param : VariableKind::state, *type,
                                  s.value.get(), frame_->constructing ? frame_->self : nullptr,
                                  frame_->library, node_location(s.location), VariableId()});
        variable_data_.back().device = s.targets[0].device;
        value = {&variable_data_.back()};
      }
    }
  }
  if (frame_->constructing) {
    // May take the place of a constructor's argument: `bias=true`, then `param bias: ...`.
    std::erase_if(frame_->self->fields, [&](const auto &field) { return field.first == name; });
    frame_->self->fields.emplace_back(name, value);
  } else {
    frame_->locals[name] = value;
  }
}

} // namespace kiln::kir
