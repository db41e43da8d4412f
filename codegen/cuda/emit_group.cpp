// A group of threads (a block, or one warp of it, or some lanes where rows are short) runs one iteration of a nest's outer parallel loops together.
//
// What stands directly in the body is done by all of its threads alike: lets, accumulators, conditions. Loops are
// shared:
//   * a parallel loop is spread over the threads; one whose body has work for a group itself, over the warps of the
//     block;
//   * a reduction is cut by thread and joined by shuffles in a fixed order, so that its bits do not depend on the grid;
//   * what several loops over a row load is loaded once: each thread keeps its part of it (kept_rows.h);
//   * `stack` memory is the group's: shared memory, or scratch memory where that is too small.
// A barrier stands only where one statement reads or writes what another one has written or read.
#include "codegen/cuda/inner_product.h"
#include "codegen/cuda/kept_rows.h"
#include "codegen/cuda/nest.h"
#include "codegen/cuda/product.h"
#include "codegen/cuda/rectangle.h"
#include "codegen/cuda/sums.h"
#include "codegen/cuda/vector_body.h"

#include "ir/kernel/visit.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>

namespace kiln::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int64_t kShared = 96 << 10; // of a block, so that a multiprocessor has room for two
// Iterations that are worth a warp; fewer are done by one thread.
constexpr int64_t kLongLoop = 32;

bool is_long(const Dim &extent) { return !extent.is_const() || extent.as_const() >= kLongLoop; }

struct Group {
  bool is_warp = false; // or a part of one
  int lanes = kWarp;
  std::string lane, sync;
};

// One of those of a block. `lanes`: 32 at most where there are several.
Group group_of(int lanes, int threads) {
  if (lanes == threads)
    return {false, lanes, "(int)threadIdx.x", "__syncthreads();"};
  return {true, lanes, fmt::format("(int)threadIdx.x % {}", lanes), lanes == kWarp ? "__syncwarp();" : fmt::format("__syncwarp(kiln_lanes<{}>());", lanes)};
}

class Emitter {
public:
  Emitter(const NestContext &context, const KeptRows &kept, int threads, int lanes)
      : context_(context), kept_(kept), threads_(threads), group_(group_of(lanes, threads)), rows_(threads / lanes) {}

  GpuNest emit(const std::vector<const Stmt *> &outer) {
    const std::vector<Stmt> &body = kept_.body;
    find_halves(body);
    std::string own = outer.empty() || !kept_.any() ? "" : own_thread();
    std::string inside = statements(body, 2);
    std::string before, after;
    if (outer.empty()) {
      out_.text = allocs_ + "  {\n" + inside + "  }\n";
    } else {
      Dim total = product_of(outer);
      out_.blocks = ceildiv(total, rows_);
      std::string first = rows_ == 1 ? "" : fmt::format(" * {} + (int)threadIdx.x / {}", rows_, group_.lanes);
      out_.text = allocs_ + fmt::format("  for ({0} kiln_at = ({0})blockIdx.x{1}; kiln_at < {2}; kiln_at += ({0})gridDim.x * {3}) {{\n{4}{5}{6}",
                                        context_.index_type, first, c::c_dim(total, out_.helpers), rows_, own,
                                        coordinates(outer, "kiln_at", context_, out_.helpers, "    "), inside);
      // What the next turn writes, this one has read.
      out_.text += fmt::format("    {}\n  }}\n", group_.sync);
    }
    out_.threads = threads_;
    return std::move(out_);
  }

private:
  std::string pad(int depth) const { return std::string(size_t(depth) * 2, ' '); }

  // What follows from a thread's number is computed in each turn: beside a row there are no registers to keep it in.
  std::string own_thread() {
    group_.lane = group_.is_warp ? fmt::format("kiln_thread % {}", group_.lanes) : "kiln_thread";
    return fmt::format("    const int kiln_thread = kiln_anew((int)threadIdx.x) & {};\n", std::bit_ceil(unsigned(threads_)) - 1);
  }

  // --- hazards: buffers that the group's threads have written and read since the last barrier

