// for i in 0..A { for j in 0..B { x[i*B + j] } }  becomes  for ij in 0..A*B { x[ij] }
//
// Long loops vectorise with shorter tails, split over threads evenly, and give contractions longer
// rows. Two loops collapse where they are perfectly nested, of one kind (parallel or reduce), and every
// index inside moves B times as far with i as with j.
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
      s = std::move(inner);
      changed = true;
    }
  }
  return changed;
}

} // namespace

bool collapse_loops(Kernel &kernel) { return collapse(kernel.body); }

} // namespace kiln
