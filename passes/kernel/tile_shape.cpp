// How large a register tile is, and how rows and columns are cut into tiles of nearly equal size.
//
// A tile of R rows and C vectors does R*C multiply-adds for R + C loads. R*C accumulators, C column
// operands and one row operand must fit in the registers; fewer than latency * throughput
// accumulators leave the multipliers idle; the last tiles of a row or column are part of the price.
#include "passes/kernel/tile_depth.h"

#include <algorithm>

namespace kiln {
namespace {

struct Cut {
  int64_t large = 1, large_count = 0, small_count = 0; // small tiles are one smaller
};

// n = large * large_count + (large - 1) * small_count with as few tiles of at most `size` as
// possible.
Cut even_cut(int64_t n, int64_t size) {
  int64_t tiles = (n + size - 1) / size;
  if (tiles == 0)
    return {};
  Cut cut;
  cut.large = (n + tiles - 1) / tiles;
  cut.large_count = n - (cut.large - 1) * tiles;
  cut.small_count = tiles - cut.large_count;
  return cut;
}

double tile_cost(int64_t rows, int64_t vectors, bool scalar_operand, const MachineDesc &m) {
  double fmas = double(rows * vectors);
  double least = double(m.fma_latency * m.fma_per_cycle);
  double loads = scalar_operand ? double(rows + vectors) : double(vectors) * (1 + double(rows));
  return std::max(fmas, least) + 0.5 * loads + 2;
}

double cost(int64_t n_rows, int64_t n_columns, int64_t rows, int64_t columns, int64_t per_column,
            bool scalar_operand, const MachineDesc &m) {
  Cut r = even_cut(n_rows, rows), c = even_cut(n_columns, columns);
  double sum = 0;
  for (auto [rs, rn] : {std::pair(r.large, r.large_count), std::pair(r.large - 1, r.small_count)})
    for (auto [cs, cn] : {std::pair(c.large, c.large_count), std::pair(c.large - 1, c.small_count)})
      if (rn > 0 && cn > 0)
        sum += double(rn * cn) * tile_cost(rs, cs * per_column, scalar_operand, m);
  return sum;
}

// Steps of a reduction that are unrolled whole (few input channels, a window's row) and have nothing
// between them: the target loads ahead over all of them, which takes one more register.
bool has_short_steps(const TileNest &nest) {
  std::vector<const Stmt *> loops;
  visit_stmts(nest.body, [&](const Stmt &s) {
    if (s.is(Stmt::Kind::loop))
      loops.push_back(&s);
  });
  // The innermost will be the one along which the vector operand moves least.
  const Stmt *innermost = nullptr;
  int64_t least = 0;
  for (const Stmt *l : loops) {
    int64_t step = 0;
    visit_exprs(nest.body, [&](const Expr &e) {
      if (!e.is(Expr::Kind::load) || !e.index.depends_on(nest.vector_loop().name))
        return;
      auto by = e.index.coefficient_of(l->name);
      step = std::max(step, by && by->is_const() ? std::abs(by->as_const()) : 0);
    });
    if (!innermost || step <= least) {
      innermost = l;
      least = step;
    }
  }
  auto trips = innermost ? trip_count(*innermost).try_const() : std::nullopt;
  return trips && *trips <= kUnrollWhole;
}

// Registers of operands on their way, where arithmetic takes none from memory: groups of bytes in every lane, and what
// corrects their dots (emit_dot.cpp).
int64_t passing_operands(int64_t vectors, const TileNest &nest, const MachineDesc &m) {
  if (nest.dot_width != 4 || m.vector_registers < 32 || m.has_broadcast_operand)
    return 0;
  return m.byte_dots == ByteDots::signed_ ? vectors + 5 : 2;
}

bool fits(int64_t rows, int64_t vectors, const TileNest &nest, const MachineDesc &m) {
  int64_t tile = rows * vectors * nest.accumulators;
  if (rows == 1) // few streams; split_chains() hides the latency
    return vectors * nest.accumulators <= m.vector_registers / 8;
  if (!nest.has_scalar_operand) // each row brings its own vectors
    return tile + vectors + rows + 2 <= m.vector_registers * 3 / 4 || tile <= 4;
  if (nest.splits_operands)
    return tile + 2 * (vectors + 1) + 1 <= m.vector_registers;
  int64_t used = tile + vectors + 1 + (m.has_fma ? 0 : 1) + passing_operands(vectors, nest, m);
  return used <= m.vector_registers - (vectors >= 3 || has_short_steps(nest) ? 2 : 1);
}

// Copied operands of a column group stay in the second level while all rows read them.
bool copies_fit(int64_t columns, const TileNest &nest, const MachineDesc &m) {
  if (nest.packed.empty() || columns == 1 || cuttable_reduction(nest))
    return true;
  int64_t bytes = 0;
  for (const Expr &e : nest.packed)
    bytes += trip_count(*nest.packed_along).as_const() * columns * nest.lanes *
             int64_t(dtype_bytes(e.dtype));
  return bytes <= m.l2_bytes / 2;
}

// All that a single row reads stays in the second level.
bool panels_fit(const TileNest &nest, int64_t columns, const MachineDesc &m) {
  int64_t bytes = columns * nest.block * 4;
  bool known = true;
  visit_stmts(nest.body, [&](const Stmt &s) {
    if (!s.is(Stmt::Kind::loop))
      return;
    auto trips = trip_count(s).try_const();
    known &= trips && *trips <= m.l2_bytes;
    bytes *= known ? *trips : 1;
    known &= bytes <= m.l2_bytes;
  });
  return known;
}

void add_even(std::vector<TilePiece> &out, const Dim &first, int64_t n, int64_t size) {
  Cut cut = even_cut(n, size);
  if (cut.large_count > 0)
    out.push_back({first, cut.large_count, cut.large, false, false});
  if (cut.small_count > 0)
    out.push_back(
        {first + Dim(cut.large * cut.large_count), cut.small_count, cut.large - 1, false, false});
}

// Matrix registers multiply as many rows at once as they have: tiles of nearly equal height, and two of
// them in a piece, which share the columns.
void add_pairs(std::vector<TilePiece> &out, const Dim &first, int64_t n, int64_t height) {
  Cut cut = even_cut(n, height);
  Dim at = first;
  auto add = [&](int64_t count, int64_t size) {
    if (count > 0 && size > 0)
      out.push_back({at, count, size, false, false});
    at += Dim(count * size);
  };
  add(cut.large_count / 2, 2 * cut.large);
  add(cut.large_count % 2, cut.large);
  add(cut.small_count / 2, 2 * (cut.large - 1));
  add(cut.small_count % 2, cut.large - 1);
}

// Whole tiles, then tiles of half the size, a quarter, ... for what is left.
void add_symbolic(std::vector<TilePiece> &out, const Dim &n, int64_t size) {
  Dim tiles = floordiv(n, size), rest = mod(n, size), first = tiles * Dim(size);
  out.push_back({0, tiles, size, false, false});
  int64_t half = 1;
  while (half * 2 < size)
    half *= 2;
  for (; half >= 1 && size > 1; half /= 2) {
    Dim count = floordiv(mod(rest, half * 2), half);
    if (count.is_const(0))
      continue;
    out.push_back({first, count, half, false, false});
    first += count * Dim(half);
  }
}

} // namespace

TileShape choose_tile_shape(const TileNest &nest, const MachineDesc &machine,
                            const TileChoice &choice) {
  TileShape shape;
  shape.unroll = std::max<int64_t>(1, choice.unroll.value_or(shape.unroll));
  shape.prefetch_steps =
      std::max<int64_t>(0, choice.prefetch_steps.value_or(machine.prefetch_steps));
  shape.prefetch_next = choice.prefetch_next.value_or(machine.prefetch_next);
  const Stmt &vector = nest.vector_loop();
  Dim n_rows = nest.row ? trip_count(nest.loops[*nest.row]) : Dim(1);
  if (n_rows.is_const())
    n_rows = n_rows - Dim(nest.border_lo + nest.border_hi);
  Dim n_columns = 1;
  if (nest.panel) {
    shape.vectors_per_column = nest.block / nest.lanes;
    n_columns = trip_count(nest.loops[*nest.panel]);
  } else {
    n_columns = ceildiv(trip_count(vector), nest.lanes);
  }

  constexpr int64_t kMany = 960; // divisible by most tile sizes
  int64_t guess_rows = n_rows.is_const() ? std::max<int64_t>(1, n_rows.as_const()) : kMany;
  int64_t guess_columns = n_columns.is_const() ? std::max<int64_t>(1, n_columns.as_const()) : kMany;
  int64_t best_rows = 1, best_columns = 1;
  double best = 1e300;
  auto consider = [&](const TileChoice &wanted) {
    for (int64_t r = 1; r <= std::min<int64_t>(guess_rows, nest.reuses_rows ? 16 : 8); ++r)
      for (int64_t c = 1; c <= std::min<int64_t>(guess_columns, 16); ++c) {
        int64_t vectors = c * shape.vectors_per_column;
        if ((wanted.rows && r != std::min(*wanted.rows, guess_rows)) ||
            (wanted.vectors && vectors != *wanted.vectors))
          continue;
        if ((r * c > 1 && !fits(r, vectors, nest, machine)) || !copies_fit(c, nest, machine))
          continue;
        double price = cost(guess_rows, guess_columns, r, c, shape.vectors_per_column,
                            nest.has_scalar_operand, machine);
        if (price < best * 0.999) {
          best = price;
          best_rows = r;
          best_columns = c;
        }
      }
  };
  if (nest.as_products) { // two tiles by two, or by as many as there are for one
    bool two = guess_rows > machine.tile_rows;
    int64_t sums = machine.tile_count / 2;
    best_rows = two ? 2 * machine.tile_rows : machine.tile_rows;
    best_columns = std::min(guess_columns, two ? sums / 2 : sums);
    shape.product_depth = machine.tile_row_bytes / 4; // groups of four bytes
    shape.prefetch_steps = 0; // whole tiles are loaded ahead by the processor
  } else {
    consider(choice);
    if (best == 1e300)
      consider({});
  }
  // One row in one group of columns is nothing to share out: two groups, if each keeps the multipliers busy.
  bool alone = true;
  for (size_t i = 0; i < nest.loops.size(); ++i)
    alone &= i == nest.vector || (nest.panel && i == *nest.panel) ||
             trip_count(nest.loops[i]).is_const(1);
  if (alone && !nest.as_products && nest.panel && !choice.vectors && best_columns == guess_columns &&
      best_columns * shape.vectors_per_column >= 2 * machine.fma_latency)
    best_columns = (best_columns + 1) / 2;

  // A single row only streams the panels. From the second cache they come much faster one after the other, as one
  // stretch of memory, than several side by side, which further levels need to be asked for enough lines. The
  // steps are the independent sums then (split_chains).
  if (n_rows.is_const(1) && nest.panel && nest.border_lo + nest.border_hi == 0 && !nest.as_products &&
      !choice.vectors && panels_fit(nest, guess_columns, machine)) {
    best_columns = 1;
    int64_t sums = machine.fma_latency * machine.fma_per_cycle / shape.vectors_per_column;
    if (!choice.unroll)
      shape.unroll = std::max(shape.unroll, sums);
  }

  if (nest.border_lo > 0)
    shape.rows.push_back({0, nest.border_lo, 1, false, true});
  if (n_rows.is_const() && nest.as_products)
    add_pairs(shape.rows, nest.border_lo, n_rows.as_const(), machine.tile_rows);
  else if (n_rows.is_const())
    add_even(shape.rows, nest.border_lo, n_rows.as_const(), best_rows);
  else
    add_symbolic(shape.rows, n_rows, best_rows);
  if (nest.border_hi > 0)
    shape.rows.push_back({n_rows + Dim(nest.border_lo), nest.border_hi, 1, false, true});

  // The last column is masked where the vector loop does not fill it.
  Dim whole = n_columns;
  bool partial = false;
  if (nest.panel) {
    partial = !vector.end.is_const(nest.block);
  } else {
    partial = !mod(trip_count(vector), nest.lanes).is_const(0);
  }
  if (!nest.packed.empty()) {
    // Groups of one size, which is that of the copy; the last may be partly outside.
    Dim groups = floordiv(trip_count(vector), best_columns * nest.lanes);
    Dim all = ceildiv(trip_count(vector), best_columns * nest.lanes);
    if (!groups.is_const(0))
      shape.columns.push_back({0, groups, best_columns, false, false});
    if (!(groups == all))
      shape.columns.push_back(
          {groups * Dim(best_columns), all - groups, best_columns, true, false});
    shape.packed_width = best_columns * nest.lanes;
  } else if (n_columns.is_const()) {
    int64_t n = n_columns.as_const();
    bool masks = machine.has_masks ||
                 (machine.has_float_masks && !nest.panel && nest.dot_width == 0 && nest.lanes * 4 == machine.vector_bytes);
    if (partial && !masks && n > 1) {
      add_even(shape.columns, 0, n - 1, best_columns);
      shape.columns.push_back({n - 1, 1, 1, true, false});
    } else {
      add_even(shape.columns, 0, n, best_columns);
      if (partial && !shape.columns.empty()) {
        TilePiece &last = shape.columns.back();
        last.count = last.count - Dim(1);
        TilePiece tail{last.first + last.count * Dim(last.size), 1, last.size, true, false};
        if (last.count.is_const(0))
          shape.columns.pop_back();
        shape.columns.push_back(tail);
      }
    }
  } else {
    if (partial) // every column but the last is whole
      whole = nest.panel ? n_columns - Dim(1) : floordiv(trip_count(vector), nest.lanes);
    if (nest.panel && partial)
      whole = max(whole, Dim(0));
    add_symbolic(shape.columns, whole, best_columns);
    if (partial)
      shape.columns.push_back({whole, n_columns - whole, 1, true, false});
  }
  if (!nest.as_products)
    shape.depth = choose_depth(nest, shape, machine, choice.depth);
  if (shape.depth > 0)
    shape.cut = cuttable_reduction(nest)->name;
  return shape;
}

} // namespace kiln
