// What `kiln opt` and kiln-opt share: text in, passes, text out. Links no code generator.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace kiln {

struct OptOptions {
  std::string input, output = "-", passes, kernel_passes, target = "host";
  std::vector<std::string> dims;
  bool verify_diagnostics = false, round_trip = false, verify_each = false, keep_params = false, json = false;
  std::string compress_weights = "f32";
  int64_t inline_limit = 16;

  void add_to(CLI::App &app);
};

int run_opt(const OptOptions &options); // the exit code

} // namespace kiln
