// The op table on the cuda target, by the way that a GPU takes: compiled by NVRTC, in a package, loaded and
// launched by the runtime. Without a GPU NVRTC and the driver are those of tests/fake_driver.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "tests/targets/check_target.h"

using namespace kiln;
using namespace kiln::test;

TEST_CASE("CUDA computes what the references do") { check_target(*cuda_target()); }
