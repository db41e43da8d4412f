#include "tests/fuzz/graph_run.h"

#include "ir/interpret.h"
#include "ir/kernel/interpret.h"
#include "ir/kernel/scratch.h"
#include "codegen/c/c.h"
#include "ir/pack.h"
#include "passes/lower/lower.h"
#include "runtime/entry_abi.h"
#include "tests/temp_folder.h"

#include <fmt/format.h>
#include <kiln/kiln.h>

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

namespace kiln::fuzz {
namespace {

constexpr std::byte kCanary{0xA5};
constexpr size_t kEdge = 64; // bytes of it around a block

// Aligned memory whose surroundings must not change.
class Guarded {
public:
  explicit Guarded(size_t size, std::span<const std::byte> bytes = {})
      : size_(size), memory_(static_cast<std::byte *>(std::aligned_alloc(64, (size + 3 * kEdge) / 64 * 64)), std::free) {
    std::fill_n(memory_.get(), (size + 3 * kEdge) / 64 * 64, kCanary);
    if (!bytes.empty())
      std::memcpy(data(), bytes.data(), bytes.size());
  }
  std::byte *data() { return memory_.get() + kEdge; }
  size_t size() const { return size_; }
  bool intact() const {
    auto is = [](std::byte b) { return b == kCanary; };
    const std::byte *end = memory_.get() + kEdge + size_;
    return std::all_of(memory_.get(), memory_.get() + kEdge, is) && std::all_of(end, end + kEdge, is);
  }

private:
  size_t size_;
  std::unique_ptr<std::byte, decltype(&std::free)> memory_;
};

struct Arguments {
  std::vector<Guarded> blocks; // inputs, then outputs
  size_t inputs = 0;

  void add(const Tensor &t) { blocks.emplace_back(t.bytes().size(), t.bytes()); }
  Status check(const std::vector<Tensor> &given) const {
    for (size_t i = 0; i < blocks.size(); ++i)
      if (!blocks[i].intact())
        return Error{fmt::format("writes outside of argument {}", i)};
    for (size_t i = 0; i < inputs; ++i)
      if (!given[i].bytes().empty() && std::memcmp(const_cast<Guarded &>(blocks[i]).data(), given[i].bytes().data(), given[i].bytes().size()) != 0)
        return Error{fmt::format("writes its input {}", i)};
    return Unit{};
  }
  void read(size_t block, Tensor &to) {
    if (!to.bytes().empty())
      std::memcpy(to.mutable_bytes(), blocks[block].data(), to.bytes().size());
  }
};

// -- the runtime

const KilnApi &api() { return *kiln_get_api(KILN_API_VERSION); }

void run_backwards(void *, int64_t n, void (*body)(void *, int64_t, int64_t), void *closure) {
  int64_t cuts[] = {0, n / 3, n / 3 + (n - n / 3) / 2, n};
  for (int i = 2; i >= 0; --i)
    if (cuts[i] < cuts[i + 1])
      body(closure, cuts[i], cuts[i + 1]);
}

const KilnExecutor *executor(Workers workers) {
  static const KilnExecutor kBackwards{3, 0, nullptr, run_backwards};
  static KilnPool *pool = [] {
    KilnPool *made = nullptr;
    KilnError error{};
    KILN_CHECK(api().pool_create(2, &made, &error) == KILN_OK, "no threads");
    return made;
  }();
  return workers == Workers::one ? nullptr : workers == Workers::two ? api().pool_executor(pool) : &kBackwards;
}

class NativeGraphs : public CompiledGraphs {
public:
  NativeGraphs(Guarded package, KilnModule *module) : package_(std::move(package)), module_(module) {}
  ~NativeGraphs() override { api().close(module_); }

