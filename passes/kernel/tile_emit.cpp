// Writes a tiled nest: loops over column groups and row tiles, and in each tile the original body
// with every statement repeated for all rows and columns by `unroll` loops, accumulators grown to
// tiles of vectors, operands that only depend on the column loaded once for all rows, and those
// that only depend on the row once for all columns.
//
//   alloc acc: f32x16[24] reg                                 6 rows x 4 panels
//   for k in 0..K step 4 serial { for ku in 0..4 unroll {
//     alloc col: f32x16[4] reg
//     for c in 0..4 unroll { col[c] = b[...; x16] }
//     for r in 0..6 unroll {
//       let a: f32x16 = broadcast(a[...], 16)
//       for c in 0..4 unroll { acc[4*r + c] = fma(a, col[c], acc[4*r + c]) } } } }
#include "ir/kernel/dot.h"
#include "passes/kernel/tile_depth.h"
#include "passes/kernel/tile_operands.h"
#include "passes/kernel/tile_prefetch.h"
#include "passes/kernel/tile_reductions.h"

#include <algorithm>
#include <functional>

namespace kiln {
namespace {

constexpr int64_t kMinPrefetchedTrips = 64;

struct Hoisted {
  Expr value; // before hoisting
  Symbol name;
};

class TileEmitter {
public:
  TileEmitter(const TileNest &nest, const TileShape &shape, const Kernel &kernel,
              const DimRanges &ranges, Names &names)
      : nest_(nest), shape_(shape), kernel_(kernel), ranges_(ranges), names_(names) {
    for (const Stmt &l : nest_.loops)
      push_loop(ranges_, l);
    visit_stmts(nest.body, [&](const Stmt &s) {
      if (s.is(Stmt::Kind::store))
        stored_.insert(s.name);
    });
  }

  std::optional<Stmt> run() {
    Symbol group = names_.fresh("g");
    tile_ = names_.fresh("t");
    std::vector<Stmt> out;
    if (shape_.depth > 0 ? !group_in_pieces(group, out) : !whole_group(group, out))
      return std::nullopt;
    out = wrap(kb::loop(group, 0, total(shape_.columns), LoopKind::parallel, std::move(out)));
    if (const Stmt *l = nest_.turning(); l && !asks_for_next_) // else what is asked for is the next group
      keep_turn(out[0], *l);
    wrap_loops(0, group_at(), out);
    return std::move(out[0]);
  }

private:
  static std::vector<Stmt> wrap(Stmt s) {
    std::vector<Stmt> out;
    out.push_back(std::move(s));
    return out;
  }

  size_t group_at() const { return nest_.panel ? *nest_.panel : nest_.vector; }

  // The loops of [begin, end) that are neither tiles nor groups, around `body`.
  void wrap_loops(size_t begin, size_t end, std::vector<Stmt> &body) const {
    for (size_t i = end; i-- > begin;)
      if (i != nest_.vector && !(nest_.row && i == *nest_.row)) {
        Stmt loop = nest_.loops[i];
        loop.body = std::move(body);
        body = wrap(std::move(loop));
      }
  }

  // All tiles of a group, and the loops around them that are inside the group's. Pieces of rows and
  // columns are a chain of ifs, so that the loops around it stay perfectly nested.
  bool tiles_of_group(Symbol group, std::vector<Stmt> &out) {
    if (!columns_from(0, group, 0, tile_, out))
      return false;
    if (nest_.row)
      out = wrap(kb::loop(tile_, 0, total(shape_.rows), LoopKind::parallel, std::move(out)));
    return true;
  }

  bool whole_group(Symbol group, std::vector<Stmt> &out) {
    out = pack_operands(group);
    make_operands(group, out);
    std::vector<Stmt> inner;
    if (!tiles_of_group(group, inner))
      return false;
    append(out, std::move(inner));
    wrap_loops(group_at() + 1, nest_.loops.size(), out);
    return true;
  }

