#include "codegen/cuda/rectangle.h"

#include "codegen/cuda/nest.h"

#include "ir/kernel/build.h"
#include "passes/kernel/rewrite.h"

#include <algorithm>

namespace kiln::cuda {
namespace {

bool depends(const Dim &d, const std::vector<Symbol> &names) {
  return std::any_of(names.begin(), names.end(), [&](Symbol n) { return d.depends_on(n); });
}

// The arguments of `min(a, b, ..) + rest` or `max(a, b, ..) + rest`, each with the rest; the Dim alone where it is none.
std::vector<Dim> arguments_of(const Dim &d, DimAtom::Kind kind) {
  for (const DimTerm &term : d.terms())
    if (term.coefficient == 1 && term.factors.size() == 1 && term.factors[0].kind == kind) {
      const DimAtom &atom = term.factors[0];
      Dim rest = d - (kind == DimAtom::Kind::min ? min(atom.args[0], atom.args[1]) : max(atom.args[0], atom.args[1]));
      std::vector<Dim> out;
      for (const Dim &arg : atom.args)
        for (Dim &each : arguments_of(arg + rest, kind))
          out.push_back(std::move(each));
      return out;
    }
  return {d};
}

// Makes a loop that the loops `outer` cut off whole; false where its bounds have another form.
bool make_whole(Stmt &loop, const std::vector<Symbol> &outer, std::vector<Guard> &guards) {
  if (loop.step != 1)
    return false;
  std::vector<Dim> low, high;
  std::optional<Dim> begin, end;
  for (Dim &d : arguments_of(loop.begin, DimAtom::Kind::max))
    if (depends(d, outer))
      low.push_back(std::move(d));
    else
      begin = begin ? max(*begin, d) : d;
  for (Dim &d : arguments_of(loop.end, DimAtom::Kind::min))
    if (depends(d, outer))
      high.push_back(std::move(d));
    else
      end = end ? min(*end, d) : d;
  if (!begin || !begin->is_const(0) || !end)
    return false;
  Dim at = Dim::symbol(loop.name);
  // Both ends of an image are one comparison.
  for (size_t i = 0; i < low.size(); ++i)
    for (size_t j = 0; j < high.size(); ++j)
      if (Dim limit = high[j] - low[i]; !depends(limit, outer)) {
        guards.push_back({at - low[i], limit});
        low.erase(low.begin() + std::ptrdiff_t(i--));
        high.erase(high.begin() + std::ptrdiff_t(j));
        break;
      }
  for (const Dim &d : low)
    guards.push_back({at - d, std::nullopt});
  for (const Dim &d : high)
    guards.push_back({d - 1 - at, std::nullopt});
  loop.begin = 0;
  loop.end = *end;
  return true;
}

// The axis whose blocks `outer` counts, if `inner` counts what is in one.
std::optional<RaggedAxis> ragged_axis(const Stmt &outer, const Stmt &inner) {
  if (!outer.begin.is_const(0) || !inner.begin.is_const(0) || outer.step != 1 || inner.step != 1)
    return std::nullopt;
  std::vector<Dim> ends = arguments_of(inner.end, DimAtom::Kind::min);
  if (ends.size() != 2)
    return std::nullopt;
  if (!ends[0].is_const())
    std::swap(ends[0], ends[1]);
  if (!ends[0].is_const() || ends[0].as_const() < 1)
    return std::nullopt;
  Dim total = ends[1] + ends[0] * Dim::symbol(outer.name);
  if (total.depends_on(outer.name) || outer.end != ceildiv(total, ends[0]))
    return std::nullopt;
  return RaggedAxis{outer.name, inner.name, total, ends[0]};
}

} // namespace

Rectangle make_rectangular(const Stmt &nest) {
  Rectangle out{nest, {}, std::nullopt};
  std::vector<Symbol> outer{nest.name};
  Stmt *last = &out.nest;
  while (last->body.size() == 1 && cuda::is_loop(last->body[0], LoopKind::parallel)) {
    Stmt &inner = last->body[0];
    if (auto axis = out.ragged ? std::nullopt : ragged_axis(*last, inner)) {
      inner.end = axis->block;
      out.ragged = axis;
    }
    outer.push_back(inner.name);
    last = &inner;
  }
  for (Stmt &s : last->body) {
    for (Stmt *loop = &s; cuda::is_loop(*loop, LoopKind::reduce); loop = &loop->body[0]) {
      if ((depends(loop->begin, outer) || depends(loop->end, outer)) && !make_whole(*loop, outer, out.guards))
        break;
      if (loop->body.size() != 1)
        break;
    }
  }
  return out;
}

std::optional<Stmt> with_whole_axis(const Stmt &nest) {
  Stmt out = nest;
  for (Stmt *loop = &out; cuda::is_loop(*loop, LoopKind::parallel) && loop->body.size() == 1 && cuda::is_loop(loop->body[0], LoopKind::parallel); loop = &loop->body[0]) {
    auto axis = ragged_axis(*loop, loop->body[0]);
    if (!axis)
      continue;
    Dim at = Dim::symbol(axis->inner);
    std::vector<Stmt> body = std::move(loop->body[0].body);
    // Both at once: the variable of the whole axis has the name of the inner one.
    substitute(body, [&](Symbol s) -> std::optional<Dim> {
      return s == axis->outer ? std::optional<Dim>(floordiv(at, axis->block)) : s == axis->inner ? std::optional<Dim>(mod(at, axis->block)) : std::nullopt;
    });
    loop->name = axis->inner;
    loop->end = axis->total;
    loop->body = std::move(body);
    return out;
  }
  return std::nullopt;
}

Stmt with_guarded_windows(const Stmt &nest) {
  constexpr int64_t kMostSteps = 32; // what is worth being unrolled
  Rectangle whole = make_rectangular(nest);
  if (whole.guards.empty() || whole.ragged)
    return nest;
  Stmt *last = &whole.nest;
  while (last->body.size() == 1 && cuda::is_loop(last->body[0], LoopKind::parallel))
    last = &last->body[0];
  for (Stmt &s : last->body) {
    if (!cuda::is_loop(s, LoopKind::reduce))
      continue;
    Dim steps = 1;
    Expr inside;
    for (Stmt *loop = &s;; loop = &loop->body[0]) {
      bool is_guarded = false;
      for (const Guard &g : whole.guards)
        if (g.value.depends_on(loop->name)) {
          is_guarded = true;
          Expr holds = kb::binary(BinaryOp::le, kb::index(0), kb::index(g.value));
          if (g.limit)
            holds = kb::binary(BinaryOp::bit_and, std::move(holds), kb::binary(BinaryOp::lt, kb::index(g.value), kb::index(*g.limit)));
          inside = inside.is(Expr::Kind::none) ? holds : kb::binary(BinaryOp::bit_and, std::move(inside), std::move(holds));
        }
      if (is_guarded)
        steps *= extent_of(*loop);
      if (loop->body.size() == 1 && cuda::is_loop(loop->body[0], LoopKind::reduce))
        continue;
      if (!steps.is_const() || steps.as_const() > kMostSteps)
        return nest;
      if (!inside.is(Expr::Kind::none))
        loop->body = {kb::if_(std::move(inside), std::move(loop->body))};
      break;
    }
  }
  return whole.nest;
}

std::optional<int64_t> first_step(const Dim &index, Symbol loop) {
  if (auto step = index.coefficient_of(loop))
    return step->try_const();
  return (index.substitute(loop, 1) - index.substitute(loop, 0)).try_const();
}

} // namespace kiln::cuda
