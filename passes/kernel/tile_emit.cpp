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
#include "passes/kernel/tile_frame.h"
#include "passes/kernel/tile_operands.h"
#include "passes/kernel/tile_prefetch.h"
#include "passes/kernel/tile_reductions.h"

#include <algorithm>
#include <functional>

namespace kiln {
namespace {

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
    operands_of_group(group, out);
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
    std::vector<Stmt> piece;
    operands_of_group(group, piece);
    adding_ = true;
    if (!tiles(nest_.body, piece))
      return false;
    adding_ = false;
    out.push_back(kb::loop(cut_->piece, 0, cut_->pieces(), LoopKind::serial, std::move(piece)));
    return tiles(std::move(finish), out);
  }

  // Has the body read copies of what lies across the vector loop, and what all rows share computed once.
  void operands_of_group(Symbol group, std::vector<Stmt> &out) {
    const DepthCut *cut = cut_ ? &*cut_ : nullptr;
    append(out, pack_operands(nest_, shape_.packed_width, group, cut, names_));
    first_panel_ = names_.fresh("first");
    append(out, make_operands(nest_, shape_.columns, group, first_panel_, cut, names_));
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
    columns_ = piece;
    // The lanes of an end are a number then.
    if (!piece.masked || !piece.count.is_const(1) || !nest_.packed.empty())
      columns_.first += (Dim::symbol(group) - before) * Dim(piece.size);
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
    frame_ = TileFrame(nest_, shape_, rows, columns_, names_);
    std::vector<Stmt> body = nest_.body;
    if (nest_.row && !rows.border)
      plain_bounds(body);
    rename_declarations(body, names_);
    context_ = VectorContext();
    context_.var = nest_.vector_loop().name;
    context_.lanes = nest_.lanes;
    if (columns_.masked)
      context_.count = nest_.vector_loop().end - Dim::symbol(context_.var);
    context_.may_overread = [this](const Expr &e) { return may_overread(e); };
    append(out, prefetch_added(body, nest_, shape_, kernel_, frame_));
    if (!statements(body, false, out))
      return false;
    substitute(out, [&](Symbol s) -> std::optional<Dim> {
      if (s == first_panel_)
        return columns_.first;
      if (cut_ && s == cut_->first_column)
        return frame_.first_column(nest_);
      return frame_.position(nest_, s);
    });
    return true;
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

  bool statements(const std::vector<Stmt> &body, bool in_reduce, std::vector<Stmt> &out) {
    for (size_t i = 0; i < body.size();) {
      const Stmt &s = body[i];
      if (s.is(Stmt::Kind::alloc)) {
        out.push_back(
            kb::alloc(s.name, s.dtype, frame_.rows.size * frame_.column_count(), nest_.lanes, MemorySpace::reg));
        context_.tiles[s.name] = TileSlot{frame_.slot()};
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
    bool short_loop = trips.is_const() && trips.as_const() <= (frame_.rows.size > 1 ? kUnrollWhole : 2 * kUnrollWhole);
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
      if (!row && frame_.rows.size > 1 && (column || frame_.column_count() == 1)) {
        Symbol name = hoist(columns, e, "col", names_);
        e = kb::load(name, e.dtype, frame_.column(), e.lanes);
        return;
      }
      if (!column && frame_.column_count() > 1) {
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
          kb::alloc(h.name, h.value.dtype, frame_.column_count(), h.value.lanes, MemorySpace::reg));
      append(out, frame_.over_columns(wrap(kb::store(h.name, frame_.column(), h.value))));
      if (in_reduce && !prefetch_loop_.empty())
        append(out, prefetch_ahead(h.value, prefetch_loop_, nest_, shape_, kernel_, frame_));
    }
    std::vector<Stmt> row = frame_.over_columns(std::move(vectors)), lets;
    for (const Hoisted &h : scalars)
      lets.push_back(kb::let(h.name, h.value));
    append(lets, std::move(row));
    append(out, frame_.over_rows(std::move(lets)));
    return true;
  }

  // Of the operands that all rows share and that are constant, for so many steps.
  std::vector<Stmt> next_group_prefetches(const std::vector<Stmt> &body, int64_t steps) const {
    std::vector<Stmt> out;
    auto row_tiles = nest_.row ? total(shape_.rows).try_const() : 1;
    if (!shape_.prefetch_next || (cut_ && !adding_) || !row_tiles)
      return out;
    TilePlace place;
    place.cut = cut_ ? &*cut_ : nullptr;
    place.tile = tile_;
    place.row_tiles = *row_tiles;
    place.next_panel = columns_.first + Dim(columns_.size);
    place.panels = frame_.panels;
    place.reductions = reductions_;
    visit_exprs(body, [&](const Expr &e) {
      if (is_packed(e, nest_, kernel_) && e.index.depends_on(context_.var) && !varies_by_row(e))
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

  TilePiece columns_; // `first`: this group's
  TileFrame frame_;
  Symbol first_panel_, tile_, prefetch_loop_;
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
