#include "codegen/gpu_machine.h"

#include <algorithm>

namespace kiln {

// Rates are what NVIDIA's architecture white papers say of whole devices, by multiprocessors and clock. A100 ("A100 Tensor Core GPU
// Architecture", 108 at 1.41 GHz): 19.5 TFLOPS of f32, 156 of tf32, 312 of f16, 624 TOPS of bytes. A40 ("GA102 GPU Architecture", 84 at
// 1.74 GHz): 37.4, 74.8, 149.7, 299. L40S ("Ada GPU Architecture", 142 at 2.52 GHz): 91.6, 183, 362, 733. H100 SXM ("H100 Tensor Core
// GPU Architecture", 132 at 1.83 to 1.98 GHz): 67, 495, 989, 1979. GeForce of the same generations adds halves in f32 at half the rate.
std::vector<GpuMachine> gpu_machines() {
  GpuMachine sm_80; // A100 with 40 GB
  sm_80.name = "sm_80";

  GpuMachine sm_86 = sm_80; // A40, RTX 30
  sm_86.name = "sm_86";
  sm_86.arch = 86;
  sm_86.multiprocessors = 84;
  sm_86.gigahertz = 1.74;
  sm_86.memory_gigabytes = 696;
  sm_86.threads = 1536;
  sm_86.shared_bytes = 100 << 10;
  sm_86.block_shared_bytes = 99 << 10;
  sm_86.fma_rate = 128;
  sm_86.tile_rate = 1024;

  GpuMachine sm_89 = sm_86; // L4, L40, RTX 40
  sm_89.name = "sm_89";
  sm_89.arch = 89;
  sm_89.multiprocessors = 142;
  sm_89.gigahertz = 2.49;
  sm_89.memory_gigabytes = 864;

  GpuMachine sm_90 = sm_80; // H100, H200
  sm_90.name = "sm_90";
  sm_90.arch = 90;
  sm_90.multiprocessors = 132;
  sm_90.gigahertz = 1.755;
  sm_90.memory_gigabytes = 3352;
  sm_90.shared_bytes = 228 << 10;
  sm_90.block_shared_bytes = 227 << 10;
  sm_90.fma_rate = 128;
  sm_90.tile_rate = 2560; // what mma.sync reaches of the tensor cores' 4096

  GpuMachine sm_90a = sm_90; // the same devices, with instructions that no other generation has
  sm_90a.name = "sm_90a";
  sm_90a.warpgroup_rate = 4096;
  sm_90a.has_tensor_copies = true;

  GpuMachine sm_100 = sm_90; // B200
  sm_100.name = "sm_100";
  sm_100.arch = 100;
  sm_100.multiprocessors = 148;
  sm_100.gigahertz = 1.85;
  sm_100.memory_gigabytes = 8000;

  // What every one of them can do.
  GpuMachine ptx = sm_86;
  ptx.name = "compute_80";
  ptx.arch = 80;
  ptx.is_ptx = true;
  return {sm_80, sm_86, sm_89, sm_90, sm_90a, sm_100, ptx};
}

std::optional<GpuMachine> find_gpu(std::string_view name) {
  if (name == "ptx")
    name = "compute_80";
  constexpr std::string_view kByThreads = "sm_90a-copies";
  for (GpuMachine &machine : gpu_machines())
    if (machine.name == (name == kByThreads ? "sm_90a" : name)) {
      machine.has_tensor_copies &= name != kByThreads;
      return machine;
    }
  return std::nullopt;
}

} // namespace kiln