  bool group_in_pieces(Symbol group, std::vector<Stmt> &out) {
    cut_ = cut_reduction(nest_, shape_, names_);
    ranges_.set(cut_->piece, {Dim(0), cut_->pieces()});
    for (const Stmt &s : cut_->sums)
      stored_.insert(s.name);
    auto tiles = [&](std::vector<Stmt> body, std::vector<Stmt> &to) {
      nest_.body = std::move(body);
      std::vector<Stmt> inner;
      if (!tiles_of_group(group, inner))
        return false;
      wrap_loops(group_at() + 1, nest_.loops.size(), inner);
      rename_declarations(inner, names_);
      append(to, std::move(inner));
      return true;
    };
    std::vector<Stmt> set_up = cut_->set_up, finish = cut_->finish;
    out = cut_->sums;
    if (!tiles(std::move(set_up), out))
      return false;
    nest_.body = cut_->add;
    if (nest_.packed_along) {
      nest_.packed_along->begin = cut_->begin();
      nest_.packed_along->end = cut_->end();
    }
    std::vector<Stmt> piece = pack_operands(group);
    make_operands(group, piece);
    adding_ = true;
    if (!tiles(nest_.body, piece))
      return false;
    adding_ = false;
    out.push_back(kb::loop(cut_->piece, 0, cut_->pieces(), LoopKind::serial, std::move(piece)));
    return tiles(std::move(finish), out);
  }

  // Copies the operands of a column group, and has the body read the copies.
  std::vector<Stmt> pack_operands(Symbol group) {
    std::vector<Stmt> out;
    if (nest_.packed.empty())
      return out;
    const Stmt &vector = nest_.vector_loop(), &along = *nest_.packed_along;
    int64_t width = shape_.packed_width;
    Dim base = vector.begin + Dim::symbol(group) * Dim(width);
    for (const Expr &e : nest_.packed) {
      Symbol copy = names_.fresh("packed"), k = names_.fresh(along.name.text()),
             c = names_.fresh("c");
      Dim to = Dim::symbol(k) * Dim(width) + Dim::symbol(c);
      Dim first = along.begin; // not 0 in pieces
      Expr value = e;
      value.index = e.index.substitute([&](Symbol s) -> std::optional<Dim> {
        if (s == vector.name)
          return base + Dim::symbol(c);
        return s == along.name ? std::optional(first + Dim::symbol(k)) : std::nullopt;
      });
      Dim columns = kiln::min(Dim(width), vector.end - base);
      std::vector<Stmt> body = wrap(kb::store(copy, to, std::move(value)));
      body = wrap(kb::loop(c, 0, columns, LoopKind::parallel, std::move(body)));
      int64_t steps = cut_ ? cut_->steps : trip_count(along).as_const();
      out.push_back(kb::alloc(copy, e.dtype, steps * width, 1, MemorySpace::stack));
      out.push_back(kb::loop(k, 0, trip_count(along), LoopKind::parallel, std::move(body)));
      Dim from = (Dim::symbol(along.name) - first) * Dim(width) + Dim::symbol(vector.name) - base;
      replace_loads(nest_.body, e, kb::load(copy, e.dtype, from));
    }
    return out;
  }

  // Computes the operands of a column group that its rows share, and has the body read them.
  void make_operands(Symbol group, std::vector<Stmt> &out) {
    first_panel_ = names_.fresh("first");
    for (const Expr &e : nest_.made) {
      MadeOperand made{e, names_.fresh("made"), first_panel_, {}, 0};
      for (const TilePiece &p : shape_.columns)
        made.width = std::max(made.width, p.size * nest_.block);
      visit_stmts(nest_.body, [&](const Stmt &s) {
        if (!s.is(Stmt::Kind::loop) || !depends_on(e, s.name))
          return;
        bool cut = cut_ && s.name == cut_->reduction.name;
        made.steps.push_back({s.name, s.begin, cut ? cut_->steps : trip_count(s).as_const(), trip_count(s)});
      });
      out.push_back(kb::alloc(made.buffer, e.dtype, made.elements(), 1, MemorySpace::stack));
      append(out, filled(made, 0, group, 0));
      replace_loads(nest_.body, e, made.load(nest_));
    }
  }

  // Pieces of columns are a chain of ifs, as in columns_from().
  std::vector<Stmt> filled(const MadeOperand &made, size_t at, Symbol group, const Dim &before) {
    const TilePiece &piece = shape_.columns[at];
    auto here = made.fill(nest_, piece.first + (Dim::symbol(group) - before) * Dim(piece.size), piece.size, names_);
    if (at + 1 == shape_.columns.size())
      return here;
    Dim end = before + piece.count;
    return wrap(kb::if_(kb::lt(kb::index(Dim::symbol(group)), kb::index(end)), std::move(here),
                        filled(made, at + 1, group, end)));
  }

