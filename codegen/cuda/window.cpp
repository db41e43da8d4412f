#include "codegen/cuda/window.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"
#include "passes/kernel/rewrite.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace kiln::cuda {
namespace {

constexpr int64_t kMostInner = 16, kMostColumns = 8;
constexpr int64_t kSample = 8; // results of a strip that two loops are compared by

bool is_guarded(const Expr &load, const Guard &guard, const Loops &results) {
  return std::any_of(results.begin(), results.end(), [&](const Stmt *l) { return guard.value.depends_on(l->name) && load.index.depends_on(l->name); });
}

const Expr &unconverted(const Expr &e) { return e.is(Expr::Kind::convert) ? e.args[0] : e; }

std::vector<const Expr *> global_loads(const Expr &e, Symbol acc) {
  std::vector<const Expr *> out;
  visit_exprs(e, [&](const Expr &each) {
    if (each.is(Expr::Kind::load) && each.name != acc)
      out.push_back(&each);
  });
  return out;
}

// Whether nothing changes where what the guards keep out is what the update begins with: a factor, or the term itself.
bool can_fill(const WindowReduction &w, const Rectangle &rectangle, const Loops &all) {
  const Expr &v = w.update.value;
  auto by_all = [&](const Expr &e) {
    const Expr &load = unconverted(e);
    return load.is(Expr::Kind::load) && std::all_of(rectangle.guards.begin(), rectangle.guards.end(), [&](const Guard &g) { return is_guarded(load, g, all); });
  };
  if (v.is(Expr::Kind::fma))
    return by_all(v.args[0]) || by_all(v.args[1]);
  const Expr &term = v.args[1];
  if (v.binary == BinaryOp::add && term.is(Expr::Kind::binary) && term.binary == BinaryOp::mul)
    return by_all(term.args[0]) || by_all(term.args[1]);
  return (v.binary == BinaryOp::add || v.binary == BinaryOp::max || v.binary == BinaryOp::min) && by_all(term);
}

// The update with its lets in it; nothing where the body of the reduction has more.
std::optional<Stmt> only_update(const std::vector<Stmt> &body) {
  std::map<Symbol, Expr> lets;
  for (const Stmt &s : body) {
    Stmt own = s;
    if (s.value.is(Expr::Kind::none))
      return std::nullopt;
    visit_exprs(own.value, [&](Expr &e) {
      if (auto it = lets.find(e.name); e.is(Expr::Kind::var) && it != lets.end())
        e = Expr(it->second);
    });
    if (&s == &body.back())
      return own;
    if (!s.is(Stmt::Kind::let) || s.dtype == DType::i64)
      return std::nullopt;
    lets[s.name] = own.value;
  }
  return std::nullopt;
}

// Accumulator, its first value, the reduction, and what is done with the result.
bool match_body(const std::vector<Stmt> &body, WindowReduction &out) {
  if (body.size() < 4 || !body[0].is(Stmt::Kind::alloc) || body[0].space != MemorySpace::reg || body[0].size != 1 || !body[1].is(Stmt::Kind::store) ||
      body[1].name != body[0].name || !body[1].value.is(Expr::Kind::number) || !cuda::is_loop(body[2], LoopKind::reduce))
    return false;
  out.init = &body[1];
  out.after.assign(body.begin() + 3, body.end());
  out.sum = perfect_nest(body[2], LoopKind::reduce);
  const std::vector<Stmt> &inner = out.sum.back()->body;
  std::vector<Update> updates = updates_of(inner);
  auto update = only_update(inner);
  if (updates.size() != 1 || updates[0].acc != body[0].name || !update || update->name != body[0].name)
    return false;
  out.how = updates[0];
  out.update = std::move(*update);
  bool is_simple = true;
  visit_exprs(out.update.value, [&](const Expr &e) {
    bool is_other = e.is(Expr::Kind::gather) || e.is(Expr::Kind::index) || (e.is(Expr::Kind::load) && (e.count || e.lanes != 1));
    is_simple &= !is_other;
  });
  return is_simple && std::all_of(out.after.begin(), out.after.end(), [](const Stmt &s) { return s.is(Stmt::Kind::let) || s.is(Stmt::Kind::store) || s.is(Stmt::Kind::if_); });
}

// Different elements that some results beside each other need, of those that they use.
double share_of_elements(const Expr &load, const Stmt &strip, const Stmt &inner) {
  auto across = load.index.coefficient_of(strip.name), along = load.index.coefficient_of(inner.name);
  auto steps = constant(extent_of(inner)), results = constant(extent_of(strip));
  if (!across || !along || !across->is_const() || !along->is_const() || across->is_const(0) || along->is_const(0) || !steps || *steps < 2 || *steps > kMostInner)
    return 1;
  int64_t count = std::min(results.value_or(kSample), kSample);
  std::set<int64_t> places;
  for (int64_t p = 0; p < count; ++p)
    for (int64_t k = 0; k < *steps; ++k)
      places.insert(p * across->as_const() + k * along->as_const());
  return double(places.size()) / double(count * *steps);
}

bool is_ragged(const Stmt &loop, const Rectangle &rectangle) { return rectangle.ragged && (loop.name == rectangle.ragged->outer || loop.name == rectangle.ragged->inner); }

// Loops of few iterations that a load does not know.
Loops columns_beside(const Expr &load, const Loops &outer, const Rectangle &rectangle) {
  Loops out;
  int64_t count = 1;
  for (const Stmt *l : outer)
    if (auto extent = constant(extent_of(*l)); extent && *extent > 1 && !is_ragged(*l, rectangle) && !load.index.depends_on(l->name) && count * *extent <= kMostColumns)
      out.push_back(l), count *= *extent;
  return out;
}

Loops without(const Loops &loops, const Loops &others) {
  Loops out;
  std::copy_if(loops.begin(), loops.end(), std::back_inserter(out), [&](const Stmt *l) { return std::find(others.begin(), others.end(), l) == others.end(); });
  return out;
}

// The loops of the strip and of its columns that leave the fewest loads.
void choose_strip(WindowReduction &w, const Loops &outer, const Rectangle &rectangle) {
  double least = 1;
  w.results = outer;
  for (const Expr *load : global_loads(w.update.value, w.how.acc)) {
    Loops columns = columns_beside(*load, outer, rectangle), results = without(outer, columns);
    if (results.empty())
      continue;
    double each = 1.0 / double(product_of(columns).as_const());
    for (const Stmt *strip : results)
      for (const Stmt *inner : w.sum)
        if (double share = share_of_elements(*load, *strip, *inner); strip != results.back() && !is_ragged(*strip, rectangle) && share < 1 && share * each <= least) {
          least = share * each;
          w.results = results, w.columns = columns, w.strip = strip, w.inner = inner;
        }
  }
}

} // namespace

