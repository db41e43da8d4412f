// Every operation on a vector register takes its share of a core that starts two a cycle; memory is
// taken to be in the second cache. Trip counts that nobody knows are guessed.
#include "passes/kernel/work.h"

#include <algorithm>

namespace kiln {
namespace {

constexpr double kUnknownTrips = 256;
constexpr double kArithmetic = 0.5, kMemory = 1, kDivision = 5, kFunction = 12, kLoop = 1;

// Registers that the value takes.
double registers(const Expr &e, const MachineDesc &machine) {
  double bytes = double(dtype_bytes(e.dtype)) * e.lanes;
  return std::max(1.0, bytes / machine.vector_bytes);
}

double cycles_of(const Expr &e, const MachineDesc &machine) {
  double each = 0;
  switch (e.kind) {
  case Expr::Kind::load:
    each = kMemory * (e.stride == Dim(1) || e.lanes == 1 ? 1 : e.lanes);
    break;
  case Expr::Kind::gather:
    each = kMemory * e.lanes;
    break;
  case Expr::Kind::unary:
    each = is_primitive(e.unary) ? kArithmetic : kFunction;
    break;
  case Expr::Kind::binary:
    each = !is_primitive(e.binary)       ? kFunction
           : e.binary == BinaryOp::div ? kDivision
                                       : kArithmetic;
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
    each = 8;
    break;
  default:
    break;
  }
  double sum = each * registers(e, machine);
  for (const Expr &a : e.args)
    sum += cycles_of(a, machine);
  return sum;
}

double cycles_of(const std::vector<Stmt> &body, const MachineDesc &machine) {
  double sum = 0;
  for (const Stmt &s : body)
    sum += cycles_of(s, machine);
  return sum;
}

} // namespace

double cycles_of(const Stmt &s, const MachineDesc &machine) {
  double sum = cycles_of(s.value, machine);
  if (s.is(Stmt::Kind::store))
    sum += kMemory * registers(s.value, machine);
  double body = std::max(cycles_of(s.body, machine), cycles_of(s.other, machine));
  if (s.is(Stmt::Kind::loop)) {
    auto trips = (s.end - s.begin).try_const();
    double steps = trips ? double((std::max<int64_t>(*trips, 0) + s.step - 1) / s.step) : kUnknownTrips;
    body = steps * (body + (s.loop == LoopKind::unroll ? 0 : kLoop));
  }
  return sum + body;
}

} // namespace kiln
