#include "codegen/cuda/preamble.h"

namespace kiln::cuda {

// NVRTC has no headers; these are what the C text uses of stdint.h and math.h.
const std::string_view kPreamble = R"(#ifndef KILN_CUDA_SHIM
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#define INT64_C(x) x##LL
#define UINT64_C(x) x##ULL
#define UINT32_C(x) x##U
#define INT8_MIN (-128)
#define INT8_MAX 127
#define UINT8_MAX 255
#define INT16_MIN (-32768)
#define INT16_MAX 32767
#define UINT16_MAX 65535
#define INT32_MIN (-2147483647 - 1)
#define INT32_MAX 2147483647
#define UINT32_MAX 4294967295U
#define INT64_MIN (-9223372036854775807LL - 1)
#define INT64_MAX 9223372036854775807LL
#define UINT64_MAX 18446744073709551615ULL
#define NAN __int_as_float(0x7fc00000)
#define INFINITY __int_as_float(0x7f800000)
#define KILN_SHARED extern __shared__ __align__(128) unsigned char kiln_shared[]
#define KILN_SHARED_LINES                                                                                              \
  extern __shared__ __align__(1024) unsigned char kiln_lines[];                                                        \
  unsigned char *const kiln_shared = kiln_lines
// Conversions that are one instruction.
__device__ __forceinline__ float kiln_f16_to_f32(uint16_t h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
}
__device__ __forceinline__ uint16_t kiln_f32_to_f16(float f) {
  uint16_t h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}
__device__ __forceinline__ float kiln_bf16_to_f32(uint16_t h) { return __uint_as_float((uint32_t)h << 16); }
__device__ __forceinline__ uint16_t kiln_f32_to_bf16(float f) {
  uint16_t h;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}
#define KILN_PAIR(name, type)                                                                                         \
  __device__ __forceinline__ uint32_t name(float low, float high) {                                                   \
    uint32_t out;                                                                                                     \
    asm("cvt.rn." type ".f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));                                          \
    return out;                                                                                                       \
  }
KILN_PAIR(kiln_pair_bf16, "bf16x2")
KILN_PAIR(kiln_pair_f16, "f16x2")
// d += a * b: 16 rows of a, 8 columns of b and 32 bytes of both along the sum, spread over the lanes of a warp.
#define KILN_MMA(name, shape, types, sum, sign)                                                                       \
  __device__ __forceinline__ void name(sum (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {               \
    asm volatile("mma.sync.aligned." shape ".row.col." types " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "        \
                 "{%0, %1, %2, %3};"                                                                                  \
                 : "+" sign(d[0]), "+" sign(d[1]), "+" sign(d[2]), "+" sign(d[3])                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                     \
  }
KILN_MMA(kiln_mma_bf16, "m16n8k16", "f32.bf16.bf16.f32", float, "f")
KILN_MMA(kiln_mma_f16, "m16n8k16", "f32.f16.f16.f32", float, "f")
KILN_MMA(kiln_mma_f32, "m16n8k8", "f32.tf32.tf32.f32", float, "f")
KILN_MMA(kiln_mma_i8_i8, "m16n8k32", "s32.s8.s8.s32", int, "r")
KILN_MMA(kiln_mma_i8_u8, "m16n8k32", "s32.s8.u8.s32", int, "r")
KILN_MMA(kiln_mma_u8_i8, "m16n8k32", "s32.u8.s8.s32", int, "r")
KILN_MMA(kiln_mma_u8_u8, "m16n8k32", "s32.u8.u8.s32", int, "r")
// To the nearest number that tensor cores multiply.
__device__ __forceinline__ uint32_t kiln_to_tf32(uint32_t bits) {
  uint32_t out;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "r"(bits));
  return out;
}
// Four blocks of 8 rows of 16 bytes; lane l has the address of row l % 8 of block l / 8. Lane l gets four bytes of row
// l / 4 of each; `across`: its column's elements of 16 bits, 2 * (l % 4) and the next, instead.
__device__ __forceinline__ void kiln_ldmatrix(uint32_t (&out)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"((uint32_t)__cvta_generic_to_shared(row))
               : "memory");
}
__device__ __forceinline__ void kiln_ldmatrix_across(uint32_t (&out)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"((uint32_t)__cvta_generic_to_shared(row))
               : "memory");
}
// From global to shared memory past the registers, zeros where it is not `inside`. It is there when the thread has
// waited until no more than `kGroups` later groups are under way; for others, after a barrier.
template <int kBytes>
__device__ __forceinline__ void kiln_copy(void *to, const void *from, bool inside) {
  uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
  int bytes = inside ? kBytes : 0;
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(at), "l"(from), "r"(bytes), "n"(kBytes) : "memory");
}
__device__ __forceinline__ void kiln_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kGroups>
__device__ __forceinline__ void kiln_copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}
// Products by warpgroups (wgmma) read shared memory by another way than threads do. What a thread has written, or has had
// copied, is there for them once it has passed the fence, and then a barrier. Sums belong to the products from their fence
// on until the thread has waited for all but the last `kGroups` that it has committed.
__device__ __forceinline__ void kiln_async_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void kiln_wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void kiln_wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kGroups>
__device__ __forceinline__ void kiln_wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}
__device__ __forceinline__ void kiln_hold(float &sum) { asm volatile("" : "+f"(sum)::"memory"); }
__device__ __forceinline__ void kiln_hold(int &sum) { asm volatile("" : "+r"(sum)::"memory"); }
template <typename T, int N>
__device__ __forceinline__ void kiln_hold(T (&sums)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i)
    kiln_hold(sums[i]);
}
// A matrix in shared memory: what is told of it, and its address in units of 16 bytes.
__device__ __forceinline__ uint64_t kiln_descriptor(const void *at, uint64_t bits) { return bits | (((uint32_t)__cvta_generic_to_shared(at) & 0x3ffff) >> 4); }
template <typename T>
__device__ __forceinline__ void kiln_keep(T *at, T value) { *at = value; }
#define KILN_MOVE(type, to, from, is_write) *(type *)(to) = *(const type *)(from)
// The same number, of which nothing is known: what follows from it is computed here, not kept since before a loop.
__device__ __forceinline__ int kiln_anew(int x) {
  asm volatile("" : "+r"(x));
  return x;
}
// 2^x in one instruction: right to 2 units in the last place, denormals are 0.
__device__ __forceinline__ float kiln_exp2(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}
#else
inline int kiln_anew(int x) { return x; }
inline float kiln_exp2(float x) { return exp2f(x); }
#define KILN_SHARED unsigned char *const kiln_shared = kiln_shim::g_dynamic
#define KILN_SHARED_LINES KILN_SHARED
#define KILN_MOVE(type, to, from, is_write) kiln_shim::move(to, from, sizeof(type), is_write)
#endif