  std::string token(Symbol buffer) const {
    bool is_global = context_.kernel.find_buffer(buffer) != nullptr;
    return is_global && context_.is_aliased ? "*" : std::string(buffer.text());
  }
  bool is_private(Symbol buffer) const { return private_.contains(buffer) || kept_.rows.contains(buffer); }

  void find_reads(const Expr &e, std::set<std::string> &out) const {
    if ((e.is(Expr::Kind::load) || e.is(Expr::Kind::gather)) && !is_private(e.name)) {
      const KernelBuffer *b = context_.kernel.find_buffer(e.name);
      if (!b || b->access != Access::in || context_.is_aliased)
        out.insert(token(e.name));
    }
    for (const Expr &arg : e.args)
      find_reads(arg, out);
  }
  void find_uses(const Stmt &s, std::set<std::string> &read, std::set<std::string> &written) const {
    if (!s.value.is(Expr::Kind::none))
      find_reads(s.value, read);
    if (s.is(Stmt::Kind::store) && !is_private(s.name))
      written.insert(token(s.name));
    for (const auto *list : {&s.body, &s.other})
      for (const Stmt &inner : *list)
        find_uses(inner, read, written);
  }

  static bool meet(const std::set<std::string> &a, const std::set<std::string> &b) {
    return std::any_of(a.begin(), a.end(), [&](const std::string &x) { return b.contains(x); });
  }

  // A barrier where this statement must wait; notes what it does.
  std::string wait_for(const Stmt &s, int depth) {
    std::set<std::string> read, written;
    find_uses(s, read, written);
    std::string out;
    if (meet(read, written_) || meet(written, written_) || meet(written, read_))
      out = barrier(depth);
    read_.insert(read.begin(), read.end());
    written_.insert(written.begin(), written.end());
    return out;
  }
  std::string barrier(int depth) {
    read_.clear();
    written_.clear();
    return pad(depth) + group_.sync + "\n";
  }

  // --- statements

  void find_halves(const std::vector<Stmt> &body) {
    std::set<Symbol> others;
    std::function<void(const std::vector<Stmt> &)> look = [&](const std::vector<Stmt> &list) {
      for (const Stmt &s : list) {
        if (s.is(Stmt::Kind::alloc) && s.space == MemorySpace::stack && s.dtype == DType::f32)
          halves_.insert(s.name);
        if (s.is(Stmt::Kind::store) && !is_half_valued(s.value, {}))
          others.insert(s.name);
        look(s.body);
        look(s.other);
      }
    };
    look(body);
    for (Symbol other : others)
      halves_.erase(other);
  }

  std::string statements(const std::vector<Stmt> &body, int depth) {
    std::string out;
    for (const Stmt &s : body)
      out += statement(s, depth);
    return out;
  }

  c::StmtStyle style() const { return {"*trap = {}; return;", nullptr, "", context_.index_type}; }
  std::string plain(const Stmt &s, int depth) { return c::c_body({s}, depth, style(), out_.helpers); }

  std::string statement(const Stmt &s, int depth) {
    switch (s.kind) {
    case Stmt::Kind::alloc:
      return alloc(s, depth);
    case Stmt::Kind::loop:
      return loop(s, depth);
    case Stmt::Kind::store: {
      std::string wait = wait_for(s, depth);
      if (is_private(s.name))
        return wait + plain(s, depth);
      return wait + fmt::format("{0}if ({1} == 0) {{\n{2}{0}}}\n", pad(depth), group_.lane, plain(s, depth + 1));
    }
    case Stmt::Kind::if_:
    case Stmt::Kind::while_: {
      std::string out = barrier_if_it_writes(s, depth);
      find_reads(s.value, read_); // a fast thread must not write what a slow one still decides by
      out += fmt::format("{}{} ({}) {{\n{}", pad(depth), s.is(Stmt::Kind::if_) ? "if" : "while", c::c_expr(s.value, out_.helpers),
                         statements(s.body, depth + 1));
      // The condition is evaluated anew from what the body has left.
      if (s.is(Stmt::Kind::while_))
        out += barrier(depth + 1);
      out += pad(depth) + "}";
      if (!s.other.empty())
        out += " else {\n" + barrier(depth + 1) + statements(s.other, depth + 1) + pad(depth) + "}";
      out += "\n";
      return out + (s.is(Stmt::Kind::if_) ? barrier_if_it_writes(s, depth) : "");
    }
    default:
      return wait_for(s, depth) + plain(s, depth);
    }
  }

