// The language: a .kir file to a graph. People's programs and the compiler's own dumps go through the
// same lexer, parser and elaborator; docs/language.md describes the language.
#pragma once

#include "ir/graph.h"

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace kiln {

// `import "base.onnx" as base`: what is read of a model file.
struct ModelRequest {
  std::string name, file;              // "base", "base.onnx"
  std::map<std::string, Shape> shapes; // of the inputs, where the program gives other sizes than the file
  std::vector<std::string> results;    // values within the model that are wanted instead of its outputs
  std::set<std::string> *weights;      // filled with the names of its weights, which are constants of that name
};

struct KirOptions {
  // Symbolic dims that become numbers everywhere: {"N", 64}.
  std::map<std::string, int64_t> dims;
  // Values of params, states and constant("name"), by name. Views must outlive the module (keep whatever
  // they look into in Module::keep_alive).
  std::map<std::string, Tensor> weights;
  // Where weights are given: every param without a value, and every weight that nothing uses, is an error.
  // Without weights, params wait for `init` or for the caller's values.
  bool strict_weights = true;
  // Text of `import name` where no library of that name is built in; nothing if there is no such file.
  std::function<std::optional<std::string>(std::string_view)> read_import;
  // Reads a model file into an empty module, as one exported function.
  std::function<bool(const ModelRequest &, Module &, Diagnostics &)> import_model;
  // Models whose calls are as if by remat(): their values are computed again for gradients. And, if not null, filled with those that have modules of
  // their own and are called: what can stand in `remat`.
  std::set<std::string> remat;
  std::set<std::string> *called = nullptr;
  // Makes display(x) a function: a tensor, or a list of tensors, is what it gives; anything else goes here, as text.
  std::function<void(std::string)> display;
};

// Appends to an empty module. False where errors were reported; then the module is not to be used.
bool load_kir(std::string_view file_name, std::string_view text, const KirOptions &options,
              Module &module, Diagnostics &diagnostics);

// The same graph: functions, nodes, types, attributes, layouts, names, variables, constants by value.
// What differs first, in words; empty where nothing does. Locations and unnamed values' names do not count.
std::string first_difference(const Module &a, const Module &b);

} // namespace kiln
