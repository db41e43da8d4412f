#include "passes/kernel/vector_expr.h"

#include "ir/kernel/dot.h"

#include <algorithm>

namespace kiln {

namespace {

bool varies(const Dim &d, const VectorContext &c) {
  return d.depends_on(c.var) || std::any_of(c.vector_lets.begin(), c.vector_lets.end(),
                                            [&](Symbol s) { return d.depends_on(s); });
}

} // namespace

bool is_uniform(const Expr &e, const VectorContext &c) {
  if (e.is(Expr::Kind::var) && c.vector_lets.count(e.name))
    return false;
  if (e.is(Expr::Kind::load) && c.tiles.count(e.name))
    return false;
  if (e.is(Expr::Kind::index) || e.is(Expr::Kind::load)) {
    if (varies(e.index, c) || varies(e.stride, c) || (e.count && varies(*e.count, c)))
      return false;
  }
  return std::all_of(e.args.begin(), e.args.end(), [&](const Expr &a) { return is_uniform(a, c); });
}

Expr lane_mask(const VectorContext &c) {
  return kb::lt(kb::iota(DType::i32, c.lanes),
                kb::broadcast(kb::convert(DType::i32, kb::min(kb::index(*c.count),
                                                              kb::integer(DType::i64, c.lanes))),
                              c.lanes));
}

namespace {

// How far the value moves from lane to lane; nothing if that is not one number.
std::optional<Dim> lane_step(const Dim &d, const VectorContext &c) {
  for (Symbol s : c.vector_lets)
    if (d.depends_on(s))
      return std::nullopt;
  auto step = d.coefficient_of(c.var);
  if (!step || step->depends_on(c.var))
    return std::nullopt;
  return step;
}

Expr index_lanes(const Dim &base, const Dim &step, const VectorContext &c) {
  Expr lane = kb::iota(DType::i64, c.lanes);
  if (!step.is_const(1))
    lane = kb::mul(lane, kb::broadcast(kb::index(step), c.lanes));
  return kb::add(kb::broadcast(kb::index(base), c.lanes), lane);
}

// i64 offsets of an index in which some symbols are vectors: data-dependent rows of a gather.
std::optional<Expr> dim_lanes(const Dim &d, const VectorContext &c) {
  Expr sum = kb::integer(DType::i64, d.constant_part(), c.lanes);
  for (const DimTerm &term : d.terms()) {
    Expr product = kb::integer(DType::i64, term.coefficient, c.lanes);
    for (const DimAtom &factor : term.factors) {
      if (factor.kind != DimAtom::Kind::symbol)
        return std::nullopt;
      Dim symbol = Dim::symbol(factor.symbol);
      Expr value = factor.symbol == c.var ? index_lanes(symbol, 1, c)
                   : c.vector_lets.count(factor.symbol)
                       ? kb::var(factor.symbol, DType::i64, c.lanes)
                       : kb::broadcast(kb::index(symbol), c.lanes);
      bool one = product.is(Expr::Kind::number) && product.integer == 1;
      product = one ? value : kb::mul(product, value);
    }
    sum = kb::add(sum, product);
  }
  return sum;
}

// Lanes that do not exist read what lane 0 reads.
Expr masked_offsets(Expr offsets, const VectorContext &c) {
  if (!c.count)
    return offsets;
  Expr first = kb::broadcast(kb::extract(offsets, 0), c.lanes);
  return kb::select(lane_mask(c), offsets, first);
}

std::optional<Expr> vector_load(const Expr &e, const VectorContext &c) {
  if (auto tile = c.tiles.find(e.name); tile != c.tiles.end()) {
    const Dim &at = tile->second.own_index ? e.index : tile->second.index;
    if (varies(at, c))
      return std::nullopt;
    return kb::load(e.name, e.dtype, at, c.lanes);
  }
  if (!e.stride.is_const(1) || e.count)
    return std::nullopt;
  auto step = lane_step(e.index, c);
  if (!step) {
    auto offsets = dim_lanes(e.index, c);
    if (!offsets)
      return std::nullopt;
    return kb::gather(e.name, e.dtype, masked_offsets(*offsets, c));
  }
  Expr out = e;
  out.lanes = c.lanes;
  out.stride = *step;
  if (c.count && !(c.may_overread && c.may_overread(out)))
    out.count = *c.count;
  return out;
}

Expr joined(Expr a, Expr b) {
  Expr out;
  out.kind = Expr::Kind::concat;
  out.dtype = a.dtype;
  out.lanes = a.lanes + b.lanes;
  out.args = {std::move(a), std::move(b)};
  return out;
}

// Four vectors that lie one after the other, or further apart, element by element: [4][lanes] to
// [lanes][4].
Expr interleaved(const Expr &e, int lanes) {
  Expr all = e;
  all.lanes = 4 * lanes;
  all.stride = 1;
  if (!e.stride.is_const(lanes)) {
    std::vector<Expr> parts;
    for (int64_t k = 0; k < 4; ++k) {
      Expr part = e;
      part.lanes = lanes;
      part.stride = 1;
      part.index += e.stride * Dim(k);
      part.count.reset();
      bool there = !e.count || k < e.count->try_const().value_or(4);
      parts.push_back(there ? part : kb::integer(e.dtype, 0, lanes));
    }
    all = joined(joined(parts[0], parts[1]), joined(parts[2], parts[3]));
  } else if (e.count) {
    all.count = *e.count * Dim(lanes);
  }
  Expr out;
  out.kind = Expr::Kind::shuffle;
  out.dtype = e.dtype;
  out.lanes = 4 * lanes;
  for (int i = 0; i < lanes; ++i)
    for (int k = 0; k < 4; ++k)
      out.lanes_map.push_back(k * lanes + i);
  Expr none = kb::integer(e.dtype, 0, 4 * lanes);
  out.args = {std::move(all), std::move(none)};
  return out;
}

// The operand of a dot: `width` elements for each lane, where they lie one after the other; or the
// same few for all.
std::optional<Expr> dot_lanes(const Expr &e, int width, const VectorContext &c) {
  if (is_uniform(e, c))
    return e;
  auto step = e.is(Expr::Kind::load) && !c.tiles.count(e.name) ? lane_step(e.index, c) : std::nullopt;
  bool window = !e.stride.is_const(1) && e.stride.is_const() && (!e.count || e.count->is_const());
  if (width == 4 && step && step->is_const(1) && window && !c.count)
    return interleaved(e, c.lanes);
  if (!step || !step->is_const(width) || !e.stride.is_const(1) || e.count)
    return std::nullopt;
  Expr out = e;
  out.lanes = width * c.lanes;
  if (c.count && !(c.may_overread && c.may_overread(out)))
    out.count = *c.count * Dim(width);
  return out;
}

} // namespace

std::optional<Expr> vector_expr(const Expr &e, const VectorContext &c) {
  if (e.lanes != 1)
    return std::nullopt;
  if (is_uniform(e, c))
    return kb::broadcast(e, c.lanes);
  if (int width = dot_width(e)) {
    auto a = dot_lanes(e.args[0], width, c), b = dot_lanes(e.args[1], width, c);
    auto sum = vector_expr(e.args[2], c);
    if (!sum || !a || !b)
      return std::nullopt;
    return kb::fma(std::move(*a), std::move(*b), std::move(*sum));
  }
  switch (e.kind) {
  case Expr::Kind::index: {
    auto step = lane_step(e.index, c);
    return step ? std::optional(index_lanes(e.index, *step, c)) : dim_lanes(e.index, c);
  }
  case Expr::Kind::load:
    return vector_load(e, c);
  case Expr::Kind::number:
  case Expr::Kind::var:
  case Expr::Kind::unary:
  case Expr::Kind::binary:
  case Expr::Kind::select:
  case Expr::Kind::convert:
  case Expr::Kind::bitcast:
  case Expr::Kind::fma:
  case Expr::Kind::gather: {
    Expr out = e;
    out.lanes = c.lanes;
    for (Expr &a : out.args) {
      auto v = vector_expr(a, c);
      if (!v)
        return std::nullopt;
      a = std::move(*v);
    }
    bool divides = e.is(Expr::Kind::binary) && !is_float(e.dtype) &&
                   (e.binary == BinaryOp::div || e.binary == BinaryOp::rem);
    if (divides && c.count)
      out.args[1] = kb::select(lane_mask(c), out.args[1], kb::integer(e.dtype, 1, c.lanes));
    if (e.is(Expr::Kind::gather))
      out.args[0] = masked_offsets(out.args[0], c);
    return out;
  }
  default:
    return std::nullopt;
  }
}

std::optional<Stmt> vector_stmt(const Stmt &s, VectorContext &c) {
  switch (s.kind) {
  case Stmt::Kind::let: {
    if (is_uniform(s.value, c))
      return s;
    auto value = vector_expr(s.value, c);
    if (!value)
      return std::nullopt;
    c.vector_lets.insert(s.name);
    return kb::let(s.name, std::move(*value));
  }
  case Stmt::Kind::store: {
    auto value = vector_expr(s.value, c);
    if (!value || !s.stride.is_const(1) || s.count)
      return std::nullopt;
    if (auto tile = c.tiles.find(s.name); tile != c.tiles.end()) {
      const Dim &at = tile->second.own_index ? s.index : tile->second.index;
      return varies(at, c) ? std::nullopt : std::optional(kb::store(s.name, at, std::move(*value)));
    }
    auto step = lane_step(s.index, c);
    if (!step || step->is_const(0))
      return std::nullopt;
    Stmt out = kb::store(s.name, s.index, std::move(*value));
    out.stride = *step;
    out.count = c.count;
    return out;
  }
  case Stmt::Kind::assert_: {
    auto value = vector_expr(s.value, c);
    if (!value)
      return std::nullopt;
    if (c.count)
      value = kb::logical_or(*value, kb::logical_not(lane_mask(c)));
    return kb::assert_(std::move(*value), int(s.integer));
  }
  default:
    return std::nullopt;
  }
}

int widest_bytes(const std::vector<Stmt> &body, Symbol var) {
  VectorContext context;
  context.var = var;
  visit_stmts(body, [&](const Stmt &s) {
    if (s.is(Stmt::Kind::let) && !is_uniform(s.value, context))
      context.vector_lets.insert(s.name);
  });
  int widest = 1;
  visit_exprs(body, [&](const Expr &e) {
    if (!e.is(Expr::Kind::index) && !is_uniform(e, context))
      widest = std::max(widest, int(dtype_bytes(e.dtype)));
  });
  visit_stmts(body, [&](const Stmt &s) {
    if (s.is(Stmt::Kind::store))
      widest = std::max(widest, int(dtype_bytes(s.value.dtype)));
  });
  return widest;
}

} // namespace kiln