  static void replace_loads(Expr &e, const Expr &from, const Expr &to) {
    if (e == from) {
      e = to;
      return;
    }
    for (Expr &a : e.args)
      replace_loads(a, from, to);
  }
  static void replace_loads(std::vector<Stmt> &body, const Expr &from, const Expr &to) {
    for (Stmt &s : body) {
      replace_loads(s.value, from, to);
      replace_loads(s.body, from, to);
    }
  }

  static Dim total(const std::vector<TilePiece> &pieces) {
    Dim sum = 0;
    for (const TilePiece &p : pieces)
      sum += p.count;
    return sum;
  }

  // The tiles of columns[at..], as a chain of ifs on the group's number.
  bool columns_from(size_t at, Symbol group, const Dim &before, Symbol tile,
                    std::vector<Stmt> &out) {
    const TilePiece &piece = shape_.columns[at];
    column_ = piece;
    column_.first = piece.first;
    // The lanes of an end are a number then.
    if (!piece.masked || !piece.count.is_const(1) || !nest_.packed.empty())
      column_.first += (Dim::symbol(group) - before) * Dim(piece.size);
    std::vector<Stmt> here;
    if (!rows_from(0, tile, 0, here))
      return false;
    if (at + 1 == shape_.columns.size()) {
      out = std::move(here);
      return true;
    }
    std::vector<Stmt> rest;
    Dim end = before + piece.count;
    if (!columns_from(at + 1, group, end, tile, rest))
      return false;
    out = wrap(kb::if_(kb::lt(kb::index(Dim::symbol(group)), kb::index(end)), std::move(here),
                       std::move(rest)));
    return true;
  }

  bool rows_from(size_t at, Symbol tile, const Dim &before, std::vector<Stmt> &out) {
    if (!nest_.row)
      return tile_body(TilePiece{}, out);
    TilePiece piece = shape_.rows[at];
    Dim end = before + piece.count;
    piece.first = nest_.loops[*nest_.row].begin + piece.first +
                  (Dim::symbol(tile) - before) * Dim(piece.size);
    std::vector<Stmt> here;
    if (!tile_body(piece, here))
      return false;
    if (at + 1 == shape_.rows.size()) {
      out = std::move(here);
      return true;
    }
    std::vector<Stmt> rest;
    if (!rows_from(at + 1, tile, end, rest))
      return false;
    out = wrap(kb::if_(kb::lt(kb::index(Dim::symbol(tile)), kb::index(end)), std::move(here),
                       std::move(rest)));
    return true;
  }

  // --- one tile ---------------------------------------------------------------------------------

  bool tile_body(const TilePiece &rows, std::vector<Stmt> &out) {
    rows_ = rows;
    row_var_ = rows.size > 1 ? names_.fresh("r") : Symbol();
    int64_t panels = nest_.panel ? column_.size : 1;
    int64_t vectors = nest_.panel ? shape_.vectors_per_column : column_.size;
    panel_count_ = panels;
    vector_count_ = vectors;
    panel_var_ = panels > 1 ? names_.fresh("p") : Symbol();
    vector_var_ = vectors > 1 ? names_.fresh("c") : Symbol();

    std::vector<Stmt> body = nest_.body;
    if (nest_.row && !rows.border)
      plain_bounds(body);
    rename_declarations(body, names_);
    context_ = VectorContext();
    context_.var = nest_.vector_loop().name;
    context_.lanes = nest_.lanes;
    if (column_.masked)
      context_.count = nest_.vector_loop().end - Dim::symbol(context_.var);
    context_.may_overread = [this](const Expr &e) { return may_overread(e); };
    prefetch_epilogue(body, out);
    if (!statements(body, false, out))
      return false;
    place(out);
    return true;
  }

