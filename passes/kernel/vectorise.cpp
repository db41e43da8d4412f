// Vectors along the innermost loops that no register tile took.
//
// A parallel loop runs `lanes` iterations at once; the rest of it is one masked vector where masks
// are cheap, else shorter vectors and single elements. A reduction keeps several vectors of partial
// results, combined in a fixed order at the end:
//
//   for r in 0..R reduce { m[0] = max(m[0], x[r]) }
//   =>  v[0..4] = -inf;  for r step 4*16 { v[u] = max(v[u], x[r + 16*u; x16]) } ...
//       m[0] = max(m[0], reduce(max, max(max(v[0], v[2]), max(v[1], v[3]))))
#include "passes/kernel/schedule.h"
#include "passes/kernel/vector_expr.h"

#include <limits>

namespace kiln {
namespace {

constexpr int kAccumulators = 4;
constexpr int64_t kMaxColumnElements = 16384; // of a local buffer once each element is a vector

struct Accumulation {
  Symbol buffer;
  DType dtype;
  BinaryOp op;
  Expr term;
  bool skips_nan = false; // acc < term ? term : acc
};

// A step of it.
Expr accumulated(const Accumulation &a, Expr self, Expr term) {
  if (a.skips_nan) {
    Expr less = kb::lt(self, term);
    return kb::select(std::move(less), std::move(term), std::move(self));
  }
  return kb::binary(a.op, std::move(self), std::move(term));
}

std::optional<Expr> neutral(BinaryOp op, DType d) {
  if (is_float(d)) {
    constexpr double kInf = std::numeric_limits<double>::infinity();
    switch (op) {
    case BinaryOp::add:
      return kb::number(d, -0.0);
    case BinaryOp::mul:
      return kb::number(d, 1);
    case BinaryOp::min:
      return kb::number(d, kInf);
    case BinaryOp::max:
      return kb::number(d, -kInf);
    default:
      return std::nullopt;
    }
  }
  int bits = dtype_bits(d);
  int64_t lowest = is_signed_int(d) ? int64_t(~uint64_t(0) << (bits - 1)) : 0;
  int64_t highest = is_signed_int(d) ? ~lowest
                    : bits == 64     ? -1
                                     : int64_t((uint64_t(1) << bits) - 1);
  switch (op) {
  case BinaryOp::add:
    return kb::integer(d, 0);
  case BinaryOp::mul:
    return kb::integer(d, 1);
  case BinaryOp::min:
    return kb::integer(d, highest);
  case BinaryOp::max:
    return kb::integer(d, lowest);
  case BinaryOp::bit_or:
    return kb::integer(d, 0);
  case BinaryOp::bit_and:
    return kb::integer(d, is_bool(d) ? 1 : -1);
  default:
    return std::nullopt;
  }
}

class Vectoriser {
public:
  Vectoriser(Kernel &kernel, const MachineDesc &machine)
      : kernel_(kernel), machine_(machine), names_(kernel) {}

  bool run() {
    body(kernel_.body);
    return changed_;
  }

private:
  static bool has_loops(const std::vector<Stmt> &body) {
    bool found = false;
    visit_stmts(body, [&](const Stmt &s) {
      found = found || s.is(Stmt::Kind::loop) || s.is(Stmt::Kind::while_) || s.is(Stmt::Kind::if_);
    });
    return found;
  }

  void body(std::vector<Stmt> &stmts) {
    std::vector<Stmt> out;
    for (Stmt &s : stmts) {
      if (s.is(Stmt::Kind::alloc) && s.size == 1 && s.lanes == 1)
        scalars_.insert(s.name);
      std::optional<std::vector<Stmt>> now;
      if (s.is(Stmt::Kind::loop) && s.step == 1) {
        if (s.loop == LoopKind::parallel)
          now = has_loops(s.body) ? columns(s) : elementwise(s);
        else if (s.loop == LoopKind::reduce)
          now = reduction(s);
      }
      if (now) {
        changed_ = true;
        out.insert(out.end(), std::make_move_iterator(now->begin()),
                   std::make_move_iterator(now->end()));
        continue;
      }
      body(s.body);
      body(s.other);
      out.push_back(std::move(s));
    }
    stmts = std::move(out);
  }

