// for i in 0..A { for j in 0..B { x[i*B + j] } }  becomes  for ij in 0..A*B { x[ij] }
//
// The loop along which all results are contiguous goes innermost first: a block of channels that
// stands in front of the pixels it belongs to would hide that they are one long row.
//
// Long loops vectorise with shorter tails, split over threads evenly, and give contractions longer
// rows. Two loops collapse where they are perfectly nested, of one kind (parallel or reduce), and
// every index inside moves B times as far with i as with j.
#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"

namespace kiln {
namespace {

bool can_collapse(const Stmt &outer) {
  if (!is_loop(outer, LoopKind::parallel) && !is_loop(outer, LoopKind::reduce))
    return false;
  if (outer.body.size() != 1 || !is_loop(outer.body[0], outer.loop))
    return false;
  const Stmt &inner = outer.body[0];
  auto plain = [](const Stmt &l) { return l.begin.is_const(0) && l.step == 1; };
  if (!plain(outer) || !plain(inner) || inner.end.depends_on(outer.name))
    return false;
  bool ok = true;
  visit_dims(inner.body, [&](const Dim &d) {
    if (!ok)
      return;
    auto i = d.coefficient_of(outer.name), j = d.coefficient_of(inner.name);
    ok = i && j && *i == *j * inner.end && !i->depends_on(inner.name);
  });
  return ok;
}

bool collapse(std::vector<Stmt> &body) {
  bool changed = false;
  for (Stmt &s : body) {
    changed |= collapse(s.body);
    changed |= collapse(s.other);
    while (can_collapse(s)) {
      Stmt inner = std::move(s.body[0]);
      substitute(inner.body, s.name, Dim(0));
      inner.end *= s.end;
      keep_turn(inner, s);
      s = std::move(inner);
      changed = true;
    }
  }
  return changed;
}

bool stores_contiguously(const std::vector<Stmt> &body, const std::unordered_set<Symbol> &outer,
                         Symbol loop) {
  bool stores = false, unit = true;
  visit_stmts(body, [&](const Stmt &s) {
    if (!s.is(Stmt::Kind::store) || !outer.count(s.name))
      return;
    auto step = s.index.coefficient_of(loop);
    stores = true;
    unit = unit && step && step->is_const(1);
  });
  return stores && unit;
}

// `nest` points at the loops of a perfect nest, outermost first.
bool sink_contiguous(std::vector<Stmt *> &nest, const std::unordered_set<Symbol> &buffers) {
  const std::vector<Stmt> &body = nest.back()->body;
  if (stores_contiguously(body, buffers, nest.back()->name))
    return false;
  for (size_t i = nest.size() - 1; i-- > 0;) {
    if (!stores_contiguously(body, buffers, nest[i]->name))
      continue;
    for (size_t j = i + 1; j < nest.size(); ++j)
      if (nest[j]->begin.depends_on(nest[i]->name) || nest[j]->end.depends_on(nest[i]->name))
        return false;
    auto swap_heads = [](Stmt &a, Stmt &b) {
      std::swap(a.name, b.name);
      std::swap(a.begin, b.begin);
      std::swap(a.end, b.end);
      std::swap(a.step, b.step);
    };
    for (size_t j = i; j + 1 < nest.size(); ++j)
      swap_heads(*nest[j], *nest[j + 1]);
    return true;
  }
  return false;
}

bool order(std::vector<Stmt> &body, const std::unordered_set<Symbol> &buffers) {
  bool changed = false;
  for (Stmt &s : body) {
    std::vector<Stmt *> nest;
    for (Stmt *at = &s; is_loop(*at, LoopKind::parallel);) {
      nest.push_back(at);
      if (at->body.size() != 1)
        break;
      at = &at->body[0];
    }
    if (nest.size() > 1)
      changed |= sink_contiguous(nest, buffers);
    std::vector<Stmt> &inner = nest.empty() ? s.body : nest.back()->body;
    changed |= order(inner, buffers);
    changed |= order(s.other, buffers);
  }
  return changed;
}

} // namespace

bool collapse_loops(Kernel &kernel) {
  std::unordered_set<Symbol> buffers;
  for (const KernelBuffer &b : kernel.buffers)
    buffers.insert(b.name);
  bool changed = order(kernel.body, buffers);
  return collapse(kernel.body) || changed;
}

} // namespace kiln
