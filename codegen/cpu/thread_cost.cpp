// Every operation on a vector register is taken to be a cycle, functions and gathers a few. Sizes that
// are not known before an iteration runs count as at its first one.
#include "codegen/cpu/thread_cost.h"

#include <algorithm>

namespace kiln::cpu {
namespace {

constexpr int64_t kFunction = 12, kDivision = 5;

class Estimate {
public:
  Estimate(const MachineDesc &machine, const std::function<bool(Symbol)> &known)
      : machine_(machine), known_(known) {}

  Dim loop(const Stmt &s) {
    Dim trips = ceildiv(s.end - s.begin, s.step).substitute([&](Symbol name) {
      return known_(name) ? std::nullopt : std::optional<Dim>(0);
    });
    return max(trips, 0) * (body(s.body) + Dim(1));
  }

private:
  Dim body(const std::vector<Stmt> &stmts) {
    Dim sum = 0;
    for (const Stmt &s : stmts) {
      sum += Dim(cycles(s.value));
      if (s.is(Stmt::Kind::store))
        sum += Dim(registers(s.value));
      sum += s.is(Stmt::Kind::loop) ? loop(s) : body(s.body) + body(s.other);
    }
    return sum;
  }

  int64_t registers(const Expr &e) const {
    return std::max<int64_t>(1, dtype_bytes(e.dtype) * e.lanes / machine_.vector_bytes);
  }

  int64_t cycles(const Expr &e) const {
    int64_t each = 0;
    switch (e.kind) {
    case Expr::Kind::none:
    case Expr::Kind::number:
    case Expr::Kind::var:
    case Expr::Kind::index:
      break;
    case Expr::Kind::gather:
      each = e.lanes;
      break;
    case Expr::Kind::unary:
      each = is_primitive(e.unary) ? 1 : kFunction;
      break;
    case Expr::Kind::binary:
      each = !is_primitive(e.binary) ? kFunction : e.binary == BinaryOp::div ? kDivision : 1;
      break;
    default:
      each = 1;
    }
    int64_t sum = each * registers(e);
    for (const Expr &a : e.args)
      sum += cycles(a);
    return sum;
  }

  const MachineDesc &machine_;
  const std::function<bool(Symbol)> &known_;
};

} // namespace

std::optional<Dim> thread_cycles(const Stmt &loop, const MachineDesc &machine,
                                 const std::function<bool(Symbol)> &known) {
  Dim cycles = Estimate(machine, known).loop(loop);
  return cycles.is_valid() && !cycles.is_const() ? std::optional(cycles) : std::nullopt;
}

} // namespace kiln::cpu