std::optional<WindowReduction> match_window(const Rectangle &rectangle) {
  WindowReduction out;
  Loops outer = perfect_nest(rectangle.nest, LoopKind::parallel);
  if (!match_body(outer.back()->body, out) || !are_normalised(outer))
    return std::nullopt;
  for (const Stmt *s : out.sum)
    if (!is_normalised(*s) || std::any_of(outer.begin(), outer.end(), [&](const Stmt *o) { return s->end.depends_on(o->name); }))
      return std::nullopt;
  if (!rectangle.guards.empty() && !can_fill(out, rectangle, outer))
    return std::nullopt;
  choose_strip(out, outer, rectangle);
  if (out.inner)
    out.sum = without(out.sum, {out.inner});
  return out;
}

Symbol window_sums() { return Symbol("kiln_sums"); }

int64_t count_columns(const WindowReduction &w) { return product_of(w.columns).as_const(); }

Dim window_sum_at(const WindowReduction &w, int64_t result, int64_t column, int64_t width) {
  return Dim((result * count_columns(w) + column) * width) + Dim::symbol("kiln_lane");
}

std::optional<Dim> place_in_window(const WindowReduction &w, Symbol name, int64_t result, int64_t column) {
  if (w.strip && name == w.strip->name)
    return Dim::symbol(name) + Dim(result);
  for (size_t i = w.columns.size(); i-- > 0;) {
    int64_t extent = extent_of(*w.columns[i]).as_const();
    if (name == w.columns[i]->name)
      return Dim(column % extent);
    column /= extent;
  }
  return std::nullopt;
}

WindowSteps window_steps(const WindowReduction &w, const Rectangle &rectangle, int64_t strip, int64_t width) {
  WindowSteps out;
  const Symbol fastest = w.results.back()->name, lane("kiln_lane");
  Loops all = w.results;
  all.insert(all.end(), w.columns.begin(), w.columns.end());
  std::map<std::string, size_t> known;
  auto take = [&](const Expr &load, int64_t result, const SymbolMap &map) {
    Expr placed = load;
    substitute(placed, map);
    std::vector<Guard> guards;
    std::string key = fmt::format("{} {}", c::c_name(placed.name), placed.index.text());
    for (const Guard &g : rectangle.guards)
      if (is_guarded(load, g, all)) {
        guards.push_back({g.value.substitute(map), g.limit});
        key += fmt::format(" {}", guards.back().value.text());
      }
    auto [it, is_new] = known.try_emplace(key, out.loads.size());
    if (is_new)
      out.loads.push_back({Symbol(fmt::format("kiln_window{}", it->second)), placed, std::move(guards), result, width > 1 && placed.index.depends_on(fastest)});
    WindowLoad &l = out.loads[it->second];
    l.first = std::min(l.first, result);
    return kb::load(l.name, load.dtype, l.in_pack ? Dim::symbol(lane) : Dim(0));
  };
  int64_t steps = w.inner ? extent_of(*w.inner).as_const() : 1;
  for (int64_t k = 0; k < steps; ++k)
    for (int64_t result = 0; result < strip; ++result)
      for (int64_t column = 0; column < count_columns(w); ++column) {
        auto map = [&](Symbol s) -> std::optional<Dim> { return w.inner && s == w.inner->name ? std::optional<Dim>(k) : place_in_window(w, s, result, column); };
        Stmt update = w.update;
        update.name = window_sums();
        update.index = window_sum_at(w, result, column, width);
        visit_exprs(update.value, [&](Expr &e) {
          if (e.is(Expr::Kind::load))
            e = e.name == w.how.acc ? kb::load(window_sums(), e.dtype, update.index) : take(Expr(e), result, map);
        });
        out.updates.push_back(std::move(update));
      }
  return out;
}

} // namespace kiln::cuda
