// The `kiln` command: one file a verb.
#include "tools/cli.h"

#include <algorithm>
#include <exception>
#include <iostream>

int main(int argc, char **argv) {
  CLI::App app("Kiln compiles neural networks ahead of time: a model file goes in, native code comes out.");
  app.set_version_flag("--version", "kiln " KILN_VERSION);
  app.require_subcommand(1);
  int exit_code = kiln::kFine;
  try {
    kiln::add_compile(app, exit_code);
    kiln::add_run(app, exit_code);
    kiln::add_bench(app, exit_code);
    kiln::add_inspect(app, exit_code);
    kiln::add_check(app, exit_code);
    kiln::add_train(app, exit_code);
    kiln::add_eval(app, exit_code);
    kiln::add_opt(app, exit_code);
    if (argc > 1 && argv[1][0] != '-' && app.get_subcommands([&](CLI::App *verb) { return verb->check_name(argv[1]); }).empty()) {
      std::cerr << "kiln: error: there is no verb '" << argv[1] << "'; kiln --help lists them\n";
      return kiln::kBadUsage;
    }
    app.parse(argc, argv);
    if (!std::cout.flush()) {
      std::cerr << "kiln: error: cannot write all of standard output\n";
      return exit_code == kiln::kFine ? int(kiln::kBadInput) : exit_code;
    }
  } catch (const CLI::ParseError &error) {
    if (error.get_exit_code() == 0)
      return app.exit(error); // --help, --version
    bool json = std::any_of(argv + 1, argv + argc, [](const char *argument) { return std::string_view(argument) == "--json"; });
    kiln::report(kiln::Error{std::string(error.what()) + (json ? "" : "; --help lists the options")}, json);
    return kiln::kBadUsage;
  } catch (const std::bad_alloc &) {
    std::cerr << "kiln: error: not enough memory\n";
    return kiln::kBadInput;
  } catch (const std::exception &error) {
    std::cerr << "kiln: internal error: " << error.what() << "\n";
    return kiln::kBug;
  }
  return exit_code;
}
