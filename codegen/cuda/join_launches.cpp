// Blocks of the joined launch are shared out by a table: the first block of each part, how far it counts, and where its
// buffers are among the launch's pointers. Parts with equal text are one function, so that fifty params of an optimizer
// are one branch and a table of fifty lines:
//
//   __constant__ const int parts[][4] = {{0, 4096, 0, 0}, {16, 1024, 0, 8}, ..};  first block, end of kiln_at, text, first pointer
//   part = the last one that begins at blockIdx.x or before;  switch (parts[part][2]) { case 0: f0(pointers.at[..], .., kiln_at); .. }
//
// Each element is computed as it would be alone, so bits do not depend on what was joined.
#include "codegen/cuda/join_launches.h"

#include "runtime/cuda/device_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

namespace kiln::cuda {
namespace {

constexpr size_t kWindow = 512; // launches that one moves past at most
constexpr size_t kMostTexts = 8;

// Memory that a launch reads or writes.
struct Touched {
  PlanBuffer::Kind kind;
  int argument = -1;
  Dim offset, size; // bytes; over the entry's dims and loops
  bool is_write = false;
};

bool may_meet(const Touched &a, const Touched &b) {
  if ((!a.is_write && !b.is_write) || a.kind != b.kind || a.argument != b.argument)
    return false;
  auto apart = (b.offset - a.offset).try_const(), of_a = a.size.try_const(), of_b = b.size.try_const();
  if (apart && of_a && *apart >= *of_a)
    return false;
  return !(apart && of_b && -*apart >= *of_b);
}

class Grouper {
public:
  Grouper(const Program &program, const Plan &plan) : program_(program), plan_(plan) {}

  void add(const PlanStep &step, const CudaLaunch &launch) {
    std::vector<Touched> accesses = accesses_of(step);
    std::string text = launch.flat ? launch.flat->key() : "";
    if (launch.flat) {
      size_t first = groups_.size(), last = first - std::min(first, kWindow);
      while (first > last && !meets(groups_[first - 1], accesses))
        --first;
      for (size_t g = first; g < groups_.size(); ++g)
        if (groups_[g].has_room(step.buffers.size(), text))
          return groups_[g].take({&step, &launch}, accesses, text);
    }
    groups_.emplace_back().take({&step, &launch}, accesses, text);
  }

  std::vector<LaunchGroup> finish();

private:
  struct Group {
    LaunchGroup launches;
    std::vector<Touched> accesses;
    size_t pointers = 0;
    std::set<std::string> texts; // keys; empty where the launch is none that others join

    bool has_room(size_t more, const std::string &text) const {
      return !texts.empty() && pointers + more <= package::kMaxDeviceArguments && texts.size() + !texts.contains(text) <= kMostTexts;
    }
    void take(LaunchGroup::Member member, const std::vector<Touched> &more, const std::string &text) {
      launches.members.push_back(member);
      accesses.insert(accesses.end(), more.begin(), more.end());
      pointers += member.step->buffers.size();
      if (member.launch->flat)
        texts.insert(text);
    }
  };

  std::vector<Touched> accesses_of(const PlanStep &step) const {
    const Kernel &kernel = program_.kernels[size_t(step.kernel)];
    std::vector<Touched> out;
    for (size_t i = 0; i < step.buffers.size(); ++i) {
      const PlanBuffer &b = plan_.buffers[size_t(step.buffers[i])];
      Touched access{b.kind, b.argument, b.offset, b.size, kernel.buffers[i].access != Access::in};
      if (b.kind == PlanBuffer::Kind::variable)
        access.offset += Dim(program_.variables[size_t(b.variable)].offset);
      if (b.kind != PlanBuffer::Kind::weight) // which nobody writes
        out.push_back(std::move(access));
    }
    return out;
  }

  static bool meets(const Group &group, const std::vector<Touched> &accesses) {
    return std::any_of(group.accesses.begin(), group.accesses.end(), [&](const Touched &a) {
      return std::any_of(accesses.begin(), accesses.end(), [&](const Touched &b) { return may_meet(a, b); });
    });
  }