// Buffers of a joined launch.
template <int N>
struct kiln_pointers {
  void *at[N];
};
// Neighbouring elements that a thread loads and stores together.
template <typename T, int N>
struct __align__(sizeof(T) * N < 16 ? sizeof(T) * N : 16) kiln_pack {
  T v[N];
  __device__ __forceinline__ T &operator[](int i) { return v[i]; }
  __device__ __forceinline__ const T &operator[](int i) const { return v[i]; }
};
template <int N, typename T>
__device__ __forceinline__ kiln_pack<T, N> kiln_load(const T *at) {
  using Pack = kiln_pack<T, N>;
  Pack pack;
  KILN_MOVE(Pack, &pack, at, false);
  return pack;
}
template <int N, typename T>
__device__ __forceinline__ kiln_pack<T, N> kiln_load_if(bool inside, const T *at, T otherwise) {
  kiln_pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i)
    pack[i] = otherwise;
  if (inside)
    pack = kiln_load<N>(at);
  return pack;
}
template <int N, typename T>
__device__ __forceinline__ void kiln_store(T *at, const kiln_pack<T, N> &pack) {
  using Pack = kiln_pack<T, N>;
  KILN_MOVE(Pack, at, &pack, true);
}

// Four neighbouring bytes.
template <typename T>
__device__ __forceinline__ uint32_t kiln_word(const T *at) {
  uint32_t word;
  KILN_MOVE(uint32_t, &word, at, false);
  return word;
}
// Four rows of four bytes to four columns; the one at e is column e ^ around.
__device__ __forceinline__ void kiln_turn_bytes(uint32_t (&out)[4], const uint32_t *rows, int around) {
  const uint32_t low0 = __byte_perm(rows[0], rows[1], 0x5140), high0 = __byte_perm(rows[0], rows[1], 0x7362);
  const uint32_t low1 = __byte_perm(rows[2], rows[3], 0x5140), high1 = __byte_perm(rows[2], rows[3], 0x7362);
  const uint32_t a = __byte_perm(low0, low1, 0x5410), b = __byte_perm(low0, low1, 0x7632);
  const uint32_t c = __byte_perm(high0, high1, 0x5410), d = __byte_perm(high0, high1, 0x7632);
  const bool odd = around & 1, far = around & 2;
  const uint32_t e = odd ? b : a, f = odd ? a : b, g = odd ? d : c, h = odd ? c : d;
  out[0] = far ? g : e;
  out[1] = far ? h : f;
  out[2] = far ? e : g;
  out[3] = far ? f : h;
}

