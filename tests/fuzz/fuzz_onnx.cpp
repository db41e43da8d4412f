// ONNX models from arbitrary bytes: an import gives a module that verifies, or a diagnostic.
#include "frontend/onnx/import.h"

#include <cstdio>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  kiln::Module module;
  kiln::Diagnostics diagnostics;
  bool ok = kiln::import_onnx({reinterpret_cast<const std::byte *>(data), size}, "fuzz.onnx", {}, module, diagnostics);
  if (ok == diagnostics.has_errors())
    std::abort();
  kiln::Diagnostics broken;
  if (ok)
    kiln::verify(module, broken);
  if (broken.has_errors()) {
    std::fputs(broken.render().c_str(), stderr);
    std::abort();
  }
  return 0;
}
