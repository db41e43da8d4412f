// Elements that are replaced or added to one after the other, at places held in a tensor (scatters, gradients of
// embeddings):
//
//   for u in 0..1024 { let t = indices[u]; assert 0 <= t < 65; for c in 0..128 parallel { out[128*t + c] += x[128*u + c] } }
//
// What meets at an element has to come in the order of the steps. So each warp owns some of the rows (128 elements here)
// and some columns of them, and looks at the indices of all steps: a lane at one each, four times, then the warp does
// the steps that fall into its rows in their order. Lanes read the terms of several steps before they update the first
// element. How many rows a warp has depends on sizes and the description of the GPU, and no result on it.
#include "codegen/cuda/nest.h"
#include "codegen/cuda/vector_body.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::cuda {
namespace {

constexpr int kWarp = 32, kRounds = 4, kTogether = 4; // looks of a lane; terms that it reads ahead

struct Updates {
  std::vector<const Stmt *> steps, columns;
  std::vector<Stmt> indices, lets; // of a step: lets and asserts; of an element
  Symbol buffer;
  DType dtype = DType::f32; // of the buffer
  Dim row, at;              // where the step's row begins, and the element
  int64_t width = 1;        // elements of a row
  Expr term, result;        // what a step brings; the element's value, of the term in kiln_terms[kiln_j]
};

bool any_load(const Expr &e, const std::function<bool(const Expr &)> &is) {
  bool here = (e.is(Expr::Kind::load) || e.is(Expr::Kind::gather)) && is(e);
  return here || std::any_of(e.args.begin(), e.args.end(), [&](const Expr &arg) { return any_load(arg, is); });
}

// Splits  op(out[at], term)  into the term and what is done with it. Nothing where the element is used otherwise.
bool split_value(const Stmt &store, Updates &u) {
  Expr value = store.value;
  if (value.is(Expr::Kind::fma)) // of a product, which is rounded here
    value = kb::add(value.args[2], kb::mul(value.args[0], value.args[1]));
  auto terms = [](DType dtype) { return kb::load(Symbol("kiln_terms"), dtype, Dim::symbol(Symbol("kiln_j"))); };
  if (!reads(value, u.buffer)) {
    u.term = value;
    u.result = terms(value.dtype);
    return true;
  }
  Expr *sum = value.is(Expr::Kind::convert) ? &value.args[0] : &value;
  if (!sum->is(Expr::Kind::binary) || reads(sum->args[1], u.buffer))
    return false;
  const Expr &old = sum->args[0].is(Expr::Kind::convert) ? sum->args[0].args[0] : sum->args[0];
  if (!old.is(Expr::Kind::load) || old.index != store.index)
    return false;
  u.term = sum->args[1];
  sum->args[1] = terms(u.term.dtype);
  u.result = std::move(value);
  return true;
}

// Whether elements of the row lie as the columns count, so that no two threads write one.
bool is_dense(const Dim &offset, const std::vector<const Stmt *> &columns) {
  Dim want = 0;
  int64_t stride = 1;
  for (size_t i = columns.size(); i-- > 0;) {
    auto extent = columns[i]->end.try_const();
    if (!extent || *extent < 1 || !is_normalised(*columns[i]))
      return false;
    want += Dim::symbol(columns[i]->name) * Dim(stride);
    stride *= *extent;
  }
  return offset == want;
}

std::optional<Updates> match_updates(const Stmt &nest) {
  if (!is_loop(nest, LoopKind::serial))
    return std::nullopt;
  Updates u;
  u.steps = perfect_nest(nest, LoopKind::serial);
  const std::vector<Stmt> &body = u.steps.back()->body;
  if (body.empty())
    return std::nullopt;
  if (is_loop(body.back(), LoopKind::parallel))
    u.columns = perfect_nest(body.back(), LoopKind::parallel);
  const std::vector<Stmt> &inner = u.columns.empty() ? body : u.columns.back()->body;
  if (inner.empty() || !inner.back().is(Stmt::Kind::store))
    return std::nullopt;
  const Stmt &store = inner.back();
  u.buffer = store.name;
  u.dtype = store.value.dtype;
  u.indices.assign(body.begin(), body.end() - 1);
  if (!u.columns.empty())
    u.lets.assign(inner.begin(), inner.end() - 1);
  // Lanes look at indices that nobody has checked yet: what is read with them comes behind the conditions.
  std::vector<Symbol> names;
  for (const Stmt &s : u.indices) {
    bool known = s.is(Stmt::Kind::let) || s.is(Stmt::Kind::assert_);
    if (!known || any_load(s.value, [&](const Expr &load) {
          return load.name == u.buffer || load.is(Expr::Kind::gather) || std::any_of(names.begin(), names.end(), [&](Symbol n) { return load.index.depends_on(n); });
        }))
      return std::nullopt;
    if (s.is(Stmt::Kind::let))
      names.push_back(s.name);
  }
  for (const Stmt &s : u.lets)
    if (!s.is(Stmt::Kind::let) || reads(s.value, u.buffer) || store.index.depends_on(s.name))
      return std::nullopt;
  u.at = u.row = store.index;
  for (const Stmt *l : u.columns) {
    u.row = u.row.substitute(l->name, 0);
    u.width *= l->end.try_const().value_or(1);
  }
  if (!is_dense(u.at - u.row, u.columns) || !is_multiple(u.row, u.width) || !split_value(store, u))
    return std::nullopt;
  return u;
}

// The step, and what is known of it without a look at the conditions.
std::string step_text(const Updates &u, const NestContext &context, c::Helpers &helpers, const std::string &pad) {
  std::vector<Stmt> lets;
  std::copy_if(u.indices.begin(), u.indices.end(), std::back_inserter(lets), [](const Stmt &s) { return s.is(Stmt::Kind::let); });
  c::StmtStyle style{"", nullptr, "", context.index_type};
  return coordinates(u.steps, "kiln_step", context, helpers, pad) + c::c_body(lets, int(pad.size() / 2), style, helpers);
}

// kiln_found[r]: which lanes' steps of round r are in the warp's rows.
std::string look_text(const Updates &u, const NestContext &context, c::Helpers &helpers) {
  const std::string &index = context.index_type;
  std::string pad(8, ' '), count = c::c_dim(product_of(u.steps), helpers), all = "true", traps;
  for (const Stmt &s : u.indices)
    if (s.is(Stmt::Kind::assert_)) {
      std::string condition = c::c_expr(s.value, helpers);
      traps += fmt::format("{0}  if (!{1})\n{0}    *trap = {2};\n", pad, condition, s.integer);
      all += " && " + condition;
    }
  std::string t = fmt::format("      unsigned kiln_found[{0}];\n#pragma unroll\n      for (int kiln_round = 0; kiln_round < {0}; ++kiln_round) {{\n", kRounds);
  t += fmt::format("{0}bool kiln_is_mine = false;\n{0}const {1} kiln_step = kiln_base + {2} * kiln_round + kiln_lane;\n{0}if (kiln_step < {3}) {{\n", pad, index, kWarp, count);
  t += step_text(u, context, helpers, pad + "  ") + traps;
  t += fmt::format("{0}  const int64_t kiln_row = {1};\n{0}  kiln_is_mine = {2} && kiln_row >= kiln_first && kiln_row < kiln_end;\n{0}}}\n", pad, c::c_dim(u.row, helpers), all);
  return t + pad + "kiln_found[kiln_round] = __ballot_sync(0xffffffffu, kiln_is_mine);\n      }\n";
}

// Does the steps of kiln_left, whose first one is kiln_base + 32 * kiln_round.
std::string update_text(const Updates &u, const NestContext &context, c::Helpers &helpers) {
  const std::string &index = context.index_type;
  c::StmtStyle style{"", nullptr, "", index};
  std::string pad(10, ' ');
  std::string t = fmt::format("{0}{1} v_kiln_terms[{2}];\n{0}{3} kiln_to[{2}];\n#pragma unroll\n{0}for (int v_kiln_j = 0; v_kiln_j < {2}; ++v_kiln_j) {{\n", pad, c::c_type(u.term.dtype), kTogether, index);
  t += fmt::format("{0}  kiln_to[v_kiln_j] = -1;\n{0}  if (kiln_left != 0 && kiln_inside) {{\n", pad);
  t += fmt::format("{0}    const {1} kiln_step = kiln_base + {2} * kiln_round + __ffs((int)kiln_left) - 1;\n", pad, index, kWarp);
  t += step_text(u, context, helpers, pad + "    ") + c::c_body(u.lets, 7, style, helpers);
  t += fmt::format("{0}    kiln_to[v_kiln_j] = {1};\n{0}    v_kiln_terms[v_kiln_j] = {2};\n{0}  }}\n{0}  kiln_left &= kiln_left - 1;\n{0}}}\n", pad, c::c_dim(u.at, helpers), c::c_expr(u.term, helpers));
  // The element is what the updates before have made of it.
  Expr result = u.result;
  visit_exprs(result, [&](Expr &e) {
    if (e.is(Expr::Kind::load) && e.name == u.buffer)
      e.index = Dim::symbol(Symbol("kiln_element"));
  });
  t += fmt::format("#pragma unroll\n{0}for (int v_kiln_j = 0; v_kiln_j < {1}; ++v_kiln_j)\n{0}  if (kiln_to[v_kiln_j] >= 0) {{\n{0}    const {2} v_kiln_element = kiln_to[v_kiln_j];\n", pad, kTogether, index);
  return t + fmt::format("{0}    {1}[v_kiln_element] = {2};\n{0}  }}\n", pad, c::c_name(u.buffer), c::c_expr(result, helpers));
}

} // namespace

