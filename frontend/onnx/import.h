// Imports ONNX models. The module gets one exported function, "main", whose arguments and results carry
// the model's names; initializers become constants that view the mapped file. Sizes that the file leaves
// open become symbols: its dim_params, or `input_d0` for the first dim of `input`.
//
// Opsets 1 to 28. The file is not trusted: whatever is wrong with it is a diagnostic that names the node
// ("Conv#17" where it has no name), all of them at once, unsupported operators first.
#pragma once

#include "ir/graph.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace kiln {

// A sequence or an optional that a model takes: --shape 'x=[2x3,4x3]', x=none.
struct OnnxList {
  bool absent = false; // an optional that is left out
  bool is_list = true; // false: an optional tensor, in items[0]
  std::vector<std::optional<std::vector<int64_t>>> items; // the shape of each; nothing: as the model declares
};

struct OnnxOptions {
  std::map<std::string, Dim> dims; // symbol -> its value: --dim N=4
  std::map<std::string, std::vector<int64_t>> shapes; // input -> its sizes: --shape x=1x3x224x224
  std::map<std::string, OnnxList> lists; // input -> what it is made of
  // Inputs that are constants of the compiled model, not arguments: a shape, axes, a scale that the
  // model takes as an input but that must be known to compile it.
  std::map<std::string, Tensor> constants;
  // For a model that becomes a part of another program.
  std::map<std::string, Shape> placed; // input -> the sizes that it has there, instead of those it declares
  std::vector<std::string> results;    // names of any values within, instead of the outputs; what they do not need is left out
  std::set<std::string> *weights = nullptr; // filled with the names of the initializers
};

// False where there were errors. The module keeps the mapped file alive.
bool import_onnx(const std::string &path, const OnnxOptions &options, Module &module,
                 Diagnostics &diagnostics);

// The same from memory, which must outlive the module; `name` stands in diagnostics. A model that
// refers to other files is refused.
bool import_onnx(std::span<const std::byte> bytes, const std::string &name,
                 const OnnxOptions &options, Module &module, Diagnostics &diagnostics);

} // namespace kiln