  Result<std::vector<Tensor>> run(const std::string &entry, const std::vector<Tensor> &inputs, int runs,
                                  Workers workers) override {
    KilnError error{};
    auto failed = [&] { return Error{std::string(error.code == KILN_ERROR_TRAP || error.code == KILN_ERROR_SHAPE ? "trap: " : "") + error.message}; };
    int32_t e = api().find_entry(module_, entry.c_str());
    if (e < 0)
      return Error{"the entry is missing"};
    KilnEntryInfo info{};
    api().entry_info(module_, uint32_t(e), &info);
    // Sizes of the symbolic dims, by the inputs that have them as their own.
    std::vector<int64_t> dims(info.symbol_count, 0);
    for (uint32_t i = 0; i < inputs.size(); ++i) {
      KilnValueInfo value{};
      api().input_info(module_, uint32_t(e), i, &value);
      for (uint32_t d = 0; d < value.rank; ++d)
        if (value.dims[d].symbol >= 0)
          dims[size_t(value.dims[d].symbol)] = inputs[i].dims()[d];
    }
    KilnContextOptions options{dims.data(), nullptr, executor(workers)};
    size_t size = 0;
    if (api().context_size(module_, uint32_t(e), &options, &size, &error) != KILN_OK)
      return failed();
    Guarded memory(size);
    KilnContext *context = nullptr;
    if (api().context_init(module_, uint32_t(e), &options, memory.data(), size, &context, &error) != KILN_OK)
      return failed();
    Arguments arguments;
    arguments.inputs = inputs.size();
    for (uint32_t i = 0; i < inputs.size(); ++i) {
      arguments.add(inputs[i]);
      KilnTensor t{arguments.blocks.back().data(), inputs[i].bytes().size(), uint32_t(inputs[i].dtype()), uint32_t(inputs[i].rank()),
                   inputs[i].dims().data()};
      if (api().bind_input(context, i, &t, &error) != KILN_OK)
        return failed();
    }
    std::vector<Tensor> outputs;
    for (uint32_t i = 0; i < info.output_count; ++i) {
      KilnValueInfo value{};
      api().output_info(module_, uint32_t(e), i, &value);
      std::vector<int64_t> shape(KILN_MAX_RANK);
      if (api().output_dims(context, i, shape.data(), &error) != KILN_OK)
        return failed();
      shape.resize(value.rank);
      outputs.emplace_back(*dtype_from_code(int(value.dtype)), shape);
      arguments.add(outputs.back());
      KilnTensor t{arguments.blocks.back().data(), outputs.back().bytes().size(), value.dtype, value.rank, outputs.back().dims().data()};
      if (api().bind_output(context, i, &t, &error) != KILN_OK)
        return failed();
    }
    std::vector<Tensor> all;
    for (int r = 0; r < runs; ++r) {
      if (api().run(context, &error) != KILN_OK)
        return failed();
      for (size_t i = 0; i < outputs.size(); ++i) {
        all.push_back(outputs[i]);
        arguments.read(inputs.size() + i, all.back());
      }
    }
    KILN_RETURN_IF_ERROR(arguments.check(inputs));
    if (!memory.intact())
      return Error{"writes outside of its context"};
    return all;
  }

private:
  Guarded package_;
  KilnModule *module_;
};

// -- programs that are run from here, by their plans

struct Bound {
  DimValues dims;
  std::vector<int64_t> values; // of Plan::dims
  std::optional<int64_t> size(const Dim &d) const {
    return d.evaluate([&](Symbol s) -> std::optional<int64_t> {
      for (size_t i = dims.size(); i-- > 0;)
        if (dims[i].first == s)
          return dims[i].second;
      return std::nullopt;
    });
  }
};

Result<Bound> bind(const Plan &plan, const std::vector<Tensor> &inputs) {
  std::vector<TensorType> types;
  std::vector<std::string> names;
  for (const PlanArgument &a : plan.inputs)
    types.push_back(a.type), names.push_back(a.name);
  Bound out;
  KILN_TRY(dims, bind_dims(types, names, inputs));
  out.dims = std::move(dims);
  for (Symbol s : plan.dims)
    out.values.push_back(out.size(Dim::symbol(s)).value_or(0));
  for (const auto &c : plan.constraints)
    if (out.size(c.a) != out.size(c.b))
      return Error{"trap: a constraint is violated"};
  return out;
}

struct HostProgram {
  Module module; // whose constants the weights are
  Program program;
  std::vector<std::byte> weights, variables;

