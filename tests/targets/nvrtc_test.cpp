// Every kernel of the op table as CUDA C, compiled by NVRTC for three architectures. It needs no GPU; where
// there is no NVRTC the emitted text is still made, and the test says so.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "codegen/cuda/cuda.h"
#include "passes/lower/lower.h"
#include "tests/ops/sample.h"

#include <iostream>

using namespace kiln;
using namespace kiln::test;

TEST_CASE("every kernel of the op table compiles for sm_80, sm_90 and sm_100") {
  auto nvrtc = cuda::Nvrtc::open();
  if (!nvrtc)
    std::cout << "only the text is checked: " << nvrtc.error().message << "\n";
  size_t kernels = 0;
  for (const OpDef *def : all_ops()) {
    if (!def->scalar && !def->element && !def->reduce && !def->lower)
      continue;
    for (const char *arch : {"sm_80", "sm_90", "sm_100"}) {
      // One translation unit an op: NVRTC's start-up costs more than the functions.
      std::vector<cuda::CudaFunction> unit;
      for (const OpSample &sample : def->samples) {
        auto module = sample_module(*find_op(def->name), sample);
        if (!module)
          continue;
        const Function &f = module->functions[0];
        for (NodeId id : f.body.nodes) {
          if (op_def(f.node(id).op).structural)
            continue;
          LoweredNode lowered = lower_node(*module, f, id);
          ++kernels;
          for (cuda::CudaLaunch &launch : cuda::emit_cuda(lowered.kernel, *find_gpu(arch)).launches)
            unit.push_back(std::move(launch.function));
        }
      }
      if (unit.empty() || !nvrtc)
        continue;
      auto binary = nvrtc->compile(cuda::cuda_source(unit), def->name, arch);
      INFO(def->name << " " << arch << ": " << (binary ? "" : binary.error().message.substr(0, 2000)));
      CHECK(binary.ok());
    }
  }
  CHECK(kernels > 300);
}
