#include "codegen/cuda/launch_work.h"

#include "codegen/cuda/nest.h"
#include "codegen/cuda/product.h"
#include "codegen/cuda/rectangle.h"
#include "codegen/cuda/tile_shape.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

namespace kiln::cuda {
namespace {

constexpr int64_t kUnknown = 64;
// Cycles until what a thread loads is there, and loads of a loop that are on their way together.
constexpr double kLatency = 600, kAhead = 8;
constexpr double kSector = 32, kWarp = 32;
constexpr double kLaunchCycles = 2500; // from one kernel of a graph to the next

// A multiprocessor starts 128 operations in a cycle. `registers`: what loads of them are none of.
double operations(const Expr &e, const std::set<Symbol> &registers) {
  double sum = 0;
  switch (e.kind) {
  case Expr::Kind::unary:
    sum = is_primitive(e.unary) ? 1 : 12;
    break;
  case Expr::Kind::binary:
    sum = !is_primitive(e.binary) ? 20 : e.binary == BinaryOp::div || e.binary == BinaryOp::rem ? 8 : 1;
    break;
  case Expr::Kind::load:
  case Expr::Kind::gather:
    sum = registers.contains(e.name) ? 0 : 4; // a quarter of the rate, and some for the address
    break;
  case Expr::Kind::fma:
  case Expr::Kind::select:
  case Expr::Kind::convert:
    sum = 1;
    break;
  default:
    break;
  }
  for (const Expr &arg : e.args)
    sum += operations(arg, registers);
  return sum;
}

class Walk {
public:
  Walk(const Kernel &kernel, const LaunchThreads &threads, LaunchWork &out) : kernel_(kernel), threads_(threads), out_(out) {}

  void nest(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body) {
    double count = 1;
    for (const Stmt *l : outer)
      count *= enter(*l);
    if (!outer.empty())
      lane_ = outer.back()->name;
    double lanes = double(threads_.form == LaunchForm::group ? threads_.together * std::max<int64_t>(threads_.warps, 1) : threads_.together);
    out_.threads = std::max(1.0, count / threads_.width * lanes);
    // Divisions that find the coordinates.
    out_.cycles += count / threads_.width * lanes * 10 * double(outer.size()) / 128;
    out_.wait = statements(body, count, threads_.form == LaunchForm::flat ? 1 : threads_.together);
    for (const auto &[buffer, bytes] : read_)
      out_.read += std::min(bytes, size_of(buffer)), out_.bytes[buffer] += std::min(bytes, size_of(buffer));
    for (const auto &[buffer, bytes] : written_)
      out_.written += std::min(bytes, size_of(buffer)), out_.bytes[buffer] += std::min(bytes, size_of(buffer));
    out_.least_cycles = out_.products / 128;
  }

private:
  double size_of(Symbol buffer) const {
    const KernelBuffer *b = kernel_.find_buffer(buffer);
    return b ? value_of(b->size) * double(dtype_bytes(b->dtype)) : 1e18;
  }
  bool is_global(Symbol buffer) const { return kernel_.find_buffer(buffer) || buffer == work_buffer(); }

  double value_of(const Dim &d) const {
    auto value = d.evaluate([&](Symbol s) -> std::optional<int64_t> {
      auto it = middle_.find(s);
      return it == middle_.end() ? kUnknown : it->second;
    });
    return double(value.value_or(kUnknown));
  }
  // Iterations; its variable is in the middle of them from here on.
  double enter(const Stmt &loop) {
    double begin = value_of(loop.begin), end = value_of(loop.end), count = std::max(0.0, std::ceil((end - begin) / double(loop.step)));
    extent_[loop.name] = count;
    middle_[loop.name] = int64_t((begin + end) / 2);
    return count;
  }

  // Elements that an index comes by: of the loops that it depends on.
  double places(const Dim &index, double count) const {
    double own = 1;
    for (const auto &[name, extent] : extent_)
      if (index.depends_on(name))
        own *= extent;
    return std::min(own, count);
  }

  // Bytes of sectors for each lane: neighbours share them where they are near each other, or a thread's next step does.
  double bytes_moved(const Dim &index, double bytes, Symbol lane, Symbol step) const {
    auto stride_of = [&](Symbol name) -> double {
      if (name.empty() || !index.depends_on(name))
        return 0;
      if (auto c = index.coefficient_of(name))
        return std::abs(value_of(*c));
      auto first = first_step(index, name); // in blocks, of which most neighbours have the same
      return first ? std::abs(double(*first)) : 1e9;
    };
    double across = stride_of(lane), along = stride_of(step);
    if (across == 0)
      return along * bytes >= kSector || along == 0 ? std::max(bytes, kSector) / kWarp : bytes / kWarp;
    double each = std::min(across * bytes, std::max(kSector, bytes));
    bool is_kept = along > 0 && along * bytes < kSector && each > bytes; // by the first cache, until the next steps
    return is_kept ? std::max(bytes, along * bytes) : each;
  }

