#include "passes/kernel/tile_operands.h"

#include <algorithm>

namespace kiln {
namespace {

constexpr int64_t kMinRowsForMaking = 32;
constexpr int64_t kLeastWork = 3;  // instructions for a vector
constexpr int64_t kUnrolled = 16; // steps: the codes of a word
constexpr int64_t kLeastGroups = 8; // as for reductions in pieces

bool is_inside_group(const TileNest &nest, size_t i) { return i > *nest.panel && i != nest.vector && !(nest.row && i == *nest.row); }

std::vector<Stmt> reductions_of(const std::vector<Stmt> &body) {
  std::vector<Stmt> out;
  visit_stmts(body, [&](const Stmt &s) {
    if (s.is(Stmt::Kind::loop))
      out.push_back(kb::loop(s.name, s.begin, s.end, s.loop, {}));
  });
  return out;
}

bool loads(const Expr &e) {
  bool any = false;
  visit_exprs(e, [&](const Expr &x) { any |= x.is(Expr::Kind::load); });
  return any;
}

// Instructions for a vector of it, about.
int64_t cost(const Expr &e) {
  int64_t ops = 0;
  visit_exprs(e, [&](const Expr &x) { ops += !x.is(Expr::Kind::load) && !x.is(Expr::Kind::bitcast) && loads(x); });
  return ops;
}

// Made of loads and arithmetic, the same for every row, by more work than a copy through memory is.
bool is_shared(const Expr &e, const TileNest &nest, const std::unordered_set<Symbol> &sums) {
  if (e.lanes != 1 || e.dtype != DType::f32 || e.is(Expr::Kind::load) || !depends_on(e, nest.vector_loop().name))
    return false;
  bool pure = true;
  visit_exprs(e, [&](const Expr &x) {
    pure &= x.lanes == 1 && !x.is(Expr::Kind::var) && !x.is(Expr::Kind::gather) && !(x.is(Expr::Kind::load) && sums.count(x.name));
  });
  for (size_t i = 0; i < nest.loops.size(); ++i)
    if (is_inside_group(nest, i) || i == *nest.row)
      pure = pure && !depends_on(e, nest.loops[i].name);
  return pure && cost(e) >= kLeastWork;
}

void collect(const Expr &e, const TileNest &nest, const std::unordered_set<Symbol> &sums, std::vector<Expr> &out) {
  if (is_shared(e, nest, sums)) {
    if (std::find(out.begin(), out.end(), e) == out.end())
      out.push_back(e);
    return;
  }
  for (const Expr &a : e.args)
    collect(a, nest, sums, out);
}

} // namespace

std::vector<Expr> made_operands(const TileNest &nest) {
  if (!nest.panel || !nest.row || !nest.reuses_rows || !nest.packed.empty() || nest.dot_width > 0 ||
      nest.border_lo + nest.border_hi > 0)
    return {};
  int64_t rows = 1;
  for (size_t i = 0; i < nest.loops.size(); ++i)
    if (is_inside_group(nest, i) || i == *nest.row)
      rows *= std::clamp<int64_t>(trip_count(nest.loops[i]).try_const().value_or(0), 0, kMinRowsForMaking);
  for (const Stmt &r : reductions_of(nest.body))
    if (!r.begin.is_const(0) || !r.end.is_const() || r.end.as_const() <= 0)
      return {};
  if (rows < kMinRowsForMaking)
    return {};
  std::unordered_set<Symbol> sums;
  visit_stmts(nest.body, [&](const Stmt &s) {
    if (s.is(Stmt::Kind::alloc))
      sums.insert(s.name);
  });
  std::vector<Expr> out;
  for (const Stmt &s : nest.body)
    if (s.is(Stmt::Kind::loop))
      visit_stmts(s.body, [&](const Stmt &inner) {
        if (inner.is(Stmt::Kind::store))
          collect(inner.value, nest, sums, out);
      });
  return out;
}

bool pays_to_make(const TileNest &nest, const TileShape &shape, const MachineDesc &machine) {
  int64_t groups = 1, width = 0;
  Dim count = 0;
  for (const TilePiece &p : shape.columns) {
    count += p.count;
    width = std::max(width, p.size * nest.block);
  }
  groups = count.try_const().value_or(kLeastGroups);
  for (size_t i = 0; i < *nest.panel; ++i)
    if (!(nest.row && i == *nest.row))
      groups *= std::clamp<int64_t>(trip_count(nest.loops[i]).try_const().value_or(1), 1, kLeastGroups);
  int64_t bytes = 0;
  for (const Expr &e : nest.made) {
    int64_t elements = width * 4;
    for (const Stmt &r : reductions_of(nest.body))
      if (depends_on(e, r.name))
        elements *= shape.depth > 0 && r.name == shape.cut ? shape.depth : std::min<int64_t>(r.end.as_const(), machine.l2_bytes);
    bytes += std::min(elements, machine.l2_bytes);
  }
  return groups >= kLeastGroups && bytes <= machine.l2_bytes * 3 / 4;
}

int64_t steps_inside(const TileNest &nest, const Expr &operand, Symbol reduction) {
  int64_t steps = 1;
  for (const Stmt &r : reductions_of(nest.body))
    if (r.name != reduction && depends_on(operand, r.name))
      steps *= r.end.as_const();
  return steps;
}

int64_t MadeOperand::elements() const {
  int64_t n = width;
  for (const Step &s : steps)
    n *= s.trips;
  return n;
}

Expr MadeOperand::load(const TileNest &nest) const {
  Dim at = 0;
  for (const Step &s : steps)
    at = at * Dim(s.trips) + Dim::symbol(s.name) - s.begin;
  Dim panel = Dim::symbol(nest.loops[*nest.panel].name) - Dim::symbol(first);
  return kb::load(buffer, value.dtype, at * Dim(width) + panel * Dim(nest.block) + Dim::symbol(nest.vector_loop().name));
}

std::vector<Stmt> MadeOperand::fill(const TileNest &nest, const Dim &base, int64_t panels, Names &names) const {
  const Stmt &vector = nest.vector_loop();
  const Symbol panel = nest.loops[*nest.panel].name;
  Symbol p = names.fresh("p"), c = names.fresh("c");
  std::unordered_map<Symbol, Dim> to{{panel, base + Dim::symbol(p)}, {vector.name, Dim::symbol(c)}};
  std::vector<Symbol> own;
  Dim at = 0;
  for (const Step &s : steps) {
    own.push_back(names.fresh(s.name.text()));
    to[s.name] = s.begin + Dim::symbol(own.back());
    at = at * Dim(s.trips) + Dim::symbol(own.back());
  }
  auto placed = [&](Symbol s) -> std::optional<Dim> {
    auto it = to.find(s);
    return it == to.end() ? std::nullopt : std::optional(it->second);
  };
  Expr element = value;
  substitute(element, placed);
  at = at * Dim(width) + Dim::symbol(p) * Dim(nest.block) + Dim::symbol(c);
  std::vector<Stmt> body{kb::store(buffer, at, std::move(element))};
  body = {kb::loop(c, 0, vector.end.substitute(placed), LoopKind::parallel, std::move(body))};
  for (size_t i = steps.size(); i-- > 0;)
    body = {kb::loop(own[i], 0, steps[i].count, i + 1 == steps.size() && steps[i].trips <= kUnrolled ? LoopKind::unroll : LoopKind::parallel,
                     std::move(body))};
  return {kb::loop(p, 0, panels, LoopKind::parallel, std::move(body))};
}

} // namespace kiln
