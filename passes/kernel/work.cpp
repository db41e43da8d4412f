// Every operation on a vector register takes its share of a core that starts two a cycle; memory is
// taken to be in the second cache. Trip counts that depend on loops around are those of their first iteration, and
// those that nobody knows are guessed.
#include "passes/kernel/work.h"

#include <algorithm>
#include <map>

namespace kiln {
namespace {

constexpr double kUnknownTrips = 256;
constexpr double kArithmetic = 0.5, kMemory = 1, kDivision = 5, kFunction = 12, kLoop = 1;

// Registers that the value takes.
double registers(const Expr &e, const MachineDesc &machine) {
  double bytes = double(dtype_bytes(e.dtype)) * e.lanes;
  return std::max(1.0, bytes / machine.vector_bytes);
}

} // namespace

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

double store_cycles(const Expr &value, const MachineDesc &machine) { return kMemory * registers(value, machine); }

double round_cycles(const Stmt &loop) { return loop.loop == LoopKind::unroll ? 0 : kLoop; }

namespace {

class Work {
public:
  explicit Work(const MachineDesc &machine) : machine_(machine) {}

  double of(const Stmt &s) {
    double sum = cycles_of(s.value, machine_);
    if (s.is(Stmt::Kind::store))
      sum += store_cycles(s.value, machine_);
    bool is_loop = s.is(Stmt::Kind::loop);
    double steps = is_loop ? trips(s) : 1;
    if (is_loop)
      first_[s.name] = at_first(s.begin);
    double body = std::max(of(s.body), of(s.other));
    return sum + steps * (body + (is_loop ? round_cycles(s) : 0));
  }

private:
  double of(const std::vector<Stmt> &body) {
    double sum = 0;
    for (const Stmt &s : body)
      sum += of(s);
    return sum;
  }

  Dim at_first(const Dim &d) const {
    return d.substitute([&](Symbol name) {
      auto it = first_.find(name);
      return it == first_.end() ? std::nullopt : std::optional<Dim>(it->second);
    });
  }

  double trips(const Stmt &loop) const {
    auto count = at_first(loop.end - loop.begin).try_const();
    return count ? double((std::max<int64_t>(*count, 0) + loop.step - 1) / loop.step) : kUnknownTrips;
  }

  const MachineDesc &machine_;
  std::map<Symbol, Dim> first_; // of the loops around
};

} // namespace

double cycles_of(const Stmt &s, const MachineDesc &machine) {
  return Work(machine).of(s);
}

} // namespace kiln
