// kiln-opt: graphs in, passes over them, graphs out. What the text tests drive; it links no code
// generator.
//
//     kiln-opt FILE.kir --passes fold,dce -o -
//     kiln-opt FILE.kir --verify-diagnostics     errors are those that comments on their lines expect
#include "frontend/kir/kir.h"
#include "passes/pass_manager.h"
#include "tools/verify_diagnostics.h"

#include <CLI/CLI.hpp>

#include <charconv>
#include <fstream>
#include <iostream>

namespace kiln {
namespace {

struct Options {
  std::string input, output = "-", passes;
  std::vector<std::string> dims;
  bool verify_diagnostics = false, round_trip = false, verify_each = false, keep_params = false;
  int64_t inline_limit = 16;
};

bool parse_dim_option(const std::string &text, KirOptions &kir) {
  size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    return false;
  int64_t value = 0;
  const char *begin = text.data() + equals + 1, *end = text.data() + text.size();
  auto [stop, code] = std::from_chars(begin, end, value);
  kir.dims[text.substr(0, equals)] = value;
  return code == std::errc() && stop == end;
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

void run(const Options &options, std::string_view text, std::string &out, Diagnostics &diagnostics) {
  KirOptions kir;
  for (const std::string &d : options.dims)
    if (!parse_dim_option(d, kir)) {
      diagnostics.error({}, "--dim " + d + ": write NAME=SIZE");
      return;
    }
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
  if (!passes) {
    diagnostics.error({}, passes.error().message);
    return;
  }
  PassContext context(diagnostics);
  context.flags.keep_params = options.keep_params;
  PassManager manager(context, {options.verify_each, "", ""});
  for (std::string_view pass : *passes)
    if (!manager.run(module, pass))
      return;
  if (options.round_trip && !passes->empty() && !check_round_trip(module, diagnostics))
    return;
  out = print_module(module, options.inline_limit);
}

int main_in(int argc, char **argv) {
  Options options;
  CLI::App app("Reads a graph, runs passes over it, prints it.");
  app.add_option("file", options.input, ".kir file, or - for standard input")->required();
  app.add_option("--passes", options.passes, "passes to run, separated by commas");
  app.add_option("-o,--output", options.output, "where to print; - for standard output");
  app.add_option("--dim", options.dims, "N=64: makes a symbolic dim a number");
  app.add_option("--inline-limit", options.inline_limit, "elements of a constant that is printed in full");
  app.add_flag("--verify-diagnostics", options.verify_diagnostics,
               "expect exactly the errors of `// expected-error@+0 {{text}}` comments");
  app.add_flag("--round-trip", options.round_trip, "check that printing and parsing give the same graph");
  app.add_flag("--verify-each", options.verify_each, "verify after every pass");
  app.add_flag("--keep-params", options.keep_params, "parameters stay writable");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  std::string text;
  if (options.input == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else {
    std::ifstream file(options.input, std::ios::binary);
    if (!file) {
      std::cerr << "kiln-opt: cannot open '" << options.input << "'\n";
      return 1;
    }
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  Diagnostics diagnostics;
  std::string out;
  run(options, text, out, diagnostics);
  if (options.verify_diagnostics) {
    std::string problems = check_expected(text, diagnostics);
    std::cerr << problems;
    return problems.empty() ? 0 : 1;
  }
  std::cerr << diagnostics.render();
  if (diagnostics.has_errors())
    return 1;
  if (options.output == "-") {
    std::cout << out;
  } else {
    std::ofstream file(options.output, std::ios::binary);
    file << out;
    if (!file.flush()) {
      std::cerr << "kiln-opt: cannot write '" << options.output << "'\n";
      return 1;
    }
  }
  return 0;
}

} // namespace
} // namespace kiln

int main(int argc, char **argv) { return kiln::main_in(argc, argv); }
