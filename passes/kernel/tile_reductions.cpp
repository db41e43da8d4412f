#include "passes/kernel/tile_reductions.h"

#include "ir/kernel/tile_product.h"

#include <algorithm>

namespace kiln {
namespace {

// How far the operands that move with `vector` move with a loop at most; nothing if that is not known.
std::optional<int64_t> operand_stride(const std::vector<Stmt> &body, Symbol vector, Symbol loop) {
  std::optional<int64_t> widest;
  bool known = true;
  visit_exprs(body, [&](const Expr &e) {
    if (!e.is(Expr::Kind::load) || !e.index.depends_on(vector))
      return;
    auto step = e.index.coefficient_of(loop);
    if (!step || !step->is_const())
      known = false;
    else
      widest = std::max(widest.value_or(0), std::abs(step->as_const()));
  });
  return known ? widest : std::nullopt;
}

} // namespace

bool is_innermost(const Stmt &loop) {
  return std::none_of(loop.body.begin(), loop.body.end(), [](const Stmt &s) { return s.is(Stmt::Kind::loop); });
}

std::vector<Stmt> ordered_reductions(const Stmt &loop, Symbol vector, std::vector<Stmt> &body) {
  std::vector<Stmt> loops;
  const Stmt *at = &loop;
  while (true) {
    Stmt head = *at;
    head.body.clear();
    loops.push_back(std::move(head));
    bool deeper = at->loop == LoopKind::reduce && at->body.size() == 1 && is_loop(at->body[0], LoopKind::reduce);
    if (!deeper)
      break;
    at = &at->body[0];
  }
  body = at->body;
  bool sortable = true;
  std::vector<std::pair<int64_t, size_t>> keys;
  for (size_t i = 0; i < loops.size(); ++i) {
    auto stride = operand_stride(body, vector, loops[i].name);
    sortable = sortable && stride;
    keys.emplace_back(-stride.value_or(0), i);
  }
  std::sort(keys.begin(), keys.end()); // the larger stride first; as they were where equal
  std::vector<Stmt> sorted;
  for (auto &[key, i] : keys) {
    // What bounds a loop stays around it.
    for (const Stmt &other : loops)
      if (loops[i].begin.depends_on(other.name) || loops[i].end.depends_on(other.name))
        sortable = sortable &&
                   std::any_of(sorted.begin(), sorted.end(), [&](const Stmt &s) { return s.name == other.name; });
    sorted.push_back(loops[i]);
  }
  return sortable ? sorted : loops;
}

bool row_steps_innermost(std::vector<Stmt> &loops, const std::vector<Stmt> &body, int64_t dot_width, Symbol vector) {
  for (size_t i = loops.size(); i-- > 0;) {
    auto trips = trip_count(loops[i]).try_const();
    bool contiguous = trips && *trips >= kLeastProductDepth, bounds = false;
    visit_exprs(body, [&](const Expr &e) {
      if (!e.is(Expr::Kind::load) || e.lanes != dot_width || e.index.depends_on(vector))
        return;
      auto step = e.index.coefficient_of(loops[i].name);
      contiguous = contiguous && step && step->is_const(dot_width);
    });
    for (const Stmt &other : loops)
      bounds |= other.begin.depends_on(loops[i].name) || other.end.depends_on(loops[i].name);
    if (!contiguous || bounds)
      continue;
    std::rotate(loops.begin() + long(i), loops.begin() + long(i) + 1, loops.end());
    return true;
  }
  return false;
}

std::vector<Stmt> products_of_tiles(const Stmt &loop, int64_t largest,
                                    const std::function<std::vector<Stmt>(const Dim &)> &shifted,
                                    const std::function<std::vector<Stmt>(Symbol, int64_t)> &beside, Names &names) {
  int64_t trips = trip_count(loop).as_const(), count = (trips - 1) / largest + 1;
  int64_t large = (trips + count - 1) / count, large_count = trips - (large - 1) * count;
  std::vector<Stmt> out;
  Dim at = loop.begin;
  for (auto [depth, n] : {std::pair(large, large_count), std::pair(large - 1, count - large_count)}) {
    if (n == 0)
      continue;
    Symbol k = names.fresh(loop.name.text()), ku = names.fresh(std::string(loop.name.text()) + "u");
    Dim end = at + Dim(n * depth);
    std::vector<Stmt> product;
    product.push_back(kb::loop(ku, 0, depth, LoopKind::unroll, shifted(Dim::symbol(k) + Dim::symbol(ku))));
    for (Stmt &s : beside(k, depth))
      product.push_back(std::move(s));
    out.push_back(kb::loop(k, at, end, LoopKind::serial, std::move(product), depth));
    at = end;
  }
  return out;
}

} // namespace kiln
