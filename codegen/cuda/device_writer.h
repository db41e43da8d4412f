// The device section of a package: kernels compiled for one GPU, and the entries' steps as records
// (runtime/cuda/device_format.h).
#pragma once

#include "codegen/cuda/cuda.h"
#include "codegen/gpu_machine.h"
#include "ir/plan.h"

#include <cstdint>
#include <vector>

namespace kiln::cuda {

struct DeviceOptions {
  int jobs = 1;          // translation units that are compiled at a time; the bytes do not depend on it
  bool use_cache = true; // compiled units are kept in the user's cache folder (KILN_CACHE, XDG_CACHE_HOME)
  bool denormals_keep = false;
};

// Compiles with NVRTC; where it is not there, the error says what to install. What does not compile is shown with
// the kernel that it came from.
Result<std::vector<uint8_t>> device_section(const Program &program, const GpuMachine &machine, const DeviceOptions &options);

// Whether a device runs the entry: one that has a twin for GPUs leaves that to it.
bool is_for_device(const Program &program, const Plan &plan);
// Of the kernels that a device runs; nothing for the others.
std::vector<CudaKernel> emit_kernels(const Program &program, const GpuMachine &machine);

// The source alone, for people.
std::string device_source(const Program &program, const GpuMachine &machine);

} // namespace kiln::cuda
