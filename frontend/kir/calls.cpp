// Calls: functions are inlined, models are constructed, ops become nodes.
#include "frontend/kir/elaborator.h"

#include "ir/ops/op.h"

#include <algorithm>

#include <fmt/format.h>

namespace kiln::kir {

bool Args::poison() const {
  for (const Arg &a : positional)
    if (a.value.poison())
      return true;
  for (const auto &[name, a] : named)
    if (a.value.poison())
      return true;
  return false;
}

const Arg *Args::find(std::string_view name) const {
  for (const auto &[key, a] : named)
    if (key == name)
      return &a;
  return nullptr;
}

// What a plain name in a call means: a function of this file, of the compiler, an op, one of the prelude.
std::optional<Datum> Elaborator::find_callable(std::string_view name, const Library *library) {
  if (library && library != prelude_) {
    auto it = library->globals.find(name);
    if (it != library->globals.end() && it->second.callable())
      return it->second;
  }
  for (size_t i = 0; i < builtins().size(); ++i)
    if (builtins()[i].name == name)
      return Datum{BuiltinRef{int(i)}};
  if (auto op = find_op(name))
    return Datum{*op};
  if (prelude_) {
    auto it = prelude_->globals.find(name);
    if (it != prelude_->globals.end())
      return it->second;
  }
  return std::nullopt;
}

// Where add(a, b, out=x) writes its result; null where there is none, or `out` is a parameter like others.
const Expr *Elaborator::out_place(const Expr &e) {
  for (const auto &[name, value] : e.keywords) {
    if (name != "out")
      continue;
    const Expr &callee = *e.kids[0];
    auto found = callee.kind == ExprKind::name ? find_callable(callee.text, frame_->library) : std::nullopt;
    if (auto *f = found ? found->get<FuncRef>() : nullptr)
      for (const Param &p : f->decl->params)
        if (p.name == "out")
          return nullptr;
    return value.get();
  }
  return nullptr;
}

Datum Elaborator::eval_call(const Expr &e) {
  Datum result = eval_plain_call(e);
  if (const Expr *place = out_place(e); place && !result.poison())
    assign_place(*place, result);
  return result;
}

bool Elaborator::eval_args(const Expr &e, Args &args) {
  for (size_t i = 1; i < e.kids.size(); ++i) {
    const Expr &kid = *e.kids[i];
    if (kid.kind != ExprKind::spread) {
      args.positional.push_back({eval(kid), kid.location});
      continue;
    }
    Datum list = eval(*kid.kids[0]);
    if (list.poison())
      return false;
    auto items = iterate(list, kid.location);
    if (!items)
      return false;
    for (Datum &item : *items)
      args.positional.push_back({std::move(item), kid.location});
  }
  const Expr *place = out_place(e);
  for (const auto &[name, value] : e.keywords)
    if (value.get() != place)
      args.named.emplace_back(name, Arg{eval(*value), value->location});
  return !args.poison();
}

Datum Elaborator::eval_plain_call(const Expr &e) {
  const Expr &callee = *e.kids[0];
  Args args;
  if (callee.kind == ExprKind::name) {
    auto found = find_name(callee.text);
    bool dtype = found && found->is<DType>();
    if (!found || (!found->callable() && !dtype)) {
      auto callable = find_callable(callee.text, frame_->library);
      if (!callable) {
        eval_args(e, args); // its own errors first
        if (found && !found->poison())
          return error(callee.location, fmt::format("'{}' is {}, which cannot be called", callee.text,
                                                    describe(*found)));
        return found ? Datum{Poison{}} : unknown_name(callee, "function");
      }
      found = callable;
    }
    if (!eval_args(e, args))
      return {Poison{}};
    return call(*found, args, e.location);
  }
  if (callee.kind == ExprKind::member) {
    if (auto dotted = find_dotted(callee)) {
      if (!eval_args(e, args))
        return {Poison{}};
      return call(*dotted, args, callee.location);
    }
    Datum base = eval(*callee.kids[0]);
    bool ok = eval_args(e, args);
    if (base.poison() || !ok)
      return {Poison{}};
    bool method = base.is<TensorRef>() || base.is<VariableDatum *>() || base.number() ||
                  base.is<ListData *>() || base.is<std::string>();
    if (!method) {
      Datum f = member_of(base, callee);
      return f.poison() ? f : call(f, args, callee.location);
    }
    args.positional.insert(args.positional.begin(), {base, callee.kids[0]->location});
    // x.add_(y) is x = x.add(y).
    std::string name = callee.text;
    bool in_place = name.size() > 1 && name.back() == '_' && !find_op(name);
    if (in_place)
      name.pop_back();
    if (base.is<ListData *>() && (name == "append" || name == "extend"))
      return call_named("list_" + name, args, callee.location);
    auto f = find_callable(name, prelude_);
    if (!f)
      f = find_callable(name, frame_->library);
    if (!f) {
      Expr shown{ExprKind::name, callee.location, 1, false, name, {}, {}, {}, {}};
      return unknown_name(shown, "method");
    }
    Datum result = call(*f, args, callee.location);
    if (in_place)
      assign_place(*callee.kids[0], result);
    return result;
  }
  Datum f = eval(callee);
  if (!eval_args(e, args) || f.poison())
    return {Poison{}};
  return call(f, args, e.location);
}

Datum Elaborator::call_named(std::string_view name, const Args &args, const Location &where) {
  auto f = find_callable(name, prelude_);
  return f ? call(*f, args, where) : error(where, fmt::format("unknown function '{}'", name));
}

Datum Elaborator::call(const Datum &callee, const Args &args, const Location &where) {
  if (args.poison())
    return {Poison{}};
  if (auto *f = callee.get<FuncRef>()) {
    if (f->remat && fn_) {
      FuncRef plain = *f;
      plain.remat = false;
      return call_again({plain}, args, where);
    }
    if (!f->decl->grad.empty() && fn_ && custom_ != f->decl)
      return call_custom(*f, args, where);
    return call_function(*f, args, where);
  }
  if (auto *m = callee.get<ModelRef>())
    return construct(*m, args, where);
  if (auto *b = callee.get<BuiltinRef>())
    return builtins()[size_t(b->index)].run(*this, args, where);
  if (auto *op = callee.get<Op>()) {
    const FuncRef *fallback = nullptr;
    if (prelude_) {
      auto it = prelude_->globals.find(op_def(*op).name);
      fallback = it == prelude_->globals.end() ? nullptr : it->second.get<FuncRef>();
    }
    return call_op(*op, args, where, fallback);
  }
  if (auto *dtype = callee.get<DType>()) { // f32(x)
    Args with = args;
    with.named.emplace_back("dtype", Arg{{*dtype}, where});
    return call_named("to", with, where);
  }
  if (auto *object = callee.get<Object *>()) {
    if ((*object)->imported)
      return call_imported(*(*object)->imported, args, where);
    bool whole = fn_ && std::any_of((*object)->fields.begin(), (*object)->fields.end(), [](const std::pair<std::string, Datum> &field) {
      return field.second.is<Object *>();
    });
    if (whole && options_.called)
      options_.called->insert((*object)->decl->name);
    bool again = (*object)->remat || (whole && options_.remat.contains((*object)->decl->name));
    if (again && fn_ && again_ != *object)
      return call_again(callee, args, where);
    for (const auto &method : (*object)->decl->methods)
      if (method->name == "forward")
        return call_function({method.get(), (*object)->library, *object}, args, where);
    return error(where, fmt::format("{} has no method 'forward', so it cannot be called", describe(callee)));
  }
  return error(where, fmt::format("{} cannot be called", describe(callee)));
}

bool Elaborator::bind_params(const std::vector<Param> &params, const Args &args, Frame &frame,
                             const Location &where) {
  std::vector<std::optional<Arg>> bound(params.size());
  size_t next = 0;
  bool ok = true;
  for (size_t i = 0; i < params.size() && next < args.positional.size(); ++i) {
    if (params[i].variadic) {
      std::vector<Datum> rest;
      for (; next < args.positional.size(); ++next)
        rest.push_back(args.positional[next].value);
      bound[i] = Arg{make_list(std::move(rest)), where};
    } else {
      bound[i] = args.positional[next++];
    }
  }
  auto usage = [&] {
    std::string list;
    for (const Param &p : params)
      list += (list.empty() ? "" : ", ") + std::string(p.variadic ? "*" : "") + p.name +
              (p.default_value ? "=..." : "");
    return fmt::format("it takes ({})", list);
  };
  if (next < args.positional.size()) {
    error(args.positional[next].location,
          fmt::format("{} takes {} argument{}, but {} are given", frame.name, params.size(),
                      params.size() == 1 ? "" : "s", args.positional.size()), {usage()});
    return false;
  }
  std::vector<std::string> names;
  for (const Param &p : params)
    names.push_back(p.name);
  for (const auto &[name, arg] : args.named) {
    auto it = std::find(names.begin(), names.end(), name);
    if (it == names.end()) {
      std::string hint = suggestion(name, names);
      error(arg.location, fmt::format("{} has no parameter '{}'{}", frame.name, name,
                                      hint.empty() ? "" : fmt::format("; did you mean '{}'?", hint)),
            {usage()});
      ok = false;
      continue;
    }
    size_t i = size_t(it - names.begin());
    if (bound[i] && !params[i].variadic) {
      error(arg.location, fmt::format("the argument '{}' is given twice", name));
      ok = false;
      continue;
    }
    bound[i] = arg;
  }
  if (!ok)
    return false;
  for (size_t i = 0; i < params.size(); ++i) {
    const Param &p = params[i];
    bool given = bound[i].has_value();
    if (!given) {
      Frame *saved = std::exchange(frame_, &frame);
      if (p.default_value)
        bound[i] = Arg{eval(*p.default_value), p.location};
      else if (p.variadic)
        bound[i] = Arg{make_list({}), p.location};
      frame_ = saved;
    }
    if (!bound[i]) {
      error(where, fmt::format("{} needs the argument '{}'", frame.name, p.name), {usage()});
      ok = false;
      continue;
    }
    frame.locals[p.name] = bound[i]->value;
  }
  if (!ok)
    return false;
  // Types after all are bound, so that they may mention each other.
  for (size_t i = 0; i < params.size(); ++i) {
    const Param &p = params[i];
    Datum value = frame.locals[p.name];
    if (!p.type || p.variadic || (value.none() && p.default_value))
      continue;
    Location place = own() ? bound[i]->location : where;
    // The error stands at the argument, in the caller's file; names are the callee's.
    Location saved_site = call_site_;
    if (own())
      call_site_ = place;
    Frame *saved = std::exchange(frame_, &frame);
    std::string what = fmt::format("the argument '{}' of {}", p.name, frame.name);
    frame.locals.erase(p.name); // a dim may have the same name
    size_t before = trace_.size();
    bool fits = unify(*p.type, value, what, place);
    trace_.resize(before);
    frame.locals[p.name] = fits ? value : Datum{Poison{}};
    frame_ = saved;
    call_site_ = saved_site;
    ok &= fits;
  }
  return ok;
}

Datum Elaborator::call_function(const FuncRef &f, const Args &args, const Location &where) {
  Frame frame;
  frame.library = f.library;
  frame.self = f.self;
  bool prelude = f.library == prelude_;
  std::string prefix = f.self ? (f.library->own ? "" : f.library->name + ".") + f.self->decl->name + "."
                     : f.library->name.empty() || prelude ? "" : f.library->name + ".";
  frame.name = prefix + f.decl->name;
  if (!bind_params(f.decl->params, args, frame, where))
    return {Poison{}};
  if (fn_)
    place_arguments(*f.decl, frame.name, frame, where);
  if (trace_.size() > 300)
    return stop(where, "calls are nested too deeply; does a function call itself without end?");
  Deeper deeper(*this);
  Location saved_site = call_site_;
  bool from_own = own();
  if (from_own)
    call_site_ = where;
  if (from_own && f.library->own)
    trace_.push_back(fmt::format("in {}, called at {}", frame.name, where.text()));
  size_t trace = trace_.size();
  Frame *saved = std::exchange(frame_, &frame);
  Flow flow = run_body(f.decl->body);
  bool cut = frame.result.none() && !f.library->file.skipped.empty(); // its return had a syntax error
  Datum result = flow == Flow::error || cut ? Datum{Poison{}} : frame.result;
  if (flow != Flow::error && f.decl->typed_results && !result.poison()) {
    std::vector<Datum> items;
    auto *list = result.get<ListData *>();
    bool many = f.decl->results.size() != 1;
    if (many && list)
      items = (*list)->items;
    else
      items.push_back(result);
    if (items.size() != f.decl->results.size()) {
      result = error(f.decl->location, fmt::format("{} declares {} results but returns {}", frame.name,
                                                   f.decl->results.size(), items.size()));
    } else {
      for (size_t i = 0; i < items.size(); ++i) {
        std::string what = many ? fmt::format("result {} of {}", i + 1, frame.name)
                                : fmt::format("the result of {}", frame.name);
        if (!unify(*f.decl->results[i].type, items[i], what, f.decl->results[i].type->location))
          items[i] = {Poison{}};
      }
      result = many ? make_list(std::move(items), true) : items[0];
    }
  }
  frame_ = saved;
  trace_.resize(trace);
  if (from_own && f.library->own)
    trace_.pop_back();
  call_site_ = saved_site;
  if (fn_)
    fn_->builder.set_location(node_location(where));
  return result;
}

Datum Elaborator::construct(const ModelRef &m, const Args &args, const Location &where) {
  Frame frame;
  frame.library = m.library;
  frame.name = (m.library->name.empty() ? "" : m.library->name + ".") + m.decl->name;
  if (!bind_params(m.decl->params, args, frame, where))
    return {Poison{}};
  if (!spend(1, where))
    return {Poison{}};
  Deeper deeper(*this);
  if (deeper.too_deep())
    return stop(where, "models are nested too deeply; does a model contain itself?");
  objects_.push_back({m.decl, m.library, {}, "", "", false});
  Object *object = &objects_.back();
  for (const Param &p : m.decl->params) {
    if (p.variadic)
      object->variadic = p.name;
    object->fields.emplace_back(p.name, frame.locals[p.name]);
  }
  frame.locals.clear();
  frame.self = object;
  frame.constructing = true;
  Location saved_site = call_site_;
  if (own())
    call_site_ = where;
  Frame *saved = std::exchange(frame_, &frame);
  // Fields are computed outside any function, also where a function makes a module of its own.
  FunctionState *saved_fn = std::exchange(fn_, nullptr);
  Flow flow = run_body(m.decl->body);
  fn_ = saved_fn;
  for (auto &[name, value] : frame.locals) // loop variables and the like
    if (!object->find(name))
      object->fields.emplace_back(name, value);
  frame_ = saved;
  call_site_ = saved_site;
  return flow == Flow::error ? Datum{Poison{}} : Datum{object};
}

} // namespace kiln::kir
