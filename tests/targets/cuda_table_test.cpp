// The op table on the cuda target, by the way that a GPU takes: compiled by NVRTC, in a package, loaded and
// launched by the runtime. Without a GPU NVRTC and the driver are those of tests/fake_driver.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "tests/targets/check_target.h"

using namespace kiln;
using namespace kiln::test;

TEST_CASE("CUDA computes what the references do") { check_target(*cuda_target()); }

// sm_80 multiplies f32 on its tensor cores (codegen/cuda/split_product.h).
TEST_CASE("so it does with split products") {
  GpuMachine machine = *find_gpu("sm_80"), loaded = *find_gpu("compute_80");
  machine.name = loaded.name; // what the fake driver loads
  machine.is_ptx = loaded.is_ptx;
  check_target(*cuda_target(machine), SIZE_MAX, {"dot", "conv", "conv_transpose", "attention", "lstm"});
}