  const Plan *entry(const std::string &name) const {
    for (const Plan &p : program.entries)
      if (p.name == name)
        return &p;
    return nullptr;
  }
  void load() {
    weights.assign(size_t(program.weights_size) + 64, std::byte(0));
    for (const Weight &w : program.weights)
      pack(module.constants[size_t(w.constant)].tensor, w.layout, {weights.data() + w.offset, size_t(w.size)});
    variables.assign(size_t(program.variables_size) + KILN_ALIGNMENT, std::byte(0));
    for (const VariableSlot &slot : program.variables)
      if (slot.weight >= 0)
        std::copy_n(weights.begin() + program.weights[size_t(slot.weight)].offset, slot.size, variables.begin() + slot.offset);
  }
  Result<std::vector<Tensor>> outputs(const Plan &plan, const Bound &bound) const {
    std::vector<Tensor> out;
    for (const PlanArgument &o : plan.outputs) {
      std::vector<int64_t> dims;
      for (const Dim &d : o.type.shape) {
        auto size = bound.size(d);
        if (!size)
          return Error{"an output's size is not known: " + d.text()};
        dims.push_back(*size);
      }
      out.emplace_back(o.type.dtype, dims);
    }
    return out;
  }
};

bool make_program(HostProgram &host, const RunConfig &config, OptLevel level, Diagnostics &diagnostics) {
  PassContext context(diagnostics);
  context.flags.keep_params = config.keep_params;
  context.flags.vector_bytes = config.machine.vector_bytes;
  context.flags.cache_bytes = config.machine.l2_bytes;
  PassManagerOptions passes;
  passes.verify_each = config.verify_each;
  PassManager manager(context, passes);
  return run_graph_pipeline(host.module, manager, level) && lower_module(host.module, host.program, diagnostics);
}

// Every launch is interpreted.
class KernelGraphs : public CompiledGraphs {
public:
  KernelGraphs(HostProgram host, std::vector<Kernel> kernels) : host_(std::move(host)), kernels_(std::move(kernels)) {}

  Result<std::vector<Tensor>> run(const std::string &entry, const std::vector<Tensor> &inputs, int runs,
                                  Workers workers) override {
    plan_ = host_.entry(entry);
    if (!plan_)
      return Error{"the entry is missing"};
    auto bound = bind(*plan_, inputs);
    if (!bound)
      return bound.error();
    bound_ = std::move(*bound);
    reverse_ = workers == Workers::backwards;
    KILN_TRY(outputs, host_.outputs(*plan_, bound_));
    host_.load();
    arena_.assign(size_t(bound_.size(plan_->arena_size).value_or(0)) + 2 * kReadable, kCanary);
    arguments_.clear();
    for (const std::vector<Tensor> *list : {&inputs, static_cast<const std::vector<Tensor> *>(&outputs)})
      for (const Tensor &t : *list) {
        arguments_.emplace_back(t.bytes().begin(), t.bytes().end());
        arguments_.back().resize(t.bytes().size() + kReadable);
      }
    std::vector<Tensor> all;
    for (int r = 0; r < runs; ++r) {
      KILN_RETURN_IF_ERROR(steps(plan_->steps));
      for (size_t i = 0; i < outputs.size(); ++i) {
        all.push_back(outputs[i]);
        if (size_t size = outputs[i].bytes().size())
          std::memcpy(all.back().mutable_bytes(), arguments_[inputs.size() + i].data(), size);
      }
    }
    return all;
  }

private:
  std::span<std::byte> bytes_of(const PlanBuffer &b) {
    std::byte *base = nullptr;
    size_t space = 0;
    switch (b.kind) {
    case PlanBuffer::Kind::argument:
      base = arguments_[size_t(b.argument)].data(), space = arguments_[size_t(b.argument)].size() - kReadable;
      break;
    case PlanBuffer::Kind::weight:
      base = host_.weights.data() + host_.program.weights[size_t(b.weight)].offset, space = size_t(host_.program.weights[size_t(b.weight)].size);
      break;
    case PlanBuffer::Kind::variable:
      base = host_.variables.data() + host_.program.variables[size_t(b.variable)].offset;
      space = size_t(host_.program.variables[size_t(b.variable)].size);
      break;
    case PlanBuffer::Kind::arena:
      base = arena_.data(), space = arena_.size();
    }
    int64_t offset = bound_.size(b.offset).value_or(-1), size = bound_.size(b.size).value_or(-1);
    KILN_CHECK(offset >= 0 && size >= 0 && size_t(offset + size) <= space, "a buffer of the plan lies outside of its region: " + b.name);
    return {base + offset, size_t(size)};
  }

  // What kernels may read past the end of a buffer.
  static constexpr size_t kReadable = KILN_ALIGNMENT;

