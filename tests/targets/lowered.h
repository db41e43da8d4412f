// Modules as `kiln compile --cuda` lowers them, for tests that look at kernels.
#pragma once

#include "codegen/compile.h"
#include "codegen/gpu_machine.h"
#include "passes/lower/lower.h"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

namespace kiln::test {

// Those of KILN_TEST_GPUS, else of `otherwise`: names with commas between them.
inline std::vector<GpuMachine> gpus_to_test(const char *otherwise) {
  const char *wanted = std::getenv("KILN_TEST_GPUS");
  std::stringstream names(wanted ? wanted : otherwise);
  std::vector<GpuMachine> out;
  for (std::string name; std::getline(names, name, ',');) {
    INFO(name);
    REQUIRE(find_gpu(name));
    out.push_back(*find_gpu(name));
  }
  return out;
}

inline Program lowered(Module &module, const CompileOptions &options) {
  Diagnostics diagnostics;
  Program program;
  bool fine = optimise_module(module, options, diagnostics) && lower_module(module, program, diagnostics, {true});
  INFO(diagnostics.render());
  REQUIRE(fine);
  return program;
}

} // namespace kiln::test
