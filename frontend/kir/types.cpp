// Types in programs: patterns that bind dims (N), dtypes (T) and the rest of a shape (...), and messages
// that show both sides where they do not fit.
#include "frontend/kir/elaborator.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

namespace kiln::kir {

std::optional<DType> Elaborator::dtype_named(const Expr &e) {
  if (e.kind != ExprKind::name)
    return std::nullopt;
  if (auto d = dtype_from_name(e.text))
    return d;
  if (auto it = frame_->dtypes.find(e.text); it != frame_->dtypes.end())
    return it->second;
  if (auto found = find_name(e.text))
    if (auto *d = found->get<DType>())
      return *d;
  return std::nullopt;
}

std::optional<Dim> Elaborator::eval_dim(const Expr &e, bool report) {
  if (e.kind == ExprKind::name && !report && !find_name(e.text) && !frame_->dims.count(e.text))
    return std::nullopt;
  Datum d = eval(e);
  if (auto *dim = d.get<Dim>())
    return *dim;
  if (!d.poison() && report)
    error(e.location, fmt::format("a size is an integer or a dim, not {}", describe(d)));
  return std::nullopt;
}

// The sizes that a list holds: f32[*sizes].
std::optional<Shape> Elaborator::eval_dims(const Expr &e) {
  Datum d = eval(e);
  auto *list = d.get<ListData *>();
  Shape out;
  for (const Datum &item : list ? (*list)->items : std::vector<Datum>())
    if (auto *dim = item.get<Dim>())
      out.push_back(*dim);
  if (list && out.size() == (*list)->items.size())
    return out;
  if (!d.poison())
    error(e.location, fmt::format("after * in a type stands a list of sizes, not {}", describe(d)));
  return std::nullopt;
}

// Makes every unknown name in a dim expression a dim of its own.
void Elaborator::bind_symbols(const Expr &e) {
  if (e.kind == ExprKind::name) {
    if (find_name(e.text))
      return;
    auto fixed = options_.dims.find(e.text);
    frame_->dims[e.text] = fixed != options_.dims.end() ? Dim(fixed->second) : Dim::symbol(e.text);
    return;
  }
  // The function's name in min(a, b) is no dim.
  for (size_t i = e.kind == ExprKind::call ? 1 : 0; i < e.kids.size(); ++i)
    if (e.kids[i])
      bind_symbols(*e.kids[i]);
}

std::optional<TensorType> Elaborator::concrete_type(const Expr &pattern) {
  const Expr &head = pattern.kind == ExprKind::index ? *pattern.kids[0] : pattern;
  auto dtype = dtype_named(head);
  if (pattern.kind != ExprKind::index) {
    error(pattern.location, dtype ? fmt::format("{0} needs a shape here: {0}[N, 3], or {0}[] for one number",
                                                head.text)
                                  : "a tensor type such as f32[N, 3] is needed here");
    return std::nullopt;
  }
  if (!dtype) {
    std::vector<std::string> names;
    for (int code = 1; dtype_from_code(code); ++code)
      names.emplace_back(dtype_name(*dtype_from_code(code)));
    std::string hint = head.kind == ExprKind::name ? suggestion(head.text, names) : "";
    error(head.location, fmt::format("'{}' is no element type{}", pattern_text(head),
                                     hint.empty() ? "" : fmt::format("; did you mean '{}'?", hint)),
          {"f64 f32 f16 bf16 i64 i32 i16 i8 u64 u32 u16 u8 bool, and to store: f8e4m3fn f8e4m3fnuz f8e5m2 "
           "f8e5m2fnuz f8e8m0 f4e2m1 i4 u4 i2 u2"});
    return std::nullopt;
  }
  TensorType out{*dtype, {}};
  for (size_t i = 1; i < pattern.kids.size(); ++i) {
    const Expr &kid = *pattern.kids[i];
    if (kid.kind == ExprKind::slice || kid.kind == ExprKind::ellipsis) {
      error(kid.location, "a shape of known rank is needed here");
      return std::nullopt;
    }
    if (kid.kind == ExprKind::spread) {
      auto sizes = eval_dims(*kid.kids[0]);
      if (!sizes)
        return std::nullopt;
      out.shape.insert(out.shape.end(), sizes->begin(), sizes->end());
      continue;
    }
    auto d = eval_dim(kid);
    if (!d)
      return std::nullopt;
    if (!d->is_valid() || (d->is_const() && d->as_const() < 0)) {
      error(kid.location, fmt::format("a size cannot be {}", d->text()));
      return std::nullopt;
    }
    out.shape.push_back(*d);
  }
  return out;
}

std::string Elaborator::pattern_text(const Expr &e) {
  switch (e.kind) {
  case ExprKind::name:
  case ExprKind::integer:
  case ExprKind::real:
    return e.text;
  case ExprKind::none:
    return "none";
  case ExprKind::ellipsis:
    return "...";
  case ExprKind::spread:
    return "*" + pattern_text(*e.kids[0]);
  case ExprKind::member:
    return pattern_text(*e.kids[0]) + "." + e.text;
  case ExprKind::binary:
    return pattern_text(*e.kids[0]) + e.text + pattern_text(*e.kids[1]);
  case ExprKind::unary:
    return e.text + pattern_text(*e.kids[0]);
  case ExprKind::index: {
    std::string out = pattern_text(*e.kids[0]) + "[";
    for (size_t i = 1; i < e.kids.size(); ++i)
      out += (i > 1 ? ", " : "") + (e.kids[i] ? pattern_text(*e.kids[i]) : ":");
    return out + "]";
  }
  case ExprKind::call: {
    std::string out = pattern_text(*e.kids[0]) + "(";
    for (size_t i = 1; i < e.kids.size(); ++i)
      out += (i > 1 ? ", " : "") + pattern_text(*e.kids[i]);
    return out + ")";
  }
  default:
    return "(...)";
  }
}

bool Elaborator::require_equal(const Dim &a, const Dim &b, const Location &where,
                               const std::string &reason) {
  if (a == b)
    return true;
  if ((a - b).is_const() || !(a - b).is_valid())
    return false;
  module_.constraints.push_back({a, b, node_location(where), reason});
  return true;
}

void Elaborator::note_dims(const Expr &e) {
  if (e.kind == ExprKind::name)
    size_names_.insert(e.text);
  for (const ExprPtr &kid : e.kids)
    if (kid)
      note_dims(*kid);
}

// size K <= N = count: from here on K is a dim. Functions that are called more than once make sizes of their
// own each time.
void Elaborator::bind_size(const Stmt &s) {
  if (!in_function(s.location))
    return;
  const std::string &name = s.names[0];
  auto bound = eval_dim(*s.value);
  Datum value = eval(*s.message);
  if (!bound || value.poison())
    return;
  auto known = value.get<Dim>();
  if (known) { // a size already
    frame_->dims[name] = *known;
    return;
  }
  auto count = as_tensor(value, s.location);
  if (!count)
    return;
  if (!std::exchange(dims_noted_, true))
    for (const FuncDecl *decl : entry_decls_)
      for (size_t i = 0; decl && i < decl->params.size(); ++i)
        if (decl->params[i].type)
          note_dims(*decl->params[i].type);
  std::string unique = name;
  for (int i = 1; module_.capacities.contains(unique) || !size_names_.insert(unique).second; ++i)
    unique = fmt::format("{}_{}", name, i);
  auto node = emit_node(Op::bind_size, {*count}, {{"symbol", unique}, {"bound", *bound}}, {}, s.location);
  if (!node) {
    error(s.location, node.error().message, {"a size is written `size K <= N = count`, where count is i64[]"});
    return;
  }
  frame_->dims[name] = Dim::symbol(unique);
}

namespace {

// Annotations of compile-time values.
bool kind_fits(std::string_view name, const Datum &d, bool &known) {
  known = true;
  if (name == "int")
    return d.is<Dim>();
  if (name == "float")
    return d.is<double>() || d.is<Dim>();
  if (name == "str")
    return d.is<std::string>();
  if (name == "list")
    return d.is<ListData *>();
  if (name == "dtype")
    return d.is<DType>();
  if (name == "any")
    return true;
  if (name == "module")
    return d.is<Object *>();
  if (name == "callable")
    return d.callable();
  known = false;
  return false;
}

} // namespace

bool Elaborator::unify(const Expr &pattern, Datum &value, const std::string &what,
                       const Location &where) {
  if (value.poison())
    return false;
  auto mismatch = [&] {
    error(where, fmt::format("{} is declared {} but is {}", what, pattern_text(pattern), describe(value)));
    return false;
  };
  if (pattern.kind == ExprKind::none)
    return value.none() || mismatch();
  if (pattern.kind == ExprKind::name) {
    bool known = false;
    bool fits = kind_fits(pattern.text, value, known);
    if (known)
      return fits || mismatch();
    if (pattern.text == "bool" && value.is<bool>())
      return true;
    if (pattern.text == "tensor") {
      auto id = as_tensor(value, where);
      if (id)
        value = tensor(*id);
      return id.has_value();
    }
    if (auto dtype = dtype_named(pattern)) {
      if (auto *t = value.get<TensorRef>())
        return type_of(t->id).dtype == *dtype || mismatch();
      return mismatch();
    }
    error(pattern.location, fmt::format("'{}' is no type", pattern.text),
          {"types are f32[N, 3], f32, int, float, bool, str, list, dtype, module, tensor, any"});
    return false;
  }
  if (pattern.kind != ExprKind::index) {
    error(pattern.location, "this is no type; types look like f32[N, 3]");
    return false;
  }
  // With a list of sizes spread in, the type is known: it is compared as a whole.
  for (size_t i = 1; i < pattern.kids.size(); ++i)
    if (pattern.kids[i]->kind == ExprKind::spread) {
      auto wanted = concrete_type(pattern);
      if (!wanted)
        return false;
      auto id = value.number() ? number_tensor(value, wanted->dtype, where) : as_tensor(value, where);
      if (!id)
        return false;
      value = tensor(*id);
      const TensorType type = type_of(*id);
      bool fits = type.dtype == wanted->dtype && type.rank() == wanted->rank();
      for (size_t d = 0; fits && d < type.shape.size(); ++d)
        fits = require_equal(wanted->shape[d], type.shape[d], where, what);
      if (!fits)
        error(where, fmt::format("{} is declared {} but is {}", what, wanted->text(), type.text()));
      return fits;
    }
  const Expr &head = *pattern.kids[0];
  auto dtype = dtype_named(head);
  bool any = head.kind == ExprKind::name && head.text == "any";
  if (value.number() || value.is<VariableDatum *>()) {
    auto id = value.number() && dtype ? number_tensor(value, *dtype, where) : as_tensor(value, where);
    if (!id)
      return false;
    value = tensor(*id);
  }
  auto *t = value.get<TensorRef>();
  if (!t)
    return mismatch();
  TensorType type = type_of(t->id);
  if (!dtype && !any) {
    bool variable = head.kind == ExprKind::name && head.text.size() == 1 &&
                    head.text[0] >= 'A' && head.text[0] <= 'Z';
    if (!variable)
      return concrete_type(pattern).has_value();
    frame_->dtypes[head.text] = type.dtype;
  } else if (dtype && *dtype != type.dtype) {
    error(where, fmt::format("{} is declared {} but is {}", what, pattern_text(pattern), type.text()),
          {fmt::format("convert it with .to({})", dtype_name(*dtype))});
    return false;
  }
  return unify_shape(pattern, type, what, where);
}

bool Elaborator::unify_shape(const Expr &pattern, const TensorType &type, const std::string &what,
                             const Location &where) {
  size_t declared = pattern.kids.size() - 1, rank = size_t(type.rank());
  size_t dots = declared;
  for (size_t i = 0; i < declared; ++i)
    if (pattern.kids[i + 1]->kind == ExprKind::ellipsis)
      dots = std::min(dots, i);
  bool fits = dots < declared ? rank + 1 >= declared : rank == declared;
  if (!fits) {
    error(where, fmt::format("{} is declared {} but is {}", what, pattern_text(pattern), type.text()),
          {fmt::format("it has {} dim{}, not {}{}", rank, rank == 1 ? "" : "s",
                       dots < declared ? "at least " : "", dots < declared ? declared - 1 : declared)});
    return false;
  }
  auto actual = [&](size_t i) -> const Dim & {
    return type.shape[i < dots ? i : i + rank - declared];
  };
  // Plain names first: they may be bound after an expression that uses them.
  for (size_t i = 0; i < declared; ++i) {
    const Expr &kid = *pattern.kids[i + 1];
    if (kid.kind == ExprKind::name && !find_name(kid.text))
      frame_->dims[kid.text] = actual(i);
  }
  for (size_t i = 0; i < declared; ++i) {
    const Expr &kid = *pattern.kids[i + 1];
    if (i == dots)
      continue;
    if (kid.kind == ExprKind::name && kid.text == "_")
      continue;
    auto d = eval_dim(kid);
    if (!d)
      return false;
    if (require_equal(*d, actual(i), where, what))
      continue;
    std::string name = kid.kind == ExprKind::integer ? "" : fmt::format(" ({} = {})", pattern_text(kid), d->text());
    error(where, fmt::format("{} is declared {} but is {}", what, pattern_text(pattern), type.text()),
          {fmt::format("dim {} is {}, not {}{}", i < dots ? i : i + rank - declared, actual(i).text(),
                       d->text(), d->text() == pattern_text(kid) ? "" : name)});
    return false;
  }
  return true;
}

} // namespace kiln::kir