  // What is added to the sums, a residual, is asked for before they are computed.
  void prefetch_epilogue(const std::vector<Stmt> &body, std::vector<Stmt> &out) const {
    auto last = std::find_if(body.rbegin(), body.rend(), [](const Stmt &s) { return s.is(Stmt::Kind::loop); });
    auto trips = last == body.rend() ? std::nullopt : trip_count(*last).try_const();
    if (shape_.prefetch_steps == 0 || !nest_.row || !trips || *trips < kMinPrefetchedTrips)
      return;
    Symbol row = nest_.loops[*nest_.row].name;
    std::vector<Expr> asked;
    visit_exprs({last.base(), body.end()}, [&](const Expr &e) {
      if (!e.is(Expr::Kind::load) || !kernel_.find_buffer(e.name) || !e.index.depends_on(row) ||
          std::find(asked.begin(), asked.end(), e) != asked.end())
        return;
      auto step = e.index.coefficient_of(context_.var);
      if (step && step->is_const(1))
        asked.push_back(e);
    });
    for (const Expr &e : asked)
      append(out, over_rows(over_columns(wrap(kb::prefetch(e.name, e.index, 1)))));
  }

  // In the middle of a row the bounds of the reduction are the same for all rows.
  void plain_bounds(std::vector<Stmt> &body) {
    const Stmt &row = nest_.loops[*nest_.row];
    DimRanges r = ranges_;
    r.set(row.name, {row.begin + Dim(nest_.border_lo), row.end - Dim(nest_.border_hi)});
    bounds_within(body, r);
  }

  static void bounds_within(std::vector<Stmt> &body, const DimRanges &r) {
    for (Stmt &s : body)
      if (s.is(Stmt::Kind::loop)) {
        s.begin = simplify(s.begin, r);
        s.end = simplify(s.end, r);
        bounds_within(s.body, r);
      }
  }

  // Loads past the masked lanes that stay inside the buffer: padded panels of constants.
  bool may_overread(const Expr &e) const {
    const KernelBuffer *b = kernel_.find_buffer(e.name);
    if (!b || !e.stride.is_const(1))
      return false;
    DimRanges r = ranges_;
    for (const Stmt &l : reductions_)
      push_loop(r, l);
    // The first lane of a vector is a multiple of the lanes.
    Dim last = e.index;
    Symbol v = nest_.vector_loop().name;
    int64_t width = nest_.panel ? nest_.block : 0;
    if (width == 0) {
      auto trips = trip_count(nest_.vector_loop()).try_const();
      if (!trips)
        return false;
      width = (*trips + nest_.lanes - 1) / nest_.lanes * nest_.lanes;
    }
    last = last.substitute(v, nest_.vector_loop().begin + Dim(width - 1)) +
           Dim(e.lanes / nest_.lanes - 1);
    return known_nonnegative(b->size - Dim(1) - last, r);
  }

  // Replaces the original loop variables by the tile's position and its unroll variables.
  void place(std::vector<Stmt> &body) {
    Symbol v = nest_.vector_loop().name;
    Dim vector =
        nest_.panel ? Dim(0) : nest_.vector_loop().begin + column_.first * Dim(nest_.lanes);
    if (!vector_var_.empty())
      vector += Dim::symbol(vector_var_) * Dim(nest_.lanes);
    Dim panel = column_.first;
    if (!panel_var_.empty())
      panel += Dim::symbol(panel_var_);
    Dim row = rows_.first;
    if (!row_var_.empty())
      row += Dim::symbol(row_var_);
    substitute(body, [&](Symbol s) -> std::optional<Dim> {
      if (s == v)
        return vector;
      if (nest_.panel && s == nest_.loops[*nest_.panel].name)
        return panel;
      if (nest_.row && s == nest_.loops[*nest_.row].name)
        return row;
      if (s == first_panel_)
        return column_.first;
      if (cut_ && s == cut_->first_column)
        return nest_.panel ? column_.first
                           : nest_.vector_loop().begin + column_.first * Dim(nest_.lanes);
      return std::nullopt;
    });
  }

  Dim column_index() const {
    Dim at = 0;
    if (!panel_var_.empty())
      at += Dim::symbol(panel_var_) * Dim(vector_count_);
    if (!vector_var_.empty())
      at += Dim::symbol(vector_var_);
    return at;
  }
  int64_t column_count() const { return panel_count_ * vector_count_; }

  Dim tile_index() const {
    Dim at = column_index();
    if (!row_var_.empty())
      at += Dim::symbol(row_var_) * Dim(column_count());
    return at;
  }

  std::vector<Stmt> over_columns(std::vector<Stmt> body) const {
    if (!vector_var_.empty())
      body = wrap(kb::loop(vector_var_, 0, vector_count_, LoopKind::unroll, std::move(body)));
    if (!panel_var_.empty())
      body = wrap(kb::loop(panel_var_, 0, panel_count_, LoopKind::unroll, std::move(body)));
    return body;
  }

