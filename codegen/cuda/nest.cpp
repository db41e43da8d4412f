#include "codegen/cuda/nest.h"

#include "codegen/cuda/rectangle.h"
#include "codegen/cuda/vector_body.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"
#include "passes/kernel/schedule.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::cuda {

bool is_loop(const Stmt &s, LoopKind kind) { return s.is(Stmt::Kind::loop) && s.loop == kind; }

bool any_stmt(const std::vector<Stmt> &body, const std::function<bool(const Stmt &)> &f) {
  return std::any_of(body.begin(), body.end(), [&](const Stmt &s) { return f(s) || any_stmt(s.body, f) || any_stmt(s.other, f); });
}

bool reads(const Expr &e, Symbol buffer) {
  bool is_load = (e.is(Expr::Kind::load) || e.is(Expr::Kind::gather)) && e.name == buffer;
  return is_load || std::any_of(e.args.begin(), e.args.end(), [&](const Expr &arg) { return reads(arg, buffer); });
}

std::vector<const Stmt *> perfect_nest(const Stmt &s, LoopKind kind) {
  std::vector<const Stmt *> loops{&s};
  for (const Stmt *inner = &s; inner->body.size() == 1 && is_loop(inner->body[0], kind);) {
    inner = &inner->body[0];
    bool independent = std::none_of(loops.begin(), loops.end(), [&](const Stmt *outer) {
      return inner->begin.depends_on(outer->name) || inner->end.depends_on(outer->name);
    });
    if (!independent)
      break;
    loops.push_back(inner);
  }
  return loops;
}

bool are_normalised(const std::vector<const Stmt *> &loops) {
  return std::all_of(loops.begin(), loops.end(), [](const Stmt *l) { return is_normalised(*l); });
}

Dim extent_of(const Stmt &loop) { return max(ceildiv(loop.end - loop.begin, loop.step), 0); }

Dim product_of(const std::vector<const Stmt *> &loops) {
  Dim total = 1;
  for (const Stmt *l : loops)
    total *= extent_of(*l);
  return total;
}

std::optional<int64_t> constant(const Dim &d) { return d.try_const(); }

std::string guard_text(const std::string &value, const std::optional<Dim> &limit, const NestContext &context, c::Helpers &helpers) {
  if (!limit)
    return value + " >= 0";
  std::string_view type = context.index_type == "int" ? "uint32_t" : "uint64_t";
  return fmt::format("({0})({1}) < ({0})({2})", type, value, c::c_dim(*limit, helpers));
}

std::string coordinates(const std::vector<const Stmt *> &loops, const std::string &flat, const NestContext &context,
                        c::Helpers &helpers, const std::string &pad) {
  std::string out, rest = flat;
  for (size_t i = loops.size(); i-- > 0;) {
    const Stmt &l = *loops[i];
    std::string extent = c::c_dim(extent_of(l), helpers), name = c::c_name(l.name);
    std::string at = i == 0 ? rest : fmt::format("{} % ({})", rest, extent);
    std::string scaled = l.step == 1 ? at : fmt::format("({}) * {}", at, l.step);
    std::string begin = l.begin.is_const(0) ? "" : fmt::format("{} + ", c::c_dim(l.begin, helpers));
    out += fmt::format("{}const {} {} = {}{};\n", pad, context.index_type, name, begin, scaled);
    if (i > 0) {
      std::string next = fmt::format("kiln_rest{}_{}", i, name);
      out += fmt::format("{}const {} {} = {} / ({});\n", pad, context.index_type, next, rest, extent);
      rest = next;
    }
  }
  return out;
}

void add_work(GpuNest &nest, DType dtype, int64_t elements) {
  int64_t share = (elements * int64_t(dtype_bytes(dtype)) + kScratchBlocks - 1) / kScratchBlocks;
  nest.scratch_bytes = (share + 127) / 128 * 128;
  nest.text = fmt::format("  {0} *const {1} = ({0} *)scratch;\n", c::c_type(dtype), c::c_name(work_buffer())) + nest.text;
}

void fuse_products(std::vector<Stmt> &body) {
  visit_stmts(body, [](Stmt &s) {
    if (!s.is(Stmt::Kind::store) || !s.value.is(Expr::Kind::binary) || s.value.binary != BinaryOp::add || s.value.dtype != DType::f32)
      return;
    const Expr &acc = s.value.args[0], &product = s.value.args[1];
    if (acc.is(Expr::Kind::load) && acc.name == s.name && product.is(Expr::Kind::binary) && product.binary == BinaryOp::mul)
      s.value = kb::fma(product.args[0], product.args[1], acc);
  });
}

GpuNest emit_flat(const Stmt &nest, const NestContext &context) {
  constexpr int kThreads = 256;
  // Loops that are one long row become one, so that its last elements alone are a tail.
  Kernel row;
  row.buffers = context.kernel.buffers;
  row.dims = context.kernel.dims;
  row.body = {with_guarded_windows(nest)};
  collapse_loops(row);
  std::vector<const Stmt *> loops = perfect_nest(row.body[0], LoopKind::parallel);
  Stmt inner = *loops.back();
  bool has_tail = loops.size() == 1;
  int width = vector_width(inner, has_tail, {}, context);
  inner.step *= width;
  loops.back() = &inner;
  Dim total = product_of(loops);
  GpuNest out;
  out.threads = kThreads;
  out.blocks = ceildiv(total, kThreads);
  c::StmtStyle style{"*trap = {}; return;", nullptr, "", context.index_type};
  std::string turn = coordinates(loops, "kiln_at", context, out.helpers, "    ");
  turn += width == 1 ? c::c_body(inner.body, 2, style, out.helpers) : vector_turn(inner, width, 2, {}, context, out.helpers);
  out.text = fmt::format("  for ({0} kiln_at = ({0})blockIdx.x * {1} + (int)threadIdx.x; kiln_at < {2}; kiln_at += ({0})gridDim.x * {1}) {{\n{3}  }}\n", context.index_type,
                         kThreads, c::c_dim(total, out.helpers), turn);
  bool is_light = std::all_of(inner.body.begin(), inner.body.end(), [](const Stmt &s) { return s.is(Stmt::Kind::let) || s.is(Stmt::Kind::store); });
  if (is_light && context.index_type == "int") {
    out.turn = std::move(turn);
    out.turns = total;
  }
  out.work = work_of(context.kernel, perfect_nest(row.body[0], LoopKind::parallel), inner.body, {LaunchForm::flat, 1, 1, width});
  return out;
}

} // namespace kiln::cuda
