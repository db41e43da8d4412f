// The costs of passes/kernel/work.h over symbolic sizes, in half cycles, since Dims are integers. Of the branches
// of a condition the dearest counts, and sizes that are not known before an iteration runs as at its first one.
#include "codegen/cpu/thread_cost.h"

#include "passes/kernel/work.h"

#include <unordered_set>

namespace kiln::cpu {
namespace {

Dim half_cycles(double cycles) { return Dim(int64_t(2 * cycles)); }

class Estimate {
public:
  Estimate(const MachineDesc &machine, const std::function<bool(Symbol)> &known, bool registers_are_free)
      : machine_(machine), known_(known), registers_are_free_(registers_are_free) {}

  Dim loop(const Stmt &s) {
    Dim trips = ceildiv(s.end - s.begin, s.step).substitute([&](Symbol name) {
      return known_(name) ? std::nullopt : std::optional<Dim>(0);
    });
    return max(trips, 0) * (body(s.body) + half_cycles(round_cycles(s)));
  }

private:
  Dim body(const std::vector<Stmt> &stmts) {
    Dim sum = 0;
    for (const Stmt &s : stmts) {
      if (s.is(Stmt::Kind::alloc) && s.space == MemorySpace::reg && registers_are_free_)
        registers_.insert(s.name);
      sum += half_cycles(cycles_of(s.value, machine_) - cycles_of_registers(s.value));
      if (s.is(Stmt::Kind::store) && !registers_.contains(s.name))
        sum += half_cycles(store_cycles(s.value, machine_));
      sum += s.is(Stmt::Kind::loop) ? loop(s) : max(body(s.body), body(s.other)); // one of the branches
    }
    return sum;
  }

  double cycles_of_registers(const Expr &e) const {
    if (registers_.empty())
      return 0;
    double sum = e.is(Expr::Kind::load) && registers_.contains(e.name) ? cycles_of(e, machine_) : 0;
    for (const Expr &a : e.args)
      sum += cycles_of_registers(a);
    return sum;
  }

  const MachineDesc &machine_;
  const std::function<bool(Symbol)> &known_;
  const bool registers_are_free_;
  std::unordered_set<Symbol> registers_;
};

} // namespace

std::optional<ThreadCycles> thread_cycles(const Stmt &loop, const MachineDesc &machine,
                                          const std::function<bool(Symbol)> &known) {
  auto cycles = [&](bool registers_are_free) {
    return floordiv(Estimate(machine, known, registers_are_free).loop(loop), 2);
  };
  ThreadCycles out{cycles(false), cycles(true)};
  return out.estimated.is_valid() && out.least.is_valid() ? std::optional(out) : std::nullopt;
}

} // namespace kiln::cpu
