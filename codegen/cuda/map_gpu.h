// The schedule of the cuda target: which loops become the grid.
#pragma once

#include "ir/kernel/kernel.h"

namespace kiln::cuda {

struct GpuNest {
  std::vector<Stmt> body; // with block_x and thread_x loops, or serial for one thread
  Dim blocks = 1;
  int threads = 1;
};

// One for each top-level nest; runs of other statements (whole-tensor reductions, sorts) stay together in
// one thread. In a kernel whose top level allocates, everything stays together.
std::vector<GpuNest> map_gpu(const Kernel &kernel);

} // namespace kiln::cuda
