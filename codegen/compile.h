// From a module to a package, the whole way: graph passes, lowering, kernel passes, code for each
// target, and the description that the package writer takes. The `kiln` command and programs that
// compile in memory both come through here.
//
//   Diagnostics diagnostics;
//   Compiled compiled;
//   if (compile_module(module, options, compiled, diagnostics))
//     write_package(package_spec(module, compiled), "net.kiln");
#pragma once

#include "codegen/cpu/cpu.h"
#include "codegen/gpu_machine.h"
#include "codegen/package/package_writer.h"
#include "passes/graph/specialise.h"
#include "passes/pipelines.h"

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace kiln {

class Tuning;

struct CompileOptions {
  std::vector<MachineDesc> machines; // one code section for each, in this order
  std::vector<GpuMachine> gpus;      // one device section for each
  OptLevel level = OptLevel::o2;
  int jobs = 1;                // threads that schedule and generate code; the bytes do not depend on it
  bool keep_params = false;    // parameters can be written by the runtime, so they are not folded away
  bool denormals_keep = false;
  DType weights = DType::f32;  // constant weights are kept as f32, bf16, f16 or i8
  const Tuning *tuning = nullptr; // measured schedules for some kernels
  Winograd winograd = Winograd::automatic;
  bool shares_weights = false; // of code for processors beside code for GPUs; compile_module sets it
  PassManagerOptions passes;
  std::vector<FormDims> forms; // dims that get code of their own
  // Told when a phase begins: "graph passes", "lowering", "x86-64-v4: kernels", ...
  std::function<void(std::string_view phase)> progress;
};

struct TargetCode {
  MachineDesc machine;
  std::vector<Kernel> kernels; // scheduled, those that only devices run as they were; the same indices as in the program
  cpu::CodeImage image;
};

struct DeviceCode {
  GpuMachine machine;
  std::vector<uint8_t> section; // as in runtime/cuda/device_format.h
};

struct Compiled {
  Program program;
  std::vector<TargetCode> targets;
  std::vector<DeviceCode> devices;
  std::vector<std::pair<std::string, double>> seconds; // by phase, for --time-passes
  std::string pass_times;                              // a table of the graph passes
  bool denormals_keep = false;
};

// The phases one by one, for tools that stop between them. Each returns false after reporting errors.
bool optimise_module(Module &module, const CompileOptions &options, Diagnostics &diagnostics,
                     std::string *pass_times = nullptr);
std::vector<Kernel> schedule_kernels(const Program &program, const MachineDesc &target,
                                     const CompileOptions &options);
// From compiled.program on; what it holds of targets is replaced.
bool generate_code(const CompileOptions &options, Compiled &compiled, Diagnostics &diagnostics);

// `module` is left as the graph passes made it: what the plan's values refer to.
bool compile_module(Module &module, const CompileOptions &options, Compiled &compiled,
                    Diagnostics &diagnostics);

// Views of `module` and `compiled`, which must outlive it.
PackageSpec package_spec(const Module &module, const Compiled &compiled);

} // namespace kiln
