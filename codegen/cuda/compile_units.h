// Compiles device functions with NVRTC: in units of a few functions each, several at a time, and not again what
// the user's cache holds.
#pragma once

#include "codegen/cuda/cuda.h"
#include "codegen/cuda/device_writer.h"

namespace kiln::cuda {

struct CompiledUnits {
  std::vector<std::vector<std::byte>> images;
  std::vector<int> image_of; // for each function
};

// `origins`: the kernels that the functions came from, for messages.
Result<CompiledUnits> compile_units(const Nvrtc &nvrtc, const std::vector<CudaFunction> &functions,
                                    const std::vector<const Kernel *> &origins, const GpuMachine &machine,
                                    const DeviceOptions &options);

} // namespace kiln::cuda
