// A tile of one row has few accumulators and waits for each sum before the next one. The unrolled steps
// of its reduction then get accumulators of their own, added up behind the loop:
//
//   for k step 4 { for u unroll { a[p] = fma(x[k+u], w[k+u, p], a[p]) } }
//   =>  for k step 4 { for u unroll { a[p + P*u] = fma(x[k+u], w[k+u, p], a[p + P*u]) } }
//       a[p] = (a[p] + a[p+P]) + (a[p+2P] + a[p+3P])
//
// So a product of one row needs but few panels at a time, which are few streams of memory.
#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"

#include <algorithm>

namespace kiln {
namespace {

class Splitter {
public:
  Splitter(Kernel &kernel, const MachineDesc &machine)
      : names_(kernel), wanted_(machine.fma_latency * machine.fma_per_cycle),
        most_(machine.vector_registers / 2) {}

  bool body(std::vector<Stmt> &stmts) {
    bool changed = false;
    for (Stmt &s : stmts) {
      changed |= body(s.body);
      changed |= body(s.other);
    }
    for (size_t i = 0; i < stmts.size(); ++i)
      if (stmts[i].is(Stmt::Kind::alloc))
        changed |= split(stmts, i);
    return changed;
  }

private:
  // The sums of `alloc` in the one loop of its body that has any.
  bool split(std::vector<Stmt> &stmts, size_t at) {
    const Stmt &alloc = stmts[at];
    if (alloc.space != MemorySpace::reg || alloc.lanes < 2 || alloc.size >= wanted_ ||
        !is_float(alloc.dtype))
      return false;
    size_t loop = at + 1;
    while (loop < stmts.size() && !is_loop(stmts[loop], LoopKind::serial))
      ++loop;
    if (loop == stmts.size() || !stmts[loop].is(Stmt::Kind::loop))
      return false;
    Stmt *steps = unrolled_steps(stmts[loop], alloc.name);
    if (!steps)
      return false;
    int64_t chains = steps->end.as_const(), size = alloc.size;
    while (chains > 1 && (chains * size > most_ || chains * size >= 2 * wanted_))
      chains /= 2;
    if (chains < 2 || steps->end.as_const() % chains != 0)
      return false;
    Symbol name = alloc.name;
    DType dtype = alloc.dtype;
    int lanes = alloc.lanes;
    shift(steps->body, name, mod(Dim::symbol(steps->name), chains) * Dim(size));
    stmts[at].size = size * chains;
    Symbol z = names_.fresh("z"), p = names_.fresh("p");
    Stmt zeros = kb::loop(z, size, size * chains, LoopKind::unroll,
                          {kb::store(name, Dim::symbol(z),
                                     kb::broadcast(kb::number(dtype, -0.0), lanes))});
    Stmt sums = kb::loop(p, 0, size, LoopKind::unroll,
                         {kb::store(name, Dim::symbol(p),
                                    sum(name, dtype, lanes, Dim::symbol(p), size, 0, chains))});
    stmts.insert(stmts.begin() + std::ptrdiff_t(loop + 1), std::move(sums));
    stmts.insert(stmts.begin() + std::ptrdiff_t(loop), std::move(zeros));
    return true;
  }

  static Expr sum(Symbol name, DType dtype, int lanes, const Dim &at, int64_t size, int64_t first,
                  int64_t last) {
    if (last - first == 1)
      return kb::load(name, dtype, at + Dim(size * first), lanes);
    int64_t middle = (first + last) / 2;
    return kb::add(sum(name, dtype, lanes, at, size, first, middle),
                   sum(name, dtype, lanes, at, size, middle, last));
  }

