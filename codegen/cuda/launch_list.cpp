#include "codegen/cuda/launch_list.h"

#include "codegen/cuda/device_writer.h"
#include "codegen/cuda/join_launches.h"

#include <algorithm>
#include <set>

namespace kiln::cuda {
namespace {

double number(const Dim &d) { return double(d.try_const().value_or(1)); }

class Lister {
public:
  Lister(const Program &program, const Plan &plan, const std::vector<CudaKernel> &kernels, const GpuMachine &machine)
      : program_(program), plan_(plan), kernels_(kernels), machine_(machine) {
    out_.entry = plan.name;
  }

  LaunchList list() {
    steps(plan_.steps, 1);
    double math = 0;
    for (const ListedLaunch &l : out_.launches) {
      out_.count += l.times;
      out_.us += l.times * l.time.us;
      out_.products += l.times * l.launch.work.products;
      math += l.times * l.launch.work.least_cycles;
    }
    // Of an argument as much as there is of it; of a weight, what its buffer has.
    for (int index : used_) {
      const PlanBuffer &b = plan_.buffers[size_t(index)];
      if (b.kind != PlanBuffer::Kind::arena)
        out_.least_bytes += std::min(number(b.size), touched_[index]);
    }
    out_.least_us = 1e6 * std::max(out_.least_bytes / (machine_.memory_gigabytes * 1e9), math / machine_.multiprocessors / (machine_.gigahertz * 1e9));
    return std::move(out_);
  }

private:
  void steps(std::span<const PlanStep> list, double times) {
    while (!list.empty()) {
      std::span<const PlanStep> together = leading_launches(list);
      for (const LaunchGroup &group : group_launches(program_, plan_, together, kernels_))
        add(group, times);
      list = list.subspan(together.size());
      if (list.empty())
        return;
      const PlanStep &step = list[0];
      list = list.subspan(1);
      steps(step.condition_body, times);
      double inside = step.kind == PlanStep::Kind::loop ? times * number(step.count) : times;
      steps(step.body, inside);
      if (step.kind != PlanStep::Kind::form)
        steps(step.other, times);
    }
  }

  void add(const LaunchGroup &group, double times) {
    const PlanStep &first = *group.members[0].step;
    out_.launches.push_back({first.name, first.location, times, group.launch(), group.members.size(), time_of(group.launch().work, machine_)});
    for (const auto &[step, launch] : group.members) {
      const Kernel &kernel = program_.kernels[size_t(step->kernel)];
      for (const auto &[name, bytes] : launch->work.bytes)
        for (size_t i = 0; i < step->buffers.size(); ++i)
          if (kernel.buffers[i].name == name)
            touched_[step->buffers[i]] += times * bytes;
      used_.insert(step->buffers.begin(), step->buffers.end());
    }
  }

  const Program &program_;
  const Plan &plan_;
  const std::vector<CudaKernel> &kernels_;
  const GpuMachine &machine_;
  LaunchList out_;
  std::set<int> used_;
  std::map<int, double> touched_;
};

} // namespace

std::vector<LaunchList> list_launches(const Program &program, const std::vector<CudaKernel> &kernels, const GpuMachine &machine) {
  std::vector<LaunchList> out;
  for (const Plan &plan : program.entries)
    if (is_for_device(program, plan))
      out.push_back(Lister(program, plan, kernels, machine).list());
  return out;
}

} // namespace kiln::cuda
