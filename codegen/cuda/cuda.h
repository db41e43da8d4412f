// The `cuda` target: the same kernels as CUDA C, compiled by NVRTC.
//
// A kernel's top-level nests become one __global__ function each, launched one after the other. Functions are
// named after their text, so that equal ones exist once in a package. NVRTC is opened at run time and never
// required: without it only the source can be had.
#pragma once

#include "codegen/cuda/launch_work.h"
#include "codegen/gpu_machine.h"
#include "ir/plan.h"

#include <cstddef>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kiln::cuda {

// Scratch memory exists for this many blocks: more of them take turns. What launches of one kernel leave for each other
// lies in all of it.
inline constexpr int64_t kScratchBlocks = 512;

// How the device itself finds boxes of a buffer (tensor_map.h); the driver makes it where a launch is recorded. Sizes are over
// the kernel's dims, in elements.
struct TensorMap {
  struct Axis {
    Dim size, stride; // the first one's stride is 1
    int box = 1;
  };
  int buffer = 0;  // of the kernel
  int element = 1; // bytes
  Dim offset = 0;
  std::vector<Axis> axes;
};

// Its parameters are the kernel's buffers, then its dims as long long, then, where it has scratch memory,
// unsigned char *scratch, then int *trap, then tensor maps.
struct CudaFunction {
  std::string name, text;
  std::set<std::string> helpers; // device functions that it calls
  int threads = 1;               // of a block
  int64_t shared_bytes = 0;      // dynamic
  int64_t scratch_bytes = 0;     // global memory for each block
  int resident = 0;              // not 0: blocks of a multiprocessor, which take turns
  bool is_joined = false;        // its only parameter is a kiln_pointers of all buffers
};

// Stands for the name in a function's text until the text is known.
inline constexpr std::string_view kNameMark = "@";
void name_after_text(CudaFunction &function);

// What a launch of the flat form does that has no loops and no asserts, as a function of its own: it can be a part of a
// joined launch (join_launches.h).
struct FlatPart {
  std::string parameters;         // the buffers
  std::vector<std::string> types; // of their elements
  std::string text;               // of a thread, for kiln_at
  int64_t count = 0;              // of kiln_at
  std::string key() const { return parameters + text; }
};

struct CudaLaunch {
  CudaFunction function;
  LaunchWork work;
  Dim blocks; // of the grid, over the kernel's dims; a grid of fewer does the same work
  std::vector<TensorMap> maps;
  std::optional<FlatPart> flat;
};

struct CudaKernel {
  std::vector<CudaLaunch> launches;
};

// What is known of all launches of a kernel.
struct LaunchFacts {
  bool is_aliased = false;        // some launch writes a buffer that it also reads
  std::vector<bool> is_unaligned; // buffers that do not begin at a multiple of 16 bytes in some launch; none if empty
};

// From a naive, scalar kernel.
CudaKernel emit_cuda(const Kernel &kernel, const GpuMachine &machine, const LaunchFacts &facts = {});
// A whole translation unit; each function once.
std::string cuda_source(std::span<const CudaFunction> functions);

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
  // Denormals of f32 count as zero unless they are kept.
  Result<Binary> compile(std::string_view source, std::string_view name, std::string_view arch, bool denormals_keep = true) const;
  int major() const { return major_; }
  int minor() const { return minor_; }

private:
  struct Api;
  std::shared_ptr<const Api> api_;
  int major_ = 0, minor_ = 0;
};

} // namespace kiln::cuda