  // The unroll loop below `loop` that holds every use of the accumulators, all of them sums.
  static Stmt *unrolled_steps(Stmt &loop, Symbol name) {
    Stmt *at = &loop;
    for (;;) {
      Stmt *user = nullptr;
      for (Stmt &s : at->body) {
        if (!mentions(s, name))
          continue;
        if (user || !s.is(Stmt::Kind::loop))
          return nullptr;
        user = &s;
      }
      if (!user)
        return nullptr;
      at = user;
      if (at->loop == LoopKind::unroll)
        break;
      if (at->loop != LoopKind::serial)
        return nullptr;
    }
    bool whole = at->begin.is_const(0) && at->end.is_const() && at->end.as_const() >= 2;
    return whole && has_one_row(at->body) && only_sums(at->body, name) ? at : nullptr;
  }

  // Where there are several rows, each has its factor in the loop over them.
  static bool has_one_row(const std::vector<Stmt> &steps) {
    auto is_factor = [](const Stmt &s) { return s.is(Stmt::Kind::let) && s.lanes > 1; };
    int64_t all = 0;
    visit_stmts(steps, [&](const Stmt &s) { all += is_factor(s); });
    if (all == 0) // one vector: the factor stands in its sum
      return std::none_of(steps.begin(), steps.end(), [](const Stmt &s) { return s.is(Stmt::Kind::loop); });
    return all == 1 && std::any_of(steps.begin(), steps.end(), is_factor);
  }

  static bool mentions(const Stmt &s, Symbol name) {
    bool found = false;
    std::vector<Stmt> one{s};
    visit_stmts(one, [&](const Stmt &x) { found |= x.is(Stmt::Kind::store) && x.name == name; });
    visit_exprs(one, [&](const Expr &e) { found |= e.is(Expr::Kind::load) && e.name == name; });
    return found;
  }

  static bool only_sums(const std::vector<Stmt> &body, Symbol name) {
    bool fine = true;
    int64_t sums = 0, loads = 0;
    visit_stmts(body, [&](const Stmt &s) {
      if (!s.is(Stmt::Kind::store) || s.name != name)
        return;
      const Expr &v = s.value;
      bool adds = v.is(Expr::Kind::fma) || (v.is(Expr::Kind::binary) && v.binary == BinaryOp::add);
      bool self = adds && std::any_of(v.args.begin(), v.args.end(), [&](const Expr &a) {
                    return a.is(Expr::Kind::load) && a.name == name && a.index == s.index;
                  });
      if (v.is(Expr::Kind::fma))
        self = self && v.args[2].is(Expr::Kind::load) && v.args[2].name == name;
      fine = fine && self;
      ++sums;
    });
    visit_exprs(body, [&](const Expr &e) { loads += e.is(Expr::Kind::load) && e.name == name; });
    return fine && sums > 0 && loads == sums;
  }

  static void shift(Expr &e, Symbol name, const Dim &by) {
    if (e.is(Expr::Kind::load) && e.name == name)
      e.index += by;
    for (Expr &a : e.args)
      shift(a, name, by);
  }
  static void shift(std::vector<Stmt> &body, Symbol name, const Dim &by) {
    for (Stmt &s : body) {
      shift(s.value, name, by);
      if (s.is(Stmt::Kind::store) && s.name == name)
        s.index += by;
      shift(s.body, name, by);
      shift(s.other, name, by);
    }
  }

  Names names_;
  int64_t wanted_, most_;
};

// Tiles of several rows, whose factors are in a loop over rows in the unrolled steps: a row that is left
// over is then summed as the others are.
bool has_rows(const std::vector<Stmt> &body, int unrolled) {
  for (const Stmt &s : body) {
    if (unrolled >= 2 && s.is(Stmt::Kind::let) && s.lanes > 1)
      return true;
    int inside = unrolled + (is_loop(s, LoopKind::unroll) ? 1 : 0);
    if (has_rows(s.body, inside) || has_rows(s.other, inside))
      return true;
  }
  return false;
}

} // namespace

bool split_chains(Kernel &kernel, const MachineDesc &machine) {
  return !has_rows(kernel.body, 0) && Splitter(kernel, machine).body(kernel.body);
}

} // namespace kiln