  // As many lanes as fit a register, but no more than the loop has iterations.
  int lanes_for(const Stmt &loop) const {
    int lanes = machine_.vector_bytes / widest_bytes(loop.body, loop.name);
    if (auto trips = trip_count(loop).try_const())
      while (lanes > 1 && (machine_.has_masks ? lanes / 2 >= *trips : lanes > *trips))
        lanes /= 2;
    return lanes;
  }

  // --- elementwise ------------------------------------------------------------------------------

  // Scattered accesses are no faster in vectors unless much is computed between them.
  static bool worth_it(const std::vector<Stmt> &body, Symbol var) {
    int strided = 0, contiguous = 0, work = 0;
    auto count = [&](const Dim &index) {
      auto step = index.coefficient_of(var);
      if (!step || !(step->is_const(0) || step->is_const(1)))
        ++strided;
      else if (step->is_const(1))
        ++contiguous;
    };
    visit_stmts(body, [&](const Stmt &s) {
      if (s.is(Stmt::Kind::store))
        count(s.index);
    });
    visit_exprs(body, [&](const Expr &e) {
      if (e.is(Expr::Kind::load))
        count(e.index);
      if (e.is(Expr::Kind::unary) && !is_primitive(e.unary))
        work += 8;
      if (e.is(Expr::Kind::binary) && !is_primitive(e.binary))
        work += 8;
      ++work;
    });
    return contiguous > 0 && (strided == 0 || contiguous + work / 4 > strided);
  }

  std::optional<std::vector<Stmt>> vector_body(const Stmt &loop, int lanes, bool masked) {
    VectorContext context;
    context.var = loop.name;
    context.lanes = lanes;
    if (masked)
      context.count = loop.end - Dim::symbol(loop.name);
    std::vector<Stmt> out;
    for (const Stmt &s : loop.body) {
      auto v = vector_stmt(s, context);
      if (!v)
        return std::nullopt;
      out.push_back(std::move(*v));
    }
    return out;
  }

  std::optional<std::vector<Stmt>> elementwise(const Stmt &loop) {
    int lanes = lanes_for(loop);
    if (lanes < 2 || !worth_it(loop.body, loop.name))
      return std::nullopt;
    auto whole = vector_body(loop, lanes, false);
    if (!whole)
      return std::nullopt;
    std::vector<Stmt> out;
    Dim trips = trip_count(loop);
    Dim split = loop.begin + floordiv(trips, lanes) * Dim(lanes);
    out.push_back(
        kb::loop(loop.name, loop.begin, split, LoopKind::parallel, std::move(*whole), lanes));
    if (split == loop.end)
      return out;
    if (machine_.has_masks) {
      auto tail = vector_body(loop, lanes, true);
      if (!tail)
        return std::nullopt;
      out.push_back(copy_loop(loop, split, loop.end, lanes, std::move(*tail)));
      return out;
    }
    auto rest = mod(trips, lanes).try_const();
    for (int half = lanes / 2; rest && half >= 2; half /= 2) {
      if (!(*rest & half))
        continue;
      out.push_back(
          copy_loop(loop, split, split + Dim(half), half, *vector_body(loop, half, false)));
      split += Dim(half);
    }
    if (!(split == loop.end))
      out.push_back(copy_loop(loop, split, loop.end, 1, loop.body));
    return out;
  }

  Stmt copy_loop(const Stmt &loop, const Dim &begin, const Dim &end, int step,
                 std::vector<Stmt> body_) {
    std::vector<Stmt> one;
    one.push_back(kb::loop(loop.name, begin, end, loop.loop, std::move(body_), step));
    rename_declarations(one, names_);
    return std::move(one[0]);
  }

  // --- whole columns ----------------------------------------------------------------------------