  const Program &program_;
  const Plan &plan_;
  std::vector<Group> groups_;
};

std::string function_text(const FlatPart &part, size_t number) {
  return fmt::format("__device__ __forceinline__ void {}_{}({}, const int kiln_at) {{\n{}}}\n", kNameMark, number, part.parameters, part.text);
}

std::string call_text(const FlatPart &part, size_t number) {
  std::string arguments;
  for (size_t i = 0; i < part.types.size(); ++i)
    arguments += fmt::format("({}*)kiln_buffers.at[kiln_pointer + {}], ", part.types[i], i);
  return fmt::format("      case {1}: {0}_{1}({2}kiln_at); break;\n", kNameMark, number, arguments);
}

LaunchWork work_of_all(const LaunchGroup &group) {
  LaunchWork out = group.members[0].launch->work;
  for (size_t i = 1; i < group.members.size(); ++i) {
    const LaunchWork &w = group.members[i].launch->work;
    out.read += w.read, out.written += w.written, out.moved += w.moved, out.products += w.products;
    out.cycles += w.cycles, out.least_cycles += w.least_cycles, out.threads += w.threads;
    out.wait = std::max(out.wait, w.wait);
  }
  out.bytes.clear(); // of each member's buffers, in the members
  return out;
}

CudaLaunch joined_launch(const LaunchGroup &group) {
  std::map<std::string, size_t> numbers;
  std::string functions, table, calls;
  int64_t blocks = 0, pointers = 0;
  int threads = group.members[0].launch->function.threads;
  CudaLaunch out;
  for (const LaunchGroup::Member &m : group.members) {
    const FlatPart &part = *m.launch->flat;
    auto [at, is_new] = numbers.try_emplace(part.key(), numbers.size());
    if (is_new) {
      functions += function_text(part, at->second);
      calls += call_text(part, at->second);
    }
    table += fmt::format("{}{{{}, {}, {}, {}}}", table.empty() ? "" : ", ", blocks, part.count, at->second, pointers);
    blocks += m.launch->blocks.as_const();
    pointers += int64_t(part.types.size());
    out.function.helpers.insert(m.launch->function.helpers.begin(), m.launch->function.helpers.end());
  }
  size_t parts = group.members.size(), half = 1;
  while (half * 2 < parts)
    half *= 2;
  CudaFunction &f = out.function;
  f.text = fmt::format("__constant__ const int {}_parts[{}][4] = {{{}}};\n{}", kNameMark, parts, table, functions);
  f.text += fmt::format(R"(extern "C" __global__ void __launch_bounds__({0}) {1}(const __grid_constant__ kiln_pointers<{2}> kiln_buffers) {{
  for (int kiln_block = (int)blockIdx.x; kiln_block < {3}; kiln_block += (int)gridDim.x) {{
    int kiln_part = 0;
#pragma unroll
    for (int kiln_half = {4}; kiln_half > 0; kiln_half /= 2)
      if (kiln_part + kiln_half < {5} && {1}_parts[kiln_part + kiln_half][0] <= kiln_block)
        kiln_part += kiln_half;
    const int kiln_at = (kiln_block - {1}_parts[kiln_part][0]) * {0} + (int)threadIdx.x, kiln_pointer = {1}_parts[kiln_part][3];
    if (kiln_at < {1}_parts[kiln_part][1])
      switch ({1}_parts[kiln_part][2]) {{
{6}      }}
  }}
}}
)", threads, kNameMark, pointers, blocks, half, parts, calls);
  name_after_text(f);
  f.threads = threads;
  f.is_joined = true;
  out.blocks = blocks;
  out.work = work_of_all(group);
  return out;
}

std::vector<LaunchGroup> Grouper::finish() {
  std::map<int, size_t> last; // group of each position
  std::vector<LaunchGroup> out;
  for (Group &group : groups_) {
    LaunchGroup &launches = out.emplace_back(std::move(group.launches));
    if (launches.members.size() > 1)
      launches.joined = joined_launch(launches);
    for (const LaunchGroup::Member &m : launches.members)
      last[m.step->position] = out.size() - 1;
  }
  for (auto [position, g] : last)
    out[g].completed.push_back(position);
  return out;
}

} // namespace

std::span<const PlanStep> leading_launches(std::span<const PlanStep> steps) {
  auto end = std::find_if(steps.begin(), steps.end(), [](const PlanStep &s) { return s.kind != PlanStep::Kind::launch; });
  return steps.first(size_t(end - steps.begin()));
}

std::vector<LaunchGroup> group_launches(const Program &program, const Plan &plan, std::span<const PlanStep> steps, const std::vector<CudaKernel> &kernels) {
  Grouper grouper(program, plan);
  for (const PlanStep &step : steps)
    for (const CudaLaunch &launch : kernels[size_t(step.kernel)].launches)
      grouper.add(step, launch);
  return grouper.finish();
}

} // namespace kiln::cuda