  std::string barrier_if_it_writes(const Stmt &s, int depth) {
    std::set<std::string> read, written;
    find_uses(s, read, written);
    return written.empty() && read.empty() ? "" : barrier(depth);
  }

  std::string alloc(const Stmt &s, int depth) {
    if (s.space == MemorySpace::reg && s.size == 1) {
      private_.insert(s.name);
      return plain(s, depth);
    }
    if (kept_.rows.contains(s.name))
      return kept_row(s, depth);
    // Each warp of a block has one of its own.
    int64_t copies = group_.is_warp ? threads_ / group_.lanes : 1;
    int64_t bytes = (std::max<int64_t>(s.size, 1) * int64_t(dtype_bytes(s.dtype)) + 15) / 16 * 16;
    std::string copy = copies == 1 ? "" : fmt::format(" + (int)threadIdx.x / {} * {}", group_.lanes, bytes);
    std::string type = c::c_type(s.dtype), name = c::c_name(s.name);
    int64_t limit = std::min(kShared, context_.machine.block_shared_bytes);
    if (out_.shared_bytes + bytes * copies <= limit) {
      std::string text = fmt::format("{0}{1} *const {2} = ({1} *)(kiln_shared + {3}{4});\n", pad(depth), type, name, out_.shared_bytes, copy);
      out_.shared_bytes += bytes * copies;
      return text;
    }
    std::string text = fmt::format("{0}{1} *const {2} = ({1} *)(scratch + (int64_t)blockIdx.x * KILN_SCRATCH_BYTES + {3}{4});\n", pad(depth), type,
                                   name, out_.scratch_bytes, copy);
    out_.scratch_bytes += (bytes * copies + 127) / 128 * 128;
    return text;
  }

  // A thread's part of a row.
  std::string kept_row(const Stmt &s, int depth) {
    std::string pack = fmt::format("kiln_pack<{}, {}>", c::c_type(s.dtype), kept_.width), name = c::c_name(s.name);
    int64_t packs = kept_.count / kept_.width;
    if (kept_.in_registers)
      return fmt::format("{}{} kiln_kept_{}[{}];\n", pad(depth), pack, name, (packs + group_.lanes - 1) / group_.lanes);
    auto [it, is_new] = places_.emplace(kept_.rows.at(s.name).place, out_.shared_bytes);
    if (is_new)
      out_.shared_bytes += (s.size * int64_t(dtype_bytes(s.dtype)) + 15) / 16 * 16;
    return fmt::format("{0}{1} *const kiln_kept_{2} = ({1} *)(kiln_shared + {3});\n", pad(depth), pack, name, it->second);
  }

