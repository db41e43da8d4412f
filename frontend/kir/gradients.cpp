// grad, vjp, jvp and the lists of a module's params: differentiation in the language. What has been traced so far
// is a graph, so a gradient is more of it, appended where grad() stands (ir/grad).
//
//   g = grad(loss, net)        a gradient for each of parameters(net)
#include "frontend/kir/elaborator.h"

#include "ir/grad/grad.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace kiln::kir {
namespace {

// "conv1.*" and the like: * stands for anything.
bool matches(std::string_view pattern, std::string_view name) {
  size_t star = std::string_view::npos, mark = 0, p = 0, n = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++mark;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

struct Wanted {
  VariableKind kind = VariableKind::param;
  bool frozen_too = false;
  std::vector<std::string> patterns; // of the names within the module; none: all

  bool takes(const VariableDatum &v, std::string_view name) const {
    if (v.kind != kind || (v.frozen && !frozen_too))
      return false;
    return patterns.empty() ||
           std::any_of(patterns.begin(), patterns.end(), [&](const std::string &p) { return matches(p, name); });
  }
};

void collect(const Datum &d, const Wanted &wanted, const std::string &name, std::vector<Datum> &out) {
  auto within = [&](const std::string &field) { return name.empty() ? field : name + "." + field; };
  if (auto *variable = d.get<VariableDatum *>()) {
    bool seen = std::any_of(out.begin(), out.end(), [&](const Datum &o) { return *o.get<VariableDatum *>() == *variable; });
    if (!seen && wanted.takes(**variable, name))
      out.push_back(d);
  } else if (auto *list = d.get<ListData *>()) {
    for (size_t i = 0; i < (*list)->items.size(); ++i)
      collect((*list)->items[i], wanted, within(std::to_string(i)), out);
  } else if (auto *object = d.get<Object *>()) {
    for (const auto &[field, value] : (*object)->fields)
      collect(value, wanted, field == (*object)->variadic ? name : within(field), out);
  }
}

void collect(const Datum &d, VariableKind kind, std::vector<Datum> &out) { collect(d, Wanted{kind, false, {}}, "", out); }

// A module, and patterns of names after it.
bool read_wanted(const Args &args, Wanted &wanted) {
  if (args.positional.empty() || !args.named.empty())
    return false;
  for (size_t i = 1; i < args.positional.size(); ++i) {
    auto *pattern = args.positional[i].value.get<std::string>();
    if (!pattern)
      return false;
    wanted.patterns.push_back(*pattern);
  }
  return true;
}

Datum no_match(Elaborator &e, const Args &args, Wanted wanted, const Location &where) {
  std::vector<std::string> asked = std::exchange(wanted.patterns, {});
  std::vector<Datum> all;
  collect(args.positional[0].value, wanted, "", all);
  std::string list;
  for (const std::string &p : asked)
    list += (list.empty() ? "'" : ", '") + p + "'";
  return e.error(where, fmt::format("no param of {} has a name like {}", e.describe(args.positional[0].value), list),
                 {fmt::format("it has {} params; names are those within the module, such as \"fc.weight\", and * stands for anything",
                              all.size())});
}

Datum variables_of(Elaborator &e, const Args &args, const Location &where, VariableKind kind, const char *usage) {
  Wanted wanted{kind, false, {}};
  if (!read_wanted(args, wanted))
    return e.error(where, fmt::format("this is called as {}", usage));
  std::vector<Datum> out;
  collect(args.positional[0].value, wanted, "", out);
  if (out.empty() && !wanted.patterns.empty())
    return no_match(e, args, wanted, where);
  return e.make_list(std::move(out));
}

// freeze(base), freeze(base, "conv1.*"): these are no longer among the parameters that gradients and optimizers take.
Datum set_frozen(Elaborator &e, const Args &args, const Location &where, bool frozen) {
  Wanted wanted{VariableKind::param, true, {}};
  if (!read_wanted(args, wanted))
    return e.error(where, fmt::format("this is called as {0}(module) or {0}(module, \"conv1.*\", ...)", frozen ? "freeze" : "unfreeze"));
  if (e.inside())
    return e.error(where, "params are frozen outside of functions, beside the modules that have them");
  std::vector<Datum> out;
  collect(args.positional[0].value, wanted, "", out);
  if (out.empty())
    return no_match(e, args, wanted, where);
  for (const Datum &d : out)
    (*d.get<VariableDatum *>())->frozen = frozen;
  return {None{}};
}

// Tensors in the order in which they are nested: a module counts as the list of its params.
struct Flat {
  std::vector<ValueId> values;
  bool ok = true;
};

void flatten(Elaborator &e, const Datum &d, const Location &where, Flat &out) {
  if (auto *list = d.get<ListData *>()) {
    for (const Datum &item : std::vector<Datum>((*list)->items))
      flatten(e, item, where, out);
  } else if (d.is<Object *>()) {
    std::vector<Datum> params;
    collect(d, VariableKind::param, params);
    if (params.empty())
      e.error(where, fmt::format("{} has no params", e.describe(d)));
    out.ok &= !params.empty();
    for (const Datum &p : params)
      flatten(e, p, where, out);
  } else if (d.is<TensorRef>() || d.is<VariableDatum *>()) {
    auto id = e.as_tensor(d, where);
    out.ok &= id.has_value();
    if (id)
      out.values.push_back(*id);
  } else {
    if (!d.poison())
      e.error(where, fmt::format("{} has no gradient; tensors, params, modules and lists of them do", e.describe(d)));
    out.ok = false;
  }
}

// `values` in the structure of `like`.
Datum nested(Elaborator &e, const Datum &like, std::span<const ValueId> &values) {
  auto take = [&] {
    Datum out = e.tensor(values.front());
    values = values.subspan(1);
    return out;
  };
  std::vector<Datum> items;
  if (auto *list = like.get<ListData *>()) {
    for (const Datum &item : std::vector<Datum>((*list)->items))
      items.push_back(nested(e, item, values));
    return e.make_list(std::move(items), (*list)->tuple);
  }
  if (like.is<Object *>()) {
    std::vector<Datum> params;
    collect(like, VariableKind::param, params);
    for (size_t i = 0; i < params.size(); ++i)
      items.push_back(take());
    return e.make_list(std::move(items));
  }
  return take();
}

Datum finish(Elaborator &e, const Datum &like, const Result<std::vector<ValueId>> &values, const Location &where) {
  if (!values)
    return e.error(where, values.error().message);
  std::span<const ValueId> left = *values;
  return nested(e, like, left);
}

} // namespace

Datum parameters_builtin(Elaborator &e, const Args &args, const Location &where) {
  return variables_of(e, args, where, VariableKind::param, "parameters(module) or parameters(module, \"conv1.*\", ...)");
}

Datum freeze_builtin(Elaborator &e, const Args &args, const Location &where) { return set_frozen(e, args, where, true); }
Datum unfreeze_builtin(Elaborator &e, const Args &args, const Location &where) { return set_frozen(e, args, where, false); }

Datum states_builtin(Elaborator &e, const Args &args, const Location &where) {
  return variables_of(e, args, where, VariableKind::state, "states(module) or states(module, \"bn1.*\", ...)");
}

Datum grad_builtin(Elaborator &e, const Args &args, const Location &where) {
  if (args.positional.size() != 2 || !args.named.empty())
    return e.error(where, "this is called as grad(loss, wrt), where wrt is a tensor, a param, a module or a list of them");
  if (!e.in_function(where))
    return {Poison{}};
  auto loss = e.as_tensor(args.positional[0].value, args.positional[0].location);
  Flat wrt;
  flatten(e, args.positional[1].value, args.positional[1].location, wrt);
  if (!loss || !wrt.ok)
    return {Poison{}};
  return finish(e, args.positional[1].value, gradient(e.builder(), *loss, wrt.values, e.units()), where);
}

// vjp(outputs, wrt, cotangents) and jvp(outputs, wrt, tangents): both products with the Jacobian.
template <bool reverse>
Datum product_builtin(Elaborator &e, const Args &args, const Location &where) {
  if (args.positional.size() != 3 || !args.named.empty())
    return e.error(where, reverse ? "this is called as vjp(outputs, wrt, cotangents)"
                                  : "this is called as jvp(outputs, wrt, tangents)");
  if (!e.in_function(where))
    return {Poison{}};
  Flat parts[3];
  for (size_t i = 0; i < 3; ++i) {
    flatten(e, args.positional[i].value, args.positional[i].location, parts[i]);
    if (!parts[i].ok)
      return {Poison{}};
  }
  const Flat &moved = parts[reverse ? 0 : 1];
  bool fits = moved.values.size() == parts[2].values.size();
  for (size_t i = 0; fits && i < moved.values.size(); ++i)
    fits = e.type_of(moved.values[i]) == e.type_of(parts[2].values[i]);
  if (!fits)
    return e.error(args.positional[2].location, reverse ? "there must be one cotangent for each output, of its type"
                                                        : "there must be one tangent for each of wrt, of its type");
  if (reverse)
    return finish(e, args.positional[1].value,
                  reverse_gradient(e.builder(), parts[0].values, parts[2].values, parts[1].values, e.units()), where);
  return finish(e, args.positional[0].value,
                forward_gradient(e.builder(), parts[0].values, parts[1].values, parts[2].values, e.units()), where);
}

Datum vjp_builtin(Elaborator &e, const Args &args, const Location &where) { return product_builtin<true>(e, args, where); }
Datum jvp_builtin(Elaborator &e, const Args &args, const Location &where) { return product_builtin<false>(e, args, where); }

} // namespace kiln::kir
