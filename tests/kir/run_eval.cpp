// Runs every exported function of the .kir files given, by the interpreter: each returns bools, all of which
// must hold. An exported `init(seed)` runs first.
#include "frontend/kir/kir.h"
#include "ir/interpret.h"

#include <fstream>
#include <iostream>
#include <iterator>

using namespace kiln;

namespace {

bool run_function(const Module &module, const Function &f, std::span<const Tensor> inputs, VariableValues &variables) {
  auto results = interpret(module, f, inputs, variables);
  if (!results) {
    std::cerr << f.name << ": " << results.error().message << "\n";
    return false;
  }
  bool ok = f.name == "init" || !results->empty();
  for (size_t i = 0; i < results->size(); ++i) {
    const Tensor &t = (*results)[i];
    bool holds = is_bool(t.dtype()) && t.count() == 1 && t.at_i64(0);
    if (!holds)
      std::cerr << f.name << ": result " << i << " (" << f.result_names[i] << ", " << t.type().text()
                << ") does not hold\n";
    ok &= holds;
  }
  return ok;
}

bool run_file(const char *path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  Module module;
  Diagnostics diagnostics;
  if (!load_kir(path, text, {}, module, diagnostics) || (verify(module, diagnostics), diagnostics.has_errors())) {
    std::cerr << diagnostics.render();
    return false;
  }
  auto variables = initial_variables(module);
  if (!variables) {
    std::cerr << variables.error().message << "\n";
    return false;
  }
  bool ok = true;
  std::vector<Tensor> seed{Tensor::scalar_i64(DType::u64, 42)};
  if (const Function *init = module.find_function("init"))
    ok &= run_function(module, *init, seed, *variables);
  int functions = 0;
  for (const Function &f : module.functions)
    if (f.exported && f.name != "init") {
      ++functions;
      ok &= run_function(module, f, {}, *variables);
    }
  std::cout << path << ": " << functions << " functions\n";
  return ok && functions > 0;
}

} // namespace

int main(int argc, char **argv) {
  bool ok = argc > 1;
  for (int i = 1; i < argc; ++i)
    ok &= run_file(argv[i]);
  return ok ? 0 : 1;
}