  std::vector<Stmt> over_rows(std::vector<Stmt> body) const {
    if (!row_var_.empty())
      body = wrap(kb::loop(row_var_, 0, rows_.size, LoopKind::unroll, std::move(body)));
    return body;
  }

  static void append(std::vector<Stmt> &to, std::vector<Stmt> from) {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  }

  bool statements(const std::vector<Stmt> &body, bool in_reduce, std::vector<Stmt> &out) {
    for (size_t i = 0; i < body.size();) {
      const Stmt &s = body[i];
      if (s.is(Stmt::Kind::alloc)) {
        out.push_back(
            kb::alloc(s.name, s.dtype, rows_.size * column_count(), nest_.lanes, MemorySpace::reg));
        context_.tiles[s.name] = TileSlot{tile_index()};
        ++i;
      } else if (s.is(Stmt::Kind::loop)) {
        if (!reduction(s, out))
          return false;
        ++i;
      } else {
        size_t end = i;
        while (end < body.size() && !body[end].is(Stmt::Kind::alloc) &&
               !body[end].is(Stmt::Kind::loop))
          ++end;
        // A let is visible within its group only.
        for (size_t k = i; k < end; ++k)
          if (body[k].is(Stmt::Kind::let))
            for (size_t later = end; later < body.size(); ++later)
              if (depends_on(std::vector<Stmt>{body[later]}, body[k].name))
                return false;
        if (!group({body.begin() + long(i), body.begin() + long(end)}, in_reduce, out))
          return false;
        i = end;
      }
    }
    return true;
  }

  // --- reductions -------------------------------------------------------------------------------

  bool reduction(const Stmt &loop, std::vector<Stmt> &out) {
    std::vector<Stmt> body;
    std::vector<Stmt> loops = ordered_reductions(loop, context_.var, body);
    if (shape_.product_depth > 0 && !row_steps_innermost(loops, body, nest_.dot_width, context_.var))
      return false;
    size_t mark = reductions_.size();
    reductions_.insert(reductions_.end(), loops.begin(), loops.end());
    std::vector<Stmt> inner;
    Stmt probe = loops.back();
    probe.body = body;
    bool ok =
        is_innermost(probe) ? innermost(loops.back(), body, inner) : statements(body, true, inner);
    if (ok && !is_innermost(probe)) {
      Stmt l = loops.back();
      l.loop = LoopKind::serial;
      l.body = std::move(inner);
      inner = wrap(std::move(l));
    }
    reductions_.resize(mark);
    if (!ok)
      return false;
    for (size_t i = loops.size() - 1; i-- > 0;) {
      Stmt l = loops[i];
      l.loop = LoopKind::serial;
      l.body = std::move(inner);
      inner = wrap(std::move(l));
    }
    append(out, std::move(inner));
    return true;
  }

  bool innermost(const Stmt &loop, const std::vector<Stmt> &body, std::vector<Stmt> &out) {
    Dim trips = trip_count(loop);
    // A single row has few sums, so that more steps are no more code.
    bool short_loop = trips.is_const() && trips.as_const() <= (rows_.size > 1 ? kUnrollWhole : 2 * kUnrollWhole);
    std::vector<Stmt> step;
    prefetch_loop_ = short_loop ? Symbol() : loop.name;
    if (!group(body, true, step))
      return false;
    auto shifted = [&](const Dim &by) {
      std::vector<Stmt> copy = step;
      substitute(copy, loop.name, by);
      return copy;
    };
    if (shape_.product_depth > 0) {
      auto next_group = [&](Symbol k, int64_t depth) {
        std::vector<Stmt> ask = next_group_prefetches(body, depth);
        substitute(ask, loop.name, Dim::symbol(k));
        return ask;
      };
      append(out, products_of_tiles(loop, shape_.product_depth, shifted, next_group, names_));
      return true;
    }
    if (short_loop) {
      Stmt whole = loop;
      whole.begin = 0;
      whole.end = trips;
      whole.loop = LoopKind::unroll;
      whole.body = step;
      substitute(whole.body, loop.name, Dim::symbol(loop.name) + loop.begin);
      out.push_back(std::move(whole));
      return true;
    }
    Dim rounds = floordiv(trips, shape_.unroll), split = loop.begin + rounds * Dim(shape_.unroll);
    Symbol ku = names_.fresh(std::string(loop.name.text()) + "u");
    Symbol kr = names_.fresh(loop.name.text());
    std::vector<Stmt> unrolled = wrap(kb::loop(ku, 0, shape_.unroll, LoopKind::unroll,
                                               shifted(Dim::symbol(loop.name) + Dim::symbol(ku))));
    std::vector<Stmt> next_group = next_group_prefetches(body, shape_.unroll);
    asks_for_next_ |= !next_group.empty();
    append(unrolled, std::move(next_group));
    out.push_back(kb::loop(loop.name, loop.begin, split, LoopKind::serial, std::move(unrolled),
                           shape_.unroll));
    if (!(split == loop.end))
      out.push_back(kb::loop(kr, split, loop.end, LoopKind::serial, shifted(Dim::symbol(kr))));
    return true;
  }

