#include "codegen/cpu/facts.h"

#include "runtime/entry_abi.h"

#include <algorithm>

namespace kiln::cpu {
namespace {

using Kind = PlanBuffer::Kind;

// Where a buffer lies: buffers of different regions never overlap.
int region_index(const PlanBuffer &b) {
  switch (b.kind) {
  case Kind::argument:
    return b.argument;
  case Kind::weight:
    return b.weight;
  case Kind::variable:
    return b.variable;
  case Kind::arena:
    return 0;
  }
  return 0;
}

// True unless their ranges are shown to be apart, for all values of the symbols.
bool may_overlap(const PlanBuffer &a, const PlanBuffer &b) {
  if (a.kind != b.kind || region_index(a) != region_index(b))
    return false;
  Dim distance = b.offset - a.offset;
  DimRanges any;
  return !known_nonnegative(distance - a.size, any) && !known_nonnegative(-distance - b.size, any);
}

// The largest power of two, up to KILN_ALIGNMENT, that divides the offset whatever its symbols are.
int offset_alignment(const Dim &offset) {
  uint64_t bits = uint64_t(offset.constant_part()) | KILN_ALIGNMENT;
  for (const DimTerm &term : offset.terms())
    bits |= uint64_t(term.coefficient);
  return int(bits & -bits);
}

// The caller's own buffers may start anywhere.
int known_alignment(const PlanBuffer &b) {
  return b.kind == Kind::argument ? 1 : offset_alignment(b.offset);
}

class Collector {
public:
  Collector(const std::vector<Kernel> &kernels, std::vector<std::vector<BufferFacts>> &out)
      : kernels_(kernels), out_(out) {}

  void steps(const Plan &plan, const std::vector<PlanStep> &list) {
    for (const PlanStep &step : list) {
      if (step.kind == PlanStep::Kind::launch)
        launch(plan, step);
      steps(plan, step.condition_body);
      steps(plan, step.body);
      steps(plan, step.other);
    }
  }

private:
  void launch(const Plan &plan, const PlanStep &step) {
    const Kernel &kernel = kernels_[size_t(step.kernel)];
    auto &facts = out_[size_t(step.kernel)];
    size_t count = std::min(step.buffers.size(), kernel.buffers.size());
    for (size_t i = 0; i < count; ++i) {
      const PlanBuffer &a = plan.buffers[size_t(step.buffers[i])];
      facts[i].alignment = std::min(facts[i].alignment, known_alignment(a));
      for (size_t j = 0; j < i; ++j)
        if (may_overlap(a, plan.buffers[size_t(step.buffers[j])]))
          facts[i].noalias = facts[j].noalias = false;
    }
  }

  const std::vector<Kernel> &kernels_;
  std::vector<std::vector<BufferFacts>> &out_;
};

} // namespace

std::vector<std::vector<BufferFacts>> collect_facts(const Program &program,
                                                    const std::vector<Kernel> &kernels) {
  std::vector<std::vector<BufferFacts>> out;
  for (const Kernel &kernel : kernels)
    out.emplace_back(kernel.buffers.size());
  Collector collector(kernels, out);
  for (const Plan &plan : program.entries)
    collector.steps(plan, plan.steps);
  return out;
}

} // namespace kiln::cpu