  void access(Symbol buffer, DType dtype, const Dim &index, double count, bool is_store) {
    if (!is_global(buffer))
      return;
    double bytes = double(dtype_bytes(dtype));
    (is_store ? written_ : read_)[buffer] += places(index, count) * bytes;
    out_.moved += count * bytes_moved(index, bytes, lane_, step_);
  }
  // Whether something came from global memory.
  bool evaluate(const Expr &e, double count) {
    bool loads = false;
    if (e.is(Expr::Kind::load)) {
      access(e.name, e.dtype, e.index, count, false);
      loads = is_global(e.name);
    } else if (e.is(Expr::Kind::gather) && is_global(e.name)) {
      read_[e.name] += count * double(dtype_bytes(e.dtype));
      out_.moved += count * kSector;
      loads = true;
    }
    for (const Expr &arg : e.args)
      loads |= evaluate(arg, count);
    return loads;
  }

  // Cycles that a thread waits in it. `spread`: threads that share its loops.
  double statements(const std::vector<Stmt> &body, double count, int64_t spread) {
    double wait = 0;
    bool loads = false; // those of neighbouring statements are on their way together
    for (const Stmt &s : body) {
      if (s.is(Stmt::Kind::loop)) {
        wait += loop(s, count, spread);
        continue;
      }
      if (!s.value.is(Expr::Kind::none)) {
        loads |= evaluate(s.value, count);
        out_.cycles += count * operations(s.value, registers_) / 128;
      }
      if (s.is(Stmt::Kind::alloc) && s.space == MemorySpace::reg)
        registers_.insert(s.name);
      if (s.is(Stmt::Kind::store)) {
        access(s.name, s.value.dtype, s.index, count, true);
        if (is_global(s.name))
          out_.cycles += count * 4 / 128;
      }
      if (s.value.is(Expr::Kind::fma))
        out_.products += count;
      wait += std::max(statements(s.body, count, spread), statements(s.other, count, spread));
    }
    return wait + (loads ? kLatency : 0);
  }

  double loop(const Stmt &s, double count, int64_t spread) {
    std::vector<const Stmt *> nest = perfect_nest(s, s.loop);
    double trips = 1;
    for (const Stmt *l : nest)
      trips *= enter(*l);
    const std::vector<Stmt> &body = nest.back()->body;
    bool is_spread = spread > 1 && (s.loop == LoopKind::parallel || s.loop == LoopKind::reduce);
    if (is_spread && threads_.form == LaunchForm::group && spread > 32 && s.loop == LoopKind::parallel)
      if (auto product = match_product(s))
        return inner_product(*product, count, trips, spread);
    Symbol lane = lane_, step = step_;
    int64_t inside = 1;
    if (is_spread && threads_.form == LaunchForm::group && s.loop == LoopKind::parallel && threads_.warps == 1 && spread > 32 && wants_group(nest, body)) {
      inside = 32; // a warp each
      spread /= 32;
    } else if (is_spread && threads_.form == LaunchForm::group) {
      lane_ = nest.back()->name;
    } else {
      step_ = nest.back()->name;
    }
    double turns = is_spread ? std::ceil(trips / double(spread)) : trips;
    double each = statements(body, count * trips, is_spread ? inside : spread);
    lane_ = lane;
    step_ = step;
    for (const Stmt *l : nest)
      extent_.erase(l->name);
    bool is_ahead = each <= kLatency; // turns of a loop with loads alone overlap
    double joined = is_spread && s.loop == LoopKind::reduce ? 150 : 0;
    return joined + each * (is_ahead ? std::ceil(turns / kAhead) : turns);
  }

  // A block has its operands in shared memory.
  double inner_product(const Product &p, double count, double results, int64_t spread) {
    double steps = 1;
    for (const Stmt *l : p.sum)
      steps *= enter(*l);
    for (const Expr *e : {&p.a, &p.b})
      each_load(*e, [&](const Expr &load) {
        if (is_global(load.name)) {
          double bytes = double(dtype_bytes(load.dtype)), inside = 1;
          for (const auto *loops : {&p.rows, &p.columns, &p.sum})
            for (const Stmt *l : *loops)
              inside *= load.index.depends_on(l->name) ? extent_[l->name] : 1;
          read_[load.name] += places(load.index, count * results * steps) * bytes;
          out_.moved += count * inside * bytes;
        }
      });
    out_.products += count * results * steps;
    out_.cycles += count * results * steps * 2 / 128;
    for (const auto *loops : {&p.rows, &p.columns, &p.batch, &p.sum})
      for (const Stmt *l : *loops)
        extent_.erase(l->name);
    return kLatency + 4 * steps * std::ceil(results / double(spread));
  }
  template <typename F>
  void each_load(const Expr &e, const F &f) const {
    if (e.is(Expr::Kind::load))
      f(e);
    for (const Expr &arg : e.args)
      each_load(arg, f);
  }

