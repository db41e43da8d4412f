#include "codegen/cuda/cuda.h"

#include "codegen/c/stmt.h"
#include "codegen/cuda/map_gpu.h"
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
#endif
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

CudaKernel emit_cuda(const Kernel &lowered, const GpuMachine &machine, bool is_aliased) {
  (void)machine;
  Kernel kernel = lowered;
  expand_narrow(kernel);
  CudaKernel out;
  for (const GpuNest &nest : map_gpu(kernel)) {
    CudaLaunch launch;
    launch.blocks = nest.blocks;
    launch.function.threads = nest.threads;
    std::string body = c::c_body(nest.body, 1, {"*trap = {}; return;", nullptr, ""}, launch.function.helpers);
    launch.function.text = fmt::format("extern \"C\" __global__ void __launch_bounds__({}) {}({}) {{\n{}}}\n", nest.threads, kNameMark,
                                       parameters(kernel, is_aliased, false), body);
    name_after_text(launch.function);
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
    out += "__device__ " + c::helper_text(helper) + "\n";
  return out + "\n" + text;
}

} // namespace kiln::cuda
