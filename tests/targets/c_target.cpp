// The C that Kiln emits, compiled by the system's C compiler into a shared object and called directly.
#include "codegen/c/c.h"
#include "ir/interpret.h"
#include "ir/pack.h"
#include "passes/lower/lower.h"
#include "passes/pipelines.h"
#include "runtime/entry_abi.h"
#include "tests/targets/targets.h"
#include "tests/temp_folder.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace kiln::test {
namespace {

class LoadedC : public Target::Loaded {
public:
  LoadedC(void *library, Program program, Module module)
      : library_(library), program_(std::move(program)), module_(std::move(module)) {}
  ~LoadedC() override { dlclose(library_); }

  Result<std::vector<Tensor>> run(size_t entry, const std::vector<Tensor> &inputs) override {
    const Plan &plan = program_.entries[entry];
    auto run = reinterpret_cast<KilnRunFn>(dlsym(library_, ("kiln_sample_run_" + plan.name).c_str()));
    auto sizes = reinterpret_cast<KilnPlanFn>(dlsym(library_, ("kiln_sample_plan_" + plan.name).c_str()));
    if (!run || !sizes)
      return Error{"the entry's functions are missing"};
    std::vector<TensorType> types;
    std::vector<std::string> names;
    for (const PlanArgument &input : plan.inputs)
      types.push_back(input.type), names.push_back(input.name);
    KILN_TRY(known, bind_dims(types, names, inputs));
    for (const auto &[name, otherwise] : module_.capacities)
      known.emplace_back(Symbol(name), otherwise);
    std::vector<int64_t> dims, found(plan.sizes.size());
    for (Symbol s : plan.dims)
      dims.push_back(value_of(Dim::symbol(s), known));
    for (;;) {
      std::vector<int64_t> out(256);
      if (sizes(dims.data(), out.data()) != 0)
        return Error{"plan() refuses"};
      std::vector<Tensor> outputs;
      size_t at = 1;
      for (const PlanArgument &o : plan.outputs) {
        std::vector<int64_t> shape;
        for (size_t i = 0; i < o.type.shape.size(); ++i)
          shape.push_back(out[at++]);
        outputs.emplace_back(o.type.dtype, shape);
      }
      // Room past the end of each argument, since buffers may be read there.
      std::vector<void *> args;
      for (const Tensor &t : inputs)
        args.push_back(const_cast<std::byte *>(t.bytes().data()));
      for (Tensor &t : outputs)
        args.push_back(t.mutable_bytes());
      size_t bytes = (size_t(out[0]) + 127) / 64 * 64;
      std::unique_ptr<uint8_t, decltype(&std::free)> arena(
          static_cast<uint8_t *>(std::aligned_alloc(64, bytes)), std::free);
      KilnServices services{KILN_ENTRY_ABI, 1, nullptr, nullptr, nullptr};
      KilnFrame frame{&services, args.data(), dims.data(), arena.get(), nullptr, nullptr, 0, 0, nullptr, 0, found.data(), 0, 0, 0};
      int trap = run(&frame);
      int capacity = trap == KILN_TRAP_SIZE ? plan.sizes.at(size_t(frame.trap_index)).capacity : -1;
      if (capacity >= 0 && frame.trap_value > dims[size_t(capacity)]) {
        dims[size_t(capacity)] = frame.trap_value;
        continue;
      }
      if (trap)
        return Error{fmt::format("trap {}", trap)};
      for (size_t i = 0; i < plan.sizes.size(); ++i)
        known.emplace_back(plan.sizes[i].name, found[i]);
      for (size_t i = 0; i < outputs.size(); ++i) {
        std::vector<int64_t> shape;
        for (const Dim &d : plan.outputs[i].type.shape)
          shape.push_back(value_of(d, known));
        Tensor result(outputs[i].dtype(), shape);
        std::copy_n(outputs[i].bytes().begin(), result.bytes().size(), result.mutable_bytes());
        outputs[i] = std::move(result);
      }
      return outputs;
    }
  }

private:
  static int64_t value_of(const Dim &d, const DimValues &known) {
    auto value = d.evaluate([&](Symbol s) -> std::optional<int64_t> {
      for (const auto &[name, number] : known)
        if (name == s)
          return number;
      return std::nullopt;
    });
    return value.value_or(-1);
  }

  void *library_;
  Program program_;
  Module module_;
};

class CTarget : public Target {
public:
  std::string name() const override { return "c"; }

  Result<std::unique_ptr<Loaded>> load(Module module) override {
    Diagnostics diagnostics;
    PassContext context(diagnostics);
    PassManager manager(context);
    Program program;
    if (!run_graph_pipeline(module, manager, OptLevel::o1) || !lower_module(module, program, diagnostics))
      return Error{diagnostics.render()};
    std::vector<std::byte> weights(size_t(program.weights_size));
    for (const Weight &w : program.weights)
      pack(module.constants[size_t(w.constant)].tensor, w.layout,
           {weights.data() + w.offset, size_t(w.size)});
    auto text = c::emit_c(program, {weights});
    if (!text)
      return text.error();
    TempFolder folder;
    std::string base = folder / "m";
    std::ofstream(base + ".c") << *text;
    std::string command = fmt::format("cc -std=c99 -Wall -Werror -Wno-unused-function -Wno-unused-variable -O1 "
                                      "-ffp-contract=off -shared -fPIC -o {0}.so {0}.c -lm 2>{0}.log", base);
    int status = std::system(command.c_str());
    void *library = status == 0 ? dlopen((base + ".so").c_str(), RTLD_NOW) : nullptr;
    std::string log;
    if (!library) {
      std::ifstream file(base + ".log");
      log.assign(std::istreambuf_iterator<char>(file), {});
    }
    if (!library)
      return Error{"the C compiler refuses: " + log.substr(0, 2000)};
    return std::unique_ptr<Loaded>(new LoadedC(library, std::move(program), std::move(module)));
  }
};

} // namespace

std::unique_ptr<Target> c_target() { return std::make_unique<CTarget>(); }

} // namespace kiln::test
