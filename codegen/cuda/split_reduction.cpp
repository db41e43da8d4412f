// Few results with reductions so long that the blocks for them would leave most of the device idle:
//
//   for i in 0..8 { acc = 0; for k in 0..1000000 reduce { acc += x[k, i] }; y[i] = f(acc) }
//
// becomes two launches. The first one reduces a part of the steps in each block, the second one joins the parts:
//
//   for i in 0..8 { for p in 0..64 { acc = 0; for k in 0..15625 reduce { acc += x[15625*p + k, i] }; work[p, i] = acc } }
//   for i in 0..8 { acc = 0; for p in 0..64 reduce { acc += work[p, i] }; y[i] = f(acc) }
//
// How many parts there are depends on sizes and on the description of the device alone, and they are joined in a fixed
// order.
#include "codegen/cuda/nest.h"
#include "codegen/cuda/sums.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"
#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"

#include <algorithm>
#include <limits>

namespace kiln::cuda {
namespace {

// What the reduction begins with where it has no value yet.
std::optional<Expr> identity(const Update &u) {
  if (u.op == BinaryOp::add)
    return kb::constant(u.dtype, 0);
  if (u.op == BinaryOp::mul)
    return kb::constant(u.dtype, 1);
  bool is_extreme = (u.op == BinaryOp::max || u.op == BinaryOp::min) && is_float(u.dtype);
  double infinity = std::numeric_limits<double>::infinity();
  if (is_extreme)
    return kb::number(u.dtype, u.op == BinaryOp::max ? -infinity : infinity);
  return std::nullopt;
}

std::vector<Stmt> nest_of(const std::vector<const Stmt *> &loops, std::vector<Stmt> body) {
  for (size_t i = loops.size(); i-- > 0;) {
    Stmt loop = *loops[i];
    loop.body = std::move(body);
    body = {std::move(loop)};
  }
  return body;
}

} // namespace

std::optional<SplitReduction> try_split_reduction(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, const GpuMachine &machine) {
  constexpr int64_t kLeastWork = 1 << 18, kLeastSteps = 2048, kMostParts = 256;
  // alloc, its first value, the reduction, and what is done with the result.
  if (body.size() < 4 || !body[0].is(Stmt::Kind::alloc) || body[0].space != MemorySpace::reg || body[0].size != 1 || !body[1].is(Stmt::Kind::store) ||
      body[1].name != body[0].name || !cuda::is_loop(body[2], LoopKind::reduce))
    return std::nullopt;
  Kernel row;
  row.body = {body[2]};
  collapse_loops(row);
  const Stmt &reduce = row.body[0];
  std::vector<const Stmt *> sum = perfect_nest(reduce, LoopKind::reduce);
  std::vector<Update> updates = updates_of(sum.back()->body);
  bool is_plain = std::all_of(body.begin() + 3, body.end(), [](const Stmt &s) { return s.is(Stmt::Kind::let) || s.is(Stmt::Kind::store); });
  if (updates.size() != 1 || updates[0].acc != body[0].name || !is_plain)
    return std::nullopt;
  auto first = identity(updates[0]);
  auto results = constant(product_of(outer)), steps = constant(product_of(sum));
  auto is_simple = [](const Stmt *l) { return is_normalised(*l) && l->end.is_const(); };
  if (!first || !results || !steps || !std::all_of(outer.begin(), outer.end(), is_simple) || !std::all_of(sum.begin(), sum.end(), is_simple))
    return std::nullopt;
  // Lanes with neighbouring results share a block; rows have one each.
  int64_t outermost = sum[0]->end.as_const(), blocks = outer.empty() || reads_along(body[2], outer.back()->name) ? *results : (*results + 31) / 32;
  if (blocks * 2 > machine.multiprocessors || *steps < 2 * kLeastSteps || *results * *steps < kLeastWork)
    return std::nullopt;
  int64_t parts = std::min({2 * machine.multiprocessors / blocks, *steps / kLeastSteps, kMostParts, outermost});
  // A multiple of what a thread loads together.
  int64_t size = (outermost + parts - 1) / parts;
  if (size > 64)
    size = (size + 63) / 64 * 64;
  parts = (outermost + size - 1) / size;
  if (parts < 2)
    return std::nullopt;

  SplitReduction out;
  out.dtype = body[0].dtype;
  out.elements = *results * parts;
  Symbol part("kiln_part");
  Dim at = Dim::symbol(part);
  for (const Stmt *l : outer)
    at = at * l->end + Dim::symbol(l->name);
  Stmt some = reduce;
  substitute(some.body, some.name, Dim::symbol(some.name) + Dim::symbol(part) * Dim(size));
  some.end = min(Dim(size), Dim(outermost) - Dim::symbol(part) * Dim(size));
  Symbol acc = body[0].name;
  std::vector<Stmt> each{body[0], kb::store(acc, 0, *first), some, kb::store(work_buffer(), at, kb::load(acc, out.dtype, 0))};
  out.parts = kb::loop(part, 0, parts, LoopKind::parallel, nest_of(outer, std::move(each)));
  Expr joined = kb::binary(updates[0].op, kb::load(acc, out.dtype, 0), kb::load(work_buffer(), out.dtype, at));
  out.whole = {body[0], body[1], kb::loop(part, 0, parts, LoopKind::reduce, {kb::store(acc, 0, std::move(joined))})};
  out.whole.insert(out.whole.end(), body.begin() + 3, body.end());
  out.whole = nest_of(outer, std::move(out.whole));
  return out;
}

} // namespace kiln::cuda
