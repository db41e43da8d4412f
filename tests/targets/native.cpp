#include "codegen/compile.h"
#include "tests/targets/loaded_package.h"

namespace kiln::test {
namespace {

class NativeTarget : public Target {
public:
  explicit NativeTarget(MachineDesc machine, std::optional<GpuMachine> gpu = {}) : machine_(std::move(machine)), gpu_(std::move(gpu)) {}
  std::string name() const override { return gpu_ ? gpu_->name : machine_.name; }

  Result<std::unique_ptr<Loaded>> load(Module module) override {
    Diagnostics diagnostics;
    Compiled compiled;
    CompileOptions options;
    options.machines = {machine_};
    options.denormals_keep = true;
    options.jobs = 2;
    if (gpu_)
      options.gpus = {*gpu_};
    if (!compile_module(module, options, compiled, diagnostics))
      return Error{diagnostics.render()};
    std::vector<uint8_t> bytes;
    if (std::string error = build_package(package_spec(module, compiled), bytes); !error.empty())
      return Error{error};
    return load_package(bytes, gpu_ ? "cuda:0" : "cpu");
  }

private:
  MachineDesc machine_;
  std::optional<GpuMachine> gpu_;
};

} // namespace

std::unique_ptr<Target> cuda_target() { return cuda_target(*find_gpu("compute_80")); }
std::unique_ptr<Target> cuda_target(const GpuMachine &machine) { return std::make_unique<NativeTarget>(host_machine(), machine); }

std::vector<std::unique_ptr<Target>> native_targets() {
  std::vector<std::unique_ptr<Target>> out;
  for (MachineDesc &machine : cpu_machines())
    if (runs_here(machine))
      out.push_back(std::make_unique<NativeTarget>(std::move(machine)));
  return out;
}

} // namespace kiln::test