  Status launch(const PlanStep &step) {
    const Kernel &kernel = kernels_[size_t(step.kernel)];
    std::vector<std::span<std::byte>> buffers;
    for (int b : step.buffers)
      buffers.push_back(bytes_of(plan_->buffers[size_t(b)]));
    std::vector<int64_t> dims;
    for (const Dim &d : step.dims)
      dims.push_back(bound_.size(d).value());
    InterpretOptions options;
    options.reverse_parallel = reverse_;
    options.readable_bytes = kReadable;
    auto trap = interpret_kernel(kernel, buffers, dims, options);
    if (!trap)
      return Error{fmt::format("kernel {}: {}", step.name, trap.error().message)};
    if (*trap != 0)
      return Error{fmt::format("trap {} in {}", *trap, step.name)};
    return Unit{};
  }

  bool holds(const PlanStep &step) { return bytes_of(plan_->buffers[size_t(step.condition)])[0] != std::byte(0); }

  Status turns(const PlanStep &step) {
    for (int64_t i = 0;; ++i) {
      bound_.dims.emplace_back(step.var, i);
      Status status = steps(step.condition_body);
      bool more = status.ok() && holds(step);
      if (more)
        status = steps(step.body);
      bound_.dims.pop_back();
      if (!more || !status.ok())
        return status;
    }
  }

  Status steps(const std::vector<PlanStep> &list) {
    for (const PlanStep &step : list)
      switch (step.kind) {
      case PlanStep::Kind::launch:
        KILN_RETURN_IF_ERROR(launch(step));
        break;
      case PlanStep::Kind::if_:
        KILN_RETURN_IF_ERROR(steps(holds(step) ? step.body : step.other));
        break;
      case PlanStep::Kind::while_:
        KILN_RETURN_IF_ERROR(turns(step));
        break;
      case PlanStep::Kind::loop:
        for (int64_t i = 0, n = bound_.size(step.count).value(); i < n; ++i) {
          bound_.dims.emplace_back(step.var, i);
          auto status = steps(step.body);
          bound_.dims.pop_back();
          KILN_RETURN_IF_ERROR(status);
        }
        break;
      case PlanStep::Kind::bind:
      case PlanStep::Kind::require:
      case PlanStep::Kind::form:
        return Error{"the generator makes no graphs whose sizes a run finds"};
      }
    return Unit{};
  }

  HostProgram host_;
  std::vector<Kernel> kernels_;
  const Plan *plan_ = nullptr;
  Bound bound_;
  bool reverse_ = false;
  std::vector<std::byte> arena_;
  std::vector<std::vector<std::byte>> arguments_;
};

class CGraphs : public CompiledGraphs {
public:
  CGraphs(HostProgram host, void *library) : host_(std::move(host)), library_(library) {}
  ~CGraphs() override { dlclose(library_); }

