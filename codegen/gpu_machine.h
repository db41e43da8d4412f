// GpuMachine: what GPU schedules need to know of a device, as MachineDesc is of a processor. Schedules choose
// blocks, tiles and shared memory from these numbers, never from a name or an op.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kiln {

struct GpuMachine {
  std::string name;  // "sm_90", or "compute_80" for PTX; as in packages. "sm_90a": for 9.0 and nothing else
  int arch = 80;     // 10 * major + minor
  bool is_ptx = false;
  int multiprocessors = 108;
  double gigahertz = 1.41;          // of its multiprocessors; this and the next as in data sheets, for estimates that people read
  double memory_gigabytes = 1555;   // from and to its memory, a second
  int threads = 2048;               // of a multiprocessor
  int64_t block_shared_bytes = 163 << 10; // the most that a block can ask for
  int64_t shared_bytes = 164 << 10; // of a multiprocessor, for all of its blocks
  int64_t registers = 65536;        // of a multiprocessor, 32 bits each
  int vector_bytes = 16;            // of the widest load of a thread
  bool has_async_copies = true;     // from global to shared memory, past the registers (cp.async)
  int fma_rate = 64; // products of f32 that the threads of a multiprocessor add in a cycle
  // Products of tiles by the tensor cores (mma.sync m16n8k16).
  bool has_half_tiles = true, has_byte_tiles = true;
  int tile_rate = 2048; // products of bytes that a multiprocessor adds so in a cycle; of halves half as many, of tf32 a quarter
  // The same by 128 threads together, from shared memory (wgmma m64nNk16); 0 where there is no such thing.
  int warpgroup_rate = 0;
  // Boxes of a tensor are copied to shared memory by the device itself (cp.async.bulk.tensor).
  bool has_tensor_copies = false;
  // Asked for: products of f32 are made of operands that are rounded to 11 bits first (tf32).
  bool rounds_products = false;
  // Products of f32 may be made of three of tf32 where that is faster: as exact as with fused multiply-adds (split_product.h).
  bool splits_products = true;
};

// "sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100"; "sm_90a-copies":
// sm_90a without copies of tensors, to be compared; "ptx" and "compute_80": code that the driver compiles for what
// is newer.
std::optional<GpuMachine> find_gpu(std::string_view name);
std::vector<GpuMachine> gpu_machines();

} // namespace kiln
