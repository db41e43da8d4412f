// The parallel loops of a nest become one `threads` loop where the work pays for waking threads.
//
//   for g parallel { for y parallel { for t parallel { tile } } }
//   =>  for y threads { for g parallel { for t serial { tile } } }
//
// Which loops are cut is chosen by what moves between cores. Each worker reads all of an operand whose
// place does not depend on the cut loops, and most of what a kernel reads was written by all workers
// alike a moment ago, so it lies in another core's cache; reading it there costs more than reading
// weights, which are in the shared cache. Parallel loops directly in a threads loop run around each
// worker's range of it, so the order of all loops, and with it what stays in the first cache, is that of
// one thread.
// The choice depends on shapes only.
#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"
#include "passes/kernel/work.h"

#include <algorithm>
#include <map>

namespace kiln {
namespace {

constexpr double kMinCycles = 24000;        // of work; waking and waiting cost 2000 to 7000
constexpr double kForeignCyclesPerByte = 1; // what another core wrote
constexpr double kSharedCyclesPerByte = 0.1;
constexpr double kMergeCost = 0.002, kAroundCost = 0.004; // of the work: ties go to the simpler form
constexpr int64_t kMany = 64, kFew = 16; // shares
constexpr int kThreadCounts[] = {2, 3, 4, 8, 16};

// Loops first..first+count-1 of a nest.
struct Cut {
  size_t first = 0, count = 1;
  bool symbolic = false;
  int64_t shares = 1;
};

// The part of a trip count that is known: symbolic dims may be 1.
int64_t known_trips(const Stmt &loop) {
  auto trips = (loop.end - loop.begin).try_const();
  return trips ? std::max<int64_t>(0, (*trips + loop.step - 1) / loop.step) : 1;
}

// The perfectly nested parallel loops from s on whose bounds do not depend on each other.
std::vector<const Stmt *> independent_loops(const Stmt &s) {
  std::vector<const Stmt *> loops{&s};
  while (loops.back()->body.size() == 1) {
    const Stmt &next = loops.back()->body[0];
    bool free = is_loop(next, LoopKind::parallel) &&
                std::none_of(loops.begin(), loops.end(), [&](const Stmt *l) {
                  return next.begin.depends_on(l->name) || next.end.depends_on(l->name);
                });
    if (!free)
      break;
    loops.push_back(&next);
  }
  return loops;
}

// What a kernel reads of a buffer, and with which of the nest's loops its place changes.
struct Operand {
  double bytes = 0;
  bool constant = false;
  std::vector<bool> moves; // by loop
};

std::vector<Operand> operands_of(const Kernel &kernel, const std::vector<const Stmt *> &loops) {
  std::map<Symbol, Operand> found;
  std::vector<Symbol> lets; // they may hold anything
  visit_stmts(loops.back()->body, [&](const Stmt &s) {
    if (s.is(Stmt::Kind::let) && s.value.dtype == DType::i64)
      lets.push_back(s.name);
  });
  auto note = [&](const Expr &e) {
    if (!e.is(Expr::Kind::load) && !e.is(Expr::Kind::gather))
      return;
    const KernelBuffer *buffer = kernel.find_buffer(e.name);
    if (!buffer)
      return;
    Operand &operand = found[e.name];
    operand.moves.resize(loops.size());
    operand.constant = buffer->constant;
    operand.bytes = double(buffer->size.try_const().value_or(0)) * double(dtype_bytes(buffer->dtype));
    bool anywhere = e.is(Expr::Kind::gather) ||
                    std::any_of(lets.begin(), lets.end(),
                                [&](Symbol let) { return e.index.depends_on(let); });
    for (size_t i = 0; i < loops.size(); ++i)
      if (anywhere || e.index.depends_on(loops[i]->name))
        operand.moves[i] = true;
  };
  visit_exprs(loops.back()->body, note);
  std::vector<Operand> out;
  for (auto &[name, operand] : found)
    out.push_back(std::move(operand));
  return out;
}

// The part of an operand that a worker reads, when each of them has a contiguous range of the shares.
double part_read(const Operand &operand, const Cut &cut, const std::vector<const Stmt *> &loops,
                 double range) {
  double part = 1, inner = double(cut.shares);
  for (size_t i = cut.first; i < cut.first + cut.count; ++i) {
    double trips = double(std::max<int64_t>(1, known_trips(*loops[i])));
    inner /= trips;
    if (operand.moves[i])
      part *= std::min(1.0, std::max(1.0, range / inner) / trips);
  }
  return part;
}

// Of all threads together, for a cut of a nest that takes so many cycles on one.
double price(const Cut &cut, const std::vector<const Stmt *> &loops, double cycles,
             const std::vector<Operand> &operands, int threads) {
  double shares = double(cut.shares);
  double largest = double((cut.shares + threads - 1) / threads);
  double sum = cycles * largest * threads / shares;
  for (const Operand &o : operands) {
    double more = part_read(o, cut, loops, shares / threads) * threads - 1;
    sum += o.bytes * std::max(0.0, more) *
           (o.constant ? kSharedCyclesPerByte : kForeignCyclesPerByte);
  }
  return sum + cycles * (kMergeCost * double(cut.count) + kAroundCost * double(cut.first > 0));
}

Cut choose_cut(const Kernel &kernel, const std::vector<const Stmt *> &loops, double cycles) {
  std::vector<Operand> operands = operands_of(kernel, loops);
  Cut best;
  double least = 1e300;
  for (size_t first = 0; first < loops.size(); ++first) {
    Cut cut{first, 0, false, 1};
    for (size_t last = first; last < loops.size() && cut.shares < kMany; ++last) {
      ++cut.count;
      // A symbolic size may be 1 (a batch), but two of them (images and their rows) hardly ever are.
      Dim trips = loops[last]->end - loops[last]->begin;
      bool often = trips.symbols().size() + size_t(cut.symbolic && !trips.is_const()) > 1;
      cut.shares *= often ? kMany : std::max<int64_t>(1, known_trips(*loops[last]));
      cut.symbolic |= !trips.is_const();
      // The loops in it are cut as well.
      if (cut.symbolic && cut.shares < kFew && last + 1 < loops.size())
        continue;
      double sum = 0;
      for (int threads : kThreadCounts)
        sum += price(cut, loops, cycles, operands, threads);
      if (sum < least) {
        least = sum;
        best = cut;
      }
    }
  }
  return best;
}

// for w in 0..trips { let each loop's variable; innermost body }
Stmt merged_loop(const std::vector<const Stmt *> &loops, const Cut &cut, Names &names) {
  const Stmt &innermost = *loops[cut.first + cut.count - 1];
  if (cut.count == 1) {
    Stmt out = innermost;
    out.loop = LoopKind::threads;
    return out;
  }
  Symbol share = names.fresh("w");
  Dim total = 1;
  std::vector<Stmt> body;
  for (size_t i = cut.first + cut.count; i-- > cut.first;) {
    const Stmt &l = *loops[i];
    Dim trips = ceildiv(l.end - l.begin, l.step);
    Dim at = floordiv(Dim::symbol(share), total);
    if (i > cut.first)
      at = mod(at, trips);
    body.insert(body.begin(), kb::let(l.name, kb::index(l.begin + at * Dim(l.step))));
    total *= trips;
  }
  body.insert(body.end(), innermost.body.begin(), innermost.body.end());
  Stmt out = kb::loop(share, 0, total, LoopKind::threads, std::move(body));
  keep_turn(out, *loops[cut.first]);
  return out;
}

bool over_threads(Kernel &kernel, Stmt &s, const MachineDesc &machine, Names &names) {
  double cycles = cycles_of(s, machine);
  if (cycles < kMinCycles)
    return false;
  std::vector<const Stmt *> loops = independent_loops(s);
  Cut cut = choose_cut(kernel, loops, cycles);
  if (cut.shares < 2 && !cut.symbolic)
    return false;
  Stmt threads = merged_loop(loops, cut, names);
  for (Stmt &inner : threads.body)
    if (is_loop(inner, LoopKind::parallel))
      inner.loop = LoopKind::serial; // these stay inside
  for (size_t i = cut.first; i-- > 0;) {
    Stmt around = kb::loop(loops[i]->name, loops[i]->begin, loops[i]->end, LoopKind::parallel,
                           std::move(threads.body), loops[i]->step);
    keep_turn(around, *loops[i]);
    threads.body.clear();
    threads.body.push_back(std::move(around));
  }
  s = std::move(threads);
  return true;
}

} // namespace

bool parallelise(Kernel &kernel, const MachineDesc &machine) {
  Names names(kernel);
  bool changed = false;
  for (Stmt &s : kernel.body)
    if (is_loop(s, LoopKind::parallel))
      changed |= over_threads(kernel, s, machine, names);
  return changed;
}

} // namespace kiln
