// Launches that wait for nothing of each other, as one: an optimizer's updates of all params, the copies of what a loop carries.
// Each launch costs more than a microsecond however little it does.
#pragma once

#include "codegen/cuda/cuda.h"
#include "ir/plan.h"

#include <span>
#include <vector>

namespace kiln::cuda {

// What one launch does: one of a kernel's, or a joined one of several kernels'.
struct LaunchGroup {
  struct Member {
    const PlanStep *step;
    const CudaLaunch *launch;
  };
  std::vector<Member> members; // their buffers one after the other are those of the launch
  CudaLaunch joined;           // of several members
  std::vector<int> completed;  // positions of the steps that nothing is left of behind it
  const CudaLaunch &launch() const { return members.size() == 1 ? *members[0].launch : joined; }
};

// Of steps that are all launches and follow each other in the plan. A launch of the flat form moves up to an earlier one that it
// can be joined with, past none that touches the same memory. `kernels`: emit_kernels() of the program.
std::vector<LaunchGroup> group_launches(const Program &program, const Plan &plan, std::span<const PlanStep> steps, const std::vector<CudaKernel> &kernels);

// The steps up to the first one that is no launch.
std::span<const PlanStep> leading_launches(std::span<const PlanStep> steps);

} // namespace kiln::cuda
