#include "codegen/compile.h"

#include "codegen/cuda/device_writer.h"
#include "codegen/multiplying_units.h"
#include "codegen/tuning.h"
#include "ir/kernel/scratch.h"
#include "ir/pack.h"
#include "ir/placement.h"
#include "passes/graph/rewrite.h"
#include "passes/kernel/schedule.h"
#include "passes/lower/lower.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <initializer_list>
#include <optional>
#include <set>
#include <thread>

namespace kiln {
namespace {

class PhaseTimer {
public:
  PhaseTimer(const CompileOptions &options, Compiled &compiled) : options_(options), compiled_(compiled) {}

  void begin(std::string phase) {
    end();
    if (options_.progress)
      options_.progress(phase);
    phase_ = std::move(phase);
    start_ = std::chrono::steady_clock::now();
  }
  void end() {
    if (phase_.empty())
      return;
    std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
    compiled_.seconds.emplace_back(std::move(phase_), spent.count());
    phase_.clear();
  }

private:
  const CompileOptions &options_;
  Compiled &compiled_;
  std::string phase_;
  std::chrono::steady_clock::time_point start_;
};

PackageDim package_dim(const Dim &d, const std::vector<Symbol> &symbols) {
  if (d.is_const())
    return dim_const(d.as_const());
  if (auto s = d.try_symbol())
    for (size_t i = 0; i < symbols.size(); ++i)
      if (symbols[i] == *s) {
        PackageDim out = dim_symbol(uint32_t(i));
        out.text = s->text();
        return out;
      }
  return dim_planned(d.text());
}

PackageValue package_value(const PlanArgument &argument, const Plan &plan) {
  PackageValue out{argument.name, uint32_t(argument.type.dtype), {}};
  for (const Dim &d : argument.type.shape)
    out.dims.push_back(package_dim(d, plan.dims));
  return out;
}

// A launch and the loops around it.
struct Launch {
  const PlanStep *step = nullptr;
  std::vector<const PlanStep *> loops;
};

// The launches of a plan in the order of their positions.
void collect_launches(const std::vector<PlanStep> &steps, std::vector<const PlanStep *> &loops,
                      std::vector<Launch> &out) {
  for (const PlanStep &step : steps) {
    if (step.kind == PlanStep::Kind::launch) {
      if (out.size() <= size_t(step.position))
        out.resize(size_t(step.position) + 1);
      out[size_t(step.position)] = {&step, loops};
    }
    if (step.kind == PlanStep::Kind::loop)
      loops.push_back(&step);
    collect_launches(step.condition_body, loops, out);
    collect_launches(step.body, loops, out);
    collect_launches(step.other, loops, out);
    if (step.kind == PlanStep::Kind::loop)
      loops.pop_back();
  }
}

// What a kernel says of its dims, over those of the entry. Loops stand for their middle, sizes that a run
// finds for their bounds.
Dim over_entry(const Dim &d, const Kernel &kernel, const Launch &launch, const Plan &plan) {
  Dim out = d.substitute([&](Symbol s) -> std::optional<Dim> {
    for (size_t i = 0; i < kernel.dims.size() && i < launch.step->dims.size(); ++i)
      if (kernel.dims[i] == s)
        return launch.step->dims[i];
    return std::nullopt;
  });
  for (size_t i = launch.loops.size(); i-- > 0;)
    out = out.substitute(launch.loops[i]->var, floordiv(launch.loops[i]->count, 2));
  for (const PlanSize &size : plan.sizes)
    out = out.substitute(size.name, size.largest);
  return out;
}

// Without folders: a package does not depend on where the model lay.
std::string file_name(Symbol file) {
  std::string_view text = file.text();
  return std::string(text.substr(text.rfind('/') == std::string_view::npos ? 0 : text.rfind('/') + 1));
}

// What the kernels of a target need; the program keeps the most that any target does.
void add_scratch(Program &program, const std::vector<Kernel> &kernels) {
  std::vector<int64_t> sizes;
  for (const Kernel &kernel : kernels)
    sizes.push_back(scratch_layout(kernel).size);
  for (Plan &plan : program.entries) {
    std::vector<const PlanStep *> loops;
    std::vector<Launch> launches;
    collect_launches(plan.steps, loops, launches);
    for (const Launch &launch : launches)
      plan.scratch_size = std::max(plan.scratch_size, sizes[size_t(launch.step->kernel)]);
  }
}

double estimate(const Dim &d) { return d.is_const() ? double(d.as_const()) : 0; }

// Where a kernel looks up a few rows of a large table, its bytes are fewer.
double weight_bytes(const Kernel &kernel) {
  double sum = 0;
  for (const KernelBuffer &b : kernel.buffers)
    sum += b.constant ? estimate(b.size) * double(dtype_bytes(b.dtype)) : 0;
  return kernel.bytes.is_const() ? std::min(sum, estimate(kernel.bytes)) : sum;
}

uint32_t multiplying_units(size_t kernel, const std::vector<TargetCode> &targets) {
  uint32_t units = 0;
  for (const TargetCode &target : targets)
    units |= multiplying_units(target.kernels[kernel], target.machine);
  return units;
}

PackageEntry package_entry(const Module &module, const Program &program, const Plan &plan,
                           const std::vector<TargetCode> &targets, PackageSpec &spec) {
  PackageEntry entry;
  entry.is_twin = is_gpu_twin(plan.name);
  entry.is_part = is_part(plan.name);
  entry.name = whole_of_part(plan.name.substr(0, entry.is_twin ? plan.name.rfind(kGpuTwin) : std::string::npos));
  entry.device = function_device(module, plan.name);
  for (const PlanArgument &input : plan.inputs)
    entry.inputs.push_back(package_value(input, plan));
  for (const PlanArgument &output : plan.outputs)
    entry.outputs.push_back(package_value(output, plan));
  for (Symbol s : plan.dims) {
    PackageSymbol symbol;
    symbol.name = s.text();
    if (auto it = module.dim_bounds.find(symbol.name); it != module.dim_bounds.end()) {
      symbol.min = it->second.first;
      symbol.max = it->second.second;
    }
    if (auto it = module.capacities.find(symbol.name); it != module.capacities.end())
      symbol.otherwise = std::clamp(it->second, symbol.min, symbol.max);
    if (auto it = module.dim_variables.find(symbol.name); it != module.dim_variables.end())
      symbol.variable = uint32_t(it->second.index);
    entry.symbols.push_back(std::move(symbol));
  }
  for (const PlanSize &size : plan.sizes)
    entry.sizes.push_back({std::string(size.name.text()), size.capacity});
  for (const auto &c : plan.constraints)
    entry.constraints.push_back(fmt::format("{} == {} ({})", c.a.text(), c.b.text(), c.reason));
  for (const auto &c : plan.run_constraints)
    entry.constraints.push_back(fmt::format("{} == {} ({})", c.a.text(), c.b.text(), c.reason));
  std::vector<const PlanStep *> loops;
  std::vector<Launch> launches;
  collect_launches(plan.steps, loops, launches);
  for (const Launch &launch : launches) {
    const PlanStep *step = launch.step;
    const Kernel &kernel = program.kernels[size_t(step->kernel)];
    Dim flops = over_entry(kernel.flops, kernel, launch, plan),
        bytes = over_entry(kernel.bytes, kernel, launch, plan);
    PackageKernel k{step->name, package::kNoIndex, estimate(flops), estimate(bytes), weight_bytes(kernel),
                    multiplying_units(size_t(step->kernel), targets), flops.text(), bytes.text()};
    if (step->location.known()) {
      k.location = uint32_t(spec.locations.size());
      spec.locations.push_back({file_name(step->location.file), uint32_t(step->location.line),
                                uint32_t(step->location.column), std::string(step->location.node.text())});
    }
    entry.kernels.push_back(std::move(k));
    for (size_t b = 0; b < step->buffers.size(); ++b) {
      const PlanBuffer &buffer = plan.buffers[size_t(step->buffers[b])];
      entry.uses_variables |= buffer.kind == PlanBuffer::Kind::variable;
      bool written = kernel.buffers[b].access != Access::in;
      entry.writes_variables |= written && buffer.kind == PlanBuffer::Kind::variable;
    }
  }
  if (plan.arena_size.is_const() && plan.forms.empty())
    entry.arena_size = plan.arena_size.as_const();
  entry.scratch_size = plan.scratch_size;
  return entry;
}

// What an argument of a part is: "@in2" the third input of the whole, "@out0" its first result, "@1" the second value
// that goes from part to part.
PackagePartArgument part_argument(const std::string &name) {
  auto number = [&](size_t prefix) { return uint32_t(std::stoul(name.substr(prefix))); };
  if (name.starts_with("@in"))
    return {package::PartArgumentKind::Input, number(3)};
  if (name.starts_with("@out"))
    return {package::PartArgumentKind::Output, number(4)};
  return {package::PartArgumentKind::Border, number(1)};
}

// The parts of the entries that have some, in order; "cpu: 3 kernels, cuda: 5 kernels" for people.
void add_parts(const Program &program, PackageSpec &spec) {
  for (size_t e = 0; e < program.entries.size(); ++e) {
    PackageEntry &whole = spec.entries[e];
    for (size_t p = 0; !whole.is_twin && !whole.is_part; ++p) {
      std::string name = part_name(program.entries[e].name, p), text;
      size_t at = 0;
      while (at < program.entries.size() && program.entries[at].name != name && program.entries[at].name != name + std::string(kGpuTwin))
        ++at;
      if (at == program.entries.size())
        break;
      const PackageEntry &entry = spec.entries[at];
      PackagePart part{uint32_t(at), entry.is_twin, entry.uses_variables, {}};
      for (const auto *values : {&entry.inputs, &entry.outputs})
        for (const PackageValue &value : *values)
          part.arguments.push_back(part_argument(value.name));
      whole.parts.push_back(std::move(part));
    }
    std::string text;
    for (const PackagePart &part : whole.parts) {
      size_t kernels = spec.entries[part.entry].kernels.size();
      text += fmt::format("{}{}: {} kernel{}", text.empty() ? "" : ", ", part.is_on_device ? "cuda" : "cpu", kernels, kernels == 1 ? "" : "s");
    }
    if (!text.empty())
      spec.metadata.emplace_back("parts of " + whole.name, text);
  }
}

bool has_parts(const Module &module, const std::string &function) { return module.find_function(part_name(function, 0)) != nullptr; }

// Names of parts are the compiler's own: what has one was made by split_devices(), here or before the program was printed.
bool check_parts(const Module &module, Diagnostics &diagnostics) {
  bool after_parts = false;
  auto is_argument = [](const std::string &name, std::initializer_list<std::string_view> prefixes) {
    return std::any_of(prefixes.begin(), prefixes.end(), [&](std::string_view prefix) {
      std::string_view rest = name.starts_with(prefix) ? std::string_view(name).substr(prefix.size()) : std::string_view();
      return !rest.empty() && rest.size() < 6 && std::all_of(rest.begin(), rest.end(), [](char c) { return c >= '0' && c <= '9'; });
    });
  };
  for (const Function &f : module.functions) {
    if (!f.exported)
      continue;
    std::string whole(whole_of_part(f.name));
    bool fine = is_part(f.name) || !after_parts;
    after_parts |= is_part(f.name);
    if (is_part(f.name)) {
      const Function *known = module.find_function(whole);
      fine = known && known->exported && !function_device(module, f.name).empty() && f.result_names.size() == f.body.results.size();
      for (ValueId arg : f.body.args)
        fine = fine && is_argument(f.value(arg).name, {"@in", "@"});
      for (const std::string &name : f.result_names)
        fine = fine && is_argument(name, {"@out", "@"});
    }
    if (!fine)
      diagnostics.error(f.location, fmt::format("'{}' is no part of an entry, and stands where one should: `@part` in names is the compiler's own", f.name));
  }
  return !diagnostics.has_errors();
}

// Functions that compute on both sides become parts, before there are twins and forms of them.
bool split_by_device(Module &module, const CompileOptions &options, Diagnostics &diagnostics) {
  bool has_copies = std::any_of(module.functions.begin(), module.functions.end(), [](const Function &f) {
    return std::any_of(f.nodes.begin(), f.nodes.end(), [](const Node &node) { return !node.removed && is_device_copy(node); });
  });
  if (!has_copies)
    return true;
  PassContext context(diagnostics);
  PassManagerOptions how = options.passes;
  how.dump_dir.clear();
  PassManager manager(context, how);
  for (std::string_view pass : {"inline-calls", "dce", "place"})
    if (!manager.run(module, pass))
      return false;
  return true;
}

// Variables that functions of processors write, some of them alone, are no constants for GPUs: a function that writes them says so
// until the passes are done.
constexpr std::string_view kWrites = "@writes";

void add_writes(const Module &host, Module &twin) {
  std::vector<bool> written(twin.variables.size());
  for (const Function &function : host.functions)
    for_each_node(function, [&](NodeId id) {
      if (function.node(id).op != Op::assign)
        return;
      if (size_t v = size_t(function.node(id).attrs.get_variable("variable")); v < written.size())
        written[v] = true;
    });
  Function out;
  out.name = kWrites;
  out.exported = true;
  GraphBuilder b(twin, out, out.body);
  for (size_t v = 0; v < written.size(); ++v)
    if (written[v])
      b.multi(Op::assign, {b(Op::read_variable, {}, {{"variable", VariableId(v)}})}, {{"variable", VariableId(v)}});
  if (!out.body.nodes.empty())
    twin.functions.push_back(std::move(out));
}

// The module's entries as they are for GPUs, under names of their own: without what is shaped for a processor's caches.
std::optional<Module> gpu_twin(const Module &module, Diagnostics &diagnostics) {
  Module out = module;
  for (Function &function : out.functions) {
    if (!function.exported)
      continue;
    if (is_gpu_twin(function.name)) {
      diagnostics.error(function.location, fmt::format("the name '{}' is the compiler's own in a package for GPUs; choose another one", function.name));
      return std::nullopt;
    }
    if (function_device(module, function.name) == "cpu" || has_parts(module, function.name))
      function.exported = false;
    function.name += kGpuTwin;
  }
  return out;
}

// The program as processors run it: its kernels, and of what only a device runs no more than its sizes.
Program host_part(const Program &program, std::vector<int> &kernels) {
  Program out = program;
  out.kernels.clear();
  kernels.clear();
  std::vector<int> index(program.kernels.size(), -1);
  std::function<void(std::vector<PlanStep> &)> renumber = [&](std::vector<PlanStep> &steps) {
    for (PlanStep &step : steps) {
      if (step.kind == PlanStep::Kind::launch) {
        int &to = index[size_t(step.kernel)];
        if (to < 0) {
          to = int(out.kernels.size());
          out.kernels.push_back(program.kernels[size_t(step.kernel)]);
          kernels.push_back(step.kernel);
        }
        step.kernel = to;
      }
      renumber(step.condition_body);
      renumber(step.body);
      renumber(step.other);
    }
  };
  for (Plan &plan : out.entries) {
    if (is_gpu_twin(plan.name))
      plan.steps.clear();
    renumber(plan.steps);
  }
  return out;
}

// A function that the program has placed on a GPU needs code for one.
bool check_gpus(const Module &module, const CompileOptions &options, Diagnostics &diagnostics) {
  if (!options.gpus.empty())
    return true;
  std::set<std::string_view> named;
  for (const Function &function : module.functions)
    if (function.exported && function_device(module, function.name) == "cuda" && named.insert(whole_of_part(function.name)).second)
      diagnostics.error(function.location, fmt::format("'{}' computes on cuda, and there is to be no code for a GPU", whole_of_part(function.name)))
          .notes.push_back("say for which GPUs: kiln compile --cuda sm_80,sm_90,ptx");
  return !diagnostics.has_errors();
}

} // namespace

bool optimise_module(Module &module, const CompileOptions &options, Diagnostics &diagnostics,
                     std::string *pass_times) {
  PassContext context(diagnostics);
  context.flags.keep_params = options.keep_params;
  context.flags.weights = options.weights;
  auto all_have = [&](auto property) {
    return !options.machines.empty() &&
           std::all_of(options.machines.begin(), options.machines.end(), property);
  };
  if (all_have([](const MachineDesc &m) { return m.byte_dots != ByteDots::none; }))
    context.native.push_back(Op::dequantize);
  context.flags.bf16_dots = !options.denormals_keep &&
                            all_have([](const MachineDesc &m) { return m.has_bf16_dots; });
  if (options.gpus.empty()) {
    context.flags.byte_tiles = all_have([](const MachineDesc &m) { return m.has_byte_tiles; });
    context.flags.bf16_tiles = context.flags.bf16_dots && all_have([](const MachineDesc &m) { return m.has_bf16_tiles; });
  }
  // Chains and transformed tiles are shaped for caches.
  context.flags.gpu = !options.gpus.empty();
  context.flags.shares_weights = options.shares_weights;
  context.flags.winograd = context.flags.gpu ? Winograd::off : options.winograd;
  for (const MachineDesc &machine : options.machines) {
    bool first = &machine == &options.machines[0];
    auto least = [&](int64_t &to, int64_t value) { to = first ? value : std::min(to, value); };
    least(context.flags.vector_bytes, machine.vector_bytes);
    least(context.flags.cache_bytes, machine.l2_bytes);
    double rate = machine.byte_dot_rate();
    context.flags.byte_dots = first ? rate : std::min(context.flags.byte_dots, rate);
  }
  PassManager manager(context, options.passes);
  bool whole = run_graph_pipeline(module, manager, options.level);
  if (pass_times)
    *pass_times = manager.timing_table();
  return whole && !diagnostics.has_errors();
}

std::vector<Kernel> schedule_kernels(const Program &program, const MachineDesc &target,
                                     const CompileOptions &options) {
  MachineDesc machine = target;
  machine.has_bf16_dots &= !options.denormals_keep; // they flush
  const Tuning *tuning = options.tuning;
  std::vector<Kernel> kernels = program.kernels;
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t i; (i = next.fetch_add(1)) < kernels.size();) {
      const KernelTuning *found = tuning ? tuning->find(kernels[i], machine) : nullptr;
      schedule(kernels[i], machine, found ? found->options() : ScheduleOptions());
    }
  };
  std::vector<std::thread> threads;
  for (int j = 1; j < options.jobs; ++j)
    threads.emplace_back(work);
  work();
  for (std::thread &t : threads)
    t.join();
  return kernels;
}