  // Each thread has the same iterations of all such loops.
  std::string row_loop(std::vector<const Stmt *> nest, std::set<Symbol> own, int depth) {
    Stmt inner = *nest.back();
    int width = inner.step = kept_.width;
    std::set<Symbol> read, written;
    Dim lane = width > 1 ? Dim::symbol(Symbol("kiln_lane")) : Dim(0);
    visit_stmts(inner.body, [&](Stmt &s) {
      if (s.is(Stmt::Kind::store) && kept_.rows.contains(s.name))
        s.index = lane, written.insert(s.name);
    });
    visit_exprs(inner.body, [&](Expr &e) {
      if (e.is(Expr::Kind::load) && kept_.rows.contains(e.name))
        e.index = lane, read.insert(e.name);
    });
    own.insert(read.begin(), read.end());
    own.insert(written.begin(), written.end());
    nest.back() = &inner;
    int64_t packs = kept_.count / width, whole = packs / group_.lanes, turns = (packs + group_.lanes - 1) / group_.lanes;
    std::string p = pad(depth + 1), at = fmt::format("kiln_i{}", counter_++);
    std::string out = fmt::format("#pragma unroll {}\n{}for (int kiln_turn = 0; kiln_turn < {}; ++kiln_turn) {{\n", kept_.in_registers ? turns : std::min<int64_t>(turns, 4),
                                  pad(depth), turns);
    out += fmt::format("{}const int {} = {} + kiln_turn * {};\n", p, at, group_.lane, group_.lanes);
    if (whole < turns)
      out += fmt::format("{}if (kiln_turn < {} || {} < {}) {{\n", p, whole, at, packs);
    out += coordinates(nest, at, context_, out_.helpers, p);
    std::string after;
    for (const auto &[symbol, row] : kept_.rows) {
      std::string name = c::c_name(symbol);
      if (!read.contains(symbol) && !written.contains(symbol))
        continue;
      if (kept_.in_registers)
        out += fmt::format("{0}auto &{1} = kiln_kept_{1}[kiln_turn];\n", p, name);
      else
        out += fmt::format("{0}kiln_pack<{1}, {2}> {3}{4};\n", p, c::c_type(row.dtype), width, name,
                           read.contains(symbol) ? fmt::format(" = kiln_load<{}>(kiln_kept_{}[{}].v)", width, name, at) : "");
      if (!kept_.in_registers && written.contains(symbol))
        after += fmt::format("{0}kiln_store(kiln_kept_{1}[{2}].v, {1});\n", p, name, at);
    }
    auto body = [&](int d) {
      return width > 1 ? vector_turn(inner, width, d, own, context_, out_.helpers) : c::c_body(inner.body, d, style(), out_.helpers);
    };
    return out + leaf(body, depth + 1) + after + (whole < turns ? p + "}\n" : "") + pad(depth) + "}\n";
  }

  std::string loop(const Stmt &s, int depth) {
    if (s.loop == LoopKind::parallel)
      return parallel(s, depth);
    if (s.loop == LoopKind::reduce) {
      std::vector<const Stmt *> nest = perfect_nest(s, LoopKind::reduce);
      std::vector<Update> updates = updates_of(nest.back()->body);
      bool own = std::all_of(updates.begin(), updates.end(), [&](const Update &u) { return is_private(u.acc); });
      if (!updates.empty() && own && (is_long(product_of(nest)) || kept_.is_used_in(s)))
        return reduction(s, nest, updates, depth);
    }
    if (is_plain(s))
      return wait_for(s, depth) + plain(s, depth);
    // All threads turn together.
    std::string out = barrier(depth);
    out += fmt::format("{0}for ({1} {2} = {3}; {2} < {4}; {2} += {5}) {{\n", pad(depth), context_.index_type, c::c_name(s.name),
                       c::c_dim(s.begin, out_.helpers), c::c_dim(s.end, out_.helpers), s.step);
    out += statements(s.body, depth + 1);
    return out + barrier(depth + 1) + pad(depth) + "}\n";
  }

  // Nothing in it but what each thread does for itself.
  bool is_plain(const Stmt &s) const {
    std::set<std::string> read, written;
    Emitter inner = *this;
    note_private(s, inner.private_);
    inner.find_uses(s, read, written);
    return written.empty() && !has_stack(s) && !has_parallel(s);
  }
  static void note_private(const Stmt &s, std::set<Symbol> &out) {
    if (s.is(Stmt::Kind::alloc) && s.space == MemorySpace::reg && s.size == 1)
      out.insert(s.name);
    for (const auto *list : {&s.body, &s.other})
      for (const Stmt &inner : *list)
        note_private(inner, out);
  }
  static bool has_stack(const Stmt &s) {
    bool here = s.is(Stmt::Kind::alloc) && !(s.space == MemorySpace::reg && s.size == 1);
    auto inside = [](const std::vector<Stmt> &list) { return std::any_of(list.begin(), list.end(), has_stack); };
    return here || inside(s.body) || inside(s.other);
  }
  static bool has_parallel(const Stmt &s) {
    auto inside = [](const std::vector<Stmt> &list) { return std::any_of(list.begin(), list.end(), has_parallel); };
    return is_loop(s, LoopKind::parallel) || inside(s.body) || inside(s.other);
  }