std::optional<GpuNest> try_emit_updates(const Stmt &nest, const NestContext &context) {
  constexpr int64_t kWarpsOfMultiprocessor = 16;
  auto u = match_updates(nest);
  const KernelBuffer *buffer = u ? context.kernel.find_buffer(u->buffer) : nullptr;
  if (!buffer || context.is_aliased)
    return std::nullopt;
  int64_t warps_of_row = (u->width + kWarp - 1) / kWarp;
  Dim rows = ceildiv(buffer->size, u->width);
  int64_t shares = std::max<int64_t>(1, context.machine.multiprocessors * kWarpsOfMultiprocessor / warps_of_row);
  if (auto number = rows.try_const())
    shares = std::clamp<int64_t>(*number, 1, shares);
  GpuNest out;
  out.threads = int(std::min<int64_t>(warps_of_row, 8)) * kWarp;
  int64_t pieces = (u->width + out.threads - 1) / out.threads;
  out.blocks = shares * pieces;
  std::string &t = out.text;
  const std::string &index = context.index_type;
  t = fmt::format("  const int kiln_lane = (int)threadIdx.x % {};\n", kWarp);
  t += fmt::format("  for ({0} kiln_at = ({0})blockIdx.x; kiln_at < {1}; kiln_at += ({0})gridDim.x) {{\n", index, shares * pieces);
  t += fmt::format("    const int64_t kiln_first = (int64_t)(kiln_at / {0}) * ({1}), kiln_end = kiln_first + ({1});\n", pieces, c::c_dim(ceildiv(rows, shares) * Dim(u->width), out.helpers));
  t += fmt::format("    const {0} kiln_column = kiln_at % {1} * {2} + (int)threadIdx.x;\n    const bool kiln_inside = kiln_column < {3};\n", index, pieces, out.threads, u->width);
  t += coordinates(u->columns, "kiln_column", context, out.helpers, "    ");
  t += fmt::format("    for ({0} kiln_base = 0; kiln_base < {1}; kiln_base += {2}) {{\n", index, c::c_dim(product_of(u->steps), out.helpers), kWarp * kRounds);
  t += look_text(*u, context, out.helpers);
  t += fmt::format("#pragma unroll\n      for (int kiln_round = 0; kiln_round < {}; ++kiln_round) {{\n        unsigned kiln_left = kiln_found[kiln_round];\n        while (kiln_left != 0) {{\n", kRounds);
  t += update_text(*u, context, out.helpers) + "        }\n      }\n    }\n  }\n";
  out.work = updates_work(context.kernel, u->steps, u->steps.back()->body, {shares, warps_of_row * kWarp, kRounds, kTogether});
  return out;
}

} // namespace kiln::cuda