  // --- straight-line code -----------------------------------------------------------------------

  bool varies_by_row(const Expr &e) const {
    bool varies = false;
    visit_exprs(e, [&](const Expr &x) {
      if (x.is(Expr::Kind::var) || (x.is(Expr::Kind::load) && context_.tiles.count(x.name)))
        varies = true;
    });
    return varies || (nest_.row && depends_on(e, nest_.loops[*nest_.row].name));
  }
  bool varies_by_column(const Expr &e) const {
    return depends_on(e, context_.var) ||
           (nest_.panel && depends_on(e, nest_.loops[*nest_.panel].name));
  }
  bool is_loaded_input(const Expr &e) const {
    bool loads = false, pure = true;
    visit_exprs(e, [&](const Expr &x) {
      bool memory = x.is(Expr::Kind::load) || x.is(Expr::Kind::gather);
      loads |= memory;
      pure &= !(memory && (stored_.count(x.name) || context_.tiles.count(x.name))) &&
              !x.is(Expr::Kind::var);
    });
    return loads && pure;
  }

  static Symbol hoist(std::vector<Hoisted> &list, const Expr &e, std::string_view stem,
                      Names &names) {
    for (const Hoisted &h : list)
      if (h.value == e)
        return h.name;
    list.push_back({e, names.fresh(stem)});
    return list.back().name;
  }

  void hoist_operands(Expr &e, std::vector<Hoisted> &columns, std::vector<Hoisted> &scalars) {
    if ((e.lanes == nest_.lanes || is_dot_load(e, nest_.lanes)) && is_loaded_input(e)) {
      bool row = varies_by_row(e), column = varies_by_column(e);
      if (!row && rows_.size > 1 && (column || column_count() == 1)) {
        Symbol name = hoist(columns, e, "col", names_);
        e = kb::load(name, e.dtype, column_index(), e.lanes);
        return;
      }
      if (!column && column_count() > 1) {
        Symbol name = hoist(scalars, e, "row", names_);
        e = kb::var(name, e.dtype, e.lanes);
        return;
      }
    }
    for (Expr &a : e.args)
      hoist_operands(a, columns, scalars);
  }

  // acc + x*y is rounded once.
  void contract(Stmt &s) const {
    if (!s.is(Stmt::Kind::store) || !context_.tiles.count(s.name) || !is_float(s.value.dtype))
      return;
    Expr &v = s.value;
    if (!v.is(Expr::Kind::binary) || v.binary != BinaryOp::add)
      return;
    auto is_mul = [](const Expr &e) {
      return e.is(Expr::Kind::binary) && e.binary == BinaryOp::mul;
    };
    for (size_t i = 0; i < 2; ++i)
      if (is_mul(v.args[i]) && v.args[1 - i].is(Expr::Kind::load)) {
        v = kb::fma(v.args[i].args[0], v.args[i].args[1], v.args[1 - i]);
        return;
      }
  }

