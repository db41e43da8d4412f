#include "codegen/compile.h"
#include "tests/targets/loaded_package.h"

namespace kiln::test {
namespace {

class NativeTarget : public Target {
public:
  explicit NativeTarget(MachineDesc machine, std::string gpu = "") : machine_(std::move(machine)), gpu_(std::move(gpu)) {}
  std::string name() const override { return gpu_.empty() ? machine_.name : gpu_; }

  Result<std::unique_ptr<Loaded>> load(Module module) override {
    Diagnostics diagnostics;
    Compiled compiled;
    CompileOptions options;
    options.machines = {machine_};
    options.denormals_keep = true;
    options.jobs = 2;
    if (!gpu_.empty())
      options.gpus = {*find_gpu(gpu_)};
    if (!compile_module(module, options, compiled, diagnostics))
      return Error{diagnostics.render()};
    std::vector<uint8_t> bytes;
    if (std::string error = build_package(package_spec(module, compiled), bytes); !error.empty())
      return Error{error};
    return load_package(bytes, gpu_.empty() ? "cpu" : "cuda:0");
  }

private:
  MachineDesc machine_;
  std::string gpu_;
};

} // namespace

std::unique_ptr<Target> cuda_target() { return std::make_unique<NativeTarget>(host_machine(), "compute_80"); }

std::vector<std::unique_ptr<Target>> native_targets() {
  std::vector<std::unique_ptr<Target>> out;
  for (MachineDesc &machine : cpu_machines())
    if (runs_here(machine))
      out.push_back(std::make_unique<NativeTarget>(std::move(machine)));
  return out;
}

} // namespace kiln::test
