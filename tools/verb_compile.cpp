// kiln compile: a model file becomes a package, or any of the forms on the way there.
#include "codegen/tuning.h"
#include "tools/cli.h"
#include "tools/fit_memory.h"
#include "tools/tune.h"
#include "tools/usage.h"

#include "codegen/c/c.h"
#include "codegen/cuda/device_writer.h"
#include "codegen/object_data.h"
#include "frontend/data/safetensors.h"
#include "frontend/files/file_writer.h"
#include "frontend/files/mapped_file.h"
#include "ir/placement.h"
#include "ir/print.h"
#include "passes/graph/specialise.h"
#include "passes/lower/lower.h"

#include <fmt/format.h>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <thread>

namespace kiln {
namespace {

struct CompileVerb {
  ModelOptions model;
  std::string output;
  std::vector<std::string> targets, gpus;
  std::string emit = "package", level = "2", dump_dir, stop_after;
  int jobs = int(std::max(1u, std::thread::hardware_concurrency()));
  std::string max_memory;
  bool time_passes = false, keep_params = false;
  std::string denormals = "flush";
  bool tf32 = false, fma = false;
  std::string tune_file;
  std::vector<std::string> specialise;
  double tune_seconds = 0;
  int tune_threads = 1;
};

Status write_text(const std::string &path, std::string_view text) {
  if (path == "-") {
    std::cout << text << std::flush;
    return Unit{};
  }
  return write_file(path, std::as_bytes(std::span(text)));
}

std::string kernels_text(const std::vector<Kernel> &kernels) {
  std::string out;
  for (const Kernel &kernel : kernels)
    out += print_kernel(kernel) + "\n";
  return out;
}

// Beside the graphs that the passes dumped: the constants that they name, and the kernels before and
// after each target's schedule. All of it can be fed in again.
Status write_dumps(const std::string &folder, const Module &module, const Compiled &compiled) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  std::vector<std::string> names = name_constants(module);
  for (size_t i = 0; i < names.size(); ++i)
    if (module.constants[i].tensor.count() > 1)
      tensors.emplace_back(names[i], module.constants[i].tensor);
  KILN_RETURN_IF_ERROR(write_safetensors(folder + "/weights.safetensors", tensors));
  KILN_RETURN_IF_ERROR(write_file(folder + "/lowered.kernels", std::string_view(kernels_text(compiled.program.kernels))));
  for (const TargetCode &target : compiled.targets)
    KILN_RETURN_IF_ERROR(write_file(folder + "/" + target.machine.name + ".kernels", std::string_view(kernels_text(target.kernels))));
  return Unit{};
}

// "N=1,8" is two forms, "H=224,W=224" one.
Result<std::vector<FormDims>> parse_forms(const std::vector<std::string> &texts) {
  std::vector<FormDims> out;
  for (const std::string &text : texts) {
    Error error{fmt::format("'{}': write N=1, N=1,8 or H=224,W=224", text)};
    std::vector<FormDims> forms{{}};
    std::vector<FormDims> before;
    for (size_t begin = 0; begin <= text.size();) {
      size_t end = std::min(text.find(',', begin), text.size());
      std::string item = text.substr(begin, end - begin);
      size_t equals = item.find('=');
      auto value = parse_int(equals == std::string::npos ? item : item.substr(equals + 1));
      if (!value || *value < 0 || equals == 0 || (equals == std::string::npos && before.empty()) || out.size() + forms.size() > 64)
        return error;
      std::string name = equals == std::string::npos ? forms[0].back().first : item.substr(0, equals);
      if (equals != std::string::npos)
        before = std::move(forms), forms.clear();
      for (FormDims form : before) {
        if (std::any_of(form.begin(), form.end(), [&](const auto &d) { return d.first == name; }))
          return error;
        form.emplace_back(name, *value);
        forms.push_back(std::move(form));
      }
      begin = end + 1;
    }
    out.insert(out.end(), forms.begin(), forms.end());
  }
  return out;
}

// The forms that end before code generation, or that are text.
Result<std::string> emit_text(const CompileVerb &verb, Module &module, const CompileOptions &options,
                              Diagnostics &diagnostics) {
  if (!optimise_module(module, options, diagnostics))
    return Error{""};
  if (verb.emit == "graph")
    return print_module(module);
  std::erase_if(module.functions, [](const Function &f) { return is_part(f.name); }); // the wholes are on the processor
  Program program;
  if (!lower_module(module, program, diagnostics, {!options.gpus.empty()}))
    return Error{""};
  if (verb.emit == "c") {
    std::vector<std::byte> weights = weights_section(module, program);
    return c::emit_c(program, {weights});
  }
  if (verb.emit == "cuda")
    return cuda::device_source(program, options.gpus[0]);
  if (verb.emit == "lowered")
    return kernels_text(program.kernels);
  std::vector<Kernel> kernels = schedule_kernels(program, options.machines[0], options);
  if (verb.emit == "kernels")
    return kernels_text(kernels);
  if (verb.emit == "header") {
    Compiled compiled;
    compiled.program = std::move(program);
    return object_header(module, compiled);
  }
  cpu::CpuOptions cpu;
  cpu.denormals_keep = options.denormals_keep;
  return verb.emit == "llvm" ? cpu::emit_llvm_text(program, kernels, options.machines[0], cpu)
                             : cpu::emit_assembly(program, kernels, options.machines[0], cpu);
}

// A package or an object with its header, written.
Status write_code(const CompileVerb &verb, const Module &module, const Compiled &compiled, const std::string &output) {
  if (verb.emit == "object") {
    KILN_TRY(object, object_with_data(module, compiled, verb.jobs));
    if (output == "-")
      return write_text("-", {reinterpret_cast<const char *>(object.data()), object.size()});
    KILN_RETURN_IF_ERROR(write_file(output, std::span<const std::byte>(object)));
    std::string header = std::filesystem::path(output).replace_extension(".h").string();
    return write_file(header, std::string_view(object_header(module, compiled)));
  }
  PackageSpec spec = package_spec(module, compiled);
  std::string error;
  if (output == "-") {
    std::vector<uint8_t> bytes;
    error = build_package(spec, bytes);
    if (error.empty())
      return write_text("-", {reinterpret_cast<const char *>(bytes.data()), bytes.size()});
  } else {
    error = write_package(spec, output);
  }
  if (!error.empty())
    return Error{error};
  return Unit{};
}

std::string default_output(const CompileVerb &verb) {
  if (verb.emit != "package" && verb.emit != "object")
    return "-";
  std::filesystem::path path = verb.model.path == "-" ? "model.kir" : verb.model.path;
  return path.filename().replace_extension(verb.emit == "object" ? ".o" : ".kiln").string();
}

std::string summary(const CompileVerb &verb, const Compiled &compiled, const std::string &output) {
  std::error_code ignored;
  auto bytes = std::filesystem::file_size(output, ignored);
  size_t launches = 0;
  size_t entries = 0;
  for (const Plan &plan : compiled.program.entries)
    if (!is_gpu_twin(plan.name) && !is_part(plan.name)) {
      launches += size_t(plan.launches);
      ++entries;
    }
  if (verb.model.json) {
    std::string phases;
    for (const auto &[phase, seconds] : compiled.seconds)
      phases += fmt::format("{}{}: {:.6f}", phases.empty() ? "" : ", ", json_quote(phase), seconds);
    return fmt::format("{{\"output\": {}, \"bytes\": {}, \"entries\": {}, \"launches\": {}, \"kernels\": {}, "
                       "\"weights_bytes\": {}, \"seconds\": {{{}}}}}\n",
                       json_quote(output), bytes, entries, launches,
                       compiled.program.kernels.size(), compiled.program.weights_size, phases);
  }
  return fmt::format("{}: {:.1f} KiB, {} of them weights; {} kernels in {} launches\n", output,
                     double(bytes) / 1024, fmt::format("{:.1f} KiB", double(compiled.program.weights_size) / 1024),
                     compiled.program.kernels.size(), launches);
}

int bad_usage(const std::string &message, bool json) {
  report(Error{message}, json);
  return kBadUsage;
}

// --stop-after names a pass over the graph, or one of the two phases behind them.
std::string check_stop(const std::string &name) {
  if (name == "lower" || name == "schedule" || find_pass(name))
    return "";
  std::string known;
  for (const PassInfo &pass : all_passes())
    known += std::string(pass.name) + ", ";
  return fmt::format("'{}': no such phase; there are: {}lower, schedule", name, known);
}

void choose_stop(CompileVerb &verb, CompileOptions &options) {
  if (verb.stop_after == "lower")
    verb.emit = "lowered";
  else if (verb.stop_after == "schedule")
    verb.emit = "kernels";
  else
    options.passes.stop_after = verb.stop_after;
}

int emit_and_write(const CompileVerb &verb, Module &module, const CompileOptions &options, Diagnostics &diagnostics) {
  bool json = verb.model.json;
  if (!options.passes.stop_after.empty()) {
    optimise_module(module, options, diagnostics);
    if (diagnostics.has_errors())
      return report(diagnostics, verb.model);
    auto status = write_text(verb.output.empty() ? "-" : verb.output, print_module(module));
    return status ? kFine : report(status.error(), json);
  }
  auto text = emit_text(verb, module, options, diagnostics);
  if (!text)
    return diagnostics.has_errors() ? report(diagnostics, verb.model) : report(text.error(), json);
  auto status = write_text(verb.output.empty() ? "-" : verb.output, *text);
  return status ? kFine : report(status.error(), json);
}

// The lines of --tune-file. One that is not there yet is what --tune is going to write.
bool read_tuning(const CompileVerb &verb, Tuning &tuning, Diagnostics &diagnostics) {
  constexpr size_t kMaxBytes = size_t(16) << 20;
  if (verb.tune_file.empty() || (verb.tune_seconds > 0 && !std::filesystem::exists(verb.tune_file)))
    return true;
  auto file = MappedFile::open(verb.tune_file);
  if (!file) {
    diagnostics.error({Symbol(verb.tune_file), 0, 0, {}}, file.error().message);
    return false;
  }
  std::span<const std::byte> bytes = (*file)->bytes();
  if (bytes.size() > kMaxBytes) {
    diagnostics.error({Symbol(verb.tune_file), 0, 0, {}}, fmt::format("this is no tuning file: it has {} bytes", bytes.size()));
    return false;
  }
  return tuning.read(verb.tune_file, {reinterpret_cast<const char *>(bytes.data()), bytes.size()}, diagnostics);
}

// Searches, writes what was found, and makes the code anew with it.
Status tune_and_save(const CompileVerb &verb, const Module &module, const CompileOptions &options, Compiled &compiled,
                     Tuning &tuning, const std::string &output) {
  TuneOptions how;
  how.seconds = verb.tune_seconds;
  how.threads = verb.tune_threads;
  how.progress = options.progress;
  KILN_TRY(dims, fixed_dims(verb.model));
  how.dims = std::move(dims);
  KILN_TRY(found, tune(module, compiled, options, how, tuning));
  std::string path = verb.tune_file.empty() ? output + ".tune" : verb.tune_file;
  KILN_RETURN_IF_ERROR(write_file(path, std::string_view(tuning.text())));
  if (options.progress)
    std::cerr << "\r\033[K";
  if (verb.model.json)
    std::cout << fmt::format("{{\"tuning\": {}, \"variants\": {}, \"kernels\": {}, \"changed\": {}, \"before_ms\": {:.6f}, \"after_ms\": "
                             "{:.6f}, \"complete\": {}}}\n",
                             json_quote(path), found.variants, found.kernels, found.changed, found.before_ms, found.after_ms, found.is_complete);
  else
    std::cout << fmt::format("{}: {} of {} kernels do better with another schedule, {:.4f} ms before, {:.4f} ms now; {} variants{}\n", path,
                             found.changed, found.kernels, found.before_ms, found.after_ms, found.variants,
                             found.is_complete ? "" : ", more with more seconds");
  Diagnostics diagnostics;
  if (!generate_code(options, compiled, diagnostics))
    return Error{diagnostics.render()};
  return Unit{};
}

int compile(CompileVerb verb) {
  if (verb.output == "/dev/stdout")
    verb.output = "-"; // the report does not go there too
  CompileOptions options;
  bool json = verb.model.json;
  auto machines = parse_targets(verb.targets);
  auto level = parse_level(verb.level);
  if (is_package(verb.model.path))
    return report(Error{fmt::format("'{}' is compiled already", verb.model.path)}, json);
  if (auto spared = spares_model(verb.model, verb.output.empty() ? default_output(verb) : verb.output); !spared)
    return report(spared.error(), json), kBadUsage;
  options.machines = *machines;
  options.level = *level;
  options.jobs = verb.jobs;
  set_compile_options(verb.model, options);
  options.keep_params = verb.keep_params;
  options.denormals_keep = verb.denormals == "keep";
  for (const std::string &name : verb.gpus)
    options.gpus.push_back(*parse_gpu(name));
  if (verb.emit == "object")
    options.gpus.clear(); // what is linked has no code for devices
  if (verb.emit == "cuda" && options.gpus.empty())
    options.gpus.push_back(*find_gpu("sm_80"));
  for (GpuMachine &gpu : options.gpus) {
    gpu.rounds_products = verb.tf32;
    gpu.splits_products = !verb.fma;
  }
  // A C compiler that vectorises for itself is given the plain loops.
  if (verb.emit == "c")
    options.winograd = Winograd::off;
  options.passes.dump_dir = verb.dump_dir;
  if (!verb.stop_after.empty())
    choose_stop(verb, options);
  if (!verb.dump_dir.empty()) {
    std::error_code error;
    std::filesystem::create_directories(verb.dump_dir, error);
    if (error)
      return report(Error{fmt::format("cannot make the folder '{}': {}", verb.dump_dir, error.message())}, json);
  }
  bool show_progress = isatty(STDERR_FILENO) && !json;
  if (show_progress)
    options.progress = [](std::string_view phase) { std::cerr << "\r\033[K" << phase << std::flush; };

  Diagnostics diagnostics;
  Module module;
  auto forms = parse_forms(verb.specialise);
  if (!forms)
    return bad_usage("--specialise " + forms.error().message, json); // each is well-formed, and there are too many
  options.forms = *forms;
  if (!load_model(verb.model, module, diagnostics))
    return report(diagnostics, verb.model);
  if (!verb.max_memory.empty()) {
    auto limit = parse_bytes(verb.max_memory);
    std::string note;
    if (!fit_memory(verb.model, options, *limit, module, note, diagnostics))
      return report(diagnostics, verb.model);
    if (!note.empty() && !json)
      std::cerr << "kiln: note: " << note << "\n";
  }
  Tuning tuning;
  if (!read_tuning(verb, tuning, diagnostics))
    return report(diagnostics, verb.model);
  options.tuning = &tuning;
  bool is_code = (verb.emit == "package" || verb.emit == "object") && options.passes.stop_after.empty();
  std::string output = verb.output.empty() ? default_output(verb) : verb.output;
  if (verb.tune_seconds > 0 && (!is_code || (output == "-" && verb.tune_file.empty())))
    return bad_usage("--tune makes a package or an object, and writes what it found to --tune-file or beside the output", json);
  if (!is_code && !options.forms.empty())
    return bad_usage("--specialise makes a package or an object", json);
  if (!is_code)
    return emit_and_write(verb, module, options, diagnostics);
  Compiled compiled;
  bool fine = compile_module(module, options, compiled, diagnostics);
  if (show_progress)
    std::cerr << "\r\033[K";
  if (int code = report(diagnostics, verb.model); !fine)
    return code == kFine ? int(kBadInput) : code;
  if (verb.tune_seconds > 0)
    if (auto status = tune_and_save(verb, module, options, compiled, tuning, output); !status)
      return report(status.error(), json);
  if (auto status = write_code(verb, module, compiled, output); !status)
    return report(status.error(), json);
  if (!verb.dump_dir.empty())
    if (auto status = write_dumps(verb.dump_dir, module, compiled); !status)
      return report(status.error(), json);
  if (output == "-")
    return kFine;
  std::cout << summary(verb, compiled, output);
  if (verb.time_passes && !json) {
    for (const auto &[phase, seconds] : compiled.seconds)
      std::cout << fmt::format("{:8.3f} s  {}\n", seconds, phase);
    std::cout << compiled.pass_times;
  }
  return kFine;
}

} // namespace

