// Reductions of several rows at once, where they share an operand:
//
//   for i { a = 0; for k { a += x[k] * r[i, k] }; y[i] = sum(a) }
//   =>  for i' { a0 = a1 = .. = 0; for k { a0 += x[k] * r[4 i', k]; a1 += x[k] * r[4 i' + 1, k]; .. } .. }
//
// A vector of x is loaded once for all rows, the rows are as many streams of memory, and the latency of
// one row's horizontal sum hides behind the others. What is computed for a row does not change.
#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"

#include <algorithm>

namespace kiln {
namespace {

bool is_serial(const Stmt &s) { return is_loop(s, LoopKind::serial); }

class Jammer {
public:
  Jammer(Kernel &kernel, const MachineDesc &machine)
      : kernel_(kernel), names_(kernel), rows_(machine.vector_registers >= 32 ? 4 : 2) {}

  bool run() { return body(kernel_.body); }

private:
  bool body(std::vector<Stmt> &stmts) {
    bool changed = false;
    std::vector<Stmt> out;
    for (Stmt &s : stmts) {
      if (is_loop(s, LoopKind::parallel) && fits(s)) {
        changed = true;
        for (Stmt &part : jammed(s))
          out.push_back(std::move(part));
        continue;
      }
      changed |= body(s.body);
      changed |= body(s.other);
      out.push_back(std::move(s));
    }
    stmts = std::move(out);
    return changed;
  }

  // Straight statements in registers around loops over vectors, of as many trips for every row.
  bool fits(const Stmt &row) const {
    auto trips = trip_count(row).try_const();
    if (row.step != 1 || (trips && *trips < 2 * rows_))
      return false;
    bool shares = false;
    for (const Stmt &s : row.body) {
      bool plain = s.is(Stmt::Kind::let) || s.is(Stmt::Kind::store) ||
                   (s.is(Stmt::Kind::alloc) && s.space == MemorySpace::reg) ||
                   is_loop(s, LoopKind::unroll) || is_serial(s);
      if (!plain || holds_other_loops(s.body))
        return false;
      if (!is_serial(s))
        continue;
      if (s.begin.depends_on(row.name) || s.end.depends_on(row.name))
        return false;
      shares |= shares_operand(s, row.name);
    }
    return shares;
  }

  static bool holds_other_loops(const std::vector<Stmt> &body) {
    bool found = false;
    visit_stmts(body, [&](const Stmt &s) {
      bool plain = s.is(Stmt::Kind::let) || s.is(Stmt::Kind::store) ||
                   is_loop(s, LoopKind::unroll) || is_serial(s);
      found = found || !plain;
    });
    return found;
  }

  // One vector is loaded for this row, another one for all rows, and they are summed in registers.
  bool shares_operand(const Stmt &loop, Symbol row) const {
    bool own = false, shared = false, sums = true;
    visit_exprs(loop.body, [&](const Expr &e) {
      if (!e.is(Expr::Kind::load) || !kernel_.find_buffer(e.name))
        return;
      (e.index.depends_on(row) ? own : shared) |= e.lanes > 1;
    });
    visit_stmts(loop.body, [&](const Stmt &s) {
      sums = sums && !(s.is(Stmt::Kind::store) && kernel_.find_buffer(s.name));
    });
    return own && shared && sums;
  }

  std::vector<Stmt> jammed(const Stmt &row) {
    Dim trips = trip_count(row), groups = floordiv(trips, rows_);
    Symbol group = names_.fresh(row.name.text());
    std::vector<Stmt> all;
    for (int64_t i = 0; i < rows_; ++i) {
      std::vector<Stmt> copy = row.body;
      rename_declarations(copy, names_);
      substitute(copy, row.name, row.begin + Dim::symbol(group) * Dim(rows_) + Dim(i));
      if (i == 0) {
        all = std::move(copy);
        continue;
      }
      merge(all, std::move(copy), size_t(i));
    }
    std::vector<Stmt> out;
    out.push_back(kb::loop(group, 0, groups, LoopKind::parallel, std::move(all)));
    keep_turn(out.back(), row);
    if (!(groups * Dim(rows_) == trips)) {
      Stmt rest = row;
      rest.begin = row.begin + groups * Dim(rows_);
      std::vector<Stmt> one{std::move(rest)};
      rename_declarations(one, names_);
      out.push_back(std::move(one[0]));
    }
    return out;
  }

  // Row `count`'s statements behind those of the rows before, loops into loops.
  static void merge(std::vector<Stmt> &all, std::vector<Stmt> copy, size_t count) {
    std::vector<Stmt> out;
    size_t at = 0;
    for (Stmt &s : copy) {
      if (is_serial(s)) {
        Stmt &into = all[at++];
        substitute(s.body, s.name, Dim::symbol(into.name));
        into.body.insert(into.body.end(), s.body.begin(), s.body.end());
        out.push_back(std::move(into));
        continue;
      }
      for (size_t i = 0; i < count; ++i)
        out.push_back(std::move(all[at++]));
      out.push_back(std::move(s));
    }
    all = std::move(out);
  }

  Kernel &kernel_;
  Names names_;
  int64_t rows_;
};

} // namespace

bool jam_rows(Kernel &kernel, const MachineDesc &machine) {
  return Jammer(kernel, machine).run();
}

} // namespace kiln
