#include "tools/optimise.h"

#include "codegen/machine.h"
#include "frontend/files/file_writer.h"
#include "frontend/kir/kir.h"
#include "passes/kernel/schedule.h"
#include "passes/pass_manager.h"
#include "tools/usage.h"
#include "tools/verify_diagnostics.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iostream>

namespace kiln {
namespace {

Status parse_dim(const std::string &text, KirOptions &kir) {
  size_t equals = std::min(text.find('='), text.size());
  int64_t value = 0;
  const char *begin = text.data() + std::min(equals + 1, text.size()), *end = text.data() + text.size();
  auto [stop, code] = std::from_chars(begin, end, value);
  if (equals == 0 || code != std::errc() || stop != end || value < 0)
    return Error{"'" + text + "': write NAME=SIZE"};
  kir.dims[text.substr(0, equals)] = value;
  return Unit{};
}

// parse(print(m)) == m and print(parse(print(m))) == print(m).
bool check_round_trip(const Module &module, Diagnostics &diagnostics) {
  KirOptions options;
  for (const Constant &c : module.constants)
    options.weights.emplace(c.name, c.tensor);
  options.strict_weights = false;
  constexpr int64_t kEverything = INT64_MAX;
  std::string text = print_module(module, kEverything);
  Module again;
  Diagnostics found;
  Location whole{Symbol("round-trip"), 0, 0, {}};
  if (!load_kir("round-trip", text, options, again, found)) {
    diagnostics.error(whole, "the printed module does not parse:\n" + found.render());
    return false;
  }
  if (std::string difference = first_difference(module, again); !difference.empty()) {
    diagnostics.error(whole, "the printed module parses to another: " + difference + "\n" + text);
    return false;
  }
  auto without_comments = [](std::string t) {
    std::string out;
    for (size_t at = 0; at < t.size();) {
      size_t end = std::min(t.find('\n', at), t.size());
      std::string line = t.substr(at, end - at);
      out += line.substr(0, line.find("   // ")) + "\n";
      at = end + 1;
    }
    return out;
  };
  if (without_comments(print_module(again, kEverything)) != without_comments(text)) {
    diagnostics.error(whole, "the printed module prints differently after parsing");
    return false;
  }
  return true;
}

using KernelPass = bool (*)(Kernel &, const MachineDesc &);
struct KernelPassInfo {
  std::string_view name;
  KernelPass run;
};
constexpr KernelPassInfo kKernelPasses[] = {
    {"simplify-kernel", [](Kernel &k, const MachineDesc &) { return simplify_kernel(k); }},
    {"collapse-loops", [](Kernel &k, const MachineDesc &) { return collapse_loops(k); }},
    {"dot-products", dot_products},
    {"tile-contraction", [](Kernel &k, const MachineDesc &m) { return tile_contraction(k, m); }},
    {"transpose-tiles", transpose_tiles},
    {"vectorise", vectorise},
    {"parallelise", parallelise},
    {"expand-narrow", [](Kernel &kernel, const MachineDesc &) { return expand_narrow(kernel); }},
    {"expand-math", expand_math},
    {"schedule", [](Kernel &k, const MachineDesc &m) { return schedule(k, m), true; }},
};

Result<std::vector<const KernelPassInfo *>> parse_kernel_passes(std::string_view list) {
  std::vector<const KernelPassInfo *> passes;
  while (!list.empty()) {
    std::string_view name = list.substr(0, list.find(','));
    list.remove_prefix(std::min(name.size() + 1, list.size()));
    auto pass = std::find_if(std::begin(kKernelPasses), std::end(kKernelPasses), [&](const auto &p) { return p.name == name; });
    if (pass == std::end(kKernelPasses)) {
      std::string known;
      for (const auto &p : kKernelPasses)
        known += (known.empty() ? "" : ", ") + std::string(p.name);
      return Error{"no kernel pass is named '" + std::string(name) + "'; there are: " + known};
    }
    passes.push_back(pass);
  }
  return passes;
}

// A dump of kernels: the same, after the passes.
void run_kernels(const OptOptions &options, std::string_view text, std::string &out, Diagnostics &diagnostics) {
  Location whole{Symbol(options.input), 0, 0, {}};
  auto machine = find_machine(options.target);
  auto kernels = parse_kernels(text);
  if (!kernels) {
    diagnostics.error(whole, kernels.error().message);
    return;
  }
  std::vector<const KernelPassInfo *> passes = *parse_kernel_passes(options.kernel_passes);
  for (Kernel &kernel : *kernels) {
    if (auto status = verify_kernel(kernel); !status) {
      diagnostics.error(whole, "kernel '" + kernel.name + "': " + status.error().message);
      return;
    }
    for (const KernelPassInfo *pass : passes) {
      pass->run(kernel, *machine);
      auto status = verify_kernel(kernel);
      KILN_CHECK(status.ok(), "after " + std::string(pass->name) + ": " + (status.ok() ? "" : status.error().message));
    }
    out += print_kernel(kernel) + "\n";
  }
}

bool is_kernel_text(std::string_view text) {
  while (!text.empty()) {
    size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    line.remove_prefix(std::min(line.find_first_not_of(" \t\r"), line.size()));
    if (!line.empty() && !line.starts_with("//"))
      return line.starts_with("kernel ");
  }
  return false;
}

void run(const OptOptions &options, std::string_view text, std::string &out, Diagnostics &diagnostics) {
  KirOptions kir;
  for (const std::string &d : options.dims)
    (void)parse_dim(d, kir);
  Module module;
  std::string name = options.input == "-" ? "<stdin>" : options.input;
  if (!load_kir(name, text, kir, module, diagnostics))
    return;
  verify(module, diagnostics);
  if (diagnostics.has_errors())
    return;
  if (options.round_trip && !check_round_trip(module, diagnostics))
    return;
  auto passes = parse_pass_list(options.passes);
  PassContext context(diagnostics);
  context.flags.keep_params = options.keep_params;
  context.flags.weights = dtype_from_name(options.compress_weights).value_or(DType::f32);
  context.flags.winograd = Winograd::automatic;
  PassManager manager(context, {options.verify_each, "", ""});
  for (std::string_view pass : *passes)
    if (!manager.run(module, pass))
      return;
  if (options.round_trip && !passes->empty() && !check_round_trip(module, diagnostics))
    return;
  out = print_module(module, options.inline_limit);
}

} // namespace

void OptOptions::add_to(CLI::App &app) {
  app.add_option("file", input, ".kir file, a dump of kernels, or - for standard input")->required();
  app.add_option("--passes", passes, "passes over the graph to run, separated by commas")->check(well_formed(parse_pass_list));
  app.add_option("--kernel-passes", kernel_passes, "passes over kernels to run, separated by commas")->check(well_formed(parse_kernel_passes));
  app.add_option("--target", target, "the machine that kernel passes schedule for (default: host)")
      ->check([](const std::string &name) {
        return find_machine(name) ? "" : "'" + name + "': unknown target; try host, x86-64-v2, x86-64-v3, x86-64-v4 or aarch64";
      });
  app.add_option("-o,--output", output, "where to print; - for standard output");
  app.add_option("--dim", dims, "N=64: makes a symbolic dim a number")
      ->allow_extra_args(false)
      ->check(well_formed([](const std::string &text) { KirOptions ignored; return parse_dim(text, ignored); }));
  app.add_option("--inline-limit", inline_limit, "elements of a constant that is printed in full");
  app.add_flag("--verify-diagnostics", verify_diagnostics,
               "expect exactly the errors of `// expected-error@+0 {{text}}` comments");
  app.add_flag("--round-trip", round_trip, "check that printing and parsing give the same graph");
  app.add_flag("--verify-each", verify_each, "verify after every pass");
  app.add_flag("--keep-params", keep_params, "parameters stay writable");
  app.add_option("--compress-weights", compress_weights, "bf16, f16 or i8")->check(CLI::IsMember({"bf16", "f16", "i8"}));
  app.add_flag("--json", json, "errors as JSON");
}

int run_opt(const OptOptions &options) {
  std::string text;
  if (options.input == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else {
    std::ifstream file(options.input, std::ios::binary);
    if (file && file.peek() != std::ifstream::traits_type::eof())
      text.assign(std::istreambuf_iterator<char>(file), {});
    if (!file.good() && !file.eof()) {
      std::cerr << "kiln: error: cannot read '" << options.input << "'\n";
      return 1;
    }
  }
  Diagnostics diagnostics;
  std::string out;
  if (is_kernel_text(text))
    run_kernels(options, text, out, diagnostics);
  else
    run(options, text, out, diagnostics);
  if (options.verify_diagnostics) {
    std::string problems = check_expected(text, diagnostics);
    std::cerr << problems;
    return problems.empty() ? 0 : 1;
  }
  std::cerr << (!options.json ? diagnostics.render() : diagnostics.all().empty() ? "" : diagnostics.render_json() + "\n");
  if (diagnostics.has_errors())
    return 1;
  if (options.output == "-") {
    std::cout << out;
    return 0;
  }
  if (auto status = write_file(options.output, out); !status) {
    std::cerr << "kiln: error: " << status.error().message << "\n";
    return 1;
  }
  return 0;
}

} // namespace kiln
