// The launches of an entry on a GPU, with what each one has to do: for people (`kiln inspect --launches`).
#pragma once

#include "codegen/cuda/cuda.h"
#include "ir/plan.h"

#include <string>
#include <vector>

namespace kiln::cuda {

struct ListedLaunch {
  std::string name;      // of the plan's step, the first one of a joined launch; launches that a kernel needs beside its first one have the same
  Location location;
  double times = 1;      // in a run: the turns of loops, those that only a run tells counted as one
  CudaLaunch launch;
  size_t joined = 1;     // launches that it is made of
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

// `kernels`: emit_kernels() of the program.
std::vector<LaunchList> list_launches(const Program &program, const std::vector<CudaKernel> &kernels, const GpuMachine &machine);

} // namespace kiln::cuda