bool compile_module(Module &module, const CompileOptions &options, Compiled &compiled,
                    Diagnostics &diagnostics) {
  compiled = {};
  compiled.denormals_keep = options.denormals_keep;
  PhaseTimer timer(options, compiled);
  timer.begin("graph passes");
  // With forms, which are modules of their own on this way.
  auto optimise = [&](Module &whole, const CompileOptions &how, std::string *times) {
    std::vector<Module> forms;
    for (const FormDims &dims : how.forms) {
      auto form = specialise(whole, dims, diagnostics);
      if (!form)
        return false;
      forms.push_back(std::move(*form));
    }
    if (!optimise_module(whole, how, diagnostics, times))
      return false;
    for (Module &form : forms) {
      CompileOptions own = how;
      own.passes.dump_dir.clear();
      if (!optimise_module(form, own, diagnostics))
        return false;
      join_form(whole, std::move(form));
    }
    return true;
  };
  if (!split_by_device(module, options, diagnostics) || !check_parts(module, diagnostics))
    return false;
  std::optional<Module> twin;
  if (!options.gpus.empty()) {
    twin = gpu_twin(module, diagnostics);
    if (!twin)
      return false;
    for (Function &function : module.functions) // a whole has its code for processors, so these parts need none
      function.exported &= !is_part(function.name) || function_device(module, function.name) == "cpu";
  }
  CompileOptions host = options;
  host.gpus.clear();
  host.shares_weights = !options.gpus.empty();
  if (!optimise(module, host, &compiled.pass_times) || !check_gpus(module, options, diagnostics))
    return false;
  if (twin) {
    CompileOptions device = options;
    device.passes.dump_dir.clear();
    add_writes(module, *twin);
    if (!optimise(*twin, device, nullptr))
      return false;
    std::erase_if(twin->functions, [](const Function &f) { return f.name == kWrites; });
    join_form(module, std::move(*twin));
  }
  timer.begin("lowering");
  if (!lower_module(module, compiled.program, diagnostics, {!options.gpus.empty()}))
    return false;
  timer.end();
  return generate_code(options, compiled, diagnostics);
}

