// The costs of passes/kernel/work.h over symbolic sizes, in half cycles, since Dims are integers. Of the branches
// of a condition the dearest counts, and sizes that are not known before an iteration runs as at its first one.
#include "codegen/cpu/thread_cost.h"

#include "passes/kernel/work.h"

namespace kiln::cpu {
namespace {

Dim half_cycles(double cycles) { return Dim(int64_t(2 * cycles)); }

class Estimate {
public:
  Estimate(const MachineDesc &machine, const std::function<bool(Symbol)> &known)
      : machine_(machine), known_(known) {}

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
      sum += half_cycles(cycles_of(s.value, machine_));
      if (s.is(Stmt::Kind::store))
        sum += half_cycles(store_cycles(s.value, machine_));
      sum += s.is(Stmt::Kind::loop) ? loop(s) : max(body(s.body), body(s.other)); // one of the branches
    }
    return sum;
  }

  const MachineDesc &machine_;
  const std::function<bool(Symbol)> &known_;
};

} // namespace

std::optional<Dim> thread_cycles(const Stmt &loop, const MachineDesc &machine,
                                 const std::function<bool(Symbol)> &known) {
  Dim cycles = floordiv(Estimate(machine, known).loop(loop), 2);
  return cycles.is_valid() && !cycles.is_const() ? std::optional(cycles) : std::nullopt;
}

} // namespace kiln::cpu
