// Elementwise nests that read along one loop and write along another move whole squares through
// registers: L vectors are loaded along the one, transposed by log2 L rounds of shuffles, and stored
// along the other.
//
//   for c parallel { for r parallel { y[c*R + r] = x[r*C + c] } }
//   =>  for c step 16 { for r step 16 { a[0..16] = x[(r + i)*C + c; x16]; 4 rounds a <-> b;
//                                       y[(c + i)*R + r; x16] = a[i] } }
#include "passes/kernel/schedule.h"
#include "passes/kernel/vector_expr.h"

#include <algorithm>
#include <bit>

namespace kiln {
namespace {

struct Square {
  std::vector<Stmt> loops; // all of the nest, outermost first, without bodies
  std::vector<Stmt> body;
  size_t across = 0; // the loop along which the transposed loads are contiguous
  std::vector<Expr> transposed;
};

bool is_unit(const Dim &index, Symbol var) {
  auto step = index.coefficient_of(var);
  return step && step->is_const(1);
}

bool reads_anywhere(const std::vector<Expr> &list, const Expr &e) {
  return std::find(list.begin(), list.end(), e) != list.end();
}

std::optional<Square> find_square(const Stmt &outermost) {
  Square q;
  const Stmt *at = &outermost;
  while (true) {
    if (at->step != 1)
      return std::nullopt;
    Stmt loop = *at;
    loop.body.clear();
    q.loops.push_back(std::move(loop));
    if (at->body.size() != 1 || !is_loop(at->body[0], LoopKind::parallel))
      break;
    at = &at->body[0];
  }
  if (q.loops.size() < 2)
    return std::nullopt;
  q.body = at->body;
  Symbol inner = q.loops.back().name;
  for (const Stmt &s : q.body)
    if (!s.is(Stmt::Kind::store) || !is_unit(s.index, inner) || s.value.lanes != 1)
      return std::nullopt;
  for (const Stmt &l : q.loops)
    for (const Stmt &other : q.loops)
      if (l.begin.depends_on(other.name) || l.end.depends_on(other.name))
        return std::nullopt;
  bool ok = true;
  std::optional<size_t> across;
  visit_exprs(q.body, [&](const Expr &e) {
    ok = ok && !e.is(Expr::Kind::gather);
    if (!e.is(Expr::Kind::load))
      return;
    auto step = e.index.coefficient_of(inner);
    ok = ok && step && !step->depends_on(inner);
    if (!ok || step->is_const(0) || step->is_const(1))
      return;
    std::optional<size_t> along;
    for (size_t i = 0; i + 1 < q.loops.size(); ++i)
      if (is_unit(e.index, q.loops[i].name))
        along = i;
    ok = along && (!across || *across == *along);
    across = along;
    if (ok && !reads_anywhere(q.transposed, e))
      q.transposed.push_back(e);
  });
  if (!ok || !across)
    return std::nullopt;
  q.across = *across;
  for (const Stmt &s : q.body)
    for (const Expr &e : q.transposed)
      if (s.name == e.name)
        return std::nullopt;
  return q;
}

class Transposer {
public:
  Transposer(Kernel &kernel, const MachineDesc &machine)
      : kernel_(kernel), machine_(machine), names_(kernel) {}

  bool run() { return body(kernel_.body); }

private:
  bool body(std::vector<Stmt> &stmts) {
    bool changed = false;
    for (Stmt &s : stmts) {
      if (is_loop(s, LoopKind::parallel))
        if (auto q = find_square(s))
          if (auto out = emit(*q)) {
            s = std::move(*out);
            changed = true;
            continue;
          }
      changed |= body(s.body);
      changed |= body(s.other);
    }
    return changed;
  }