bool generate_code(const CompileOptions &options, Compiled &compiled, Diagnostics &diagnostics) {
  KILN_CHECK(!options.machines.empty(), "generate_code() needs a machine");
  compiled.targets.clear();
  for (Plan &plan : compiled.program.entries)
    plan.scratch_size = 0; // of this code, whatever was made of the program before
  PhaseTimer timer(options, compiled);
  std::vector<int> kernels_of_host;
  Program host = host_part(compiled.program, kernels_of_host);
  for (const MachineDesc &machine : options.machines) {
    timer.begin(machine.name + ": kernel passes");
    TargetCode target{machine, compiled.program.kernels, {}};
    std::vector<Kernel> scheduled = schedule_kernels(host, machine, options);
    add_scratch(host, scheduled);
    timer.begin(machine.name + ": code generation");
    cpu::CpuOptions cpu;
    cpu.opt_level = options.level == OptLevel::o0 ? 0 : 2;
    cpu.jobs = options.jobs;
    cpu.denormals_keep = options.denormals_keep;
    auto image = cpu::compile_image(host, scheduled, machine, cpu);
    if (!image) {
      diagnostics.error({}, fmt::format("no code for {}: {}", machine.name, image.error().message));
      return false;
    }
    for (size_t i = 0; i < scheduled.size(); ++i)
      target.kernels[size_t(kernels_of_host[i])] = std::move(scheduled[i]);
    for (size_t e = 0; e < host.entries.size(); ++e)
      compiled.program.entries[e].scratch_size = host.entries[e].scratch_size;
    target.image = std::move(*image);
    compiled.targets.push_back(std::move(target));
  }
  compiled.devices.clear();
  for (const GpuMachine &machine : options.gpus) {
    timer.begin(machine.name + ": code generation");
    auto section = cuda::device_section(compiled.program, machine, {options.jobs, true, options.denormals_keep});
    if (!section) {
      diagnostics.error({}, fmt::format("no code for {}: {}", machine.name, section.error().message));
      return false;
    }
    compiled.devices.push_back({machine, std::move(*section)});
  }
  timer.end();
  return true;
}

