// Modules of random graphs, compiled and run: native code through the runtime, C through the system's
// compiler, and scheduled kernels of any machine (also one that this computer is not) on the kernel
// interpreter, which finds reads and writes outside of buffers and reads of what nobody wrote.
#pragma once

#include "codegen/compile.h"

#include <memory>

namespace kiln::fuzz {

enum class Engine : uint8_t { native, c, kernels };

struct RunConfig {
  Engine engine = Engine::native;
  MachineDesc machine;
  OptLevel level = OptLevel::o2;
  Winograd winograd = Winograd::automatic;
  bool keep_params = false;
  bool verify_each = false;
  std::string text() const; // "--engine native --machine x86-64-v4 -O2"
};

// How parallel loops run. `backwards` cuts them into three and runs those from the last to the first.
enum class Workers : uint8_t { one, two, backwards };

class CompiledGraphs {
public:
  virtual ~CompiledGraphs() = default;
  // Results of `runs` runs, one after the other, of the exported function with that name. What a trap says
  // begins with "trap"; other errors are defects.
  virtual Result<std::vector<Tensor>> run(const std::string &entry, const std::vector<Tensor> &inputs, int runs,
                                          Workers workers) = 0;
};

Result<std::unique_ptr<CompiledGraphs>> compile_graphs(Module module, const RunConfig &config);

} // namespace kiln::fuzz
