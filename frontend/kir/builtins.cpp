// Functions that the language cannot express about itself: lists, kinds, numbers, compile-time errors. What
// can be written in it stands in lib/prelude.kir.
#include "frontend/kir/elaborator.h"

#include "ir/ops/op.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

namespace kiln::kir {
namespace {

Datum usage_error(Elaborator &e, const Location &where, std::string_view usage) {
  return e.error(where, fmt::format("this is called as {}", usage));
}

const Datum *arg(const Args &args, size_t i) {
  return i < args.positional.size() ? &args.positional[i].value : nullptr;
}

std::optional<int64_t> integer(const Datum *d) {
  auto *dim = d ? d->get<Dim>() : nullptr;
  return dim ? dim->try_const() : std::nullopt;
}

Datum range(Elaborator &e, const Args &args, const Location &where) {
  if (args.positional.empty() || args.positional.size() > 3 || !args.named.empty())
    return usage_error(e, where, "range(stop), range(start, stop) or range(start, stop, step)");
  bool one = args.positional.size() == 1;
  auto *stop_dim = args.positional[one ? 0 : 1].value.get<Dim>();
  // A loop over a symbolic dim: a tensor of the indices.
  if (one && stop_dim && !stop_dim->is_const())
    return e.emit(Op::iota, {}, {{"shape", std::vector<Dim>{*stop_dim}}, {"axis", Dim(0)}, {"dtype", DType::i64}}, where);
  auto start = one ? std::optional<int64_t>(0) : integer(arg(args, 0));
  auto stop = integer(arg(args, one ? 0 : 1));
  auto step = args.positional.size() == 3 ? integer(arg(args, 2)) : std::optional<int64_t>(1);
  if (!start || !stop || !step || *step == 0)
    return e.error(where, "range() counts integers that are known at compile time, in steps other than 0",
                   {"`while` loops run on tensors"});
  int64_t span = 0;
  if (__builtin_sub_overflow(*stop, *start, &span))
    span = *stop > *start ? INT64_MAX : INT64_MIN;
  if ((*step > 0) != (span > 0) || span == 0)
    return e.make_list({});
  uint64_t count = (uint64_t(std::llabs(span)) + uint64_t(std::llabs(*step)) - 1) / uint64_t(std::llabs(*step));
  if (count > e.list_limit())
    return e.error(where, fmt::format("range() over {} numbers is too long to unroll", count));
  std::vector<Datum> out;
  for (uint64_t i = 0; i < count; ++i)
    out.push_back({Dim(*start + int64_t(i) * *step)});
  return e.make_list(std::move(out));
}

Datum len(Elaborator &e, const Args &args, const Location &where) {
  const Datum *d = args.positional.size() == 1 ? arg(args, 0) : nullptr;
  if (!d)
    return usage_error(e, where, "len(list)");
  if (auto *list = d->get<ListData *>())
    return {Dim(int64_t((*list)->items.size()))};
  if (auto *s = d->get<std::string>())
    return {Dim(int64_t(s->size()))};
  if (auto *o = d->get<Object *>(); o && !(*o)->variadic.empty())
    if (auto *list = (*o)->find((*o)->variadic)->get<ListData *>())
      return {Dim(int64_t((*list)->items.size()))};
  if (auto *t = d->get<TensorRef>())
    if (const TensorType &type = e.type_of(t->id); type.rank() > 0)
      return {type.shape[0]};
  return e.error(where, fmt::format("{} has no length", e.describe(*d)));
}

Datum to_int(Elaborator &e, const Args &args, const Location &where) {
  const Datum *d = args.positional.size() == 1 ? arg(args, 0) : nullptr;
  if (!d)
    return usage_error(e, where, "int(x)");
  if (d->is<Dim>())
    return *d;
  if (auto *b = d->get<bool>())
    return {Dim(*b ? 1 : 0)};
  if (auto *f = d->get<double>())
    return std::isfinite(*f) && std::fabs(*f) < 9e18
               ? Datum{Dim(int64_t(*f))} : e.error(where, fmt::format("{} is no integer", *f));
  if (d->is<TensorRef>() || d->is<VariableDatum *>())
    if (auto id = e.as_tensor(*d, where))
      return e.emit(Op::convert, {*id}, {{"dtype", DType::i32}}, where);
  return e.error(where, fmt::format("{} is no integer", e.describe(*d)));
}

Datum to_float(Elaborator &e, const Args &args, const Location &where) {
  const Datum *d = args.positional.size() == 1 ? arg(args, 0) : nullptr;
  if (!d)
    return usage_error(e, where, "float(x)");
  if (d->is<double>())
    return *d;
  if (auto i = integer(d))
    return {double(*i)};
  if (d->is<TensorRef>() || d->is<VariableDatum *>() || d->is<Dim>())
    if (auto id = e.as_tensor(*d, where))
      return e.emit(Op::convert, {*id}, {{"dtype", DType::f32}}, where);
  return e.error(where, fmt::format("{} is no number", e.describe(*d)));
}

Datum to_str(Elaborator &e, const Args &args, const Location &where) {
  const Datum *d = args.positional.size() == 1 ? arg(args, 0) : nullptr;
  if (!d)
    return usage_error(e, where, "str(x)");
  if (d->is<std::string>())
    return *d;
  if (auto *i = d->get<Dim>())
    return {i->text()};
  if (auto *f = d->get<double>())
    return {fmt::format("{}", *f)};
  if (auto *list = d->get<ListData *>()) {
    std::string out = "[";
    for (const Datum &item : (*list)->items) {
      if (out.size() > 200)
        break;
      auto *i = item.get<Dim>();
      out += (out.size() > 1 ? ", " : "") + (i ? i->text() : e.describe(item));
    }
    return {out + "]"};
  }
  return {e.describe(*d)};
}

// Smallest or largest of numbers and dims, or elementwise of tensors.
Datum extreme(Elaborator &e, const Args &args, const Location &where, bool largest) {
  std::vector<Datum> items;
  for (const Arg &a : args.positional)
    items.push_back(a.value);
  bool reduction = !items.empty() && (items[0].is<TensorRef>() || items[0].is<VariableDatum *>()) &&
                   (items.size() == 1 || items[1].is<Dim>() || items[1].is<ListData *>());
  if (reduction || !args.named.empty())
    return e.call_named(largest ? "amax" : "amin", args, where);
  if (items.size() == 1)
    if (auto *list = items[0].get<ListData *>())
      items = std::vector<Datum>((*list)->items);
  if (items.empty())
    return usage_error(e, where, largest ? "max(a, b)" : "min(a, b)");
  Datum out = items[0];
  for (size_t i = 1; i < items.size(); ++i) {
    const Datum &next = items[i];
    auto *a = out.get<Dim>();
    auto *b = next.get<Dim>();
    if (a && b) {
      out = {largest ? max(*a, *b) : min(*a, *b)};
    } else if (out.number() && next.number()) {
      Datum less = e.binary("<", out, next, where);
      auto *truth = less.get<bool>();
      if (!truth)
        return {Poison{}};
      out = *truth == largest ? next : out;
    } else {
      out = e.call({largest ? Op::maximum : Op::minimum}, Args{{{out, where}, {next, where}}, {}}, where);
      if (out.poison())
        return out;
    }
  }
  return out;
}

Datum min_of(Elaborator &e, const Args &args, const Location &where) { return extreme(e, args, where, false); }
Datum max_of(Elaborator &e, const Args &args, const Location &where) { return extreme(e, args, where, true); }

Datum enumerate(Elaborator &e, const Args &args, const Location &where) {
  const Datum *d = args.positional.size() == 1 ? arg(args, 0) : nullptr;
  auto *list = d ? d->get<ListData *>() : nullptr;
  if (!list)
    return usage_error(e, where, "enumerate(list)");
  std::vector<Datum> items = (*list)->items, out;
  for (size_t i = 0; i < items.size(); ++i)
    out.push_back(e.make_list({{Dim(int64_t(i))}, items[i]}, true));
  return e.make_list(std::move(out));
}

Datum zip(Elaborator &e, const Args &args, const Location &where) {
  size_t count = args.positional.empty() ? 0 : e.list_limit();
  for (const Arg &a : args.positional) {
    auto *list = a.value.get<ListData *>();
    if (!list)
      return usage_error(e, where, "zip(list, list)");
    count = std::min(count, (*list)->items.size());
  }
  std::vector<Datum> out;
  for (size_t i = 0; i < count; ++i) {
    std::vector<Datum> row;
    for (const Arg &a : args.positional)
      row.push_back((*a.value.get<ListData *>())->items[i]);
    out.push_back(e.make_list(std::move(row), true));
  }
  return e.make_list(std::move(out));
}

template <bool extend>
Datum append(Elaborator &e, const Args &args, const Location &where) {
  auto *list = args.positional.size() == 2 ? args.positional[0].value.get<ListData *>() : nullptr;
  auto *more = list && extend ? args.positional[1].value.get<ListData *>() : nullptr;
  if (!list || (extend && !more))
    return usage_error(e, where, extend ? "list.extend(other_list)" : "list.append(x)");
  if ((*list)->region_depth != e.region_depth())
    return e.error(where, "a list made outside cannot grow within an if, while or for over tensors",
                   {"carry a tensor through the loop, or use scan()"});
  std::vector<Datum> items = more ? (*more)->items : std::vector<Datum>{args.positional[1].value};
  if ((*list)->items.size() + items.size() > e.list_limit())
    return e.error(where, "the list grows too long");
  (*list)->items.insert((*list)->items.end(), items.begin(), items.end());
  return {None{}};
}

// The kind of a value: "tensor", "int", "float", "bool", "str", "list", "none", "module", "function", "dtype".
Datum kind_of(Elaborator &e, const Args &args, const Location &where) {
  const Datum *d = args.positional.size() == 1 ? arg(args, 0) : nullptr;
  if (!d)
    return usage_error(e, where, "kind(x)");
  const char *name = d->is<TensorRef>() || d->is<VariableDatum *>() ? "tensor"
                     : d->is<Dim>()                                 ? "int"
                     : d->is<double>()                              ? "float"
                     : d->is<bool>()                                ? "bool"
                     : d->is<std::string>()                         ? "str"
                     : d->is<ListData *>()                          ? "list"
                     : d->none()                                    ? "none"
                     : d->is<Object *>()                            ? "module"
                     : d->is<DType>()                               ? "dtype"
                     : d->callable()                                ? "function"
                                                                    : "other";
  return {std::string(name)};
}

Datum is_known(Elaborator &e, const Args &args, const Location &where) {
  auto *dim = args.positional.size() == 1 ? args.positional[0].value.get<Dim>() : nullptr;
  return dim ? Datum{dim->is_const()} : usage_error(e, where, "is_known(size)");
}

Datum fail(Elaborator &e, const Args &args, const Location &where) {
  auto *text = args.positional.size() == 1 ? args.positional[0].value.get<std::string>() : nullptr;
  return text ? e.error(where, *text) : usage_error(e, where, "error(\"message\")");
}

Datum make_tensor(Elaborator &e, const Args &args, const Location &where) {
  const Datum *d = arg(args, 0);
  const Arg *named = args.find("dtype");
  const Datum *dtype = named ? &named->value : arg(args, 1);
  if (!d || (dtype && !dtype->is<DType>() && !dtype->none()))
    return usage_error(e, where, "tensor([1.0, 2.0], dtype=f32)");
  std::optional<ValueId> id = dtype && dtype->is<DType>() && !d->is<TensorRef>() && !d->is<VariableDatum *>()
                                  ? e.number_tensor(*d, *dtype->get<DType>(), where)
                                  : e.as_tensor(*d, where);
  return id ? e.tensor(*id) : Datum{Poison{}};
}

Datum init_shape(Elaborator &e, const Args &, const Location &where) {
  if (!e.init())
    return e.error(where, "initialisers are for initial values: `param w: f32[3, 4] = init.normal()`");
  const Shape &shape = e.init()->type.shape;
  return e.make_list(std::vector<Datum>(shape.begin(), shape.end()));
}
Datum init_dtype(Elaborator &e, const Args &, const Location &where) {
  if (!e.init())
    return e.error(where, "initialisers are for initial values: `param w: f32[3, 4] = init.normal()`");
  return {e.init()->type.dtype};
}
Datum init_key(Elaborator &e, const Args &, const Location &where) { return e.init_key(where); }

Datum random_key(Elaborator &e, const Args &, const Location &where) {
  return e.in_function(where) ? e.random_key(where) : Datum{Poison{}};
}
Datum manual_seed(Elaborator &e, const Args &args, const Location &where) {
  auto seed = args.positional.size() == 1 ? integer(arg(args, 0)) : std::nullopt;
  if (!seed)
    return usage_error(e, where, "manual_seed(42)");
  e.manual_seed(*seed);
  return {None{}};
}

Datum characters(Elaborator &e, const Args &args, const Location &where) {
  auto *text = args.positional.size() == 1 ? args.positional[0].value.get<std::string>() : nullptr;
  if (!text)
    return usage_error(e, where, "characters(\"ij,jk\")");
  std::vector<Datum> out;
  for (char c : *text)
    out.push_back({std::string(1, c)});
  return e.make_list(std::move(out));
}

// A value as a program would write it.
std::string shown(Elaborator &e, const Datum &d, int depth = 0) {
  if (auto *s = d.get<std::string>())
    return fmt::format("\"{}\"", *s);
  if (auto *i = d.get<Dim>())
    return i->text();
  if (auto *f = d.get<double>())
    return fmt::format("{}", *f);
  if (auto *b = d.get<bool>())
    return *b ? "true" : "false";
  if (d.none())
    return "none";
  auto *list = d.get<ListData *>();
  if (!list || depth > 16)
    return e.describe(d);
  std::string out;
  for (const Datum &item : (*list)->items) {
    if (out.size() > 4000)
      return out + ", ...";
    out += (out.empty() ? "" : ", ") + shown(e, item, depth + 1);
  }
  return (*list)->tuple ? "(" + out + ")" : "[" + out + "]";
}

Datum display(Elaborator &e, const Args &args, const Location &where) {
  if (!e.display())
    return e.error(where, "display() is for `kiln eval` and `kiln repl`; a function returns what is to be seen");
  const Datum *d = args.positional.size() == 1 ? arg(args, 0) : nullptr;
  if (!d)
    return usage_error(e, where, "display(x)");
  auto is_tensor = [](const Datum &x) { return x.is<TensorRef>() || x.is<VariableDatum *>(); };
  auto *list = d->get<ListData *>();
  if (d->poison() || is_tensor(*d) ||
      (list && !(*list)->items.empty() && std::all_of((*list)->items.begin(), (*list)->items.end(), is_tensor)))
    return *d;
  if (!d->none())
    e.display()(shown(e, *d));
  return {None{}};
}

Datum named_constant(Elaborator &e, const Args &args, const Location &where) {
  auto *name = args.positional.size() == 1 ? args.positional[0].value.get<std::string>() : nullptr;
  if (!name)
    return usage_error(e, where, "constant(f32[2]: 1.0, 2.0), or constant(\"name\") for one of the weights");
  return e.weight(*name, where);
}

Datum field(Elaborator &e, const Args &args, const Location &where) {
  auto *object = args.positional.size() == 2 ? args.positional[0].value.get<Object *>() : nullptr;
  auto *name = object ? args.positional[1].value.get<std::string>() : nullptr;
  if (!name)
    return usage_error(e, where, "field(module, \"name\")");
  const Datum *found = (*object)->find(*name);
  return found ? *found : e.error(where, fmt::format("{} has no field '{}'", e.describe(args.positional[0].value), *name));
}

// Runs a function or module in training mode: dropout drops, batch norm takes the batch's statistics.
Datum train(Elaborator &e, const Args &args, const Location &where) {
  if (args.positional.empty() || !args.positional[0].value.callable())
    return usage_error(e, where, "train(net, x, ...): net(x, ...) in training mode");
  Args rest = args;
  Datum callee = rest.positional[0].value;
  rest.positional.erase(rest.positional.begin());
  bool before = std::exchange(e.training, true);
  Datum out = e.call(callee, rest, where);
  e.training = before;
  return out;
}
Datum is_training(Elaborator &e, const Args &, const Location &) { return {e.training}; }

constexpr std::array kBuiltins = {
    Builtin{"range", "range(start, stop, step): integers", range},
    Builtin{"len", "len(x): elements of a list, size of a tensor's axis 0", len},
    Builtin{"int", "int(x): a number cut to an integer; a tensor as i32", to_int},
    Builtin{"float", "float(x): a number; a tensor as f32", to_float},
    Builtin{"str", "str(x): as text", to_str},
    Builtin{"min", "min(a, b, ...), min(tensor, axis)", min_of},
    Builtin{"max", "max(a, b, ...), max(tensor, axis)", max_of},
    Builtin{"enumerate", "enumerate(list): (index, element) pairs", enumerate},
    Builtin{"zip", "zip(a, b): pairs", zip},
    Builtin{"list_append", "list.append(x)", append<false>},
    Builtin{"list_extend", "list.extend(other_list)", append<true>},
    Builtin{"kind", "kind(x): \"tensor\", \"int\", \"float\", \"list\", ...", kind_of},
    Builtin{"is_known", "is_known(size): whether a size is a number at compile time", is_known},
    Builtin{"error", "error(\"message\"): a compile-time error at the caller", fail},
    Builtin{"tensor", "tensor([[1.0, 2.0]], dtype=f32)", make_tensor},
    Builtin{"grad", "grad(loss, wrt): the gradient of one number", grad_builtin},
    Builtin{"vjp", "vjp(outputs, wrt, cotangents)", vjp_builtin},
    Builtin{"jvp", "jvp(outputs, wrt, tangents)", jvp_builtin},
    Builtin{"parameters", "parameters(module): its params, each once", parameters_builtin},
    Builtin{"states", "states(module): its states, each once", states_builtin},
    Builtin{"field", "field(module, \"name\"): the field of a name that is computed", field},
    Builtin{"remat", "remat(f), remat(module): its values are computed again for gradients instead of being kept", remat_builtin},
    Builtin{"freeze", "freeze(module), freeze(module, \"conv1.*\"): params that are not trained", freeze_builtin},
    Builtin{"unfreeze", "unfreeze(module, \"fc.*\"): params that are trained after all", unfreeze_builtin},
    Builtin{"train", "train(net, x, ...): net(x, ...) in training mode", train},
    Builtin{"is_training", "is_training(): whether this runs within train()", is_training},
    Builtin{"init_shape", "in initialisers: the shape wanted", init_shape},
    Builtin{"init_dtype", "in initialisers: the dtype wanted", init_dtype},
    Builtin{"init_key", "in initialisers: a key for random_bits, another each time", init_key},
    Builtin{"random_key", "random_key(): a key for random_bits, another each time", random_key},
    Builtin{"manual_seed", "manual_seed(42): what the keys that follow are made of", manual_seed},
    Builtin{"characters", "characters(text): a list of strings of one character", characters},
    Builtin{"display", "display(x): shows a value, in `kiln eval` and `kiln repl`", display},
    Builtin{"named_constant", "constant(\"name\")", named_constant},
};

} // namespace

std::span<const Builtin> builtins() { return kBuiltins; }

} // namespace kiln::kir