  const Kernel &kernel_;
  const LaunchThreads &threads_;
  LaunchWork &out_;
  Symbol lane_, step_;
  std::set<Symbol> registers_;
  std::map<Symbol, double> extent_;
  std::map<Symbol, int64_t> middle_;
  std::map<Symbol, double> read_, written_;
};

} // namespace

std::string_view form_name(LaunchForm form) {
  constexpr std::array<std::string_view, 6> kNames{"flat", "turned", "window", "split", "group", "tile"};
  return kNames[size_t(form)];
}

LaunchWork work_of(const Kernel &kernel, const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, const LaunchThreads &threads) {
  LaunchWork out;
  out.form = threads.form;
  Walk(kernel, threads, out).nest(outer, body);
  return out;
}

LaunchWork updates_work(const Kernel &kernel, const std::vector<const Stmt *> &steps, const std::vector<Stmt> &body, const UpdateThreads &threads) {
  LaunchWork out = work_of(kernel, steps, body, {LaunchForm::group, threads.threads});
  double count = double(product_of(steps).try_const().value_or(kUnknown)), all = double(threads.shares * threads.threads);
  // Every warp looks at all indices, a lane at one; a share has its part of the updates, as they are spread in the mean.
  double looks = std::ceil(count / (kWarp * threads.looks)), updates = std::ceil(count / double(threads.shares) / threads.terms);
  out.cycles += all * count / kWarp * 16 / 128;
  out.wait = (looks + 2 * updates) * kLatency;
  out.threads = all;
  return out;
}

LaunchWork tile_work(const Kernel &kernel, const Product &p, const TileShape &shape, const GpuMachine &machine) {
  // What is read and written once is that of the naive nest.
  Loops results = p.batch;
  results.insert(results.end(), p.rows.begin(), p.rows.end());
  results.insert(results.end(), p.columns.begin(), p.columns.end());
  Stmt sum;
  sum.kind = Stmt::Kind::store;
  sum.name = p.acc->name;
  sum.value.kind = Expr::Kind::fma;
  sum.value.dtype = p.dtype;
  sum.value.args = {p.a, p.b};
  std::vector<Stmt> body{sum};
  for (size_t i = p.sum.size(); i-- > 0;) {
    Stmt loop = *p.sum[i];
    loop.body = std::move(body);
    body = {std::move(loop)};
  }
  body.insert(body.end(), p.after.begin(), p.after.end());
  LaunchWork out = work_of(kernel, results, body, {LaunchForm::tile});
  auto number = [](const Dim &d) { return double(d.try_const().value_or(kUnknown)); };
  double rows = number(p.count_rows()), columns = number(p.count_columns()), batch = number(product_of(p.batch)), steps = number(product_of(p.sum));
  double tiles = std::ceil(rows / shape.rows) * std::ceil(columns / shape.columns) * batch;
  double deep = std::ceil(steps / shape.depth) * shape.depth, bytes = double(dtype_bytes(p.narrow.value_or(p.dtype)));
  out.moved = tiles * deep * double(shape.rows + shape.columns) * bytes + out.written;
  // Blocks that a multiprocessor does not have beside the first one leave it waiting.
  double blocks = tiles * shape.slices, most = std::ceil(blocks / machine.multiprocessors);
  out.cycles = most * (most == 1 ? 1.2 : 1) * shape.cycles * machine.multiprocessors;
  double rate = shape.unit == TileUnit::scalar ? machine.fma_rate : shape.unit == TileUnit::split ? machine.tile_rate / bytes / 3
              : (shape.unit == TileUnit::tensor ? machine.tile_rate : machine.warpgroup_rate) / bytes;
  out.least_cycles = out.products / rate;
  out.wait = 0;
  out.threads = blocks * shape.threads;
  return out;
}

LaunchWork streamed_work(const Kernel &kernel, const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, int64_t threads, const StreamedWork &streamed) {
  // From the instructions that there are for a weight beside products, and from one span to the next.
  constexpr double kWeight = 8, kSpan = 900;
  LaunchWork out = work_of(kernel, outer, body, {LaunchForm::group, threads});
  double products = out.products * streamed.padding;
  out.cycles = products / streamed.rate + products / streamed.steps * kWeight / 128;
  out.least_cycles = out.products / streamed.rate;
  out.wait = streamed.spans * kSpan;
  out.threads *= streamed.parts;
  return out;
}

LaunchTime time_of(const LaunchWork &work, const GpuMachine &machine) {
  double multiprocessors = machine.multiprocessors, hertz = machine.gigahertz * 1e9;
  double warps = std::ceil(work.threads / kWarp);
  // A multiprocessor without four warps does not start 128 operations in a cycle.
  double busy = work.form == LaunchForm::tile ? multiprocessors : std::min(multiprocessors, std::max(1.0, warps / 4));
  double turns = std::max(1.0, work.threads / (multiprocessors * machine.threads));
  LaunchTime out;
  double launch = kLaunchCycles / hertz, most = 0;
  auto take = [&](double seconds, std::string_view what) {
    if (seconds > most)
      most = seconds, out.bound = seconds < launch ? "launch" : what;
  };
  take((work.read + work.written) / (machine.memory_gigabytes * 1e9), "memory");
  take(work.moved / (32 * multiprocessors * hertz), "cache");
  take(work.cycles / busy / hertz, "math");
  take(work.wait * turns / hertz, "waits");
  if (out.bound.empty())
    out.bound = "launch";
  out.us = (launch + most) * 1e6;
  return out;
}

} // namespace kiln::cuda
