#include "passes/kernel/tile_depth.h"

#include "passes/kernel/tile_operands.h"

#include <algorithm>

namespace kiln {
namespace {

// Fewer rounds over a piece than this do not pay for the sums' way through memory.
constexpr int64_t kLeastTiles = 4;
// Groups are what threads share when tiles wait for each other.
constexpr int64_t kLeastGroups = 8;
// The sums of a group, in sizes of the second level: they pass once for each piece.
constexpr int64_t kMostSums = 4;

bool is_inside_group(const TileNest &nest, size_t i) {
  size_t group_at = nest.panel ? *nest.panel : nest.vector;
  return i > group_at && i != nest.vector && !(nest.row && i == *nest.row);
}

std::optional<int64_t> constant_total(const std::vector<TilePiece> &pieces) {
  int64_t sum = 0;
  for (const TilePiece &p : pieces) {
    auto n = p.count.try_const();
    if (!n)
      return std::nullopt;
    sum += *n;
  }
  return sum;
}

// Positions of a group, each with a sum for every column; 0 if that is not known.
int64_t position_count(const TileNest &nest) {
  int64_t n = 1;
  for (size_t i = 0; i < nest.loops.size(); ++i)
    if (is_inside_group(nest, i) || (nest.row && i == *nest.row))
      n *= std::max<int64_t>(0, trip_count(nest.loops[i]).try_const().value_or(0));
  return n;
}

int64_t group_width(const TileNest &nest, const TileShape &shape) {
  int64_t most = 1;
  for (const TilePiece &p : shape.columns)
    most = std::max(most, p.size);
  return most * (nest.panel ? nest.block : nest.lanes);
}

// Bytes of the shared operands that a group reads in one step of the reduction; 0 if they do not
// lie together.
int64_t bytes_per_step(const TileNest &nest, const TileShape &shape, const Stmt &reduction) {
  int64_t bytes = 0;
  if (!nest.packed.empty()) {
    for (const Expr &e : nest.packed)
      bytes += shape.packed_width * int64_t(dtype_bytes(e.dtype));
    return bytes;
  }
  if (!nest.panel)
    return 0;
  for (const Expr &e : nest.made)
    bytes += steps_inside(nest, e, reduction.name) * group_width(nest, shape) * 4;
  if (bytes > 0)
    return bytes;
  visit_exprs(nest.body, [&](const Expr &e) {
    if (!e.is(Expr::Kind::load) || !e.index.depends_on(nest.loops[*nest.panel].name))
      return;
    auto step = e.index.coefficient_of(reduction.name);
    if (step && step->is_const())
      bytes += step->as_const() * (group_width(nest, shape) / nest.block) *
               int64_t(dtype_bytes(e.dtype));
  });
  return bytes;
}

Dim sum_index(const TileNest &nest, int64_t width, Symbol first_column) {
  Dim at = 0;
  auto add = [&](const Stmt &l) { at = at * trip_count(l) + Dim::symbol(l.name) - l.begin; };
  for (size_t i = 0; i < nest.loops.size(); ++i)
    if (is_inside_group(nest, i))
      add(nest.loops[i]);
  if (nest.row)
    add(nest.loops[*nest.row]);
  Dim column = Dim::symbol(nest.vector_loop().name);
  if (nest.panel)
    column +=
        (Dim::symbol(nest.loops[*nest.panel].name) - Dim::symbol(first_column)) * Dim(nest.block);
  else
    column = column - Dim::symbol(first_column);
  return at * Dim(width) + column;
}

void restrict_reduction(std::vector<Stmt> &body, const DepthCut &cut) {
  for (Stmt &s : body) {
    if (s.is(Stmt::Kind::loop) && s.name == cut.reduction.name) {
      s.begin = cut.begin();
      s.end = cut.end();
    }
    restrict_reduction(s.body, cut);
  }
}

} // namespace

Dim DepthCut::end() const {
  if (mod(trip_count(reduction), steps).is_const(0))
    return begin() + Dim(steps);
  return kiln::min(begin() + Dim(steps), trip_count(reduction));
}

std::optional<Stmt> cuttable_reduction(const TileNest &nest) {
  if (!nest.row || nest.border_lo + nest.border_hi > 0)
    return std::nullopt;
  const Stmt *found = nullptr;
  std::unordered_set<Symbol> tiles;
  for (const Stmt &s : nest.body) {
    if (s.is(Stmt::Kind::alloc))
      tiles.insert(s.name);
    if (s.is(Stmt::Kind::loop)) {
      if (found)
        return std::nullopt;
      found = &s;
    } else if (!found && !s.is(Stmt::Kind::alloc) &&
               !(s.is(Stmt::Kind::store) && tiles.count(s.name))) {
      return std::nullopt;
    } else if (found && s.is(Stmt::Kind::alloc)) {
      return std::nullopt;
    }
  }
  if (!found)
    return std::nullopt;
  // A perfect nest; the one with the largest steps of the operand that rows share.
  std::vector<const Stmt *> loops;
  for (const Stmt *at = found;; at = &at->body[0]) {
    if (at->loop != LoopKind::reduce || at->step != 1)
      return std::nullopt;
    loops.push_back(at);
    if (std::none_of(at->body.begin(), at->body.end(),
                     [](const Stmt &s) { return s.is(Stmt::Kind::loop); }))
      break;
    if (at->body.size() != 1)
      return std::nullopt;
  }
  Stmt best;
  int64_t widest = 0;
  for (const Stmt *l : loops) {
    int64_t step = 0;
    visit_exprs(loops.back()->body, [&](const Expr &e) {
      if (!e.is(Expr::Kind::load) || !e.index.depends_on(nest.vector_loop().name))
        return;
      auto c = e.index.coefficient_of(l->name);
      step = std::max(step, c && c->is_const() ? std::abs(c->as_const()) : INT64_MAX / 2);
    });
    if (step > widest) {
      widest = step;
      best = kb::loop(l->name, l->begin, l->end, l->loop, {});
    }
  }
  bool usable = widest > 0 && widest < INT64_MAX / 2 && best.begin.is_const(0) &&
                best.end.is_const() && best.end.as_const() > 0;
  if (!nest.packed.empty() && (!nest.packed_along || nest.packed_along->name != best.name))
    usable = false;
  return usable ? std::optional(best) : std::nullopt;
}

int64_t choose_depth(const TileNest &nest, const TileShape &shape, const MachineDesc &machine,
                     std::optional<int64_t> wanted) {
  auto reduction = cuttable_reduction(nest);
  auto tiles = constant_total(shape.rows), groups = constant_total(shape.columns);
  if (!reduction || !tiles || !groups)
    return 0;
  const int64_t trips = reduction->end.as_const();
  auto rounded = [&](int64_t steps) {
    return std::min(trips, (steps + shape.unroll - 1) / shape.unroll * shape.unroll);
  };
  int64_t sums = position_count(nest) * group_width(nest, shape) * nest.accumulators * 4;
  if (sums == 0 || sums > kMostSums * machine.l2_bytes)
    return 0;
  if (wanted)
    return *wanted > 0 ? rounded(*wanted) : 0;

  int64_t total = bytes_per_step(nest, shape, *reduction) * trips, rounds = *tiles;
  for (size_t i = 0; i < nest.loops.size(); ++i)
    if (is_inside_group(nest, i))
      rounds *= trip_count(nest.loops[i]).try_const().value_or(0);
  bool shared = nest.panel ? *groups >= kLeastGroups : true;
  if (total <= machine.l2_bytes * 3 / 8 || rounds < kLeastTiles || !shared)
    return 0;
  int64_t piece = machine.l2_bytes / 4, pieces = (total + piece - 1) / piece;
  for (int64_t n = pieces; n < 2 * pieces; ++n)
    if (trips % n == 0 && (trips / n) % shape.unroll == 0)
      return trips / n;
  return rounded((trips + pieces - 1) / pieces);
}

DepthCut cut_reduction(const TileNest &nest, const TileShape &shape, Names &names) {
  DepthCut cut;
  cut.reduction = *cuttable_reduction(nest);
  cut.steps = shape.depth;
  cut.piece = names.fresh("piece");
  cut.first_column = names.fresh("first");
  const int64_t width = group_width(nest, shape);
  const Dim index = sum_index(nest, width, cut.first_column);
  std::vector<Stmt> read, write, before, after;
  bool reduced = false;
  for (const Stmt &s : nest.body) {
    if (s.is(Stmt::Kind::alloc)) {
      Symbol sum = names.fresh("sum");
      cut.sums.push_back(
          kb::alloc(sum, s.dtype, position_count(nest) * width, 1, MemorySpace::stack));
      read.push_back(s);
      read.push_back(kb::store(s.name, 0, kb::load(sum, s.dtype, index)));
      write.push_back(kb::store(sum, index, kb::load(s.name, s.dtype, 0)));
    }
    reduced |= s.is(Stmt::Kind::loop);
    if (!reduced)
      before.push_back(s);
    else if (!s.is(Stmt::Kind::loop))
      after.push_back(s);
    else
      cut.add.push_back(s);
  }
  auto append = [](std::vector<Stmt> &to, const std::vector<Stmt> &from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  restrict_reduction(cut.add, cut);
  cut.set_up = std::move(before);
  append(cut.set_up, write);
  std::vector<Stmt> add = read;
  append(add, cut.add);
  append(add, write);
  cut.add = std::move(add);
  cut.finish = std::move(read);
  append(cut.finish, after);
  return cut;
}

} // namespace kiln
