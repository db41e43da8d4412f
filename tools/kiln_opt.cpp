// kiln-opt: graphs in, passes over them, graphs out; kernels likewise. What the text tests drive; it links
// no code generator.
//
//     kiln-opt FILE.kir --passes fold,dce -o -
//     kiln-opt FILE.kernels --kernel-passes schedule --target x86-64-v4
//     kiln-opt FILE.kir --verify-diagnostics     errors are those that comments on their lines expect
#include "tools/optimise.h"

#include <CLI/CLI.hpp>

int main(int argc, char **argv) {
  kiln::OptOptions options;
  CLI::App app("Reads a graph or kernels, runs passes over them, prints them.");
  options.add_to(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return kiln::run_opt(options);
}