  std::optional<Stmt> emit(const Square &q) {
    const Stmt &inner = q.loops.back(), &across = q.loops[q.across];
    int widest = 1;
    for (const Stmt &s : q.body)
      widest = std::max(widest, int(dtype_bytes(s.value.dtype)));
    for (const Expr &e : q.transposed)
      widest = std::max(widest, int(dtype_bytes(e.dtype)));
    lanes_ = std::min(16, machine_.vector_bytes / widest);
    for (const Stmt *l : {&inner, &across})
      if (auto trips = trip_count(*l).try_const())
        while (lanes_ > 1 && lanes_ / 2 >= *trips)
          lanes_ /= 2;
    if (lanes_ < 4)
      return std::nullopt;

    Symbol x = names_.fresh(across.name.text()), y = names_.fresh(inner.name.text());
    // Whole squares, and along each edge what is left; masks, or the loops as they were.
    auto whole_x = floordiv(trip_count(across), lanes_),
         whole_y = floordiv(trip_count(inner), lanes_);
    bool exact =
        mod(trip_count(across), lanes_).is_const(0) && mod(trip_count(inner), lanes_).is_const(0);
    Dim base_x = across.begin + Dim::symbol(x) * Dim(lanes_),
        base_y = inner.begin + Dim::symbol(y) * Dim(lanes_);
    auto full = square(q, base_x, base_y, false);
    if (!full)
      return std::nullopt;
    std::vector<Stmt> tile = std::move(*full);
    Dim count_x = whole_x, count_y = whole_y;
    if (!exact) {
      count_x = ceildiv(trip_count(across), lanes_);
      count_y = ceildiv(trip_count(inner), lanes_);
      std::vector<Stmt> edge;
      if (machine_.has_masks) {
        auto masked = square(q, base_x, base_y, true);
        if (!masked)
          return std::nullopt;
        edge = std::move(*masked);
      } else {
        edge = scalar_edge(q, base_x, base_y);
      }
      Expr is_whole = kb::logical_and(kb::lt(kb::index(Dim::symbol(x)), kb::index(whole_x)),
                                      kb::lt(kb::index(Dim::symbol(y)), kb::index(whole_y)));
      std::vector<Stmt> chosen;
      chosen.push_back(kb::if_(std::move(is_whole), std::move(tile), std::move(edge)));
      tile = std::move(chosen);
    }
    std::vector<Stmt> out;
    out.push_back(kb::loop(y, 0, count_y, LoopKind::parallel, std::move(tile)));
    Stmt nest = kb::loop(x, 0, count_x, LoopKind::parallel, std::move(out));
    for (size_t i = q.loops.size() - 1; i-- > 0;) {
      if (i == q.across)
        continue;
      Stmt l = q.loops[i];
      l.body.clear();
      l.body.push_back(std::move(nest));
      nest = std::move(l);
    }
    return nest;
  }

  std::vector<Stmt> scalar_edge(const Square &q, const Dim &x, const Dim &y) {
    const Stmt &inner = q.loops.back(), &across = q.loops[q.across];
    std::vector<Stmt> out;
    out.push_back(
        kb::loop(inner.name, y, kiln::min(y + Dim(lanes_), inner.end), LoopKind::serial, q.body));
    Stmt outer = kb::loop(across.name, x, kiln::min(x + Dim(lanes_), across.end), LoopKind::serial,
                          std::move(out));
    std::vector<Stmt> one;
    one.push_back(std::move(outer));
    rename_declarations(one, names_);
    return one;
  }

  static Expr two_sources(Expr a, Expr b, std::vector<int> lanes_map) {
    Expr e;
    e.kind = Expr::Kind::shuffle;
    e.dtype = a.dtype;
    e.lanes = a.lanes;
    e.lanes_map = std::move(lanes_map);
    e.args = {std::move(a), std::move(b)};
    return e;
  }

  // Within each unit: groups of a and of b in turns, of its lower (half 0) or upper half. For units of four elements
  // and groups of one: a0 b0 a1 b1 a4 b4 a5 b5 and a2 b2 a3 b3 a6 b6 a7 b7.
  Expr interleave(Expr a, Expr b, int unit, int group, int half) const {
    std::vector<int> map;
    for (int begin = 0; begin < lanes_; begin += unit)
      for (int i = 0; i < unit; ++i) {
        int pair = i / (2 * group), of = (i / group) % 2;
        map.push_back(begin + half * unit / 2 + pair * group + i % group + of * lanes_);
      }
    return two_sources(std::move(a), std::move(b), std::move(map));
  }

  // The units of a and then those of b that are even (half 0) or odd.
  Expr every_second(Expr a, Expr b, int unit, int half) const {
    std::vector<int> map;
    for (int of : {0, lanes_})
      for (int begin = half * unit; begin < lanes_; begin += 2 * unit)
        for (int i = 0; i < unit; ++i)
          map.push_back(of + begin + i);
    return two_sources(std::move(a), std::move(b), std::move(map));
  }

  std::optional<std::vector<Stmt>> square(const Square &q, const Dim &x, const Dim &y,
                                          bool masked) {
    const Stmt &inner = q.loops.back(), &across = q.loops[q.across];
    std::vector<Stmt> out;
    std::vector<Stmt> stores = q.body;
    VectorContext context;
    context.var = inner.name;
    context.lanes = lanes_;
    if (masked)
      context.count = inner.end - Dim::symbol(inner.name);
    Symbol row = names_.fresh("i");
    for (const Expr &load : q.transposed) {
      Symbol tile = transposed_tile(load, q, x, y, masked, out);
      // vector_expr turns a load of the tile into that of the row's vector.
      Expr stand_in = kb::load(tile, load.dtype, 0);
      for (Stmt &s : stores)
        replace(s.value, load, stand_in);
      context.tiles[tile] = TileSlot{Dim::symbol(row)};
    }
    std::vector<Stmt> rows;
    for (const Stmt &s : stores) {
      auto v = vector_stmt(s, context);
      if (!v)
        return std::nullopt;
      rows.push_back(std::move(*v));
    }
    substitute(rows, [&](Symbol s) -> std::optional<Dim> {
      if (s == inner.name)
        return y;
      if (s == across.name)
        return x + Dim::symbol(row);
      return std::nullopt;
    });
    if (masked) {
      Expr exists = kb::lt(kb::index(x + Dim::symbol(row)), kb::index(across.end));
      std::vector<Stmt> guarded;
      guarded.push_back(kb::if_(std::move(exists), std::move(rows)));
      rows = std::move(guarded);
    }
    out.push_back(kb::loop(row, 0, lanes_, LoopKind::unroll, std::move(rows)));
    return out;
  }

