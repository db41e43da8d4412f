#include "passes/kernel/tile_operands.h"

#include "passes/kernel/tile_frame.h"

#include <algorithm>
#include <span>

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

// How an operand that is made lies in the memory that it is written to.
struct MadeOperand {
  Expr value;
  Symbol buffer, first; // `first` stands for the group's first panel
  struct Step {
    Symbol name;
    Dim begin;
    int64_t trips;
    Dim count; // of trips in a piece
  };
  std::vector<Step> steps; // reductions, outermost first
  int64_t width = 0;       // columns of a group

  int64_t elements() const;
  Expr load(const TileNest &nest) const;
  // Fills it for `panels` panels from `base` on.
  std::vector<Stmt> fill(const TileNest &nest, const Dim &base, int64_t panels, Names &names) const;
};

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

// Pieces of columns are a chain of ifs on the group's number.
std::vector<Stmt> filled(const MadeOperand &made, const TileNest &nest, std::span<const TilePiece> columns, Symbol group, const Dim &before, Names &names) {
  const TilePiece &piece = columns[0];
  auto here = made.fill(nest, piece.first + (Dim::symbol(group) - before) * Dim(piece.size), piece.size, names);
  if (columns.size() == 1)
    return here;
  Dim end = before + piece.count;
  auto rest = filled(made, nest, columns.subspan(1), group, end, names);
  return {kb::if_(kb::lt(kb::index(Dim::symbol(group)), kb::index(end)), std::move(here), std::move(rest))};
}

void replace(Expr &e, const Expr &from, const Expr &to) {
  if (e == from) {
    e = to;
    return;
  }
  for (Expr &a : e.args)
    replace(a, from, to);
}
void replace(std::vector<Stmt> &body, const Expr &from, const Expr &to) {
  for (Stmt &s : body) {
    replace(s.value, from, to);
    replace(s.body, from, to);
  }
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

std::vector<Stmt> make_operands(TileNest &nest, const std::vector<TilePiece> &columns, Symbol group, Symbol first, const DepthCut *cut, Names &names) {
  std::vector<Stmt> out;
  for (const Expr &e : nest.made) {
    MadeOperand made{e, names.fresh("made"), first, {}, 0};
    for (const TilePiece &p : columns)
      made.width = std::max(made.width, p.size * nest.block);
    visit_stmts(nest.body, [&](const Stmt &s) {
      if (!s.is(Stmt::Kind::loop) || !depends_on(e, s.name))
        return;
      bool is_cut = cut && s.name == cut->reduction.name;
      made.steps.push_back({s.name, s.begin, is_cut ? cut->steps : trip_count(s).as_const(), trip_count(s)});
    });
    out.push_back(kb::alloc(made.buffer, e.dtype, made.elements(), 1, MemorySpace::stack));
    append(out, filled(made, nest, columns, group, 0, names));
    replace(nest.body, e, made.load(nest));
  }
  return out;
}

std::vector<Stmt> pack_operands(TileNest &nest, int64_t width, Symbol group, const DepthCut *cut, Names &names) {
  std::vector<Stmt> out;
  if (nest.packed.empty())
    return out;
  const Stmt &vector = nest.vector_loop(), &along = *nest.packed_along;
  Dim base = vector.begin + Dim::symbol(group) * Dim(width);
  for (const Expr &e : nest.packed) {
    Symbol copy = names.fresh("packed"), k = names.fresh(along.name.text()), c = names.fresh("c");
    Dim to = Dim::symbol(k) * Dim(width) + Dim::symbol(c);
    Dim first = along.begin; // not 0 in pieces
    Expr value = e;
    value.index = e.index.substitute([&](Symbol s) -> std::optional<Dim> {
      if (s == vector.name)
        return base + Dim::symbol(c);
      return s == along.name ? std::optional(first + Dim::symbol(k)) : std::nullopt;
    });
    Dim columns = kiln::min(Dim(width), vector.end - base);
    std::vector<Stmt> body{kb::store(copy, to, std::move(value))};
    body = {kb::loop(c, 0, columns, LoopKind::parallel, std::move(body))};
    int64_t steps = cut ? cut->steps : trip_count(along).as_const();
    out.push_back(kb::alloc(copy, e.dtype, steps * width, 1, MemorySpace::stack));
    out.push_back(kb::loop(k, 0, trip_count(along), LoopKind::parallel, std::move(body)));
    Dim from = (Dim::symbol(along.name) - first) * Dim(width) + Dim::symbol(vector.name) - base;
    replace(nest.body, e, kb::load(copy, e.dtype, from));
  }
  return out;
}

} // namespace kiln
