// kiln compile: a model file becomes a package, or any of the forms on the way there.
#include "tools/cli.h"

#include "frontend/files/file_writer.h"
#include "passes/lower/lower.h"

#include <fmt/format.h>

#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <thread>

namespace kiln {
namespace {

struct CompileVerb {
  ModelOptions model;
  std::string output;
  std::vector<std::string> targets;
  std::string emit = "package", level = "2", dump_dir, stop_after;
  int jobs = int(std::max(1u, std::thread::hardware_concurrency()));
  bool time_passes = false, keep_params = false;
  std::string denormals = "flush";
};

Status write_text(const std::string &path, std::string_view text) {
  if (path == "-") {
    std::cout << text << std::flush;
    return Unit{};
  }
  return write_file(path, std::as_bytes(std::span(text)));
}

// The forms that end before code generation, or that are text.
Result<std::string> emit_text(const CompileVerb &verb, Module &module, const CompileOptions &options,
                              Diagnostics &diagnostics) {
  if (!optimise_module(module, options, diagnostics))
    return Error{""};
  if (verb.emit == "graph")
    return print_module(module);
  Program program;
  if (!lower_module(module, program, diagnostics))
    return Error{""};
  std::vector<Kernel> kernels = schedule_kernels(program, options.machines[0], options.jobs);
  if (verb.emit == "kernels") {
    std::string out;
    for (const Kernel &kernel : kernels)
      out += print_kernel(kernel) + "\n";
    return out;
  }
  cpu::CpuOptions cpu;
  cpu.denormals_keep = options.denormals_keep;
  return verb.emit == "llvm" ? cpu::emit_llvm_text(program, kernels, options.machines[0], cpu)
                             : cpu::emit_assembly(program, kernels, options.machines[0], cpu);
}

std::string default_output(const CompileVerb &verb) {
  if (verb.emit != "package")
    return "-";
  std::filesystem::path path = verb.model.path == "-" ? "model.kir" : verb.model.path;
  return path.filename().replace_extension(".kiln").string();
}

std::string summary(const CompileVerb &verb, const Compiled &compiled, const std::string &output) {
  std::error_code ignored;
  auto bytes = std::filesystem::file_size(output, ignored);
  size_t launches = 0;
  for (const Plan &plan : compiled.program.entries)
    launches += size_t(plan.launches);
  if (verb.model.json) {
    std::string phases;
    for (const auto &[phase, seconds] : compiled.seconds)
      phases += fmt::format("{}{}: {:.6f}", phases.empty() ? "" : ", ", json_quote(phase), seconds);
    return fmt::format("{{\"output\": {}, \"bytes\": {}, \"entries\": {}, \"launches\": {}, \"kernels\": {}, "
                       "\"weights_bytes\": {}, \"seconds\": {{{}}}}}\n",
                       json_quote(output), bytes, compiled.program.entries.size(), launches,
                       compiled.program.kernels.size(), compiled.program.weights_size, phases);
  }
  return fmt::format("{}: {:.1f} KiB, {} of them weights; {} kernels in {} launches\n", output,
                     double(bytes) / 1024, fmt::format("{:.1f} KiB", double(compiled.program.weights_size) / 1024),
                     compiled.program.kernels.size(), launches);
}

int compile(const CompileVerb &verb) {
  CompileOptions options;
  auto machines = parse_targets(verb.targets);
  if (!machines)
    return report(machines.error(), verb.model.json);
  auto level = parse_level(verb.level);
  if (!level)
    return report(level.error(), verb.model.json);
  options.machines = *machines;
  options.level = *level;
  options.jobs = verb.jobs;
  options.keep_params = verb.keep_params;
  options.denormals_keep = verb.denormals == "keep";
  options.passes.dump_dir = verb.dump_dir;
  options.passes.stop_after = verb.stop_after;
  bool show_progress = isatty(STDERR_FILENO) && !verb.model.json;
  if (show_progress)
    options.progress = [](std::string_view phase) { std::cerr << "\r\033[K" << phase << std::flush; };

  Diagnostics diagnostics;
  Module module;
  if (!load_model(verb.model, module, diagnostics))
    return report(diagnostics, verb.model.json);
  std::string output = verb.output.empty() ? default_output(verb) : verb.output;
  if (!verb.stop_after.empty()) {
    optimise_module(module, options, diagnostics);
    if (diagnostics.has_errors())
      return report(diagnostics, verb.model.json);
    auto status = write_text(verb.output.empty() ? "-" : verb.output, print_module(module));
    return status ? kFine : report(status.error(), verb.model.json);
  }
  if (verb.emit != "package") {
    auto text = emit_text(verb, module, options, diagnostics);
    if (!text)
      return diagnostics.has_errors() ? report(diagnostics, verb.model.json)
                                      : report(text.error(), verb.model.json);
    auto status = write_text(output, *text);
    return status ? kFine : report(status.error(), verb.model.json);
  }
  Compiled compiled;
  bool fine = compile_module(module, options, compiled, diagnostics);
  if (show_progress)
    std::cerr << "\r\033[K";
  if (!fine)
    return report(diagnostics, verb.model.json);
  if (std::string error = write_package(package_spec(module, compiled), output); !error.empty())
    return report(Error{error}, verb.model.json);
  if (!diagnostics.all().empty())
    report(diagnostics, verb.model.json);
  std::cout << summary(verb, compiled, output);
  if (verb.time_passes && !verb.model.json)
    for (const auto &[phase, seconds] : compiled.seconds)
      std::cout << fmt::format("{:8.3f} s  {}\n", seconds, phase);
  return kFine;
}

} // namespace

void add_compile(CLI::App &app, int &exit_code) {
  auto verb = std::make_shared<CompileVerb>();
  CLI::App *sub = app.add_subcommand("compile", "Compile a model file to a package");
  verb->model.add_to(*sub);
  sub->add_option("-o,--output", verb->output, "the file to write (default: MODEL.kiln; - for standard output)");
  sub->add_option("--target", verb->targets, "host, x86-64-v2, x86-64-v3, x86-64-v4, aarch64; may be repeated")
      ->allow_extra_args(false);
  sub->add_option("--emit", verb->emit, "package, graph, kernels, llvm or asm")
      ->check(CLI::IsMember({"package", "graph", "kernels", "llvm", "asm"}));
  sub->add_option("-O", verb->level, "0: one kernel an op; 1: fused; 2: with layouts (default)");
  sub->add_option("-j,--jobs", verb->jobs, "threads that compile")->check(CLI::Range(1, 256));
  sub->add_option("--dump-dir", verb->dump_dir, "write the graph after each pass that changed it here");
  sub->add_option("--stop-after", verb->stop_after, "stop after this graph pass and print the graph");
  sub->add_option("--denormals", verb->denormals, "flush (default) or keep")->check(CLI::IsMember({"flush", "keep"}));
  sub->add_flag("--keep-params", verb->keep_params, "parameters can be written at run time");
  sub->add_flag("--time-passes", verb->time_passes, "print the seconds that each phase took");
  sub->callback([verb, &exit_code] { exit_code = compile(*verb); });
}

} // namespace kiln
