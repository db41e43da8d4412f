// Calls that are units for gradients: remat(f), whose values are computed again when they are needed backwards, and
// `func f(x) -> y grad g`, whose gradient is g. Their nodes are traced like those of any call; the unit says which they are.
//
//   func clip(x: f32[N]) -> f32[N] grad straight { return clamp(x, min=0.0, max=1.0) }
//   func straight(x, dy) { return dy }
#include "frontend/kir/elaborator.h"

#include <algorithm>
#include <unordered_set>

#include <fmt/format.h>

namespace kiln::kir {
namespace {

void tensors_of(const Datum &d, std::vector<ValueId> &out) {
  if (auto *t = d.get<TensorRef>())
    out.push_back(t->id);
  else if (auto *list = d.get<ListData *>())
    for (const Datum &item : (*list)->items)
      tensors_of(item, out);
}

// What nodes read that none of them makes, regions included, in the order of first use.
void outer_values(const Function &f, const std::vector<NodeId> &nodes, std::unordered_set<ValueId> made, std::vector<ValueId> &out) {
  auto use = [&](ValueId v) {
    if (!made.count(v) && std::find(out.begin(), out.end(), v) == out.end())
      out.push_back(v);
  };
  for (NodeId id : nodes) {
    const Node &node = f.node(id);
    for (ValueId v : node.operands)
      use(v);
    for (const Block &region : node.regions) {
      std::unordered_set<ValueId> inner = made;
      inner.insert(region.args.begin(), region.args.end());
      for (NodeId nested : region.nodes)
        inner.insert(f.node(nested).results.begin(), f.node(nested).results.end());
      outer_values(f, region.nodes, inner, out);
      for (ValueId v : region.results)
        if (!inner.count(v))
          use(v);
    }
    made.insert(node.results.begin(), node.results.end());
  }
}

} // namespace

// Runs, and notes the nodes that it made as a unit.
template <typename F>
Datum Elaborator::trace_unit(const F &run, const std::function<void(GradientUnit &)> &finish) {
  size_t first = fn_->builder.block().nodes.size();
  Datum result = run();
  if (result.poison())
    return result;
  const Block &block = fn_->builder.block();
  GradientUnit unit;
  unit.nodes.assign(block.nodes.begin() + std::ptrdiff_t(first), block.nodes.end());
  std::unordered_set<ValueId> made;
  for (NodeId id : unit.nodes)
    if (fn_->function.node(id).op != Op::read_variable)
      made.insert(fn_->function.node(id).results.begin(), fn_->function.node(id).results.end());
  std::vector<ValueId> values;
  tensors_of(result, values);
  for (ValueId v : values)
    if (made.count(v) && std::find(unit.results.begin(), unit.results.end(), v) == unit.results.end())
      unit.results.push_back(v);
  outer_values(fn_->function, unit.nodes, {}, unit.inputs);
  for (NodeId id : unit.nodes) // params are inputs though they are read within
    if (const Node &node = fn_->function.node(id); node.op == Op::read_variable)
      unit.inputs.push_back(node.results[0]);
  finish(unit);
  if (!unit.results.empty())
    fn_->units.push_back(std::move(unit));
  return result;
}

Datum Elaborator::call_again(const Datum &callee, const Args &args, const Location &where) {
  auto *object = callee.get<Object *>();
  return trace_unit(
      [&] {
        const Object *saved = std::exchange(again_, object ? *object : again_);
        Datum result = call(callee, args, where);
        again_ = saved;
        return result;
      },
      [](GradientUnit &) {});
}

Datum Elaborator::call_custom(const FuncRef &f, const Args &args, const Location &where) {
  auto gradient = find_callable(f.decl->grad, f.library);
  if (!gradient || !gradient->is<FuncRef>())
    return error(f.decl->location, fmt::format("the gradient of '{}' is to be '{}', but there is no such function", f.decl->name, f.decl->grad));
  if (gradient->get<FuncRef>()->decl == f.decl)
    return error(f.decl->location, fmt::format("'{}' is to be its own gradient", f.decl->name));
  // All arguments by position, since the gradients of the results follow them.
  Args given;
  given.positional = args.positional;
  const auto &params = f.decl->params;
  for (size_t i = given.positional.size(); i < params.size(); ++i) {
    const Arg *named = args.find(params[i].name);
    if (!named && (!params[i].default_value || params[i].variadic))
      break;
    given.positional.push_back(named ? *named : Arg{eval(*params[i].default_value), params[i].location});
  }
  if (given.positional.size() != params.size())
    return call_function(f, args, where); // which says what is wrong
  std::vector<ValueId> tensors;
  std::vector<size_t> places;
  for (size_t i = 0; i < given.positional.size(); ++i) {
    Arg &a = given.positional[i];
    if (!a.value.is<TensorRef>() && !a.value.is<VariableDatum *>())
      continue;
    auto id = as_tensor(a.value, a.location);
    if (!id)
      return {Poison{}};
    a.value = tensor(*id);
    tensors.push_back(*id);
    places.push_back(i);
  }
  std::vector<ValueId> used;
  FuncRef backward = *gradient->get<FuncRef>();
  Datum result = trace_unit(
      [&] {
        const FuncDecl *saved = std::exchange(custom_, f.decl);
        Datum out = call_function(f, given, where);
        custom_ = saved;
        return out;
      },
      [&](GradientUnit &unit) {
        used = std::exchange(unit.inputs, tensors);
        unit.custom = [this, given, places, backward, where, name = f.decl->name](
                          GraphBuilder &b, std::span<const ValueId> inputs, std::span<const ValueId> gradients) -> Result<std::vector<ValueId>> {
          Args with = given;
          for (size_t i = 0; i < places.size(); ++i)
            with.positional[places[i]].value = tensor(inputs[i]);
          for (ValueId v : gradients)
            with.positional.push_back({tensor(v), where});
          Datum made = call_function(backward, with, where);
          Error wrong{fmt::format("'{}' is to give the gradients of the {} tensors that '{}' takes, each of its type (`none` for integers)",
                                  backward.decl->name, inputs.size(), name)};
          std::vector<Datum> parts;
          if (auto *list = made.get<ListData *>())
            parts = (*list)->items;
          else
            parts.push_back(made);
          std::vector<ValueId> out;
          for (size_t i = 0; i < inputs.size() && parts.size() == inputs.size(); ++i) {
            bool real = is_float(b.type(inputs[i]).dtype);
            auto *t = parts[i].get<TensorRef>();
            if (real && (!t || b.type(t->id) != b.type(inputs[i])))
              return wrong;
            out.push_back(real ? t->id : ValueId());
          }
          return out.size() == inputs.size() ? Result<std::vector<ValueId>>(std::move(out)) : wrong;
        };
      });
  // A gradient of its own says nothing of what the function takes from elsewhere.
  for (ValueId v : used) {
    const Node *def = fn_->function.def(v);
    if (std::find(tensors.begin(), tensors.end(), v) == tensors.end() && def && def->op == Op::read_variable)
      return error(where, fmt::format("'{}' has a gradient of its own, so the param '{}' has to be one of its arguments", f.decl->name,
                                      fn_->function.value(v).name));
  }
  return result;
}

Datum remat_builtin(Elaborator &e, const Args &args, const Location &where) {
  Datum f = args.positional.size() == 1 && args.named.empty() ? args.positional[0].value : Datum{None{}};
  if (auto *object = f.get<Object *>()) {
    (*object)->remat = true;
    return f;
  }
  if (auto *function = f.get<FuncRef>()) {
    FuncRef again = *function;
    again.remat = true;
    return {again};
  }
  return e.error(where, "this is called as remat(f) with a function or a module of the language: remat(block)(x)");
}

} // namespace kiln::kir
