// Few results with long reductions: a product with one row, sums over the rows of a batch. A thread for each result
// would leave most of the device idle, so the reduction is cut into slices, one for each warp of a block; neighbouring
// lanes have neighbouring results, as their operands lie. The slices' parts are joined in order by the first warp, which
// does what stands behind the reduction.
#include "codegen/cuda/nest.h"
#include "codegen/cuda/rectangle.h"
#include "codegen/cuda/sums.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::cuda {

namespace {

// Steps of the first reduction where edges cut nothing off.
std::optional<Dim> most_steps(const Stmt &nest) {
  Rectangle whole = make_rectangular(nest);
  const std::vector<Stmt> &body = perfect_nest(whole.nest, LoopKind::parallel).back()->body;
  auto reduce = std::find_if(body.begin(), body.end(), [](const Stmt &s) { return is_loop(s, LoopKind::reduce); });
  if (whole.ragged || reduce == body.end())
    return std::nullopt;
  return product_of(perfect_nest(*reduce, LoopKind::reduce));
}

} // namespace

std::optional<GpuNest> try_emit_split(const Stmt &nest, const NestContext &context) {
  constexpr int kLeastSteps = 4, kMostThreads = 1024; // steps of a slice
  std::vector<const Stmt *> outer = perfect_nest(nest, LoopKind::parallel);
  const std::vector<Stmt> &body = outer.back()->body;
  auto reduce = std::find_if(body.begin(), body.end(), [](const Stmt &s) { return s.is(Stmt::Kind::loop); });
  if (reduce == body.end() || reduce->loop != LoopKind::reduce)
    return std::nullopt;
  std::vector<const Stmt *> sum = perfect_nest(*reduce, LoopKind::reduce);
  std::vector<Update> updates = updates_of(sum.back()->body);
  Dim total = product_of(outer), steps = product_of(sum), most = most_steps(nest).value_or(steps);
  // Slices to have so many threads that every multiprocessor is half full.
  int64_t wanted = int64_t(context.machine.multiprocessors) * context.machine.threads / 2;
  int64_t results = total.is_const() ? total.as_const() : wanted / 8, slices = 1;
  // Lanes side by side take 32 bytes of f32 at least; fewer than a warp's where there would be too few blocks.
  int lanes = 32;
  while (lanes > 8 && total.is_const() && results <= int64_t(lanes) * context.machine.multiprocessors / 2)
    lanes /= 2;
  while (slices * lanes < kMostThreads && results * slices * 2 <= wanted && (!most.is_const() || most.as_const() >= 2 * slices * kLeastSteps))
    slices *= 2;
  if (updates.empty() || slices < 4 || total.is_const(0))
    return std::nullopt;
  // Before it accumulators and lets, behind it what one thread does.
  std::vector<Stmt> before(body.begin(), reduce), after(reduce + 1, body.end());
  auto is_plain = [](const Stmt &s) { return s.is(Stmt::Kind::let) || s.is(Stmt::Kind::store) || s.is(Stmt::Kind::if_); };
  bool fits = std::all_of(after.begin(), after.end(), is_plain) && std::all_of(before.begin(), before.end(), [&](const Stmt &s) {
    bool is_acc = std::any_of(updates.begin(), updates.end(), [&](const Update &u) { return u.acc == s.name; });
    return (s.is(Stmt::Kind::alloc) && s.space == MemorySpace::reg && s.size == 1) || (s.is(Stmt::Kind::store) && is_acc) || s.is(Stmt::Kind::let);
  });
  if (!fits)
    return std::nullopt;

  GpuNest out;
  out.threads = int(slices) * lanes;
  out.blocks = ceildiv(total, lanes);
  c::StmtStyle style{"*trap = {}; return;", nullptr, "", context.index_type};
  std::string &t = out.text;
  const std::string &index = context.index_type;
  std::string count = c::c_dim(total, out.helpers);
  for (const Update &u : updates)
    t += fmt::format("  __shared__ {} kiln_parts_{}[{}][{}];\n", c::c_type(u.dtype), c::c_name(u.acc), slices, lanes);
  t += fmt::format("  const int kiln_lane = (int)threadIdx.x % {0}, kiln_slice = (int)threadIdx.x / {0};\n", lanes);
  t += fmt::format("  for ({0} kiln_group = ({0})blockIdx.x; kiln_group * {1} < {2}; kiln_group += ({0})gridDim.x) {{\n", index, lanes, count);
  // Lanes past the last result compute it too, and leave it.
  t += fmt::format("    const bool kiln_inside = kiln_group * {0} + kiln_lane < {1};\n    const {2} kiln_at = kiln_inside ? kiln_group * {0} + kiln_lane : {1} - 1;\n",
                   lanes, count, index);
  t += coordinates(outer, "kiln_at", context, out.helpers, "    ") + c::c_body(before, 2, style, out.helpers) + "    {\n";
  for (const Update &u : updates)
    t += fmt::format("      {} {}[1] = {{{}}};\n", c::c_type(u.dtype), c::c_name(u.acc), identity_text(u));
  t += fmt::format("#pragma unroll 8\n      for ({0} kiln_step = kiln_slice; kiln_step < {1}; kiln_step += {2}) {{\n", index, c::c_dim(steps, out.helpers), slices);
  t += coordinates(sum, "kiln_step", context, out.helpers, "        ") + c::c_body(sum.back()->body, 4, style, out.helpers) + "      }\n";
  for (const Update &u : updates)
    t += fmt::format("      kiln_parts_{0}[kiln_slice][kiln_lane] = {0}[0];\n", c::c_name(u.acc));
  t += "    }\n    __syncthreads();\n    if (kiln_slice == 0 && kiln_inside) {\n";
  for (const Update &u : updates) {
    std::string type = c::c_type(u.dtype), name = c::c_name(u.acc);
    t += fmt::format("      for (int s = 0; s < {0}; ++s) {{\n        const {1} v_a = {2}[0], v_b = kiln_parts_{2}[s][kiln_lane];\n        {2}[0] = {3};\n      }}\n", slices, type,
                     name, join_text(u, out.helpers));
  }
  t += c::c_body(after, 3, style, out.helpers) + "    }\n    __syncthreads();\n  }\n";
  out.work = work_of(context.kernel, outer, body, {LaunchForm::split, slices});
  return out;
}

} // namespace kiln::cuda
