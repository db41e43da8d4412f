// Windows by threads that keep them in registers (window.h). Where results are few and sums long, warps of a block take slices of the
// sum, which are joined in order.
#include "codegen/cuda/vector_body.h"
#include "codegen/cuda/window.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"
#include "passes/kernel/rewrite.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::cuda {
namespace {

struct WindowShape {
  int64_t strip = 1; // results of a thread, beside columns and lanes
  int64_t width = 1; // lanes: neighbouring iterations of the fastest loop
  int slices = 1;    // of the outermost other loop of the sum
};

int64_t width_of(const WindowReduction &w, const Rectangle &rectangle, const NestContext &context) {
  Stmt fastest = *w.results.back();
  fastest.body = {w.update};
  fastest.body.insert(fastest.body.end(), w.after.begin(), w.after.end());
  int64_t width = vector_width(fastest, false, {w.how.acc}, context);
  if (std::any_of(rectangle.guards.begin(), rectangle.guards.end(), [&](const Guard &g) { return g.value.depends_on(fastest.name); }))
    return 1;
  while (width > 1 && rectangle.ragged && !is_multiple(rectangle.ragged->total, width))
    width /= 2;
  return width;
}

constexpr int64_t kTypical = 1 << 20; // results where only a run tells

int64_t inner_steps(const WindowReduction &w) { return w.inner ? extent_of(*w.inner).as_const() : 1; }
// That leave no multiprocessor idle.
int64_t wanted_threads(const GpuMachine &machine) { return int64_t(machine.multiprocessors) * machine.threads / 8; }
int64_t thread_count(const WindowReduction &w, const WindowShape &shape) {
  return constant(product_of(w.results)).value_or(kTypical) / (shape.strip * shape.width) * shape.slices;
}

// As much of a strip as there are registers for, and as leaves the device enough threads.
WindowShape choose_shape(const WindowReduction &w, const Rectangle &rectangle, const NestContext &context) {
  constexpr int64_t kMostSums = 48, kMostLoaded = 112, kMostUpdates = 512, kMostSlices = 8, kLeastSteps = 64;
  WindowShape out;
  out.width = width_of(w, rectangle, context);
  int64_t columns = count_columns(w), inner = inner_steps(w);
  int64_t length = w.strip ? constant(extent_of(*w.strip)).value_or(kTypical) : 1;
  auto fits = [&](int64_t strip) {
    return strip * columns * out.width <= kMostSums && strip * columns * inner <= kMostUpdates &&
           int64_t(window_steps(w, rectangle, strip, out.width).loads.size()) * out.width <= kMostLoaded;
  };
  while (out.strip * 2 <= std::min<int64_t>(length, 16) && fits(out.strip * 2))
    out.strip *= 2;
  int64_t most_slices = 1, steps = constant(product_of(w.sum)).value_or(0) * inner;
  if (!rectangle.ragged && steps >= kLeastSteps && !w.sum.empty())
    most_slices = std::min(kMostSlices, w.sum[0]->end.as_const() / 2);
  while (thread_count(w, out) < wanted_threads(context.machine) && (out.slices * 2 <= most_slices || out.strip > 2))
    if (out.slices * 2 <= most_slices)
      out.slices *= 2;
    else
      out.strip /= 2;
  int64_t strips = (length + out.strip - 1) / out.strip;
  out.strip = (length + strips - 1) / strips;
  return out;
}

// Long sums of few results are others'. Results that share nothing are only taken for wide loads.
bool pays(const WindowReduction &w, const WindowShape &shape, const GpuMachine &machine) {
  constexpr int64_t kShort = 64, kLong = 256;
  int64_t steps = constant(product_of(w.sum)).value_or(kTypical) * inner_steps(w), threads = thread_count(w, shape), wanted = wanted_threads(machine);
  if (w.strip)
    return shape.strip * count_columns(w) * shape.width > 1 && (steps <= kLong || threads >= wanted / 2);
  return shape.width > 1 && steps <= kShort && threads >= wanted;
}

class WindowEmitter {
public:
  WindowEmitter(const WindowReduction &w, const Rectangle &rectangle, const WindowShape &shape, const NestContext &context)
      : w_(w), rectangle_(rectangle), shape_(shape), context_(context), steps_(window_steps(w, rectangle, shape.strip, shape.width)),
        fastest_(*w.results.back()), strip_(w.strip ? *w.strip : Stmt{}), loops_(w.results) {
    strip_.step = shape.strip;
    std::replace(loops_.begin(), loops_.end(), w.strip, static_cast<const Stmt *>(&strip_));
    sums_ = shape.strip * count_columns(w) * shape.width;
    own_ = {window_sums()};
    for (const WindowLoad &l : steps_.loads)
      own_.insert(l.name);
  }

