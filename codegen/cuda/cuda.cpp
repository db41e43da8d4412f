#include "codegen/cuda/cuda.h"

#include "codegen/c/stmt.h"
#include "codegen/cuda/map_gpu.h"
#include "passes/kernel/schedule.h"

#include <fmt/format.h>

namespace kiln::cuda {
namespace {

// NVRTC has no headers; these are what the C text uses of stdint.h and math.h.
constexpr std::string_view kPreamble = R"(typedef signed char int8_t;
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
)";

} // namespace

CudaKernel emit_cuda(const Kernel &lowered) {
  Kernel kernel = lowered;
  expand_narrow(kernel);
  CudaKernel out;
  std::string params;
  for (const KernelBuffer &b : kernel.buffers)
    params += fmt::format("{}{} *__restrict__ {}, ", b.access == Access::in ? "const " : "", c::c_type(b.dtype),
                          c::c_name(b.name));
  for (Symbol d : kernel.dims)
    params += fmt::format("int64_t {}, ", c::c_name(d));
  std::vector<GpuNest> nests = map_gpu(kernel);
  for (size_t i = 0; i < nests.size(); ++i) {
    CudaLaunch launch{fmt::format("{}_{}", kernel.name, i), nests[i].blocks, nests[i].threads};
    out.functions += fmt::format("extern \"C\" __global__ void __launch_bounds__({}) {}({}int *trap) {{\n{}}}\n", launch.threads,
                             launch.function, params, c::c_body(nests[i].body, 1, {"*trap = {}; return;", nullptr, ""}, out.helpers));
    out.launches.push_back(std::move(launch));
  }
  return out;
}

std::string cuda_source(std::span<const CudaKernel> kernels) {
  std::string out(kPreamble), functions;
  std::set<std::string> helpers;
  for (const CudaKernel &kernel : kernels) {
    helpers.insert(kernel.helpers.begin(), kernel.helpers.end());
    functions += kernel.functions;
  }
  for (const std::string &helper : helpers)
    out += "__device__ " + c::helper_text(helper) + "\n";
  return out + functions;
}

} // namespace kiln::cuda
