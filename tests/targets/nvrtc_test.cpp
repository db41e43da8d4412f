// Every kernel of the op table as CUDA C, compiled by NVRTC for two architectures. It needs no GPU; where
// there is no NVRTC the emitted text is still made, and the test says so.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "codegen/cuda/cuda.h"
#include "passes/lower/lower.h"
#include "tests/ops/sample.h"

#include <iostream>

using namespace kiln;
using namespace kiln::test;

TEST_CASE("every kernel of the op table compiles for sm_80 and sm_90") {
  auto nvrtc = cuda::Nvrtc::open();
  if (!nvrtc)
    std::cout << "only the text is checked: " << nvrtc.error().message << "\n";
  size_t kernels = 0;
  for (const OpDef *def : all_ops()) {
    if (!def->scalar && !def->element && !def->reduce && !def->lower)
      continue;
    // One translation unit an op: NVRTC's start-up costs more than the functions.
    std::vector<cuda::CudaKernel> unit;
    for (const OpSample &sample : def->samples) {
      auto module = sample_module(*find_op(def->name), sample);
      if (!module)
        continue;
      const Function &f = module->functions[0];
      for (NodeId id : f.body.nodes) {
        if (op_def(f.node(id).op).structural)
          continue;
        LoweredNode lowered = lower_node(*module, f, id);
        lowered.kernel.name = "k" + std::to_string(kernels++);
        unit.push_back(cuda::emit_cuda(lowered.kernel));
      }
    }
    if (unit.empty() || !nvrtc)
      continue;
    std::string source = cuda::cuda_source(unit);
    for (const char *arch : {"sm_80", "sm_90"}) {
      auto binary = nvrtc->compile(source, def->name, arch);
      INFO(def->name << " " << arch << ": " << (binary ? "" : binary.error().message.substr(0, 2000)));
      CHECK(binary.ok());
    }
  }
  CHECK(kernels > 300);
}