  std::string parallel(const Stmt &s, int depth) {
    std::vector<const Stmt *> nest = perfect_nest(s, LoopKind::parallel);
    const std::vector<Stmt> &body = nest.back()->body;
    Dim total = product_of(nest);
    bool for_warps = !group_.is_warp && wants_group(nest, body) && !std::any_of(body.begin(), body.end(), has_big_stack);
    bool together = std::any_of(body.begin(), body.end(), has_big_stack) || (group_.is_warp && std::any_of(body.begin(), body.end(), has_stack));
    if (!group_.is_warp)
      if (auto product = inner_product(s, depth))
        return wait_for(s, depth) + *product;
    if (for_warps)
      return over_warps(s, nest, body, total, depth);
    if (together && !group_.is_warp) {
      // One iteration after the other, each by the whole block.
      std::string out = barrier(depth);
      out += fmt::format("{0}for ({1} kiln_turn = 0; kiln_turn < {2}; ++kiln_turn) {{\n{3}", pad(depth), context_.index_type,
                         c::c_dim(total, out_.helpers), coordinates(nest, "kiln_turn", context_, out_.helpers, pad(depth + 1)));
      out += statements(body, depth + 1);
      return out + barrier(depth + 1) + pad(depth) + "}\n";
    }
    std::string out = wait_for(s, depth);
    return out + shared_loop(nest, {}, depth);
  }

  // All products of a body share one piece of shared memory for their operands.
  std::optional<std::string> inner_product(const Stmt &s, int depth) {
    int64_t limit = std::min(kShared, context_.machine.block_shared_bytes), at = stage_at_ < 0 ? (out_.shared_bytes + 127) / 128 * 128 : stage_at_;
    InnerPlace place{threads_, depth, halves_, at, stage_at_ < 0 ? limit - at : stage_bytes_};
    auto text = try_inner_product(s, place, context_, out_.helpers);
    if (text && place.stage_bytes > 0 && stage_at_ < 0) {
      stage_at_ = at;
      stage_bytes_ = place.stage_bytes;
      out_.shared_bytes = at + stage_bytes_;
    }
    return text;
  }

  // Iterations spread over the group's threads, several neighbouring ones for each where they can be loaded together.
  std::string shared_loop(std::vector<const Stmt *> nest, const std::set<Symbol> &accumulators, int depth) {
    if (kept_.is_used_in(*nest.back()))
      return row_loop(std::move(nest), accumulators, depth);
    std::string at = fmt::format("kiln_i{}", counter_++);
    Stmt inner = *nest.back();
    int width = vector_width(inner, nest.size() == 1, accumulators, context_);
    // Half of the lanes with twice as much each would take longer.
    Dim count = product_of(nest);
    while (width > 1 && count.is_const() && 2 * count.as_const() <= int64_t(width) * group_.lanes)
      width /= 2;
    if (width > 1)
      inner.step = width;
    nest.back() = &inner;
    std::string out = fmt::format("{0}for ({1} {2} = {3}; {2} < {4}; {2} += {5}) {{\n{6}", pad(depth), context_.index_type, at, group_.lane,
                                  c::c_dim(product_of(nest), out_.helpers), group_.lanes, coordinates(nest, at, context_, out_.helpers, pad(depth + 1)));
    auto body = [&](int d) {
      return width > 1 ? vector_turn(inner, width, d, accumulators, context_, out_.helpers) : c::c_body(inner.body, d, style(), out_.helpers);
    };
    return out + leaf(body, depth + 1) + pad(depth) + "}\n";
  }

  // An assert that fails leaves this iteration alone: the thread is still needed at barriers.
  std::string leaf(const std::function<std::string(int)> &body, int depth) {
    std::string text = body(depth + 1);
    bool leaves = text.find("return;") != std::string::npos;
    return leaves ? pad(depth) + "[&] {\n" + text + pad(depth) + "}();\n" : body(depth);
  }

  static bool has_big_stack(const Stmt &s) {
    constexpr int64_t kBytes = 1 << 10;
    bool here = s.is(Stmt::Kind::alloc) && s.space == MemorySpace::stack && s.size * int64_t(dtype_bytes(s.dtype)) > kBytes;
    auto inside = [](const std::vector<Stmt> &list) { return std::any_of(list.begin(), list.end(), has_big_stack); };
    return here || inside(s.body) || inside(s.other);
  }