  static void replace(Expr &e, const Expr &from, const Expr &to) {
    if (e == from) {
      e = to;
      return;
    }
    for (Expr &a : e.args)
      replace(a, from, to);
  }

  // Loads along `across`, one vector for each of the inner iterations, and rounds of shuffles, each of which exchanges a
  // bit of the vector's number for one of the lane's. Within units of 128 bits a processor interleaves two registers in
  // one instruction, and it picks units of two registers in one; so the rounds are of these two kinds.
  Symbol transposed_tile(const Expr &load, const Square &q, const Dim &x, const Dim &y, bool masked,
                         std::vector<Stmt> &out) {
    const Stmt &inner = q.loops.back(), &across = q.loops[q.across];
    Symbol tiles[2] = {names_.fresh("square"), names_.fresh("square")};
    for (Symbol t : tiles)
      out.push_back(kb::alloc(t, load.dtype, lanes_, lanes_, MemorySpace::reg));
    int unit = std::min(lanes_, 16 / int(dtype_bytes(load.dtype))), bits = std::countr_zero(unsigned(unit));
    Expr vector = load;
    vector.lanes = lanes_;
    if (masked)
      vector.count = across.end - x;
    // A loop for each bit of a line's number within a unit: the rounds leave these bits in reverse.
    std::vector<Stmt> fill;
    Dim number = 0, slot = 0;
    std::vector<std::pair<Symbol, Dim>> loops = {{names_.fresh("i"), lanes_ / unit}};
    number = slot = Dim::symbol(loops[0].first) * Dim(unit);
    for (int b = 0; b < bits; ++b) {
      Symbol bit = names_.fresh("i");
      loops.emplace_back(bit, 2);
      number += Dim::symbol(bit) * Dim(int64_t(1) << b);
      slot += Dim::symbol(bit) * Dim(int64_t(unit) >> (b + 1));
    }
    // Lines past the end are read again from the last one.
    Dim line = masked ? kiln::min(y + number, inner.end - Dim(1)) : y + number;
    vector.index = vector.index.substitute([&](Symbol s) -> std::optional<Dim> {
      if (s == across.name)
        return x;
      if (s == inner.name)
        return line;
      return std::nullopt;
    });
    fill.push_back(kb::store(tiles[0], slot, std::move(vector)));
    for (size_t i = loops.size(); i-- > 0;) {
      Stmt loop = kb::loop(loops[i].first, 0, loops[i].second, LoopKind::unroll, std::move(fill));
      fill.clear();
      fill.push_back(std::move(loop));
    }
    out.push_back(std::move(fill[0]));
    int from = 0;
    for (int round = 0; (1 << round) < lanes_; ++round, from = 1 - from) {
      bool inside = round < bits;
      int apart = 1 << (inside ? bits - 1 - round : round);
      Symbol k = names_.fresh("i"), l = names_.fresh("i");
      Dim low = Dim::symbol(k) * Dim(2 * apart) + Dim::symbol(l), high = low + Dim(apart);
      auto at = [&](const Dim &index) { return kb::load(tiles[from], load.dtype, index, lanes_); };
      std::vector<Stmt> pair;
      for (int half : {0, 1})
        pair.push_back(kb::store(tiles[1 - from], half ? high : low,
                                 inside ? interleave(at(low), at(high), unit, 1 << round, half)
                                        : every_second(at(low), at(high), unit, half)));
      std::vector<Stmt> pairs;
      pairs.push_back(kb::loop(l, 0, apart, LoopKind::unroll, std::move(pair)));
      out.push_back(kb::loop(k, 0, lanes_ / (2 * apart), LoopKind::unroll, std::move(pairs)));
    }
    return tiles[from];
  }

  Kernel &kernel_;
  const MachineDesc &machine_;
  Names names_;
  int lanes_ = 1;
};

} // namespace

bool transpose_tiles(Kernel &kernel, const MachineDesc &machine) {
  return Transposer(kernel, machine).run();
}

} // namespace kiln