  GpuNest emit() {
    constexpr int kThreads = 128, kLanes = 32;
    const int lanes = shape_.slices > 1 ? kLanes : kThreads;
    out_.work = work_of(context_.kernel, loops_, estimated(), {LaunchForm::window, shape_.slices, 1, int(shape_.width)});
    Stmt wide = fastest_;
    wide.step = shape_.width;
    loops_.back() = &wide;
    Dim total = product_of(loops_);
    out_.threads = lanes * shape_.slices;
    out_.blocks = ceildiv(total, lanes);
    const std::string &index = context_.index_type;
    std::string count = c::c_dim(total, out_.helpers), type = c::c_type(w_.how.dtype), sums = c::c_name(window_sums());
    std::string &t = out_.text;
    t = fmt::format("  const int kiln_own = (int)threadIdx.x % {0}, kiln_slice = (int)threadIdx.x / {0};\n  (void)kiln_slice;\n", lanes);
    if (shape_.slices > 1)
      t += fmt::format("  __shared__ {} kiln_parts[{}][{}][{}];\n", type, shape_.slices - 1, sums_, lanes);
    // Lanes past the last result compute it too, and leave it.
    t += fmt::format("  for ({0} kiln_group = ({0})blockIdx.x; kiln_group * {1} < {2}; kiln_group += ({0})gridDim.x) {{\n"
                     "    const bool kiln_inside = kiln_group * {1} + kiln_own < {2};\n    const {0} kiln_at = kiln_inside ? kiln_group * {1} + kiln_own : {2} - 1;\n",
                     index, lanes, count);
    t += coordinates(loops_, "kiln_at", context_, out_.helpers, "    ");
    std::string first = c::c_expr(w_.init->value, out_.helpers);
    if (shape_.slices > 1)
      first = fmt::format("kiln_slice == 0 ? {} : {}", first, identity_text(w_.how));
    t += fmt::format("    {0} {1}[{2}];\n#pragma unroll\n    for (int e = 0; e < {2}; ++e)\n      {1}[e] = {3};\n", type, sums, sums_, first);
    t += sum() + (shape_.slices > 1 ? join() : "    if (kiln_inside) {\n") + finish() + "    }\n" + (shape_.slices > 1 ? "    __syncthreads();\n" : "") + "  }\n";
    return std::move(out_);
  }

private:
  std::string is_whole() {
    const RaggedAxis &axis = *rectangle_.ragged;
    return c::c_dim(Dim::symbol(axis.outer) * axis.block + Dim::symbol(axis.inner), out_.helpers) + " < " + c::c_dim(axis.total, out_.helpers);
  }
  bool has_tail() const { return w_.strip && !is_multiple(w_.strip->end, shape_.strip); }
  std::string is_in_strip(int64_t result) {
    return fmt::format("{} < {}", c::c_dim(Dim::symbol(w_.strip->name) + Dim(result), out_.helpers), c::c_dim(w_.strip->end, out_.helpers));
  }

  // What a load asks before it is done; empty where it may always be.
  std::string condition(const WindowLoad &l) {
    std::vector<std::string> all;
    for (const Guard &g : l.guards)
      all.push_back(guard_text(c::c_dim(g.value, out_.helpers), g.limit, context_, out_.helpers));
    if (has_tail() && l.first > 0 && l.value.index.depends_on(w_.strip->name))
      all.push_back(is_in_strip(l.first));
    if (rectangle_.ragged && (l.value.index.depends_on(rectangle_.ragged->outer) || l.value.index.depends_on(rectangle_.ragged->inner)))
      all.push_back(is_whole());
    return fmt::format("{}", fmt::join(all, " && "));
  }

  // What counts for nothing, as the update takes it.
  std::string nothing(DType dtype) const {
    bool is_least = w_.how.op == BinaryOp::max;
    if (w_.how.op == BinaryOp::add)
      return "0";
    if (dtype == DType::f16 || dtype == DType::bf16)
      return dtype == DType::f16 ? (is_least ? "0xfc00" : "0x7c00") : (is_least ? "0xff80" : "0x7f80");
    return identity_text({w_.how.acc, w_.how.op, dtype});
  }

  std::string load(const WindowLoad &l, const std::string &pad) {
    std::string at = fmt::format("{} + ({})", c::c_name(l.value.name), c::c_dim(l.value.index, out_.helpers)), inside = condition(l);
    int64_t width = l.in_pack ? shape_.width : 1;
    std::string value = inside.empty() ? fmt::format("kiln_load<{}>({})", width, at)
                                       : fmt::format("kiln_load_if<{}>({}, {}, ({})({}))", width, inside, at, c::c_type(l.value.dtype), nothing(l.value.dtype));
    return fmt::format("{}const auto {} = {};\n", pad, c::c_name(l.name), value);
  }

  // The statements for all lanes.
  std::string by_lanes(std::vector<Stmt> body, int depth) {
    if (shape_.width > 1) {
      Stmt lanes = fastest_;
      lanes.body = std::move(body);
      return vector_turn(lanes, int(shape_.width), depth, own_, context_, out_.helpers);
    }
    c::StmtStyle style{"*trap = {}; return;", nullptr, "", context_.index_type};
    return fmt::format("{}const int {} = 0;\n", std::string(size_t(depth) * 2, ' '), c::c_name(Symbol("kiln_lane"))) + c::c_body(body, depth, style, out_.helpers);
  }

