#include "tools/cli.h"

#include "ir/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <thread>

namespace kiln {

Result<std::vector<MachineDesc>> parse_targets(const std::vector<std::string> &names) {
  std::vector<MachineDesc> out;
  for (const std::string &name : names.empty() ? std::vector<std::string>{"host"} : names) {
    auto machine = find_machine(name);
    if (!machine) {
      std::string known = "host";
      for (const MachineDesc &m : cpu_machines())
        known += ", " + m.name;
      return Error{fmt::format("unknown target '{}'; known: {}", name, known)};
    }
    bool twice = std::any_of(out.begin(), out.end(), [&](const MachineDesc &m) { return m.name == machine->name; });
    if (!twice)
      out.push_back(*machine);
  }
  return out;
}

Result<GpuMachine> parse_gpu(const std::string &name) {
  if (auto gpu = find_gpu(name))
    return *gpu;
  std::string known;
  for (const GpuMachine &machine : gpu_machines())
    known += machine.is_ptx ? "ptx" : machine.name + ", ";
  return Error{fmt::format("'{}': no such GPU; there are: {}", name, known)};
}

Result<OptLevel> parse_level(const std::string &level) {
  if (level == "0")
    return OptLevel::o0;
  if (level == "1")
    return OptLevel::o1;
  if (level == "2")
    return OptLevel::o2;
  return Error{fmt::format("'{}': the levels are 0, 1 and 2", level)};
}

Winograd parse_winograd(const std::string &text) {
  return text == "off" ? Winograd::off
         : text == "2" ? Winograd::two
         : text == "4" ? Winograd::four
                       : Winograd::automatic;
}

int report(const Diagnostics &diagnostics, bool json) {
  if (json && !diagnostics.all().empty())
    std::cerr << diagnostics.render_json() << "\n";
  else if (!json)
    std::cerr << diagnostics.render();
  return diagnostics.has_errors() ? kBadInput : kFine;
}

int report(const Diagnostics &diagnostics, const ModelOptions &model) {
  auto is_placed = [](const Diagnostic &d) { return d.location.known(); };
  if (std::any_of(diagnostics.all().begin(), diagnostics.all().end(), is_placed))
    return report(diagnostics, model.json);
  Location whole{Symbol(model.path == "-" ? "<stdin>" : model.path), 0, 0, {}};
  Diagnostics placed;
  for (const Diagnostic &d : diagnostics.all()) {
    Diagnostic &copy = d.severity == Severity::error     ? placed.error(whole, d.message)
                       : d.severity == Severity::warning ? placed.warning(whole, d.message)
                                                         : placed.note(whole, d.message);
    copy.notes = d.notes;
  }
  return report(placed, model.json);
}

int report(const Error &error, bool json) {
  if (json)
    std::cerr << "{\"severity\": \"error\", \"message\": " << json_quote(error.message) << "}\n";
  else
    std::cerr << "kiln: error: " << error.message << "\n";
  return kBadInput;
}

bool compile_in_memory(Module &module, const CompileOptions &options, Compiled &compiled, PackageBytes &package,
                       Diagnostics &diagnostics) {
  if (!compile_module(module, options, compiled, diagnostics))
    return false;
  std::vector<uint8_t> bytes;
  if (std::string error = build_package(package_spec(module, compiled), bytes); !error.empty()) {
    diagnostics.error({}, error);
    return false;
  }
  constexpr size_t kPage = 4096;
  size_t rounded = (bytes.size() + kPage - 1) / kPage * kPage;
  std::shared_ptr<void> memory(std::aligned_alloc(kPage, rounded), std::free);
  std::memcpy(memory.get(), bytes.data(), bytes.size());
  package.bytes = {static_cast<const std::byte *>(memory.get()), bytes.size()};
  package.owner = std::move(memory);
  return true;
}

std::string target_of(const KilnModule *module) {
  KilnModuleInfo info{};
  kiln_get_api(KILN_API_VERSION)->module_info(module, &info);
  return info.target;
}

void place_in_memory(const std::string &device, Module &module, CompileOptions &options) {
  if (device == "cpu")
    place_on_cpu(module);
  if (is_gpu(device) || is_placed_on_gpu(module))
    options.gpus = {*find_gpu("ptx")};
}

int open_session(const ModelOptions &model, const SessionOptions &options, OptLevel level, Opened &opened) {
  bool package = is_package(model.path);
  if (auto fits = package ? for_package(model) : Status(Unit{}); !fits)
    return report(fits.error(), model.json), kBadUsage;
  if (!package) {
    Diagnostics diagnostics;
    CompileOptions compile;
    compile.machines = {host_machine()};
    compile.level = level;
    set_compile_options(model, compile);
    compile.jobs = int(std::max(1u, std::thread::hardware_concurrency()));
    bool fine = load_model(model, opened.module, diagnostics);
    place_in_memory(options.device, opened.module, compile);
    fine = fine && compile_in_memory(opened.module, compile, opened.compiled, opened.package, diagnostics);
    if (int code = report(diagnostics, model); code != kFine || !fine)
      return kBadInput;
  }
  SessionOptions chosen = options;
  chosen.initialise = !package;
  if (package)
    chosen.dims = *fixed_dims(model);
  auto session = package ? Session::open(model.path, chosen) : Session::open(opened.package.bytes, chosen);
  if (!session)
    return report(session.error(), model.json);
  opened.session.emplace(std::move(*session));
  if (options.device == "auto" && !model.json)
    std::cerr << "kiln: note: computes on " << opened.session->target() << "\n";
  return kFine;
}

} // namespace kiln
