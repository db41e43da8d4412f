// What passes/kernel/work.cpp counts where sizes are known, in half cycles, since Dims are integers. Of the branches
// of a condition the dearest counts, and sizes that are not known before an iteration runs as at its first one.
#include "codegen/cpu/thread_cost.h"

#include <algorithm>

namespace kiln::cpu {
namespace {

constexpr int64_t kArithmetic = 1, kMemory = 2, kDivision = 10, kFunction = 24, kReduce = 16, kLoop = 2;

class Estimate {
public:
  Estimate(const MachineDesc &machine, const std::function<bool(Symbol)> &known)
      : machine_(machine), known_(known) {}

  Dim loop(const Stmt &s) {
    Dim trips = ceildiv(s.end - s.begin, s.step).substitute([&](Symbol name) {
      return known_(name) ? std::nullopt : std::optional<Dim>(0);
    });
    return max(trips, 0) * (body(s.body) + Dim(s.loop == LoopKind::unroll ? 0 : kLoop));
  }

private:
  Dim body(const std::vector<Stmt> &stmts) {
    Dim sum = 0;
    for (const Stmt &s : stmts) {
      sum += Dim(cycles(s.value));
      if (s.is(Stmt::Kind::store))
        sum += Dim(kMemory * registers(s.value));
      sum += s.is(Stmt::Kind::loop) ? loop(s) : max(body(s.body), body(s.other)); // one of the branches
    }
    return sum;
  }

  int64_t registers(const Expr &e) const {
    return std::max<int64_t>(1, dtype_bytes(e.dtype) * e.lanes / machine_.vector_bytes);
  }

  int64_t cycles(const Expr &e) const {
    int64_t each = 0;
    switch (e.kind) {
    case Expr::Kind::load:
      each = kMemory * (e.stride == Dim(1) ? 1 : e.lanes);
      break;
    case Expr::Kind::gather:
      each = kMemory * e.lanes;
      break;
    case Expr::Kind::unary:
      each = is_primitive(e.unary) ? kArithmetic : kFunction;
      break;
    case Expr::Kind::binary:
      each = !is_primitive(e.binary) ? kFunction : e.binary == BinaryOp::div ? kDivision : kArithmetic;
      break;
    case Expr::Kind::fma:
    case Expr::Kind::select:
    case Expr::Kind::convert:
    case Expr::Kind::shuffle:
    case Expr::Kind::concat:
    case Expr::Kind::extract:
      each = kArithmetic;
      break;
    case Expr::Kind::reduce:
      each = kReduce;
      break;
    default:
      break;
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
  Dim cycles = floordiv(Estimate(machine, known).loop(loop), 2);
  return cycles.is_valid() && !cycles.is_const() ? std::optional(cycles) : std::nullopt;
}

} // namespace kiln::cpu
