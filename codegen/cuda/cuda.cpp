#include "codegen/cuda/cuda.h"

#include "codegen/c/stmt.h"
#include "codegen/cuda/nest.h"
#include "codegen/cuda/preamble.h"
#include "codegen/cuda/tensor_map.h"
#include "codegen/cuda/warpgroup.h"
#include "passes/kernel/schedule.h"
#include "runtime/digest.h"

#include <fmt/format.h>

namespace kiln::cuda {
namespace {

std::string element_type(const KernelBuffer &b) { return (b.access == Access::in ? "const " : "") + c::c_type(b.dtype); }

std::string buffer_parameters(const Kernel &kernel, bool is_aliased) {
  std::string out;
  for (const KernelBuffer &b : kernel.buffers)
    out += fmt::format("{}{} *{}{}", out.empty() ? "" : ", ", element_type(b), is_aliased ? "" : "__restrict__ ", c::c_name(b.name));
  return out;
}

std::string parameters(const Kernel &kernel, bool is_aliased, bool has_scratch, size_t maps) {
  std::string out = buffer_parameters(kernel, is_aliased) + (kernel.buffers.empty() ? "" : ", ");
  for (Symbol d : kernel.dims)
    out += fmt::format("int64_t {}, ", c::c_name(d));
  out += std::string(has_scratch ? "unsigned char *scratch, " : "") + "int *trap";
  for (size_t i = 0; i < maps; ++i)
    out += fmt::format(", const __grid_constant__ kiln_tensor_map kiln_map{}", i);
  return out;
}

std::optional<FlatPart> flat_part(const Kernel &kernel, const GpuNest &nest, bool is_aliased) {
  if (nest.turn.empty() || nest.scratch_bytes > 0 || !kernel.dims.empty() || !nest.blocks.is_const() || nest.blocks.as_const() == 0)
    return std::nullopt;
  FlatPart out{buffer_parameters(kernel, is_aliased), {}, nest.turn, nest.turns.as_const()};
  for (const KernelBuffer &b : kernel.buffers)
    out.types.push_back(element_type(b));
  return out;
}

} // namespace

void name_after_text(CudaFunction &function) {
  package::Digester digester;
  digester.update(function.text.data(), function.text.size());
  package::Digest digest = digester.finish();
  function.name = fmt::format("kiln_{:016x}{:016x}{:016x}{:016x}", digest.word[0], digest.word[1], digest.word[2], digest.word[3]);
  for (size_t at = 0; (at = function.text.find(kNameMark, at)) != std::string::npos;)
    function.text.replace(at, kNameMark.size(), function.name);
}

CudaKernel emit_cuda(const Kernel &lowered, const GpuMachine &machine, const LaunchFacts &facts) {
  Kernel kernel = lowered;
  expand_narrow(kernel);
  CudaKernel out;
  for (GpuNest &nest : map_gpu(kernel, machine, facts)) {
    CudaLaunch launch;
    launch.blocks = nest.blocks;
    launch.work = nest.work;
    CudaFunction &f = launch.function;
    f.threads = nest.threads;
    f.shared_bytes = nest.shared_bytes;
    f.scratch_bytes = nest.scratch_bytes;
    f.resident = nest.takes_turns ? nest.together : 0;
    f.helpers = std::move(nest.helpers);
    std::string bounds = nest.together == 1 ? std::to_string(nest.threads) : fmt::format("{}, {}", nest.threads, nest.together);
    f.text = fmt::format("extern \"C\" __global__ void __launch_bounds__({}) {}({}) {{\n{}{}}}\n", bounds, kNameMark,
                         parameters(kernel, facts.is_aliased, nest.scratch_bytes > 0, nest.maps.size()), nest.shared_bytes == 0 ? "" : nest.in_lines ? "  KILN_SHARED_LINES;\n" : "  KILN_SHARED;\n", nest.text);
    name_after_text(f);
    launch.flat = flat_part(kernel, nest, facts.is_aliased);
    launch.maps = std::move(nest.maps);
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
  for (const std::string &helper : helpers) {
    if (helper == kTensorCopies) {
      out += kTensorCopiesText;
      continue;
    }
    if (is_warpgroup_product(helper)) {
      out += warpgroup_text(helper);
      continue;
    }
    std::string definition = "__device__ " + c::helper_text(helper) + "\n";
    // The preamble has conversions of its own where there are instructions for them.
    bool is_in_preamble = helper.ends_with("_to_f16") || helper.ends_with("_to_bf16") || helper == "kiln_f16_to_f32" || helper == "kiln_bf16_to_f32";
    if (helper == "kiln_fmaf" || helper == "kiln_fma")
      definition = fmt::format("#define {} {}\n", helper, helper.substr(5));
    out += is_in_preamble ? "#ifdef KILN_CUDA_SHIM\n" + definition + "#endif\n" : definition;
  }
  return out + "\n" + text;
}

} // namespace kiln::cuda