PackageSpec package_spec(const Module &module, const Compiled &compiled) {
  PackageSpec spec;
  const Program &program = compiled.program;
  spec.model_name = module.name;
  spec.producer = "kiln " KILN_VERSION;
  spec.keep_denormals = compiled.denormals_keep;
  for (const Plan &plan : program.entries)
    spec.entries.push_back(package_entry(module, program, plan, compiled.targets, spec));
  for (size_t i = 0; i < module.variables.size(); ++i) {
    const Variable &v = module.variables[i];
    const VariableSlot &slot = program.variables[i];
    PackageVariable variable;
    variable.name = v.name;
    variable.dtype = uint32_t(v.type.dtype);
    for (const Dim &d : v.type.shape)
      variable.dims.push_back(d.as_const());
    variable.is_param = v.kind == VariableKind::param;
    variable.offset = uint64_t(slot.offset);
    if (slot.weight >= 0)
      variable.initial = uint64_t(program.weights[size_t(slot.weight)].offset);
    spec.variables.push_back(std::move(variable));
  }
  spec.variables_size = uint64_t(program.variables_size);
  for (const auto &[key, value] : module.metadata)
    if (!is_part(key))
      spec.metadata.emplace_back(key, value);
  add_parts(program, spec);
  for (const Plan &plan : program.entries)
    for (const PlanForm &form : is_gpu_twin(plan.name) || is_part(plan.name) ? std::vector<PlanForm>() : plan.forms)
      spec.metadata.emplace_back("form of " + plan.name, form.text());
  for (const TargetCode &target : compiled.targets)
    spec.code.push_back({target.machine.name,
                         {reinterpret_cast<const uint8_t *>(target.image.elf.data()), target.image.elf.size()}});
  for (const DeviceCode &device : compiled.devices)
    spec.devices.push_back({device.machine.name, device.section});
  for (const Weight &weight : program.weights) {
    const Tensor *tensor = &module.constants[size_t(weight.constant)].tensor;
    PackageWeights out;
    out.offset = uint64_t(weight.offset);
    out.size = uint64_t(weight.size);
    if (weight.layout.is_row_major())
      out.data = tensor->bytes().data();
    else
      out.fill = [tensor, &weight](uint8_t *to) {
        pack(*tensor, weight.layout, {reinterpret_cast<std::byte *>(to), size_t(weight.size)});
      };
    if (out.size > 0)
      spec.weights.push_back(std::move(out));
  }
  spec.weights_size = uint64_t(program.weights_size);
  return spec;
}

} // namespace kiln
