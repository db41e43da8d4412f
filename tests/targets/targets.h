// Targets as the op table test sees them: something that compiles a module and runs its functions.
#pragma once

#include "codegen/gpu_machine.h"
#include "ir/graph.h"

#include <memory>
#include <string>
#include <vector>

namespace kiln::test {

class Target {
public:
  virtual ~Target() = default;
  virtual std::string name() const = 0;
  // What is returned runs the module's exported functions. Symbolic dims are those of the inputs; capacities
  // grow as runs need it.
  class Loaded {
  public:
    virtual ~Loaded() = default;
    virtual Result<std::vector<Tensor>> run(size_t entry, const std::vector<Tensor> &inputs) = 0;
  };
  virtual Result<std::unique_ptr<Loaded>> load(Module module) = 0;
};

// One for each CPU level that this machine runs.
std::vector<std::unique_ptr<Target>> native_targets();
std::unique_ptr<Target> c_target();
// Packages with code for a GPU, run on cuda:0: the one that there is, or tests/fake_driver's.
std::unique_ptr<Target> cuda_target();
std::unique_ptr<Target> cuda_target(const GpuMachine &machine);

} // namespace kiln::test
