// Kernels that are wrong, and what the shim makes of them: a GPU might run them for years. The script beside this file knows
// what each case says; cases that end print their results.
#include "tests/cuda_shim/shim.h"

using kiln_shim::g_dynamic;

__global__ void barrier_of_some(int *out) {
  if (threadIdx.x < 32)
    __syncthreads();
  out[threadIdx.x] = 1;
  __syncthreads();
}
__global__ void barrier_and_shuffle(int *out) {
  if (threadIdx.x % 2)
    __syncthreads();
  else
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 2);
}
__global__ void copy_nobody_waits_for(int *out) {
  kiln_copy<16>(g_dynamic + threadIdx.x * 16, out, true);
  kiln_copy_commit();
}
__global__ void copy_across_its_size(int *out) {
  kiln_copy<16>(g_dynamic + threadIdx.x * 16 + 4, out, true);
  kiln_copy_wait<0>();
}
// Late: before the wait no number is there, after it the copied one.
__global__ void copy_read_before_and_after(int *out) {
  auto *shared = reinterpret_cast<int *>(g_dynamic);
  shared[threadIdx.x * 4] = 5;
  kiln_copy<16>(shared + threadIdx.x * 4, out + 64, true);
  kiln_copy_commit();
  int before = shared[threadIdx.x * 4];
  kiln_copy_wait<0>();
  out[threadIdx.x] = before == -1 && shared[threadIdx.x * 4] == 7 ? 1 : 0;
}
// Each block finds nothing of the one before.
__global__ void shared_that_nobody_wrote(int *out) {
  auto *shared = reinterpret_cast<int *>(g_dynamic);
  if (shared[threadIdx.x] == -1)
    out[threadIdx.x] += 1;
  shared[threadIdx.x] = 3;
}
// Right only in the order of the threads, or in its reverse: never in both blocks.
__global__ void no_barrier(int *out) {
  auto *shared = reinterpret_cast<int *>(g_dynamic);
  shared[threadIdx.x] = 1;
  out[threadIdx.x] += shared[blockDim.x - 1 - threadIdx.x] == 1;
}
__global__ void a_barrier(int *out) {
  auto *shared = reinterpret_cast<int *>(g_dynamic);
  shared[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] += shared[blockDim.x - 1 - threadIdx.x] == 1;
}
__global__ void ids(int *out) {
  unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[thread] += blockIdx.z == 1 && blockIdx.y == 1 && blockIdx.x == 1;
}
// Some lanes have ended, others say no.
__global__ void ballot(int *out) {
  if (threadIdx.x % 32 < 8)
    return;
  out[threadIdx.x] = __ballot_sync(0xffffffffu, threadIdx.x % 2) == 0xaaaaaa00u && __ffs(12) == 3;
}
__global__ void shuffles(int *out) { out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, int(threadIdx.x), 1) == int(threadIdx.x ^ 1); }
// Threads of a warp that have ended are not waited for.
__global__ void some_end(int *out) {
  if (threadIdx.x >= 40)
    return;
  __syncthreads();
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}
// A box of 4x4 words, the last column of which is outside of the tensor; `told`: how many bytes a barrier is told of.
void copy_a_box(int *out, int told, bool waits) {
  auto *shared = reinterpret_cast<int *>(g_dynamic);
  auto *ring = reinterpret_cast<uint64_t *>(g_dynamic + 1024);
  kiln_tensor_map map{};
  kiln_shim::EncodedMap encoded{kiln_shim::kMapMark, 2, 4, 128, uint64_t(reinterpret_cast<uintptr_t>(out + 64)), {2, 3}, {16}, {4, 4}};
  memcpy(map.bytes, &encoded, sizeof encoded);
  if (threadIdx.x == 0) {
    kiln_ring_init(ring, 1);
    kiln_ring_made();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    kiln_ring_expect(ring, told);
    kiln_copy_box(shared, map, ring, 0, 0);
  }
  if (waits)
    kiln_ring_wait(ring, 0);
  if (threadIdx.x < 16)
    out[threadIdx.x] = shared[threadIdx.x] == 7;
}
__global__ void box(int *out) { copy_a_box(out, 64, true); }
__global__ void box_of_fewer_bytes(int *out) { copy_a_box(out, 80, true); }
__global__ void box_of_more_bytes(int *out) { copy_a_box(out, 48, true); }
__global__ void box_nobody_waits_for(int *out) { copy_a_box(out, 64, false); }

// Ones times ones along a sum of 16: each of the four sums of a lane is 16.
__global__ void product_of_a_warp(int *out) {
  float d[4] = {};
  uint32_t a[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
  kiln_mma_bf16(d, a, a[0], a[1]);
  out[threadIdx.x] = int(d[0] + d[1] + d[2] + d[3]);
}
__global__ void product_of_some_lanes(int *) {
  float d[4] = {};
  uint32_t a[4] = {};
  if (threadIdx.x != 7)
    kiln_mma_bf16(d, a, 0, 0);
}

int main(int argc, char **argv) {
  struct Case {
    const char *name;
    kiln_shim::Body body;
    uint3 grid, block;
  };
#define CASE(name, ...) {#name, &kiln_shim::Caller<&name>::call, __VA_ARGS__}
  const uint3 one = {1, 1, 1}, two = {2, 1, 1}, warps = {64, 1, 1};
  const Case cases[] = {CASE(barrier_of_some, one, warps), CASE(barrier_and_shuffle, one, warps), CASE(copy_nobody_waits_for, one, warps),
                        CASE(copy_across_its_size, one, warps), CASE(copy_read_before_and_after, one, warps), CASE(shared_that_nobody_wrote, two, warps),
                        CASE(no_barrier, two, warps), CASE(a_barrier, two, warps), CASE(ids, uint3{2, 2, 2}, uint3{4, 8, 2}), CASE(shuffles, one, warps), CASE(ballot, one, warps),
                        CASE(some_end, one, warps), CASE(box, one, warps), CASE(box_of_fewer_bytes, one, warps), CASE(box_of_more_bytes, one, warps),
                        CASE(box_nobody_waits_for, one, warps), CASE(product_of_a_warp, one, warps), CASE(product_of_some_lanes, one, warps)};
  for (const Case &c : cases)
    if (argc == 2 && strcmp(c.name, argv[1]) == 0) {
      alignas(16) static int values[128];
      for (int i = 64; i < 128; ++i)
        values[i] = 7;
      int *out = values;
      void *args[] = {&out};
      kiln_shim::launch(c.name, c.body, c.grid, c.block, 4096, args);
      int sum = 0;
      for (int i = 0; i < 64; ++i)
        sum += values[i];
      printf("%d\n", sum);
      return 0;
    }
  return 2;
}