  std::string sum() {
    constexpr int64_t kWorthUnrolling = 256;
    std::string text, pad(4, ' '), close;
    int64_t turns = constant(product_of(w_.sum)).value_or(kWorthUnrolling);
    bool unroll = shape_.slices == 1 && turns * int64_t(steps_.updates.size()) <= kWorthUnrolling;
    for (const Stmt *l : w_.sum) {
      std::string name = c::c_name(l->name), end = c::c_dim(l->end, out_.helpers), begin = "0";
      if (l == w_.sum[0] && shape_.slices > 1) {
        begin = fmt::format("{} * kiln_slice / {}", end, shape_.slices);
        end = fmt::format("{} * (kiln_slice + 1) / {}", end, shape_.slices);
      }
      text += fmt::format("#pragma unroll{0}\n{1}for ({2} {3} = {4}; {3} < {5}; ++{3}) {{\n", unroll ? "" : " 1", pad, context_.index_type, name, begin, end);
      close = pad + "}\n" + close;
      pad += "  ";
    }
    text += pad + "{\n";
    for (const WindowLoad &l : steps_.loads)
      text += load(l, pad + "  ");
    return text + by_lanes(steps_.updates, int(pad.size()) / 2 + 1) + pad + "}\n" + close;
  }

  std::string join() {
    return fmt::format(R"(    if (kiln_slice > 0)
#pragma unroll
      for (int e = 0; e < {0}; ++e)
        kiln_parts[kiln_slice - 1][e][kiln_own] = {1}[e];
    __syncthreads();
    if (kiln_slice == 0 && kiln_inside) {{
#pragma unroll
      for (int s = 0; s < {2}; ++s)
#pragma unroll
        for (int e = 0; e < {0}; ++e) {{
          const {3} v_a = {1}[e], v_b = kiln_parts[s][e][kiln_own];
          {1}[e] = {4};
        }}
)",
                       sums_, c::c_name(window_sums()), shape_.slices - 1, c::c_type(w_.how.dtype), join_text(w_.how, out_.helpers));
  }

  std::vector<Stmt> after(int64_t result, int64_t column) const {
    std::vector<Stmt> body = w_.after;
    substitute(body, [&](Symbol s) { return place_in_window(w_, s, result, column); });
    visit_exprs(body, [&](Expr &e) {
      if (e.is(Expr::Kind::load) && e.name == w_.how.acc)
        e = kb::load(window_sums(), e.dtype, window_sum_at(w_, result, column, shape_.width));
    });
    return body;
  }

  std::string finish() {
    std::string text;
    for (int64_t result = 0; result < shape_.strip; ++result)
      for (int64_t column = 0; column < count_columns(w_); ++column) {
        std::vector<std::string> all;
        if (has_tail() && result > 0)
          all.push_back(is_in_strip(result));
        if (rectangle_.ragged)
          all.push_back(is_whole());
        text += fmt::format("      {}{{\n{}      }}\n", all.empty() ? "" : fmt::format("if ({}) ", fmt::join(all, " && ")), by_lanes(after(result, column), 4));
      }
    return text;
  }

  // The nest that a thread works off, to be estimated: what it has in registers are no loads.
  std::vector<Stmt> estimated() const {
    std::vector<Stmt> body;
    for (const WindowLoad &l : steps_.loads)
      body.push_back(kb::let(l.name, l.value));
    for (Stmt update : steps_.updates) {
      visit_exprs(update.value, [](Expr &e) {
        if (e.is(Expr::Kind::load))
          e = kb::var(e.name, e.dtype);
      });
      body.push_back(std::move(update));
    }
    for (size_t i = w_.sum.size(); i-- > 0;) {
      Stmt loop = *w_.sum[i];
      loop.body = std::move(body);
      body = {std::move(loop)};
    }
    for (int64_t result = 0; result < shape_.strip; ++result)
      for (int64_t column = 0; column < count_columns(w_); ++column)
        for (Stmt &s : after(result, column))
          body.push_back(std::move(s));
    return body;
  }

  const WindowReduction &w_;
  const Rectangle &rectangle_;
  WindowShape shape_;
  const NestContext &context_;
  WindowSteps steps_;
  Stmt fastest_, strip_;
  Loops loops_;
  int64_t sums_ = 1;
  std::set<Symbol> own_; // what a thread has in registers
  GpuNest out_;
};

} // namespace

std::optional<GpuNest> try_emit_window(const Stmt &nest, const NestContext &context) {
  Rectangle rectangle = make_rectangular(nest);
  auto window = match_window(rectangle);
  if (!window)
    return std::nullopt;
  WindowShape shape = choose_shape(*window, rectangle, context);
  if (!pays(*window, shape, context.machine))
    return std::nullopt;
  return WindowEmitter(*window, rectangle, shape, context).emit();
}

} // namespace kiln::cuda
