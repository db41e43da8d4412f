#include "codegen/compile.h"
#include "tests/targets/targets.h"

#include <kiln/kiln.h>

#include <cstdlib>
#include <cstring>

namespace kiln::test {
namespace {

const KilnApi &api() { return *kiln_get_api(KILN_API_VERSION); }

struct Free {
  void operator()(void *p) const { std::free(p); }
};
using Memory = std::unique_ptr<void, Free>;

Memory aligned(size_t bytes) {
  return Memory(std::aligned_alloc(4096, (bytes + 4096) / 4096 * 4096));
}

class LoadedPackage : public Target::Loaded {
public:
  LoadedPackage(Memory package, KilnModule *module) : package_(std::move(package)), module_(module) {}
  ~LoadedPackage() override { api().close(module_); }

  Result<std::vector<Tensor>> run(size_t entry, const std::vector<Tensor> &inputs) override {
    KilnError error{};
    uint32_t e = uint32_t(entry);
    size_t size = 0;
    if (api().context_size(module_, e, nullptr, &size, &error) != KILN_OK)
      return Error{error.message};
    Memory memory = aligned(size);
    KilnContext *context = nullptr;
    if (api().context_init(module_, e, nullptr, memory.get(), size, &context, &error) != KILN_OK)
      return Error{error.message};
    for (uint32_t i = 0; i < inputs.size(); ++i) {
      KilnTensor t{const_cast<std::byte *>(inputs[i].bytes().data()), inputs[i].bytes().size(),
                   uint32_t(inputs[i].dtype()), uint32_t(inputs[i].rank()), nullptr};
      if (api().bind_input(context, i, &t, &error) != KILN_OK)
        return Error{error.message};
    }
    KilnEntryInfo info{};
    api().entry_info(module_, e, &info);
    std::vector<Tensor> outputs;
    for (uint32_t i = 0; i < info.output_count; ++i) {
      KilnValueInfo value{};
      api().output_info(module_, e, i, &value);
      std::vector<int64_t> dims(KILN_MAX_RANK);
      if (api().output_dims(context, i, dims.data(), &error) != KILN_OK)
        return Error{error.message};
      dims.resize(value.rank);
      outputs.emplace_back(*dtype_from_code(int(value.dtype)), dims);
    }
    for (uint32_t i = 0; i < outputs.size(); ++i) {
      KilnTensor t{outputs[i].mutable_bytes(), outputs[i].bytes().size(), uint32_t(outputs[i].dtype()),
                   uint32_t(outputs[i].rank()), nullptr};
      if (api().bind_output(context, i, &t, &error) != KILN_OK)
        return Error{error.message};
    }
    if (api().run(context, &error) != KILN_OK)
      return Error{error.message};
    return outputs;
  }

private:
  Memory package_;
  KilnModule *module_;
};

class NativeTarget : public Target {
public:
  explicit NativeTarget(MachineDesc machine) : machine_(std::move(machine)) {}
  std::string name() const override { return machine_.name; }

  Result<std::unique_ptr<Loaded>> load(Module module) override {
    Diagnostics diagnostics;
    Compiled compiled;
    CompileOptions options;
    options.machines = {machine_};
    options.denormals_keep = true;
    options.jobs = 2;
    if (!compile_module(module, options, compiled, diagnostics))
      return Error{diagnostics.render()};
    std::vector<uint8_t> bytes;
    if (std::string error = build_package(package_spec(module, compiled), bytes); !error.empty())
      return Error{error};
    Memory memory = aligned(bytes.size());
    std::memcpy(memory.get(), bytes.data(), bytes.size());
    KilnError error{};
    KilnModule *loaded = nullptr;
    if (api().open_memory(memory.get(), bytes.size(), nullptr, &loaded, &error) != KILN_OK)
      return Error{error.message};
    return std::unique_ptr<Loaded>(new LoadedPackage(std::move(memory), loaded));
  }

private:
  MachineDesc machine_;
};

} // namespace

std::vector<std::unique_ptr<Target>> native_targets() {
  std::vector<std::unique_ptr<Target>> out;
  for (MachineDesc &machine : cpu_machines())
    if (runs_here(machine))
      out.push_back(std::make_unique<NativeTarget>(std::move(machine)));
  return out;
}

} // namespace kiln::test
