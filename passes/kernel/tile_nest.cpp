#include "passes/kernel/tile_nest.h"

#include "ir/kernel/dot.h"

#include <algorithm>
#include <numeric>

namespace kiln {
namespace {

constexpr int64_t kMostPanelVectors = 4;
constexpr int64_t kMaxBorder = 16;
// A packed operand is a column group of at most this many steps of the reduction.
constexpr int64_t kMaxPackedSteps = 32768;
// Lines of a contiguous operand that lie in the same sets of a cache are copied if enough rows read
// them. Others are read where they lie, however far apart.
constexpr int64_t kAliasBytes = 4096;
// The second level's sets come round after this many bytes. Steps that share less of them use all sets.
constexpr int64_t kSetSpan = 65536, kLeastSharedStep = 1024;
constexpr int64_t kMinRowsForAliases = 48, kMinRowsForHalfAliases = 384;
constexpr int64_t kMinFarSteps = 64;
constexpr int64_t kGroupVectors = 4; // of columns, about
constexpr int64_t kMinRowsForPacking = 4;
constexpr int64_t kMinStridedTrips = 8;
constexpr int64_t kMinDotTrips = 16;

struct BodyFacts {
  bool well_formed = true;
  int accumulators = 0, dot_width = 0;
  std::unordered_set<Symbol> tiles;
  std::vector<Expr> reduce_loads, other_loads; // of buffers, not of accumulators
  std::vector<Stmt> stores;                    // to buffers
  std::vector<Dim> bounds;                     // of the reductions
  std::vector<Stmt> reductions;                // the loops, without bodies
};

void add_loads(const Expr &e, bool in_reduce, BodyFacts &facts) {
  visit_exprs(e, [&](const Expr &x) {
    if (x.lanes != 1 && !is_dot_load(x, 1))
      facts.well_formed = false;
    facts.dot_width = std::max(facts.dot_width, dot_width(x));
    if (x.is(Expr::Kind::load) && !facts.tiles.count(x.name))
      (in_reduce ? facts.reduce_loads : facts.other_loads).push_back(x);
    if (x.is(Expr::Kind::gather) && in_reduce)
      facts.well_formed = false;
  });
}

void read_body(const std::vector<Stmt> &body, bool in_reduce, BodyFacts &facts) {
  for (const Stmt &s : body) {
    switch (s.kind) {
    case Stmt::Kind::alloc:
      if (in_reduce || s.space != MemorySpace::reg || s.size != 1 || s.lanes != 1)
        facts.well_formed = false;
      facts.tiles.insert(s.name);
      ++facts.accumulators;
      break;
    case Stmt::Kind::store:
      add_loads(s.value, in_reduce, facts);
      if (!facts.tiles.count(s.name)) {
        facts.stores.push_back(s);
        facts.well_formed = facts.well_formed && !in_reduce;
      }
      break;
    case Stmt::Kind::let:
      // Indices that depend on data have no tile form.
      facts.well_formed = facts.well_formed && s.dtype != DType::i64;
      add_loads(s.value, in_reduce, facts);
      break;
    case Stmt::Kind::loop:
      if ((s.loop != LoopKind::reduce && s.loop != LoopKind::serial) || s.step != 1)
        facts.well_formed = false;
      facts.bounds.push_back(s.begin);
      facts.bounds.push_back(s.end);
      facts.reductions.push_back(kb::loop(s.name, s.begin, s.end, s.loop, {}));
      read_body(s.body, true, facts);
      break;
    default:
      facts.well_formed = false;
    }
  }
}

bool any_depends(const std::vector<Dim> &dims, Symbol name) {
  return std::any_of(dims.begin(), dims.end(), [&](const Dim &d) { return d.depends_on(name); });
}

bool plain_loop(const Stmt &s) {
  return s.step == 1;
}

// The one reduction along which a strided operand can be copied: of constant length, and the only
// thing besides outer loops that the operand depends on.
const Stmt *packing_loop(const Expr &e, const BodyFacts &facts) {
  const Stmt *found = nullptr;
  for (const Stmt &r : facts.reductions) {
    if (!e.index.depends_on(r.name))
      continue;
    auto trips = trip_count(r).try_const();
    bool fits = trips && *trips > 0 && *trips <= kMaxPackedSteps && r.begin.is_const(0);
    if (found || !fits || !e.index.coefficient_of(r.name))
      return nullptr;
    found = &r;
  }
  return found;
}

// What a vector loop may ask of the accesses; later ones only where earlier ones find nothing.
enum class VectorForm {
  contiguous,     // unit stride in every store and in an operand, nothing worse than 0 in the rest
  packed,         // so once strided operands are copied
  strided_loads,  // operands are gathered
  strided_stores, // and results scattered
};

bool suits_as_vector(TileNest &nest, size_t at, const BodyFacts &facts, VectorForm form) {
  nest.packed.clear();
  nest.packed_along.reset();
  const Stmt &loop = nest.loops[at];
  if (!plain_loop(loop) || any_depends(facts.bounds, loop.name))
    return false;
  for (size_t i = at + 1; i < nest.loops.size(); ++i)
    if (nest.loops[i].begin.depends_on(loop.name) || nest.loops[i].end.depends_on(loop.name))
      return false;
  for (const Stmt &s : facts.stores) {
    auto step = s.index.coefficient_of(loop.name);
    if (!step || step->is_const(0) || (!step->is_const(1) && form != VectorForm::strided_stores))
      return false;
  }
  bool used = false;
  for (const Expr &e : facts.reduce_loads) {
    auto step = e.index.coefficient_of(loop.name);
    if (!step || step->depends_on(loop.name))
      return false;
    used |= !step->is_const(0);
    // An operand of a dot has a few elements for each lane.
    if (step->is_const(0) || step->is_const(e.lanes) ||
        (e.lanes > 1 && step->is_const(1) && !e.stride.is_const(1)))
      continue;
    if (e.lanes != 1 || form == VectorForm::contiguous)
      return false;
    if (form >= VectorForm::strided_loads)
      continue;
    const Stmt *along = packing_loop(e, facts);
    if (!along || (nest.packed_along && nest.packed_along->name != along->name))
      return false;
    nest.packed_along = *along;
    nest.packed.push_back(e);
  }
  auto trips = trip_count(loop).try_const();
  if (form >= VectorForm::strided_loads && trips && *trips < kMinStridedTrips)
    return false;
  return used && (form == VectorForm::packed) == !nest.packed.empty();
}

// A reduction along which every operand is contiguous: partial sums in vectors are better than
// gathers.
bool is_dot_product(const BodyFacts &facts) {
  for (const Stmt &r : facts.reductions) {
    auto trips = trip_count(r).try_const();
    bool unit = !trips || *trips >= kMinDotTrips;
    for (const Expr &e : facts.reduce_loads) {
      auto step = e.index.coefficient_of(r.name);
      unit = unit && step && (step->is_const(0) || step->is_const(1));
    }
    if (unit)
      return true;
  }
  return false;
}

// The most trips of `loop`: c for 0..c and for 0..min(c, rest).
int64_t block_size(const Stmt &loop) {
  if (!loop.begin.is_const(0))
    return 0;
  if (loop.end.is_const())
    return loop.end.as_const() <= 64 ? std::max<int64_t>(loop.end.as_const(), 1) : 0;
  if (loop.end.constant_part() == 0 && loop.end.terms().size() == 1 &&
      loop.end.terms()[0].coefficient == 1 && loop.end.terms()[0].factors.size() == 1) {
    const DimAtom &atom = loop.end.terms()[0].factors[0];
    if (atom.kind == DimAtom::Kind::min)
      for (const Dim &arg : atom.args)
        if (arg.is_const() && arg.as_const() > 0 && arg.as_const() <= 64)
          return arg.as_const();
  }
  return 0;
}

bool is_vector_load(const Expr &e, Symbol vector) {
  return e.index.depends_on(vector);
}

bool suits_as_panel(const TileNest &nest, size_t at, const BodyFacts &facts) {
  const Stmt &loop = nest.loops[at], &vector = nest.vector_loop();
  if (at == nest.vector || !plain_loop(loop) || !loop.begin.is_const(0))
    return false;
  if (any_depends(facts.bounds, loop.name))
    return false;
  for (size_t i = at + 1; i < nest.loops.size(); ++i)
    if (i != nest.vector &&
        (nest.loops[i].begin.depends_on(loop.name) || nest.loops[i].end.depends_on(loop.name)))
      return false;
  // All panels but the last are whole: no other loop may shorten the vector loop, in the nest or around it.
  if (!vector.end.is_const() && !vector.end.depends_on(loop.name))
    return false;
  for (size_t i = 0; i < nest.loops.size(); ++i)
    if (i != at && i != nest.vector && vector.end.depends_on(nest.loops[i].name))
      return false;
  bool used = false;
  for (const Expr &e : facts.reduce_loads) {
    if (!e.index.depends_on(loop.name))
      continue;
    if (!is_vector_load(e, vector.name))
      return false;
    used = true;
  }
  return used;
}

bool suits_as_row(const TileNest &nest, size_t at, const BodyFacts &facts, bool &reuses) {
  const Stmt &loop = nest.loops[at];
  if (at == nest.vector || (nest.panel && at == *nest.panel) || !plain_loop(loop))
    return false;
  for (size_t i = at + 1; i < nest.loops.size(); ++i)
    if (nest.loops[i].begin.depends_on(loop.name) || nest.loops[i].end.depends_on(loop.name))
      return false;
  bool used = false;
  reuses = false;
  for (const Expr &e : facts.reduce_loads) {
    bool depends = e.index.depends_on(loop.name);
    if (depends && !e.index.coefficient_of(loop.name))
      return false;
    used |= depends;
    reuses |= !depends && is_vector_load(e, nest.vector_loop().name);
  }
  return used;
}

void read_nest(const Stmt &outermost, TileNest &nest) {
  const Stmt *at = &outermost;
  while (true) {
    nest.loops.push_back(kb::loop(at->name, at->begin, at->end, at->loop, {}, at->step));
    keep_turn(nest.loops.back(), *at);
    if (at->body.size() != 1 || !is_loop(at->body[0], LoopKind::parallel))
      break;
    at = &at->body[0];
  }
  nest.body = at->body;
}

struct Borders {
  int64_t lo = 0, hi = 0;
};

// Iterations in front and behind of a middle in which the bounds of the reductions do not depend on
// the loop and indices are linear in it; nothing if there is no middle to speak of.
std::optional<Borders> find_borders(const std::vector<Stmt> &loops, const Stmt &loop,
                                    const BodyFacts &facts, const DimRanges &ranges) {
  auto is_plain_bound = [&](const Dim &d) { return !d.depends_on(loop.name); };
  auto is_plain_index = [&](const Dim &d) { return d.coefficient_of(loop.name).has_value(); };
  std::vector<Dim> bounds, indices;
  for (const Dim &d : facts.bounds)
    if (!is_plain_bound(d))
      bounds.push_back(d);
  for (const std::vector<Expr> *loads : {&facts.reduce_loads, &facts.other_loads})
    for (const Expr &e : *loads)
      if (!is_plain_index(e.index))
        indices.push_back(e.index);
  if (bounds.empty() && indices.empty())
    return Borders{};
  if (!loop.begin.is_const() || !loop.end.is_const())
    return std::nullopt;
  int64_t begin = loop.begin.as_const(), end = loop.end.as_const();
  DimRanges outer = ranges;
  for (const Stmt &l : loops)
    if (l.name != loop.name)
      push_loop(outer, l);
  auto same_within = [&](int64_t lo, int64_t hi) {
    DimRanges r = outer;
    r.set(loop.name, {Dim(begin + lo), Dim(end - hi)});
    return std::all_of(bounds.begin(), bounds.end(),
                       [&](const Dim &d) { return is_plain_bound(simplify(d, r)); }) &&
           std::all_of(indices.begin(), indices.end(),
                       [&](const Dim &d) { return is_plain_index(simplify(d, r)); });
  };
  for (int64_t sum = 1; sum <= 2 * kMaxBorder && sum < end - begin; ++sum)
    for (int64_t lo = std::max<int64_t>(0, sum - kMaxBorder); lo <= std::min(sum, kMaxBorder); ++lo)
      if (same_within(lo, sum - lo))
        return Borders{lo, sum - lo};
  return std::nullopt;
}

// The copy is used by all rows, so there must be rows, and no loop between them and the columns.
bool can_pack(const TileNest &nest) {
  if (!nest.row || nest.panel || nest.border_lo + nest.border_hi > 0)
    return false;
  auto rows = trip_count(nest.loops[*nest.row]).try_const();
  if (rows && *rows < kMinRowsForPacking)
    return false;
  const Symbol row = nest.loops[*nest.row].name;
  for (const Expr &e : nest.packed) {
    if (e.index.depends_on(row))
      return false;
    for (size_t i = nest.vector + 1; i < nest.loops.size(); ++i)
      if (e.index.depends_on(nest.loops[i].name))
        return false;
  }
  return true;
}

// The other loops' parts, once the vector loop is chosen. False if an operand cannot be copied
// after all.
bool choose_loops(TileNest &nest, size_t vector_at, const BodyFacts &facts,
                  const MachineDesc &machine, const DimRanges &ranges) {
  nest.vector = vector_at;
  nest.row.reset();
  nest.panel.reset();
  nest.reuses_rows = nest.has_scalar_operand = false;
  nest.border_lo = nest.border_hi = 0;
  const Stmt &vector = nest.vector_loop();
  nest.lanes = machine.vector_bytes / widest_bytes(nest.body, vector.name);
  nest.block = block_size(vector);
  while (nest.block > 0 && nest.lanes > 1 && nest.lanes / 2 >= nest.block)
    nest.lanes /= 2;
  for (const Expr &e : facts.reduce_loads)
    nest.has_scalar_operand |= !is_vector_load(e, vector.name);

  // More vectors in a panel leave a tile few rows.
  if (nest.has_scalar_operand && nest.block > 0 && nest.block % nest.lanes == 0 &&
      nest.block <= kMostPanelVectors * nest.lanes)
    for (size_t i = nest.loops.size(); i-- > 0 && !nest.panel;)
      if (suits_as_panel(nest, i, facts))
        nest.panel = i;
  if (!nest.panel)
    nest.block = 0;
  // Without a panel loop the vector loop's end may depend on an outer loop only if that stays a
  // loop.
  for (size_t i = nest.loops.size(); i-- > 0;) {
    bool reuses = false;
    if (!suits_as_row(nest, i, facts, reuses))
      continue;
    if (vector.end.depends_on(nest.loops[i].name) || vector.begin.depends_on(nest.loops[i].name))
      continue;
    if (nest.row && !reuses)
      continue;
    nest.row = i;
    nest.reuses_rows = reuses;
    if (reuses)
      break;
  }
  if (nest.row) {
    auto borders = find_borders(nest.loops, nest.loops[*nest.row], facts, ranges);
    nest.border_lo = borders ? borders->lo : 0;
    nest.border_hi = borders ? borders->hi : 0;
    if (!borders)
      nest.row.reset();
  }
  if (!nest.packed.empty() && !can_pack(nest))
    return false;
  return true;
}

// Contiguous operands whose lines share cache sets, as packed ones.
void pack_aliased_lines(TileNest &nest, const BodyFacts &facts, const MachineDesc &machine) {
  if (!nest.row || nest.panel || !nest.has_scalar_operand || !nest.reuses_rows)
    return;
  auto rows = trip_count(nest.loops[*nest.row]).try_const();
  if (!rows || *rows < kMinRowsForAliases)
    return;
  TileNest packed = nest;
  for (const Expr &e : facts.reduce_loads) {
    if (!is_vector_load(e, nest.vector_loop().name))
      continue;
    const Stmt *along = packing_loop(e, facts);
    if (!along || (packed.packed_along && packed.packed_along->name != along->name) ||
        trip_count(*along).as_const() < kMinFarSteps)
      return;
    auto step = e.index.coefficient_of(along->name);
    int64_t bytes = step->try_const().value_or(0) * int64_t(dtype_bytes(e.dtype));
    bool aliases = bytes % kAliasBytes == 0,
         half = bytes % (kAliasBytes / 2) == 0 && *rows >= kMinRowsForHalfAliases;
    // A column group lies in those sets of the second level that its steps reach.
    bool far = std::gcd(bytes, kSetSpan) >= kLeastSharedStep &&
               trip_count(*along).as_const() > machine.l2_bytes / std::gcd(bytes, kSetSpan);
    // One that is longer than the second level is read in pieces, of copies.
    far = far || trip_count(*along).as_const() * kGroupVectors * nest.lanes * int64_t(dtype_bytes(e.dtype)) >
                     machine.l2_bytes * 3 / 8;
    if (bytes <= 0 || !(aliases || half || (far && *rows >= kMinRowsForHalfAliases)))
      return;
    packed.packed_along = *along;
    packed.packed.push_back(e);
  }
  if (!packed.packed.empty() && can_pack(packed))
    nest = std::move(packed);
}

} // namespace

std::optional<TileNest> find_tile_nest(const Stmt &outermost, const MachineDesc &machine,
                                       const DimRanges &ranges) {
  TileNest nest;
  read_nest(outermost, nest);
  BodyFacts facts;
  read_body(nest.body, false, facts);
  if (!facts.well_formed || facts.bounds.empty() || facts.stores.empty())
    return std::nullopt;
  nest.accumulators = std::max(1, facts.accumulators);
  nest.dot_width = facts.dot_width;
  nest.splits_operands = facts.dot_width == 4 && machine.byte_dots == ByteDots::pairs;

  for (VectorForm form : {VectorForm::contiguous, VectorForm::packed, VectorForm::strided_loads,
                          VectorForm::strided_stores}) {
    if (form >= VectorForm::strided_loads && is_dot_product(facts))
      return std::nullopt;
    for (size_t i = nest.loops.size(); i-- > 0;)
      if (suits_as_vector(nest, i, facts, form))
        if (choose_loops(nest, i, facts, machine, ranges)) {
          if (form == VectorForm::contiguous)
            pack_aliased_lines(nest, facts, machine);
          return nest;
        }
  }
  return std::nullopt;
}

std::vector<Stmt> split_at_borders(const Stmt &outermost, const DimRanges &ranges) {
  TileNest nest;
  read_nest(outermost, nest);
  BodyFacts facts;
  read_body(nest.body, false, facts);
  const Stmt &inner = nest.loops.back();
  if (!facts.well_formed || facts.stores.empty() || inner.step != 1)
    return {};
  for (const Stmt &s : facts.stores) {
    auto step = s.index.coefficient_of(inner.name);
    if (!step || !step->is_const(1))
      return {};
  }
  auto borders = find_borders(nest.loops, inner, facts, ranges);
  if (!borders || (borders->lo == 0 && borders->hi == 0))
    return {};
  Dim lo = inner.begin + Dim(borders->lo), hi = inner.end - Dim(borders->hi);
  std::vector<Stmt> out;
  for (auto [begin, end] :
       {std::pair(inner.begin, lo), std::pair(lo, hi), std::pair(hi, inner.end)}) {
    if (begin == end)
      continue;
    std::vector<Stmt> body{kb::loop(inner.name, begin, end, LoopKind::parallel, nest.body)};
    for (size_t i = nest.loops.size() - 1; i-- > 0;)
      body = {kb::loop(nest.loops[i].name, nest.loops[i].begin, nest.loops[i].end,
                       LoopKind::parallel, std::move(body))};
    out.push_back(std::move(body[0]));
  }
  return out;
}

} // namespace kiln