  Result<std::vector<Tensor>> run(const std::string &entry, const std::vector<Tensor> &inputs, int runs, Workers) override {
    const Plan *plan = host_.entry(entry);
    if (!plan)
      return Error{"the entry is missing"};
    auto bound = bind(*plan, inputs);
    if (!bound)
      return bound.error();
    auto run = reinterpret_cast<KilnRunFn>(dlsym(library_, cpu::run_symbol(host_.program, *plan).c_str()));
    auto sizes = reinterpret_cast<KilnPlanFn>(dlsym(library_, cpu::plan_symbol(host_.program, *plan).c_str()));
    if (!run || !sizes)
      return Error{"the entry's functions are missing"};
    std::vector<int64_t> out(512);
    if (sizes(bound->values.data(), out.data()) != 0)
      return Error{"trap: plan() refuses"};
    KILN_TRY(outputs, host_.outputs(*plan, *bound));
    host_.load();
    Arguments arguments;
    arguments.inputs = inputs.size();
    for (const Tensor &t : inputs)
      arguments.add(t);
    for (const Tensor &t : outputs)
      arguments.add(t);
    std::vector<void *> args;
    for (Guarded &g : arguments.blocks)
      args.push_back(g.data());
    Guarded arena{static_cast<size_t>(out[0])}, variables(host_.variables.size(), host_.variables);
    KilnServices services{KILN_ENTRY_ABI, 1, nullptr, nullptr, nullptr};
    KilnFrame frame{};
    frame.services = &services;
    frame.args = args.data();
    frame.dims = bound->values.data();
    frame.arena = reinterpret_cast<uint8_t *>(arena.data());
    frame.variables = reinterpret_cast<uint8_t *>(variables.data());
    std::vector<Tensor> all;
    for (int r = 0; r < runs; ++r) {
      if (int trap = run(&frame))
        return Error{fmt::format("trap {}", trap)};
      for (size_t i = 0; i < outputs.size(); ++i) {
        all.push_back(outputs[i]);
        arguments.read(inputs.size() + i, all.back());
      }
    }
    KILN_RETURN_IF_ERROR(arguments.check(inputs));
    if (!arena.intact() || !variables.intact())
      return Error{"writes outside of its arena or variables"};
    return all;
  }

private:
  HostProgram host_;
  void *library_;
};

Result<std::unique_ptr<CompiledGraphs>> compile_c(Module module, const RunConfig &config) {
  HostProgram host;
  host.module = std::move(module);
  Diagnostics diagnostics;
  if (!make_program(host, config, OptLevel::o1, diagnostics))
    return Error{diagnostics.render()};
  host.load();
  auto text = c::emit_c(host.program, {std::span<const std::byte>(host.weights).first(size_t(host.program.weights_size))});
  if (!text)
    return text.error();
  test::TempFolder folder;
  std::string base = folder / "m";
  std::ofstream(base + ".c") << *text;
  std::string command = fmt::format("cc -std=c99 -w -O1 -ffp-contract=off -shared -fPIC -o {0}.so {0}.c -lm 2>{0}.log", base);
  void *library = std::system(command.c_str()) == 0 ? dlopen((base + ".so").c_str(), RTLD_NOW) : nullptr;
  std::ifstream file(base + ".log");
  std::string log((std::istreambuf_iterator<char>(file)), {});
  if (!library)
    return Error{"the C compiler refuses: " + log.substr(0, 2000)};
  return std::unique_ptr<CompiledGraphs>(new CGraphs(std::move(host), library));
}

Result<std::unique_ptr<CompiledGraphs>> compile_kernels(Module module, const RunConfig &config) {
  HostProgram host;
  host.module = std::move(module);
  Diagnostics diagnostics;
  if (!make_program(host, config, config.level, diagnostics))
    return Error{diagnostics.render()};
  CompileOptions compile;
  compile.jobs = 1;
  std::vector<Kernel> kernels = schedule_kernels(host.program, config.machine, compile);
  return std::unique_ptr<CompiledGraphs>(new KernelGraphs(std::move(host), std::move(kernels)));
}

} // namespace

std::string RunConfig::text() const {
  static constexpr std::string_view kEngines[] = {"native", "c", "kernels"};
  std::string out = fmt::format("--engine {} --machine {} -O {}", kEngines[int(engine)], machine.name,
                                level == OptLevel::o0 ? 0 : level == OptLevel::o1 ? 1 : 2);
  if (keep_params)
    out += " --keep-params";
  return out + (winograd == Winograd::off ? " --no-winograd" : "");
}

Result<std::unique_ptr<CompiledGraphs>> compile_graphs(Module module, const RunConfig &config) {
  if (config.engine == Engine::c)
    return compile_c(std::move(module), config);
  if (config.engine == Engine::kernels)
    return compile_kernels(std::move(module), config);
  Diagnostics diagnostics;
  Compiled compiled;
  CompileOptions options;
  options.machines = {config.machine};
  options.level = config.level;
  options.winograd = config.winograd;
  options.keep_params = config.keep_params;
  options.denormals_keep = true;
  options.passes.verify_each = config.verify_each;
  if (!compile_module(module, options, compiled, diagnostics))
    return Error{diagnostics.render()};
  std::vector<uint8_t> bytes;
  if (std::string error = build_package(package_spec(module, compiled), bytes); !error.empty())
    return Error{error};
  Guarded package(bytes.size(), std::as_bytes(std::span(bytes)));
  KilnError error{};
  KilnModule *loaded = nullptr;
  if (api().open_memory(package.data(), bytes.size(), nullptr, &loaded, &error) != KILN_OK)
    return Error{error.message};
  return std::unique_ptr<CompiledGraphs>(new NativeGraphs(std::move(package), loaded));
}

} // namespace kiln::fuzz