  bool group(const std::vector<Stmt> &stmts, bool in_reduce, std::vector<Stmt> &out) {
    std::vector<Stmt> vectors;
    for (const Stmt &s : stmts) {
      auto v = vector_stmt(s, context_);
      if (!v)
        return false;
      vectors.push_back(std::move(*v));
    }
    std::vector<Hoisted> columns, scalars;
    for (Stmt &s : vectors) {
      if (in_reduce)
        contract(s);
      hoist_operands(s.value, columns, scalars);
    }
    for (const Hoisted &h : columns) {
      out.push_back(
          kb::alloc(h.name, h.value.dtype, column_count(), h.value.lanes, MemorySpace::reg));
      append(out, over_columns(wrap(kb::store(h.name, column_index(), h.value))));
      if (in_reduce)
        prefetch(h.value, out);
    }
    std::vector<Stmt> row = over_columns(std::move(vectors)), lets;
    for (const Hoisted &h : scalars)
      lets.push_back(kb::let(h.name, h.value));
    append(lets, std::move(row));
    append(out, over_rows(std::move(lets)));
    return true;
  }

  // Weights, or what was laid in panels for this product before a loop.
  bool is_packed(const KernelBuffer &b) const { return b.constant || (nest_.panel && b.access == Access::in); }

  // Weights stream through once for each tile: ask for them some steps ahead.
  void prefetch(const Expr &e, std::vector<Stmt> &out) const {
    if (shape_.prefetch_steps == 0 || prefetch_loop_.empty() || !e.is(Expr::Kind::load))
      return;
    const KernelBuffer *b = kernel_.find_buffer(e.name);
    if (!b || !is_packed(*b) || !e.index.depends_on(prefetch_loop_))
      return;
    Dim ahead = e.index.substitute(prefetch_loop_,
                                   Dim::symbol(prefetch_loop_) + Dim(shape_.prefetch_steps));
    // One line holds the vectors of a panel; without panels every vector is taken to be a line.
    std::vector<Stmt> ask;
    if (nest_.panel) {
      ask = wrap(kb::prefetch(e.name, ahead.substitute(context_.var, 0), 1));
      if (!panel_var_.empty())
        ask = wrap(kb::loop(panel_var_, 0, panel_count_, LoopKind::unroll, std::move(ask)));
    } else {
      ask = wrap(kb::prefetch(e.name, ahead, 1));
      if (!vector_var_.empty())
        ask = wrap(kb::loop(vector_var_, 0, vector_count_, LoopKind::unroll, std::move(ask)));
    }
    append(out, std::move(ask));
  }

  // Of the operands that all rows share and that are constant, for so many steps.
  std::vector<Stmt> next_group_prefetches(const std::vector<Stmt> &body, int64_t steps) const {
    std::vector<Stmt> out;
    if (!shape_.prefetch_next || (cut_ && !adding_))
      return out;
    TilePlace place;
    place.cut = cut_ ? &*cut_ : nullptr;
    place.tile = tile_;
    place.row_tiles = nest_.row ? 0 : 1;
    for (const TilePiece &p : shape_.rows)
      if (auto n = p.count.try_const())
        place.row_tiles += *n;
      else
        return out;
    place.next_panel = column_.first + Dim(column_.size);
    place.panels = panel_count_;
    place.reductions = reductions_;
    visit_exprs(body, [&](const Expr &e) {
      const KernelBuffer *b = e.is(Expr::Kind::load) ? kernel_.find_buffer(e.name) : nullptr;
      if (b && is_packed(*b) && e.index.depends_on(context_.var) && !varies_by_row(e))
        append(out, prefetch_next_group(e, nest_, steps, place));
    });
    return out;
  }

  TileNest nest_;
  const TileShape &shape_;
  const Kernel &kernel_;
  DimRanges ranges_;
  Names &names_;
  std::unordered_set<Symbol> stored_;

  TilePiece column_, rows_;
  int64_t panel_count_ = 1, vector_count_ = 1;
  Symbol first_panel_, tile_, row_var_, panel_var_, vector_var_, prefetch_loop_;
  VectorContext context_;
  std::vector<Stmt> reductions_;
  std::optional<DepthCut> cut_;
  bool adding_ = false; // the tiles that add a piece
  bool asks_for_next_ = false; // the groups for the panels of the next one
};

} // namespace

std::optional<Stmt> emit_tile_nest(const TileNest &nest, const TileShape &shape,
                                   const Kernel &kernel, const DimRanges &ranges, Names &names) {
  if (shape.columns.empty() || (nest.row && shape.rows.empty()))
    return std::nullopt;
  return TileEmitter(nest, shape, kernel, ranges, names).run();
}

} // namespace kiln
