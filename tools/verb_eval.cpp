// kiln eval 'rand(3, 2) @ ones(2, 4)' prints a tensor; kiln repl reads lines and keeps what they define. Both by the interpreter.
#include "tools/cli.h"
#include "tools/scratch.h"

#include <fmt/format.h>

#include <iostream>
#include <unistd.h>

namespace kiln {
namespace {

struct EvalOptions {
  std::string text;
  int64_t seed = 0;
};

int eval(const EvalOptions &options) {
  Diagnostics diagnostics;
  std::string shown;
  if (!Scratch(options.seed).add(options.text, shown, diagnostics))
    return report(diagnostics, false);
  std::cout << shown;
  return kFine;
}

int repl(const EvalOptions &options) {
  Scratch scratch(options.seed);
  bool terminal = isatty(STDIN_FILENO);
  auto prompt = [&](const char *text) {
    if (terminal)
      std::cout << text << std::flush;
  };
  if (terminal)
    std::cout << "Expressions and statements of the language, one after the other; Ctrl-D ends.\n";
  bool failed = false;
  std::string text, line;
  prompt("> ");
  while (std::getline(std::cin, line)) {
    text += (text.empty() ? "" : "\n") + line;
    if (!Scratch::complete(text) && !line.empty()) {
      prompt("| ");
      continue;
    }
    if (text == "exit" || text == "quit")
      break;
    Diagnostics diagnostics;
    std::string shown;
    if (text.find_first_not_of(" \t\n") == std::string::npos) {
    } else if (scratch.add(text, shown, diagnostics)) {
      std::cout << shown << std::flush;
    } else {
      report(diagnostics, false);
      failed = true;
    }
    text.clear();
    prompt("> ");
  }
  if (!text.empty()) {
    std::cerr << "error: the input ends within brackets: " << text << "\n";
    failed = true;
  }
  if (terminal)
    std::cout << "\n";
  return failed && !terminal ? kBadInput : kFine;
}

} // namespace

void add_eval(CLI::App &app, int &exit_code) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App *verb = app.add_subcommand("eval", "Compute an expression of the language and print it");
  verb->add_option("text", options->text, "an expression; or statements, with ; or new lines between, and an expression")->required();
  verb->add_option("--seed", options->seed, "what rand() and initial values are made of");
  verb->callback([options, &exit_code] { exit_code = eval(*options); });

  auto lines = std::make_shared<EvalOptions>();
  CLI::App *session = app.add_subcommand("repl", "Read expressions and statements from standard input, keeping variables");
  session->add_option("--seed", lines->seed, "what rand() and initial values are made of");
  session->callback([lines, &exit_code] { exit_code = repl(*lines); });
}

} // namespace kiln
