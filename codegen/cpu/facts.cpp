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

bool may_overlap(const PlanBuffer &a, const PlanBuffer &b) {
  if (a.kind != b.kind || region_index(a) != region_index(b))
    return false;
  if (a.offset == b.offset)
    return true;
  Dim distance = b.offset - a.offset;
  if (!distance.is_const()) // the planner gave both their own place, or one offset to the two
    return a.kind != Kind::arena;
  int64_t d = distance.as_const();
  const Dim &first_size = d > 0 ? a.size : b.size;
  return !first_size.is_const() || first_size.as_const() > std::max(d, -d);
}

int known_alignment(const PlanBuffer &b, DType dtype) {
  if (b.kind == Kind::argument)
    return 1;
  bool loop_offset = b.kind != Kind::arena && !b.offset.is_const();
  bool odd = b.offset.is_const() && b.offset.as_const() % KILN_ALIGNMENT != 0;
  return loop_offset || odd ? int(dtype_bytes(dtype)) : KILN_ALIGNMENT;
}

// An arena offset that uses a loop's variable is a slice of a buffer: it starts at some element.
bool is_slice(const PlanBuffer &b, const std::vector<Symbol> &dims) {
  for (Symbol s : b.offset.symbols())
    if (std::find(dims.begin(), dims.end(), s) == dims.end())
      return true;
  return false;
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
      int alignment = known_alignment(a, kernel.buffers[i].dtype);
      if (is_slice(a, plan.dims))
        alignment = std::min(alignment, int(dtype_bytes(kernel.buffers[i].dtype)));
      facts[i].alignment = std::min(facts[i].alignment, alignment);
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
