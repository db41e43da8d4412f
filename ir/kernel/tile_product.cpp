// Takes the form apart that tile_product.h shows. What a single row or column leaves out of it (the loop over
// columns, the let) may be missing.
#include "ir/kernel/tile_product.h"

#include "ir/kernel/dot.h"

namespace kiln {
namespace {

constexpr int kLanes = 16;
constexpr int64_t kGroupBytes = 4;

// Constant trips of an unrolled loop from 0 on; 0 for other statements.
int64_t unrolled(const Stmt &s) {
  bool plain = s.is(Stmt::Kind::loop) && s.loop == LoopKind::unroll && s.step == 1 &&
               s.begin.is_const(0) && s.end.is_const();
  return plain ? s.end.as_const() : 0;
}

// The only statement inside of `s`, or of the loop over columns that `s` is; `columns` is its trips.
const Stmt *over_columns(const Stmt &s, Symbol &var, int64_t &columns) {
  columns = 1;
  var = Symbol();
  if (!s.is(Stmt::Kind::loop))
    return &s;
  columns = unrolled(s);
  var = s.name;
  return columns > 0 && s.body.size() == 1 ? &s.body[0] : nullptr;
}

bool is_plain_load(const Expr &e, DType dtype, int lanes) {
  return e.is(Expr::Kind::load) && e.dtype == dtype && e.lanes == lanes && e.stride.is_const(1) &&
         !e.count;
}

// The step of an index along a loop, and the index at the loop's start.
bool take_step(Dim &index, Symbol loop, Dim &step) {
  step = 0;
  if (loop.empty())
    return true;
  auto by = index.coefficient_of(loop);
  if (!by)
    return false;
  step = *by;
  index = index.substitute(loop, 0);
  return true;
}

bool is_var(const Dim &d, Symbol name) {
  return name.empty() ? d.is_const(0) : d == Dim::symbol(name);
}

} // namespace

std::optional<TileProduct> tile_product(const Stmt &loop) {
  TileProduct out;
  out.depth = unrolled(loop);
  if (out.depth < kLeastProductDepth || loop.body.size() != 3)
    return std::nullopt;
  const Stmt &alloc = loop.body[0], &rows = loop.body[2];
  Symbol p;
  const Stmt *fill = over_columns(loop.body[1], p, out.columns);
  const int group = int(kGroupBytes / dtype_bytes(alloc.dtype)); // elements that are multiplied together
  bool columns_fit = alloc.is(Stmt::Kind::alloc) && alloc.space == MemorySpace::reg && group > 1 &&
                     alloc.lanes == group * kLanes && fill && fill->is(Stmt::Kind::store) &&
                     fill->name == alloc.name && alloc.size == out.columns && !fill->count &&
                     is_var(fill->index, p) && is_plain_load(fill->value, alloc.dtype, group * kLanes);
  out.rows = unrolled(rows);
  if (!columns_fit || out.rows < kLeastProductRows || rows.body.empty() || rows.body.size() > 2)
    return std::nullopt;
  const Stmt *let = rows.body.size() == 2 ? &rows.body[0] : nullptr;
  int64_t columns = 0;
  Symbol q, k = loop.name, r = rows.name;
  const Stmt *sum = over_columns(rows.body.back(), q, columns);
  if (!sum || !sum->is(Stmt::Kind::store) || columns != out.columns || sum->count ||
      (let && !let->is(Stmt::Kind::let)) || dot_width(sum->value) != group || sum->value.lanes != kLanes)
    return std::nullopt;
  out.sums = sum->name;
  out.dtype = sum->value.dtype;
  const Expr &value = sum->value, &before = value.args[2];
  Dim at = Dim::symbol(r) * Dim(columns) + (q.empty() ? Dim(0) : Dim::symbol(q));
  if (!is_plain_load(before, out.dtype, kLanes) || before.name != sum->name ||
      !(before.index == at) || !(sum->index == at))
    return std::nullopt;

  bool unsigned_rows = value.args[1].lanes == group * kLanes; // otherwise the codes are the columns
  const Expr &column = value.args[unsigned_rows ? 1 : 0];
  out.row = value.args[unsigned_rows ? 0 : 1];
  if (let && out.row.is(Expr::Kind::var) && out.row.name == let->name)
    out.row = let->value;
  else if (let)
    return std::nullopt;
  out.column = fill->value;
  if (!is_plain_load(column, alloc.dtype, group * kLanes) || column.name != alloc.name ||
      !is_var(column.index, q) || !is_plain_load(out.row, out.row.dtype, group) ||
      out.row.name == out.sums || out.column.name == out.sums || out.row.name == alloc.name)
    return std::nullopt;

  Dim along;
  bool linear = take_step(out.row.index, k, along) && take_step(out.row.index, r, out.row_stride) &&
                take_step(out.column.index, k, out.column_step) &&
                take_step(out.column.index, p, out.column_stride);
  if (!linear || !along.is_const(group) || (!q.empty() && out.row.index.depends_on(q)))
    return std::nullopt;
  for (const Dim *stride : {&out.row_stride, &out.column_stride, &out.column_step})
    for (Symbol var : {k, r, p, q})
      if (!var.empty() && stride->depends_on(var))
        return std::nullopt;
  return out;
}

} // namespace kiln
