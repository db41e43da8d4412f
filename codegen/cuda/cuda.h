// The `cuda` target: the same kernels as CUDA C, compiled by NVRTC.
//
// A kernel's top-level nests become one __global__ function each, launched one after the other. The
// parallel loops of a nest are flattened over a one-dimensional grid; what is below runs in one thread.
// NVRTC is opened at run time and never required: without it only the source can be had.
#pragma once

#include "ir/plan.h"

#include <cstddef>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kiln::cuda {

struct CudaLaunch {
  std::string function; // the __global__ function's name
  Dim blocks;           // of the grid, over the kernel's dims
  int threads = 1;      // of a block
};

// Functions take the kernel's buffers, then its dims as long long, then int *trap.
struct CudaKernel {
  std::set<std::string> helpers; // device functions that it calls
  std::string functions;
  std::vector<CudaLaunch> launches;
};

// From a naive, scalar kernel.
CudaKernel emit_cuda(const Kernel &kernel);
// A whole translation unit.
std::string cuda_source(std::span<const CudaKernel> kernels);

class Nvrtc {
public:
  // From the toolkit or a wheel's library on the loader's path, or the path in KILN_NVRTC; an error says
  // what to install.
  static Result<Nvrtc> open();

  struct Binary {
    std::vector<std::byte> bytes;
    std::string log;
  };
  // arch: "sm_80", "sm_90", ... for a cubin, "compute_80", ... for PTX. Errors carry NVRTC's log.
  Result<Binary> compile(std::string_view source, std::string_view name, std::string_view arch) const;
  int major() const { return major_; }

private:
  struct Api;
  std::shared_ptr<const Api> api_;
  int major_ = 0, minor_ = 0;
};

} // namespace kiln::cuda
