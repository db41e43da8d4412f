// x[0, 1:, ..., none, indices]: slices, single elements, new axes, gathers; also subscripts of lists, and
// types as values.
#include "frontend/kir/elaborator.h"

#include <algorithm>

#include <fmt/format.h>

namespace kiln::kir {

Datum Elaborator::index_list(const ListData &list, const Expr &e) {
  int64_t size = int64_t(list.items.size());
  const Expr &kid = *e.kids[1];
  if (e.kids.size() != 2)
    return error(e.location, "a list has one subscript");
  auto bound = [&](const Expr *x, int64_t otherwise, int64_t lo, int64_t hi) -> std::optional<int64_t> {
    if (!x)
      return otherwise;
    auto d = eval_dim(*x);
    if (!d || !d->is_const()) {
      if (d)
        error(x->location, "a list's subscript must be known at compile time");
      return std::nullopt;
    }
    int64_t i = d->as_const();
    return std::clamp(i < 0 ? i + size : i, lo, hi);
  };
  if (kid.kind == ExprKind::slice) {
    auto step = kid.kids[2] ? eval_dim(*kid.kids[2]) : std::optional<Dim>(1);
    if (!step || !step->is_const() || step->is_const(0))
      return error(kid.location, "a step is a number other than 0");
    int64_t by = step->as_const();
    auto start = bound(kid.kids[0].get(), by > 0 ? 0 : size - 1, by > 0 ? 0 : -1, by > 0 ? size : size - 1);
    auto stop = bound(kid.kids[1].get(), by > 0 ? size : -1, by > 0 ? 0 : -1, by > 0 ? size : size - 1);
    if (!start || !stop)
      return {Poison{}};
    std::vector<Datum> out;
    for (int64_t i = *start; by > 0 ? i < *stop : i > *stop; i += by) {
      out.push_back(list.items[size_t(i)]);
      if (by > size || by < -size)
        break;
    }
    return make_list(std::move(out), list.tuple);
  }
  auto d = eval_dim(kid);
  if (!d)
    return {Poison{}};
  if (!d->is_const())
    return error(kid.location, "a list's subscript must be known at compile time");
  int64_t i = d->as_const();
  if (i < -size || i >= size)
    return error(kid.location, fmt::format("the index {} is outside the list of {}", i, size));
  return list.items[size_t(i < 0 ? i + size : i)];
}

Datum Elaborator::eval_index(const Expr &e) {
  // A type as a value: f32[3, N].
  if (e.kids[0]->kind == ExprKind::name && dtype_named(*e.kids[0])) {
    auto type = concrete_type(e);
    return type ? Datum{TypePattern{*type}} : Datum{Poison{}};
  }
  Datum base = eval(*e.kids[0]);
  if (base.poison())
    return base;
  if (e.kids.size() < 2)
    return error(e.location, "a subscript is missing");
  if (auto *list = base.get<ListData *>())
    return index_list(**list, e);
  if (auto *object = base.get<Object *>(); object && !(*object)->variadic.empty())
    if (auto *list = (*object)->find((*object)->variadic)->get<ListData *>())
      return index_list(**list, e);
  if (!base.is<TensorRef>() && !base.is<VariableDatum *>())
    return error(e.location, fmt::format("{} has no elements", describe(base)));
  auto id = as_tensor(base, e.location);
  return id ? index_tensor(*id, e) : Datum{Poison{}};
}

namespace {

bool known_less(const Dim &a, const Dim &b) { return (b - a).is_const() && (b - a).as_const() > 0; }

} // namespace

Datum Elaborator::index_tensor(ValueId x, const Expr &e) {
  TensorType type = type_of(x);
  struct Gather {
    int axis;
    ValueId indices;
  };
  std::vector<Gather> gathers;
  std::vector<Dim> axes, starts, ends, steps, shape;
  size_t consumed = 0;
  for (size_t i = 1; i < e.kids.size(); ++i)
    consumed += e.kids[i]->kind != ExprKind::ellipsis && e.kids[i]->kind != ExprKind::none;
  if (consumed > size_t(type.rank()))
    return error(e.location, fmt::format("{} subscripts for {}, which has {} dims", consumed, type.text(), type.rank()));
  int axis = 0;
  bool reshaped = false;
  auto cut = [&](Dim start, Dim end, Dim step) {
    axes.push_back(Dim(axis));
    starts.push_back(std::move(start));
    ends.push_back(std::move(end));
    steps.push_back(std::move(step));
  };
  for (size_t i = 1; i < e.kids.size(); ++i) {
    const Expr &kid = *e.kids[i];
    if (kid.kind == ExprKind::ellipsis) {
      for (size_t rest = size_t(type.rank()) - consumed; rest > 0; --rest)
        shape.push_back(type.shape[size_t(axis++)]);
      consumed = size_t(type.rank());
      continue;
    }
    if (kid.kind == ExprKind::none) {
      shape.push_back(1);
      reshaped = true;
      continue;
    }
    const Dim size = type.shape[size_t(axis)];
    auto from_end = [&](Dim d) { return d.is_const() && d.as_const() < 0 ? d + size : d; };
    if (kid.kind == ExprKind::slice) {
      std::optional<Dim> bounds[3];
      for (int k = 0; k < 3; ++k) {
        if (!kid.kids[size_t(k)])
          continue;
        bounds[k] = eval_dim(*kid.kids[size_t(k)]);
        if (!bounds[k])
          return {Poison{}};
      }
      Dim step = bounds[2] ? *bounds[2] : Dim(1);
      if (!step.is_const() || step.is_const(0))
        return error(kid.location, "a step is a number other than 0");
      bool up = step.as_const() > 0;
      // Past the end counts as the end where the sizes are known; otherwise the op checks before a run.
      auto within = [&](const Dim &d) {
        Dim at = from_end(d);
        if (!size.is_const() || !at.is_const())
          return at;
        Dim lo = up ? Dim(0) : Dim(-1), hi = up ? size : size - Dim(1);
        return max(lo, min(at, hi));
      };
      Dim start = bounds[0] ? within(*bounds[0]) : up ? Dim(0) : size - Dim(1);
      Dim end = bounds[1] ? within(*bounds[1]) : up ? size : Dim(-1);
      if (up && known_less(end, start))
        end = start;
      if (!up && known_less(start, end))
        end = start;
      Dim span = up ? end - start : start - end, by = up ? step : -step;
      shape.push_back(ceildiv(span, by));
      if (!(start.is_const(0) && end == size && step.is_const(1)))
        cut(start, end, step);
      ++axis;
      continue;
    }
    Datum d = eval(kid);
    if (d.poison())
      return d;
    if (auto *list = d.get<ListData *>(); list || d.is<VariableDatum *>() || d.is<TensorRef>()) {
      auto indices = as_tensor(d, kid.location);
      if (!indices)
        return {Poison{}};
      const TensorType &selector = type_of(*indices);
      if (is_bool(selector.dtype) && e.kids.size() == 2 && (selector.rank() == type.rank() || selector.rank() == 1)) {
        Args args{{{tensor(x), e.location}, {tensor(*indices), kid.location}}, {}};
        if (selector.rank() == type.rank())
          return call_named("masked_select", args, e.location);
        args.named.push_back({"dim", {{Dim(0)}, kid.location}});
        return call_named("compress", args, e.location);
      }
      if (!is_integer(selector.dtype))
        return error(kid.location, fmt::format("{} cannot select elements of {}; use integers, or a mask of the same shape",
                                               selector.text(), type.text()));
      if (!gathers.empty())
        return error(kid.location, "one subscript can be a tensor; use gather_nd() for more");
      gathers.push_back({int(shape.size()), *indices});
      // The gather runs after the reshape that drops axes; it sees this axis whole.
      shape.push_back(size);
      ++axis;
      continue;
    }
    auto *at = d.get<Dim>();
    if (!at)
      return error(kid.location, fmt::format("a subscript is an integer, a slice or a tensor, not {}", describe(d)));
    Dim index = from_end(*at);
    if ((index.is_const() && index.as_const() < 0) || known_less(size - Dim(1), index))
      return error(kid.location, fmt::format("the index {} is outside dim {} of {}", at->text(), axis, shape_text(type.shape)));
    cut(index, index + Dim(1), Dim(1));
    reshaped = true;
    ++axis;
  }
  for (; axis < type.rank(); ++axis)
    shape.push_back(type.shape[size_t(axis)]);
  Datum out = tensor(x);
  if (!axes.empty())
    out = emit(Op::slice, {x}, {{"axes", axes}, {"starts", starts}, {"ends", ends}, {"steps", steps}}, e.location);
  if (reshaped && !out.poison())
    out = emit(Op::reshape, {out.get<TensorRef>()->id}, {{"shape", shape}}, e.location);
  for (const Gather &g : gathers)
    if (!out.poison())
      out = emit(Op::gather, {out.get<TensorRef>()->id, g.indices}, {{"axis", Dim(g.axis)}}, e.location);
  return out;
}

} // namespace kiln::kir
