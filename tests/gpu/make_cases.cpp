// make_cases FOLDER [COUNT] GPU...: compiles the op table to packages, or its first COUNT ops, for run_cases.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

#include "codegen/compile.h"
#include "tests/gpu/cases.h"
#include "tests/targets/check_target.h"

#include <cctype>
#include <iostream>

using namespace kiln;
using namespace kiln::test;

int main(int argc, char **argv) {
  if (argc < 3)
    return std::cerr << "make_cases FOLDER GPU...\n", 2;
  CompileOptions options;
  options.machines = {cpu_machines()[0]};
  options.denormals_keep = true;
  options.jobs = 2;
  size_t most = SIZE_MAX;
  for (int i = 2; i < argc; ++i) {
    if (*argv[i] == 0)
      continue;
    if (std::isdigit(*argv[i])) {
      most = std::stoul(argv[i]);
      continue;
    }
    auto gpu = find_gpu(argv[i]);
    if (!gpu)
      return std::cerr << "no such GPU: " << argv[i] << "\n", 2;
    options.gpus.push_back(*gpu);
  }
  size_t n = 0;
  for (const OpDef *def : all_ops()) {
    OpModule made = op_module(*find_op(def->name));
    if (made.samples.empty() || n >= most)
      continue;
    Diagnostics diagnostics;
    Compiled compiled;
    std::string error;
    if (!compile_module(made.module, options, compiled, diagnostics))
      error = diagnostics.render();
    else
      error = write_package(package_spec(made.module, compiled), case_file(argv[1], n));
    if (!error.empty())
      return std::cerr << def->name << ": " << error << "\n", 1;
    ++n;
  }
  std::cout << n << " packages\n";
}
