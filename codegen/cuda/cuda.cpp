#include "codegen/cuda/cuda.h"

#include "codegen/c/stmt.h"
#include "codegen/cuda/nest.h"
#include "passes/kernel/schedule.h"
#include "runtime/digest.h"

#include <fmt/format.h>

namespace kiln::cuda {
namespace {

// NVRTC has no headers; these are what the C text uses of stdint.h and math.h.
constexpr std::string_view kPreamble = R"(#ifndef KILN_CUDA_SHIM
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
// d += a * b: 16 rows and 16 steps of a, 16 steps and 8 columns of b, spread over the lanes of a warp.
#define KILN_MMA(name, type)                                                                                          \
  __device__ __forceinline__ void name(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {               \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "   \
                 "{%8, %9}, {%0, %1, %2, %3};"                                                                        \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                                 \
  }
KILN_MMA(kiln_mma_bf16, "bf16")
KILN_MMA(kiln_mma_f16, "f16")
#define KILN_NOTE(at, bytes)
#else
#define KILN_SHARED unsigned char *const kiln_shared = kiln_shim::g_dynamic
#define KILN_NOTE(at, bytes) kiln_shim::note(at, bytes)
#endif

// Neighbouring elements that a thread loads and stores together.
template <typename T, int N>
struct __align__(sizeof(T) * N < 16 ? sizeof(T) * N : 16) kiln_pack {
  T v[N];
  __device__ __forceinline__ T &operator[](int i) { return v[i]; }
  __device__ __forceinline__ const T &operator[](int i) const { return v[i]; }
};
template <int N, typename T>
__device__ __forceinline__ kiln_pack<T, N> kiln_load(const T *at) {
  KILN_NOTE(at, sizeof(T) * N);
  return *(const kiln_pack<T, N> *)at;
}
template <int N, typename T>
__device__ __forceinline__ void kiln_store(T *at, const kiln_pack<T, N> &pack) {
  KILN_NOTE(at, sizeof(T) * N);
  *(kiln_pack<T, N> *)at = pack;
}

// What all lanes of a warp hold, one of them after the other in a fixed order.
template <typename T>
__device__ __forceinline__ T kiln_lane_xor(T value, int mask) {
  if constexpr (sizeof(T) < 4)
    return (T)__shfl_xor_sync(0xffffffffu, (int)value, mask);
  else
    return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <typename T, typename Op>
__device__ __forceinline__ T kiln_warp_reduce(T value, T, Op op) {
  for (int mask = 16; mask > 0; mask >>= 1)
    value = op(value, kiln_lane_xor(value, mask));
  return value;
}
template <typename T, typename Op>
__device__ __forceinline__ T kiln_block_reduce(T value, T identity, Op op) {
  __shared__ T parts[32];
  value = kiln_warp_reduce(value, identity, op);
  __syncthreads();
  if (threadIdx.x % 32 == 0)
    parts[threadIdx.x / 32] = value;
  __syncthreads();
  value = threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : identity;
  return kiln_warp_reduce(value, identity, op);
}
)";

// Stands for the name in a function's text until the text is known.
constexpr std::string_view kNameMark = "@";

std::string parameters(const Kernel &kernel, bool is_aliased, bool has_scratch) {
  std::string out;
  for (const KernelBuffer &b : kernel.buffers)
    out += fmt::format("{}{} *{}{}, ", b.access == Access::in ? "const " : "", c::c_type(b.dtype), is_aliased ? "" : "__restrict__ ",
                       c::c_name(b.name));
  for (Symbol d : kernel.dims)
    out += fmt::format("int64_t {}, ", c::c_name(d));
  return out + (has_scratch ? "unsigned char *scratch, " : "") + "int *trap";
}

void name_after_text(CudaFunction &function) {
  package::Digester digester;
  digester.update(function.text.data(), function.text.size());
  package::Digest digest = digester.finish();
  function.name = fmt::format("kiln_{:016x}{:016x}{:016x}{:016x}", digest.word[0], digest.word[1], digest.word[2], digest.word[3]);
  function.text.replace(function.text.find(kNameMark), kNameMark.size(), function.name);
}

} // namespace

CudaKernel emit_cuda(const Kernel &lowered, const GpuMachine &machine, const LaunchFacts &facts) {
  Kernel kernel = lowered;
  expand_narrow(kernel);
  CudaKernel out;
  for (GpuNest &nest : map_gpu(kernel, machine, facts)) {
    CudaLaunch launch;
    launch.blocks = nest.blocks;
    CudaFunction &f = launch.function;
    f.threads = nest.threads;
    f.shared_bytes = nest.shared_bytes;
    f.scratch_bytes = nest.scratch_bytes;
    f.helpers = std::move(nest.helpers);
    f.text = fmt::format("extern \"C\" __global__ void __launch_bounds__({}) {}({}) {{\n{}{}}}\n", nest.threads, kNameMark,
                         parameters(kernel, facts.is_aliased, nest.scratch_bytes > 0), nest.shared_bytes > 0 ? "  KILN_SHARED;\n" : "", nest.text);
    name_after_text(f);
    out.launches.push_back(std::move(launch));
  }
  return out;
}

std::string cuda_source(std::span<const CudaFunction> functions) {
  std::string out(kPreamble), text;
  std::set<std::string> helpers, names;
  for (const CudaFunction &function : functions) {
    helpers.insert(function.helpers.begin(), function.helpers.end());
    if (names.insert(function.name).second)
      text += function.text + "\n";
  }
  for (const std::string &helper : helpers)
    out += helper == "kiln_fmaf"  ? "#define kiln_fmaf fmaf\n"
           : helper == "kiln_fma" ? "#define kiln_fma fma\n"
                                  : "__device__ " + c::helper_text(helper) + "\n";
  return out + "\n" + text;
}

} // namespace kiln::cuda
