// The outermost parallel loops become one `threads` loop where the work pays for waking threads.
//
//   for n parallel { for g parallel { for t parallel { tile } } }
//   =>  for w in 0..N*G threads { let n = w / G; let g = w % G; for t parallel { tile } }
//
// As many loops are merged as give every thread several shares. The split depends on shapes only.
#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"

#include <algorithm>

namespace kiln {
namespace {

constexpr double kMinWork = 400000; // scalar operations and bytes; a few microseconds
constexpr int64_t kEnoughShares = 64;
constexpr double kUnknownTrips = 256;

double work_of(const Expr &e) {
  double work = 0;
  switch (e.kind) {
  case Expr::Kind::load:
  case Expr::Kind::gather:
    work = double(dtype_bytes(e.dtype)) * e.lanes;
    break;
  case Expr::Kind::unary:
    work = (is_primitive(e.unary) ? 1 : 16) * e.lanes;
    break;
  case Expr::Kind::binary:
    work = (is_primitive(e.binary) ? 1 : 24) * e.lanes;
    break;
  case Expr::Kind::fma:
  case Expr::Kind::select:
  case Expr::Kind::convert:
  case Expr::Kind::reduce:
    work = e.lanes;
    break;
  default:
    break;
  }
  for (const Expr &a : e.args)
    work += work_of(a);
  return work;
}

double work_of(const std::vector<Stmt> &body) {
  double sum = 0;
  for (const Stmt &s : body) {
    double here = work_of(s.value) + work_of(s.body);
    here = std::max(here, work_of(s.value) + work_of(s.other));
    if (s.is(Stmt::Kind::store))
      here += double(dtype_bytes(s.value.dtype)) * s.value.lanes;
    if (s.is(Stmt::Kind::loop)) {
      auto trips = (s.end - s.begin).try_const();
      here *= trips ? double((std::max<int64_t>(*trips, 0) + s.step - 1) / s.step) : kUnknownTrips;
    }
    sum += here;
  }
  return sum;
}

// The part of a trip count that is known: symbolic dims may be 1.
int64_t known_trips(const Stmt &loop) {
  auto trips = (loop.end - loop.begin).try_const();
  return trips ? (*trips + loop.step - 1) / loop.step : 1;
}

bool can_merge(const std::vector<const Stmt *> &loops, const Stmt &next) {
  if (!is_loop(next, LoopKind::parallel))
    return false;
  return std::none_of(loops.begin(), loops.end(), [&](const Stmt *l) {
    return next.begin.depends_on(l->name) || next.end.depends_on(l->name);
  });
}

bool over_threads(Stmt &s, Names &names) {
  if (work_of(std::vector<Stmt>{s}) < kMinWork)
    return false;
  std::vector<const Stmt *> loops{&s};
  int64_t shares = known_trips(s);
  while (shares < kEnoughShares && loops.back()->body.size() == 1 &&
         can_merge(loops, loops.back()->body[0])) {
    loops.push_back(&loops.back()->body[0]);
    shares *= std::max<int64_t>(1, known_trips(*loops.back()));
  }
  bool symbolic = std::any_of(loops.begin(), loops.end(),
                              [](const Stmt *l) { return !(l->end - l->begin).is_const(); });
  if (shares < 2 && !symbolic)
    return false;
  if (loops.size() == 1) {
    s.loop = LoopKind::threads;
    return true;
  }
  Symbol share = names.fresh("w");
  Dim total = 1;
  std::vector<Stmt> lets;
  for (size_t i = loops.size(); i-- > 0;) {
    const Stmt &l = *loops[i];
    Dim trips = ceildiv(l.end - l.begin, l.step);
    Dim at = floordiv(Dim::symbol(share), total);
    if (i > 0)
      at = mod(at, trips);
    lets.insert(lets.begin(), kb::let(l.name, kb::index(l.begin + at * Dim(l.step))));
    total *= trips;
  }
  std::vector<Stmt> body = std::move(lets);
  const std::vector<Stmt> &innermost = loops.back()->body;
  body.insert(body.end(), innermost.begin(), innermost.end());
  Stmt merged = kb::loop(share, 0, total, LoopKind::threads, std::move(body));
  s = std::move(merged);
  return true;
}

} // namespace

bool parallelise(Kernel &kernel, const MachineDesc &) {
  Names names(kernel);
  bool changed = false;
  for (Stmt &s : kernel.body)
    if (is_loop(s, LoopKind::parallel))
      changed |= over_threads(s, names);
  return changed;
}

} // namespace kiln
