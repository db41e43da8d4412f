// Expressions other than calls: names, members, lists, literals.
#include "frontend/kir/elaborator.h"

#include "ir/ops/op.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

#include <fmt/format.h>

namespace kiln::kir {

Datum Elaborator::make_list(std::vector<Datum> items, bool tuple) {
  steps_ += int64_t(items.size()); // memory is bounded by the same limit
  lists_.push_back({std::move(items), tuple, region_depth()});
  return {&lists_.back()};
}

std::string Elaborator::describe(const Datum &d) const {
  struct Visitor {
    const Elaborator &e;
    std::string operator()(const Poison &) const { return "an error"; }
    std::string operator()(const None &) const { return "none"; }
    std::string operator()(bool b) const { return b ? "true" : "false"; }
    std::string operator()(const Dim &d) const {
      return (d.is_const() ? "the integer " : "the dim ") + d.text();
    }
    std::string operator()(double f) const { return fmt::format("the number {}", f); }
    std::string operator()(const std::string &s) const { return "the string \"" + s.substr(0, 60) + "\""; }
    std::string operator()(DType t) const { return "the dtype " + std::string(dtype_name(t)); }
    std::string operator()(ListData *l) const {
      return fmt::format("a {} of {}", l->tuple ? "tuple" : "list", l->items.size());
    }
    std::string operator()(const TensorRef &t) const { return e.type_of(t.id).text(); }
    std::string operator()(Object *o) const {
      return (o->library->name.empty() ? "" : o->library->name + ".") + o->decl->name + "()";
    }
    std::string operator()(VariableDatum *v) const {
      return (v->kind == VariableKind::param ? "a param " : "a state ") + v->type.text();
    }
    std::string operator()(const FuncRef &f) const { return "the function " + f.decl->name; }
    std::string operator()(const ModelRef &m) const { return "the model " + m.decl->name; }
    std::string operator()(const BuiltinRef &b) const {
      return "the function " + std::string(builtins()[size_t(b.index)].name);
    }
    std::string operator()(Op op) const { return "the op " + std::string(op_def(op).name); }
    std::string operator()(const Library *l) const { return "the library " + l->name; }
    std::string operator()(const RefName &r) const { return "@" + r.name; }
    std::string operator()(const TypePattern &t) const { return "the type " + t.type.text(); }
    std::string operator()(const Ellipsis &) const { return "..."; }
  };
  return std::visit(Visitor{*this}, d.v);
}

Datum Elaborator::eval(const Expr &e) {
  Deeper deeper(*this);
  if (deeper.too_deep())
    return stop(e.location, "calls are nested too deeply; does a function call itself without end?");
  return stopped_ ? Datum{Poison{}} : eval_inner(e);
}

Datum Elaborator::eval_inner(const Expr &e) {
  switch (e.kind) {
  case ExprKind::integer: {
    bool hex = e.text.starts_with("0x");
    const char *begin = e.text.data() + (hex ? 2 : 0), *end = e.text.data() + e.text.size();
    int64_t value = 0;
    auto [stop, code] = std::from_chars(begin, end, value, hex ? 16 : 10);
    if (code != std::errc() || stop != end)
      return error(e.location, fmt::format("{} does not fit 64 bits", e.text));
    return {Dim(value)};
  }
  case ExprKind::real:
    return {std::strtod(e.text.c_str(), nullptr)};
  case ExprKind::string:
    return {e.text};
  case ExprKind::boolean:
    return {e.text == "true"};
  case ExprKind::none:
    return {None{}};
  case ExprKind::name:
    return eval_name(e);
  case ExprKind::ref:
    return {RefName{e.text}};
  case ExprKind::member:
    return eval_member(e);
  case ExprKind::index:
    return eval_index(e);
  case ExprKind::call:
    return eval_call(e);
  case ExprKind::literal:
    return eval_literal(e);
  case ExprKind::unary: {
    Datum a = eval(*e.kids[0]);
    return unary(e.text, a, e.location);
  }
  case ExprKind::binary: {
    Datum a = eval(*e.kids[0]);
    // and/or skip the right side where the left decides.
    if ((e.text == "and" || e.text == "or") && !a.is<TensorRef>() && !a.is<VariableDatum *>()) {
      auto truth = condition(a, e.location);
      if (!truth)
        return {Poison{}};
      return *truth == (e.text == "or") ? a : eval(*e.kids[1]);
    }
    Datum b = eval(*e.kids[1]);
    return binary(e.text, a, b, e.location);
  }
  case ExprKind::conditional: {
    Datum c = eval(*e.kids[1]);
    if (auto *v = c.get<VariableDatum *>())
      c = tensor(read(**v, e.location));
    if (c.is<TensorRef>()) {
      Args args;
      for (size_t i : {size_t(1), size_t(0), size_t(2)})
        args.positional.push_back({i == 1 ? c : eval(*e.kids[i]), e.kids[i]->location});
      return call({Op::where}, args, e.location);
    }
    auto truth = condition(c, e.kids[1]->location);
    return truth ? eval(*e.kids[*truth ? 0 : 2]) : Datum{Poison{}};
  }
  case ExprKind::list:
  case ExprKind::tuple: {
    std::vector<Datum> items;
    bool poison = false;
    for (const ExprPtr &kid : e.kids) {
      if (kid->kind != ExprKind::spread) {
        items.push_back(eval(*kid));
        poison |= items.back().poison();
        continue;
      }
      Datum inner = eval(*kid->kids[0]);
      auto parts = inner.poison() ? std::nullopt : iterate(inner, kid->location);
      if (!parts)
        return {Poison{}};
      items.insert(items.end(), parts->begin(), parts->end());
    }
    return poison ? Datum{Poison{}} : make_list(std::move(items), e.kind == ExprKind::tuple);
  }
  case ExprKind::each:
    return eval_each(e);
  case ExprKind::ellipsis:
    return {Ellipsis{}};
  case ExprKind::slice:
  case ExprKind::spread:
    break;
  }
  return error(e.location, "this stands only in subscripts or arguments");
}

std::optional<Datum> Elaborator::find_name(std::string_view name) {
  if (frame_) {
    if (auto it = frame_->locals.find(name); it != frame_->locals.end())
      return it->second;
    if (auto it = frame_->dims.find(name); it != frame_->dims.end())
      return Datum{it->second};
    if (frame_->self) {
      if (Datum *field = frame_->self->find(name))
        return *field;
      for (const auto &method : frame_->self->decl->methods)
        if (method->name == name)
          return Datum{FuncRef{method.get(), frame_->self->library, frame_->self}};
      if (name == "self")
        return Datum{frame_->self};
    }
    const auto &globals = frame_->library->globals;
    // The prelude's reshape() calls the op reshape, not itself.
    bool op_first = frame_->library == prelude_ && find_op(name);
    if (auto it = globals.find(name); it != globals.end() && !op_first)
      return it->second;
    if (auto dtype = frame_->dtypes.find(name); dtype != frame_->dtypes.end())
      return Datum{dtype->second};
  }
  if (auto d = dtype_from_name(name); d && name != "bool")
    return Datum{*d};
  return std::nullopt;
}

std::vector<std::string> Elaborator::known_names() const {
  std::vector<std::string> out;
  for (const auto &[name, value] : frame_->locals)
    out.push_back(name);
  for (const auto &[name, value] : frame_->dims)
    out.push_back(name);
  if (frame_->self) {
    for (const auto &[name, value] : frame_->self->fields)
      out.push_back(name);
    for (const auto &method : frame_->self->decl->methods)
      out.push_back(method->name);
  }
  for (const auto &[name, value] : frame_->library->globals)
    out.push_back(name);
  return out;
}

Datum Elaborator::unknown_name(const Expr &e, std::string_view what) {
  if (frame_->library->file.skipped.count(e.text))
    return {Poison{}}; // it was defined in a statement with a syntax error
  std::vector<std::string> names = known_names();
  if (prelude_)
    for (const auto &[name, value] : prelude_->globals)
      names.push_back(name);
  for (const Builtin &b : builtins())
    names.emplace_back(b.name);
  for (const OpDef *op : all_ops())
    names.emplace_back(op->name);
  for (std::string_view library : {"nn", "init", "loss", "optim", "metrics"})
    if (e.text == library)
      return error(e.location, fmt::format("'{0}' is a library; put `import {0}` at the top of the file", e.text));
  if (std::string_view instead = said_otherwise(e.text); !instead.empty())
    return error(e.location, fmt::format("there is no '{}'; {}", e.text, instead));
  std::string hint = suggestion(e.text, names);
  return error(e.location, fmt::format("unknown {} '{}'{}", what, e.text,
                                       hint.empty() ? "" : fmt::format("; did you mean '{}'?", hint)));
}

Datum Elaborator::eval_name(const Expr &e) {
  if (auto found = find_name(e.text))
    return *found;
  if (auto found = find_callable(e.text, frame_->library))
    return *found;
  if (e.text == "bool")
    return {DType::bool_};
  if (e.text == "pi")
    return {3.14159265358979323846};
  if (e.text == "cpu" || e.text == "cuda")
    return {e.text};
  return unknown_name(e, "name");
}

// net.conv1.weight as one name: a local of a dump, or a variable that a dump declares.
std::optional<Datum> Elaborator::find_dotted(const Expr &e) {
  std::string name = e.text;
  const Expr *base = e.kids[0].get();
  for (; base->kind == ExprKind::member; base = base->kids[0].get())
    name = base->text + "." + name;
  if (base->kind != ExprKind::name)
    return std::nullopt;
  name = base->text + "." + name;
  if (auto it = frame_->locals.find(name); it != frame_->locals.end())
    return it->second;
  if (auto it = frame_->library->globals.find(name); it != frame_->library->globals.end())
    return it->second;
  return std::nullopt;
}

Datum Elaborator::eval_member(const Expr &e) {
  if (auto dotted = find_dotted(e))
    return *dotted;
  Datum base = eval(*e.kids[0]);
  return base.poison() ? base : member_of(base, e);
}

Datum Elaborator::member_of(const Datum &base, const Expr &e) {
  std::vector<std::string> known;
  if (auto *library = base.get<const Library *>()) {
    auto it = (*library)->globals.find(e.text);
    if (it != (*library)->globals.end())
      return it->second;
    if ((*library)->file.skipped.count(e.text))
      return {Poison{}};
    for (const auto &[name, value] : (*library)->globals)
      known.push_back(name);
  } else if (auto *object = base.get<Object *>()) {
    if (Datum *field = (*object)->find(e.text))
      return *field;
    for (const auto &method : (*object)->decl->methods)
      if (method->name == e.text)
        return {FuncRef{method.get(), (*object)->library, *object}};
    for (const auto &[name, value] : (*object)->fields)
      known.push_back(name);
    for (const auto &method : (*object)->decl->methods)
      known.push_back(method->name);
  } else {
    bool variable = base.is<VariableDatum *>();
    if (variable || base.is<TensorRef>()) {
      const TensorType &type = variable ? (*base.get<VariableDatum *>())->type
                                        : type_of(base.get<TensorRef>()->id);
      if (e.text == "shape")
        return make_list(std::vector<Datum>(type.shape.begin(), type.shape.end()), true);
      if (e.text == "dtype")
        return {type.dtype};
      if (e.text == "ndim" || e.text == "rank")
        return {Dim(type.rank())};
      known = {"shape", "dtype", "ndim"};
      if (e.text == "T" || e.text == "mT")
        return call_named("transpose_last", Args{{{base, e.location}}, {}}, e.location);
    }
  }
  if (std::string_view instead = said_otherwise(e.text); !instead.empty())
    return error(e.location, fmt::format("there is no '{}'; {}", e.text, instead));
  std::string hint = suggestion(e.text, known);
  return error(e.location, fmt::format("{} has no '{}'{}", describe(base), e.text,
                                       hint.empty() ? "" : fmt::format("; did you mean '{}'?", hint)));
}

std::optional<std::vector<Datum>> Elaborator::iterate(const Datum &d, const Location &where) {
  if (auto *list = d.get<ListData *>()) {
    steps_ += int64_t((*list)->items.size() / 8); // copying it takes time too
    return (*list)->items;
  }
  if (auto *object = d.get<Object *>())
    if (!(*object)->variadic.empty()) // Sequential, ModuleList
      if (auto *list = (*object)->find((*object)->variadic)->get<ListData *>())
        return (*list)->items;
  if (!d.poison())
    error(where, fmt::format("a list is needed here, not {}", describe(d)),
          {"count with `range(n)`"});
  return std::nullopt;
}

Datum Elaborator::eval_each(const Expr &e) {
  Datum over = eval(*e.kids[1]);
  auto items = iterate(over, e.kids[1]->location);
  if (!items)
    return {Poison{}};
  Locals saved;
  std::vector<Datum> out;
  std::map<std::string, std::optional<Datum>> shadowed;
  for (const std::string &name : e.names) {
    auto it = frame_->locals.find(name);
    shadowed[name] = it == frame_->locals.end() ? std::nullopt : std::optional(it->second);
  }
  bool ok = true;
  for (const Datum &item : *items) {
    if (e.names.size() == 1) {
      frame_->locals[e.names[0]] = item;
    } else {
      auto parts = iterate(item, e.location);
      if (!parts || parts->size() != e.names.size()) {
        error(e.location, fmt::format("{} names for one element", e.names.size()));
        ok = false;
        break;
      }
      for (size_t i = 0; i < parts->size(); ++i)
        frame_->locals[e.names[i]] = (*parts)[i];
    }
    if (e.kids.size() > 2) {
      auto keep = condition(eval(*e.kids[2]), e.kids[2]->location);
      if (!(ok = keep.has_value()))
        break;
      if (!*keep)
        continue;
    }
    Datum value = eval(*e.kids[0]);
    if (!(ok = !value.poison()))
      break;
    out.push_back(std::move(value));
    if (!(ok = spend(1, e.location)))
      break;
  }
  for (auto &[name, value] : shadowed) {
    if (value)
      frame_->locals[name] = *value;
    else
      frame_->locals.erase(name);
  }
  return ok ? make_list(std::move(out)) : Datum{Poison{}};
}

namespace {

// One element from its text, bit for bit; false where it does not fit.
bool parse_element(Tensor &t, int64_t i, const std::string &text) {
  bool negative = text.starts_with("-");
  std::string_view body = std::string_view(text).substr(negative ? 1 : 0);
  bool hex = body.starts_with("0x");
  const char *begin = body.data() + (hex ? 2 : 0), *end = body.data() + body.size();
  if (is_bool(t.dtype())) {
    if (body != "true" && body != "false")
      return false;
    t.set_i64(i, body == "true");
    return true;
  }
  uint64_t bits = 0;
  auto [stop, code] = std::from_chars(begin, end, bits, hex ? 16 : 10);
  bool integer = code == std::errc() && stop == end;
  if (holds_floats(t.dtype()) && !hex) {
    if (body == "true" || body == "false")
      return false;
    // Correctly rounded to the type itself; f16 and bf16 are printed as the float of the same value.
    double value = t.dtype() == DType::f64 ? std::strtod(text.c_str(), nullptr)
                                           : double(std::strtof(text.c_str(), nullptr));
    if (body == "nan")
      value = std::numeric_limits<double>::quiet_NaN();
    t.set_f64(i, value);
    return true;
  }
  if (!integer || (hex && negative))
    return false;
  int width = dtype_bits(t.dtype());
  if (holds_floats(t.dtype())) { // the bits of a NaN, the code of a narrow float
    if (width < 64 && bits >> width)
      return false;
    width = std::max(width, 8);
    std::memcpy(t.mutable_bytes() + i * (width / 8), &bits, size_t(width / 8));
    return true;
  }
  bool is_signed = is_signed_int(t.dtype()) || dtype_kind(t.dtype()) == DTypeKind::narrow_signed_;
  uint64_t limit = is_signed ? (uint64_t(1) << (width - 1)) - (negative ? 0 : 1)
                             : (negative ? 0 : ~uint64_t(0) >> (64 - width));
  if (bits > limit)
    return false;
  t.set_i64(i, int64_t(negative ? 0 - bits : bits));
  return true;
}

} // namespace

Datum Elaborator::eval_literal(const Expr &e) {
  auto type = concrete_type(*e.kids[0]);
  if (!type || !in_function(e.location))
    return {Poison{}};
  if (!is_static(type->shape))
    return error(e.location, fmt::format("a constant needs sizes that are numbers, not {}", type->text()));
  std::vector<int64_t> dims;
  for (const Dim &d : type->shape)
    dims.push_back(d.as_const());
  auto bytes = checked_bytes(type->dtype, dims);
  if (!bytes || *bytes > (int64_t(1) << 30))
    return error(e.location, fmt::format("a constant of type {} is too large to write out", type->text()));
  int64_t count = *bytes / dtype_bytes(type->dtype);
  bool splat = e.text == "splat";
  if (int64_t(e.data.size()) != (splat ? 1 : count))
    return error(e.location, fmt::format("{} has {} element{}, but {} {} given", type->text(),
                                         splat ? 1 : count, (splat ? 1 : count) == 1 ? "" : "s",
                                         e.data.size(), e.data.size() == 1 ? "is" : "are"));
  Tensor t(type->dtype, dims);
  for (size_t i = 0; i < e.data.size(); ++i)
    if (!parse_element(t, int64_t(i), e.data[i]))
      return error(e.location, fmt::format("'{}' is no {}", e.data[i], dtype_name(type->dtype)));
  size_t width = size_t(dtype_bytes(type->dtype));
  if (splat)
    for (size_t i = 1; i < size_t(count); ++i)
      std::memcpy(t.mutable_bytes() + i * width, t.mutable_bytes(), width);
  ConstantId id = module_.add_constant(std::move(t));
  return emit(Op::constant, {}, {{"value", id}}, e.location);
}

} // namespace kiln::kir
