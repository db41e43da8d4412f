// The launches of an entry on a GPU, with what each one has to do: for people (`kiln inspect --launches`).
#pragma once

#include "codegen/cuda/cuda.h"
#include "ir/plan.h"

#include <string>
#include <vector>

namespace kiln::cuda {

struct ListedLaunch {
  std::string name;      // of the plan's step; launches that a kernel needs beside its first one have the same
  Location location;
  double times = 1;      // in a run: the turns of loops, those that only a run tells counted as one
  const CudaLaunch *launch = nullptr;
  LaunchTime time;       // of one
};

struct LaunchList {
  std::string entry;
  std::vector<ListedLaunch> launches;
  double count = 0, us = 0; // of a run
  // What no schedule can do without: arguments, weights and variables read and written once, sums of products at the full rate of what
  // multiplies them.
  double least_bytes = 0, products = 0, least_us = 0;
};

// `kernels`: emit_kernels() of the program, which has to outlive the list.
std::vector<LaunchList> list_launches(const Program &program, const std::vector<CudaKernel> &kernels, const GpuMachine &machine);

} // namespace kiln::cuda