  std::string over_warps(const Stmt &s, const std::vector<const Stmt *> &nest, const std::vector<Stmt> &body, const Dim &total, int depth) {
    std::string out = wait_for(s, depth);
    Group outside = std::exchange(group_, group_of(kWarp, 2 * kWarp));
    std::set<std::string> read = std::exchange(read_, {}), written = std::exchange(written_, {});
    std::string at = fmt::format("kiln_i{}", counter_++);
    out += fmt::format("{0}for ({1} {2} = (int)threadIdx.x / 32; {2} < {3}; {2} += {4}) {{\n{5}", pad(depth), context_.index_type, at,
                       c::c_dim(total, out_.helpers), threads_ / kWarp, coordinates(nest, at, context_, out_.helpers, pad(depth + 1)));
    out += statements(body, depth + 1);
    out += barrier(depth + 1) + pad(depth) + "}\n";
    group_ = outside;
    read_ = std::move(read);
    written_ = std::move(written);
    return out;
  }

  std::string reduction(const Stmt &s, const std::vector<const Stmt *> &nest, const std::vector<Update> &updates, int depth) {
    std::string out = wait_for(s, depth);
    out += pad(depth) + "{\n";
    std::string p = pad(depth + 1);
    // The parts have the accumulators' names, inside; what they are joined to is reached by another name.
    for (const Update &u : updates)
      out += fmt::format("{0}{1} *const kiln_all_{2} = {2};\n", p, c::c_type(u.dtype), c::c_name(u.acc));
    out += p + "{\n";
    std::string q = pad(depth + 2);
    for (const Update &u : updates)
      out += fmt::format("{}{} {}[1] = {{{}}};\n", q, c::c_type(u.dtype), c::c_name(u.acc), identity_text(u));
    std::set<Symbol> accumulators;
    for (const Update &u : updates)
      accumulators.insert(u.acc);
    out += shared_loop(nest, accumulators, depth + 2);
    for (const Update &u : updates) {
      std::string type = c::c_type(u.dtype), name = c::c_name(u.acc);
      out += fmt::format("{0}{{\n{0}  auto op = [](const {1} v_a, const {1} v_b) -> {1} {{ return {2}; }};\n", q, type,
                         join_text(u, out_.helpers));
      std::string all = group_.is_warp ? fmt::format("kiln_lanes_reduce<{}>({}[0], op)", group_.lanes, name)
                                       : fmt::format("kiln_block_reduce({}[0], {}, op)", name, identity_text(u));
      out += fmt::format("{0}  kiln_all_{1}[0] = op(kiln_all_{1}[0], {2});\n{0}}}\n", q, name, all);
    }
    return out + p + "}\n" + pad(depth) + "}\n";
  }

  const NestContext &context_;
  const KeptRows &kept_;
  std::map<int, int64_t> places_; // of rows in shared memory
  int threads_;
  Group group_;
  int rows_; // groups of a block
  GpuNest out_;
  std::string allocs_;
  std::set<Symbol> halves_;  // memory of the group that holds values of f16 or bf16 alone
  std::set<Symbol> private_; // each thread has its own, of the same value or its part of a sum
  std::set<std::string> read_, written_;
  int counter_ = 0;
  int64_t stage_at_ = -1, stage_bytes_ = 0; // shared memory of inner products
};

// The longest loop directly in a body.
int64_t longest(const std::vector<Stmt> &body) {
  int64_t most = 0;
  for (const Stmt &s : body) {
    if (s.is(Stmt::Kind::loop)) {
      std::vector<const Stmt *> nest = perfect_nest(s, s.loop);
      Dim total = product_of(nest);
      most = std::max(most, total.is_const() ? total.as_const() : int64_t(1) << 20);
      most = std::max(most, longest(nest.back()->body));
    } else if (s.is(Stmt::Kind::if_) || s.is(Stmt::Kind::while_)) {
      most = std::max({most, longest(s.body), longest(s.other)});
    }
  }
  return most;
}