void add_compile(CLI::App &app, int &exit_code) {
  auto verb = std::make_shared<CompileVerb>();
  CLI::App *sub = app.add_subcommand("compile", "Compile a model file to a package");
  verb->model.add_to(*sub);
  sub->add_option("-o,--output", verb->output, "the file to write (default: MODEL.kiln; - for standard output)");
  sub->add_option("--target", verb->targets, "host, x86-64-v2, x86-64-v3, x86-64-v4, aarch64; may be repeated")
      ->allow_extra_args(false)
      ->check(well_formed([](const std::string &name) { return parse_targets({name}); }));
  sub->add_option("--cuda", verb->gpus, "GPUs that the package has code for beside the processors: sm_80, sm_86, sm_89, sm_90, sm_90a, sm_100, ptx")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(well_formed(parse_gpu));
  CLI::Option *tf32 = sub->add_flag("--tf32", verb->tf32, "GPUs may round the operands of f32 products to 11 bits of mantissa");
  sub->add_flag("--fma", verb->fma, "GPUs multiply f32 by fused multiply-adds alone, not by tensor cores in two parts")->excludes(tf32);
  sub->add_option("--emit", verb->emit, "package, object (with a .h), header, c, cuda, graph, kernels, llvm or asm")
      ->check(CLI::IsMember({"package", "object", "header", "c", "cuda", "graph", "kernels", "llvm", "asm"}));
  sub->add_option("-O", verb->level, "0: one kernel an op; 1: fused; 2: with layouts (default)")->check(well_formed(parse_level));
  sub->add_option("--max-memory", verb->max_memory, "48M: a training step that needs more between its kernels computes values again instead of keeping them")
      ->check([](const std::string &text) { return parse_bytes(text) ? "" : fmt::format("'{}': write bytes, or 48M, or 1.5G", text); });
  sub->add_option("--specialise", verb->specialise, "N=1,8 or H=224,W=224: code of its own for these sizes, chosen when a run has them")
      ->allow_extra_args(false)
      ->check(well_formed([](const std::string &text) { return parse_forms({text}); }));
  sub->add_option("-j,--jobs", verb->jobs, "threads that compile")->check(CLI::Range(1, 256));
  sub->add_option("--dump-dir", verb->dump_dir, "write the graph after each pass that changed it, its constants, and the kernels here");
  sub->add_option("--stop-after", verb->stop_after, "a graph pass, lower or schedule: stop there and print what there is")->check(check_stop);
  sub->add_option("--denormals", verb->denormals, "flush (default) or keep")->check(CLI::IsMember({"flush", "keep"}));
  sub->add_option("--tune", verb->tune_seconds, "seconds to search for better schedules on this machine")->check(CLI::Range(0.0, 86400.0));
  sub->add_option("--tune-file", verb->tune_file, "schedules found before; with --tune also where to write them (default: OUTPUT.tune)");
  sub->add_option("--tune-threads", verb->tune_threads, "threads that the model runs on during the search")->check(CLI::Range(1, 1024));
  sub->add_flag("--keep-params", verb->keep_params, "parameters can be written at run time");
  sub->add_flag("--time-passes", verb->time_passes, "print the seconds that each phase took");
  sub->callback([verb, &exit_code] { exit_code = compile(*verb); });
}

} // namespace kiln