  // A parallel loop along which everything is contiguous, loops and local buffers inside it: each
  // lane runs the whole body. (Normalisation over the pixels of a block of channels.)
  std::optional<std::vector<Stmt>> columns(const Stmt &loop) {
    bool contiguous = true, found = false;
    std::unordered_set<Symbol> local;
    visit_stmts(loop.body, [&](const Stmt &s) {
      if (s.is(Stmt::Kind::alloc))
        local.insert(s.name);
    });
    auto look = [&](Symbol name, const Dim &index) {
      if (local.count(name))
        return;
      auto step = index.coefficient_of(loop.name);
      contiguous = contiguous && step && (step->is_const(0) || step->is_const(1));
      found |= step && step->is_const(1);
    };
    visit_stmts(loop.body, [&](const Stmt &s) {
      if (s.is(Stmt::Kind::store))
        look(s.name, s.index);
    });
    visit_exprs(loop.body, [&](const Expr &e) {
      if (e.is(Expr::Kind::load))
        look(e.name, e.index);
    });
    int lanes = lanes_for(loop);
    if (!contiguous || !found || lanes < 2)
      return std::nullopt;
    Dim trips = trip_count(loop), split = loop.begin + floordiv(trips, lanes) * Dim(lanes);
    std::vector<Stmt> out;
    auto emit = [&](const Dim &begin, const Dim &end, bool masked) {
      VectorContext context;
      context.var = loop.name;
      context.lanes = lanes;
      if (masked)
        context.count = loop.end - Dim::symbol(loop.name);
      std::vector<Stmt> inside;
      if (!column_body(loop.body, context, inside))
        return false;
      out.push_back(copy_loop(loop, begin, end, lanes, std::move(inside)));
      return true;
    };
    if (!emit(loop.begin, split, false))
      return std::nullopt;
    if (split == loop.end)
      return out;
    if (machine_.has_masks) {
      if (!emit(split, loop.end, true))
        return std::nullopt;
    } else {
      out.push_back(copy_loop(loop, split, loop.end, 1, loop.body));
    }
    return out;
  }

  bool column_body(const std::vector<Stmt> &stmts, VectorContext &context, std::vector<Stmt> &out) {
    for (const Stmt &s : stmts) {
      switch (s.kind) {
      case Stmt::Kind::alloc: {
        if (s.lanes != 1 || s.size * context.lanes > kMaxColumnElements)
          return false;
        Stmt wide = s;
        wide.lanes = context.lanes;
        out.push_back(std::move(wide));
        context.tiles[s.name] = TileSlot{0, true};
        break;
      }
      case Stmt::Kind::loop: {
        if (s.begin.depends_on(context.var) || s.end.depends_on(context.var))
          return false;
        for (Symbol v : context.vector_lets)
          if (s.begin.depends_on(v) || s.end.depends_on(v))
            return false;
        Stmt l = s;
        l.body.clear();
        if (!column_body(s.body, context, l.body))
          return false;
        out.push_back(std::move(l));
        break;
      }
      case Stmt::Kind::if_:
      case Stmt::Kind::while_:
        return false;
      default: {
        auto v = vector_stmt(s, context);
        if (!v)
          return false;
        out.push_back(std::move(*v));
      }
      }
    }
    return true;
  }

  // --- reductions -------------------------------------------------------------------------------

  std::optional<Accumulation> match(const Stmt &s) const {
    if (!s.is(Stmt::Kind::store) || !scalars_.count(s.name))
      return std::nullopt;
    if (s.value.is(Expr::Kind::select))
      return match_maximum(s);
    if (!s.value.is(Expr::Kind::binary))
      return std::nullopt;
    for (size_t i = 0; i < 2; ++i) {
      const Expr &self = s.value.args[i], &term = s.value.args[1 - i];
      if (!self.is(Expr::Kind::load) || self.name != s.name ||
          !neutral(s.value.binary, s.value.dtype))
        continue;
      bool clean = true;
      visit_exprs(term, [&](const Expr &e) {
        clean = clean && !(e.is(Expr::Kind::load) && scalars_.count(e.name) && e.name == s.name);
      });
      if (clean)
        return Accumulation{s.name, s.value.dtype, s.value.binary, term};
    }
    return std::nullopt;
  }

  // acc = acc < term ? term : acc, which NaN leaves as it is.
  static std::optional<Accumulation> match_maximum(const Stmt &s) {
    const Expr &test = s.value.args[0], &term = s.value.args[1], &self = s.value.args[2];
    bool greater = test.is(Expr::Kind::binary) && test.binary == BinaryOp::lt && test.args[0] == self &&
                   test.args[1] == term && is_float(s.value.dtype);
    if (!greater || !self.is(Expr::Kind::load) || self.name != s.name || !term.is(Expr::Kind::load) || term.name == s.name)
      return std::nullopt;
    return Accumulation{s.name, s.value.dtype, BinaryOp::max, term, true};
  }