// Nothing but rows and accumulators, and loops that have none inside.
bool has_rows_alone(const KeptRows &kept) {
  bool allocates = any_stmt(kept.body, [&](const Stmt &s) {
    return s.is(Stmt::Kind::alloc) && !(s.space == MemorySpace::reg && s.size == 1) && !kept.rows.contains(s.name);
  });
  return !allocates && std::none_of(kept.body.begin(), kept.body.end(), [](const Stmt &s) {
    return s.is(Stmt::Kind::loop) && any_stmt(perfect_nest(s, s.loop).back()->body, [](const Stmt &i) { return i.is(Stmt::Kind::loop); });
  });
}

} // namespace

bool reads_along(const Stmt &reduce, Symbol fastest) {
  std::vector<const Stmt *> nest = perfect_nest(reduce, LoopKind::reduce);
  int along = 0, across = 0;
  std::function<void(const Expr &)> look = [&](const Expr &e) {
    if (e.is(Expr::Kind::load)) {
      auto step = e.index.coefficient_of(nest.back()->name);
      bool is_across = first_step(e.index, fastest) == 1;
      along += step && step->is_const(1) && !is_across;
      across += is_across;
    }
    for (const Expr &arg : e.args)
      look(arg);
  };
  for (const Stmt &s : nest.back()->body)
    look(s.value);
  return along > 0 && across == 0;
}

bool wants_group(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body) {
  for (const Stmt &s : body) {
    bool is_long_parallel = is_loop(s, LoopKind::parallel) && is_long(product_of(perfect_nest(s, LoopKind::parallel)));
    if (is_long_parallel)
      return true;
    if (s.is(Stmt::Kind::alloc) && s.space == MemorySpace::stack && s.size > 64)
      return true;
    if (!is_loop(s, LoopKind::reduce))
      continue;
    std::vector<const Stmt *> nest = perfect_nest(s, LoopKind::reduce);
    if (is_long(product_of(nest)) && !updates_of(nest.back()->body).empty() && reads_along(s, outer.back()->name))
      return true;
  }
  return false;
}

GpuNest emit_group(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, const NestContext &context) {
  int64_t work = longest(body);
  Dim total = product_of(outer);
  int64_t groups = total.is_const() ? total.as_const() : 1024;
  bool has_stack = any_stmt(body, [](const Stmt &s) { return s.is(Stmt::Kind::alloc) && s.space == MemorySpace::stack && s.size > 2048; });
  // A warp for a short row; four rows in a block. A block for a long one, or where there are few.
  bool is_warp = !outer.empty() && !has_stack && work <= 1024 && groups >= 2 * context.machine.multiprocessors;
  // The tiles of a product inside keep eight warps busy, with all registers that they can use.
  bool has_product = any_stmt(body, [](const Stmt &s) { return is_loop(s, LoopKind::parallel) && match_product(s); });
  KeptRows kept = keep_rows(outer, body, context);
  int threads = is_warp ? 128 : has_product ? 256 : work <= 128 ? 128 : work <= 4096 || groups > 4 * context.machine.multiprocessors ? 256 : 1024;
  if (outer.empty() && work < 32)
    threads = 32;
  int lanes = is_warp ? kWarp : threads;
  if (kept.any() && has_rows_alone(kept)) {
    lanes = kept.threads(groups, context.machine);
    lanes = outer.empty() ? std::max(lanes, kWarp) : lanes;
    threads = outer.empty() || lanes > kWarp ? lanes : 128;
    // Few rows have a block each.
    while (threads > kWarp && threads > lanes && groups * lanes < 2 * context.machine.multiprocessors * threads)
      threads /= 2;
  } else if (!kept.in_registers || kept.count * kept.element_bytes > int64_t(lanes) * 2 * KeptRows::kThreadBytes) {
    kept = KeptRows();
    kept.body = body;
  }
  GpuNest out = Emitter(context, kept, threads, lanes).emit(outer);
  out.work = work_of(context.kernel, outer, kept.body, {LaunchForm::group, lanes});
  for (size_t at; (at = out.text.find("KILN_SCRATCH_BYTES")) != std::string::npos;)
    out.text.replace(at, std::string_view("KILN_SCRATCH_BYTES").size(), std::to_string(out.scratch_bytes));
  return out;
}

} // namespace kiln::cuda