// Where byte `at` of a row of a tile in shared memory lies: pieces of 16 bytes change places within a line of 128, so
// that eight rows' pieces at the same place of each lie in different banks.
template <int kRowBytes>
__device__ __forceinline__ int kiln_swizzle(int row, int at) {
  constexpr int kPieces = kRowBytes / 16;
  if constexpr (kPieces >= 8)
    return row * kRowBytes + (at ^ (row % 8 * 16));
  else
    return row * kRowBytes + (at ^ (row / (8 / kPieces) % kPieces * 16));
}
// The same for words that lanes take from four rows and eight neighbouring places.
template <int kRowBytes>
__device__ __forceinline__ int kiln_swizzle_words(int row, int at) {
  return row * kRowBytes + (at ^ (row % 4 * 32));
}

// f32 as a number of 11 bits, and what is left (split_product.h). No number is left of one that becomes infinite.
__device__ __forceinline__ void kiln_split(uint32_t &big, uint32_t &small) {
  const float whole = __int_as_float((int)big);
  big = (big + 0x1000u) & 0xffffe000u;
  float rest = whole - __int_as_float((int)big);
#ifndef KILN_CUDA_SHIM
  asm("sub.f32 %0, %1, %2;" : "=f"(rest) : "f"(whole), "f"(__int_as_float((int)big))); // denormals are numbers whatever the options
#endif
  small = __float_as_uint(rest);
}
// Products of f32 by tensor cores: of numbers rounded to tf32, or of sums of two of them.
__device__ __forceinline__ void kiln_rounded_product(float (&d)[4], const float (&a)[4], float b0, float b1) {
  uint32_t as[4];
#pragma unroll
  for (int e = 0; e < 4; ++e)
    as[e] = kiln_to_tf32(__float_as_uint(a[e]));
  kiln_mma_f32(d, as, kiln_to_tf32(__float_as_uint(b0)), kiln_to_tf32(__float_as_uint(b1)));
}
// `high` is cut off by the tensor cores; what is left of an infinity, the NaN 0x7fffffff, becomes a number near 0.
__device__ __forceinline__ void kiln_cut_f32(float x, uint32_t &high, uint32_t &low) {
  high = __float_as_uint(x) & 0xffffe000u;
  const float rest = x - __int_as_float((int)high);
  low = __float_as_uint(rest) + 0x1000u;
#ifdef KILN_CUDA_SHIM
  low = rest == rest ? low : 0x80000fffu;
#endif
}
// Tensor cores cut their sums off, so these begin at 0 and are added to the others by threads.
__device__ __forceinline__ void kiln_cut_product(float (&d)[4], const float (&a)[4], float b0, float b1) {
  uint32_t high[4], low[4], b_high[2], b_low[2];
  float sums[4] = {};
#pragma unroll
  for (int e = 0; e < 4; ++e)
    kiln_cut_f32(a[e], high[e], low[e]);
  kiln_cut_f32(b0, b_high[0], b_low[0]);
  kiln_cut_f32(b1, b_high[1], b_low[1]);
  kiln_mma_f32(sums, low, b_high[0], b_high[1]);
  kiln_mma_f32(sums, high, b_low[0], b_low[1]);
  kiln_mma_f32(sums, high, b_high[0], b_high[1]);
#pragma unroll
  for (int e = 0; e < 4; ++e)
    d[e] += sums[e];
}

// What all lanes of a warp hold, one of them after the other in a fixed order.
template <typename T>
__device__ __forceinline__ T kiln_lane_xor(T value, int mask, uint32_t lanes = 0xffffffffu) {
  if constexpr (sizeof(T) < 4)
    return (T)__shfl_xor_sync(lanes, (int)value, mask);
  else
    return __shfl_xor_sync(lanes, value, mask);
}
// The kLanes neighbouring lanes of a warp to which this one belongs.
template <int kLanes>
__device__ __forceinline__ uint32_t kiln_lanes() {
  if constexpr (kLanes == 32)
    return 0xffffffffu;
  else
    return ((1u << kLanes) - 1) << (threadIdx.x % 32 / kLanes * kLanes);
}
template <int kLanes, typename T, typename Op>
__device__ __forceinline__ T kiln_lanes_reduce(T value, Op op) {
#pragma unroll
  for (int mask = kLanes / 2; mask > 0; mask >>= 1)
    value = op(value, kiln_lane_xor(value, mask, kiln_lanes<kLanes>()));
  return value;
}
template <typename T, typename Op>
__device__ __forceinline__ T kiln_block_reduce(T value, T identity, Op op) {
  __shared__ T parts[32];
  value = kiln_lanes_reduce<32>(value, op);
  __syncthreads();
  if (threadIdx.x % 32 == 0)
    parts[threadIdx.x / 32] = value;
  __syncthreads();
  value = threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : identity;
  return kiln_lanes_reduce<32>(value, op);
}
)";

} // namespace kiln::cuda