  static bool contiguous(const std::vector<Stmt> &body, Symbol var) {
    bool unit = false, ok = true;
    visit_exprs(body, [&](const Expr &e) {
      if (!e.is(Expr::Kind::load) || !e.index.depends_on(var))
        return;
      auto step = e.index.coefficient_of(var);
      ok = ok && step && (step->is_const(0) || step->is_const(1));
      unit |= step && step->is_const(1);
    });
    return unit && ok;
  }

  // `outer` is a perfect nest of reductions; its innermost loop becomes vectors.
  std::optional<std::vector<Stmt>> reduction(const Stmt &outer) {
    std::vector<const Stmt *> loops{&outer};
    while (loops.back()->body.size() == 1 && is_loop(loops.back()->body[0], LoopKind::reduce))
      loops.push_back(&loops.back()->body[0]);
    const Stmt &loop = *loops.back();
    if (loop.step != 1 || has_loops(loop.body) || !contiguous(loop.body, loop.name))
      return std::nullopt;
    int lanes = lanes_for(loop);
    if (lanes < 2)
      return std::nullopt;

    std::vector<Accumulation> sums;
    for (const Stmt &s : loop.body) {
      if (s.is(Stmt::Kind::let) && !(s.dtype == DType::i64 && s.lanes == 1))
        continue;
      auto a = match(s);
      if (!a)
        return std::nullopt;
      for (const Accumulation &other : sums)
        if (other.buffer == a->buffer)
          return std::nullopt;
      sums.push_back(std::move(*a));
    }
    if (sums.empty())
      return std::nullopt;
    // A term may not read another accumulator of the loop.
    for (const Accumulation &a : sums)
      for (const Accumulation &b : sums) {
        bool reads = false;
        visit_exprs(a.term, [&](const Expr &e) {
          reads = reads || (e.is(Expr::Kind::load) && e.name == b.buffer);
        });
        if (reads)
          return std::nullopt;
      }

    Dim trips = trip_count(loop);
    auto known = trips.try_const();
    int unroll =
        known && *known < 2 * kAccumulators * lanes ? (*known >= 4 * lanes ? 2 : 1) : kAccumulators;
    Symbol u = names_.fresh("u");
    std::vector<Symbol> tiles;
    for (const Accumulation &a : sums)
      tiles.push_back(names_.fresh(a.buffer.text()));

    // The steps of one vector into slot `slot`.
    auto step = [&](const Dim &at, const Dim &slot,
                    bool masked) -> std::optional<std::vector<Stmt>> {
      return reduction_step(loop, sums, tiles, lanes, at, slot, masked);
    };
    Dim width = Dim(int64_t(unroll) * lanes), var = Dim::symbol(loop.name);
    Dim main_end = loop.begin + floordiv(trips, width) * width;
    Dim vector_end = loop.begin + floordiv(trips, lanes) * Dim(lanes);
    auto main = step(var + Dim::symbol(u) * Dim(lanes), Dim::symbol(u), false);
    auto single = step(var, 0, false);
    auto masked = step(var, 0, true);
    if (!main || !single || !masked)
      return std::nullopt;

    std::vector<Stmt> inner;
    std::vector<Stmt> unrolled;
    unrolled.push_back(kb::loop(u, 0, unroll, LoopKind::unroll, std::move(*main)));
    inner.push_back(kb::loop(loop.name, loop.begin, main_end, LoopKind::serial, std::move(unrolled),
                             int64_t(unroll) * lanes));
    if (!(main_end == vector_end))
      inner.push_back(copy_serial(loop.name, main_end, vector_end, lanes, std::move(*single)));
    if (!(vector_end == loop.end)) {
      if (machine_.has_masks)
        inner.push_back(copy_serial(loop.name, vector_end, loop.end, lanes, std::move(*masked)));
      else
        inner.push_back(copy_serial(loop.name, vector_end, loop.end, 1, loop.body));
    }
    for (size_t i = loops.size() - 1; i-- > 0;) {
      Stmt l = *loops[i];
      l.loop = LoopKind::serial;
      l.body = std::move(inner);
      inner.clear();
      inner.push_back(std::move(l));
    }

    std::vector<Stmt> out;
    for (size_t i = 0; i < sums.size(); ++i) {
      out.push_back(kb::alloc(tiles[i], sums[i].dtype, unroll, lanes, MemorySpace::reg));
      Expr start = kb::broadcast(*neutral(sums[i].op, sums[i].dtype), lanes);
      std::vector<Stmt> fill;
      fill.push_back(kb::store(tiles[i], Dim::symbol(u), std::move(start)));
      out.push_back(copy_unroll(u, unroll, std::move(fill)));
    }
    out.insert(out.end(), std::make_move_iterator(inner.begin()),
               std::make_move_iterator(inner.end()));
    for (size_t i = 0; i < sums.size(); ++i) {
      const Accumulation &a = sums[i];
      Expr all = combined(tiles[i], a, lanes, 0, unroll);
      out.push_back(kb::store(
          a.buffer, 0,
          kb::binary(a.op, kb::load(a.buffer, a.dtype, 0), kb::reduce(a.op, std::move(all)))));
    }
    return out;
  }

  static Expr combined(Symbol tile, const Accumulation &a, int lanes, int begin, int end) {
    if (end - begin == 1)
      return kb::load(tile, a.dtype, begin, lanes);
    int middle = (begin + end) / 2;
    return accumulated(a, combined(tile, a, lanes, begin, middle),
                       combined(tile, a, lanes, middle, end));
  }

  Stmt copy_serial(Symbol var, const Dim &begin, const Dim &end, int64_t step,
                   std::vector<Stmt> body_) {
    std::vector<Stmt> one;
    one.push_back(kb::loop(var, begin, end, LoopKind::serial, std::move(body_), step));
    rename_declarations(one, names_);
    return std::move(one[0]);
  }
  Stmt copy_unroll(Symbol var, int64_t count, std::vector<Stmt> body_) {
    std::vector<Stmt> one;
    one.push_back(kb::loop(var, 0, count, LoopKind::unroll, std::move(body_)));
    rename_declarations(one, names_);
    return std::move(one[0]);
  }

  std::optional<std::vector<Stmt>> reduction_step(const Stmt &loop,
                                                  const std::vector<Accumulation> &sums,
                                                  const std::vector<Symbol> &tiles, int lanes,
                                                  const Dim &at, const Dim &slot, bool masked) {
    VectorContext context;
    context.var = loop.name;
    context.lanes = lanes;
    if (masked)
      context.count = loop.end - Dim::symbol(loop.name);
    std::vector<Stmt> out;
    for (const Stmt &s : loop.body) {
      if (s.is(Stmt::Kind::let)) {
        auto v = vector_stmt(s, context);
        if (!v)
          return std::nullopt;
        out.push_back(std::move(*v));
        continue;
      }
      size_t i = 0;
      while (sums[i].buffer != s.name)
        ++i;
      const Accumulation &a = sums[i];
      auto term = vector_expr(a.term, context);
      if (!term)
        return std::nullopt;
      if (masked)
        term = kb::select(lane_mask(context), *term, kb::broadcast(*neutral(a.op, a.dtype), lanes));
      Expr self = kb::load(tiles[i], a.dtype, slot, lanes);
      bool contract = a.op == BinaryOp::add && is_float(a.dtype) && term->is(Expr::Kind::binary) &&
                      term->binary == BinaryOp::mul;
      Expr value = contract ? kb::fma(term->args[0], term->args[1], std::move(self))
                            : accumulated(a, std::move(self), std::move(*term));
      out.push_back(kb::store(tiles[i], slot, std::move(value)));
    }
    // Only what the loop's variable indexes moves; the slot is a Dim of its own.
    std::vector<Stmt> moved = std::move(out);
    if (!(at == Dim::symbol(loop.name)))
      substitute(moved, loop.name, at);
    return moved;
  }

  Kernel &kernel_;
  const MachineDesc &machine_;
  Names names_;
  std::unordered_set<Symbol> scalars_;
  bool changed_ = false;
};

} // namespace

bool vectorise(Kernel &kernel, const MachineDesc &machine) {
  return Vectoriser(kernel, machine).run();
}

} // namespace kiln
