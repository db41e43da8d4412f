// The stored inputs and outputs of an ONNX test case, as the arguments of the compiled model: a sequence is
// an argument for each of its tensors, and an optional that holds nothing is none (frontend/onnx/lists.h).
#pragma once

#include "frontend/onnx/import.h"
#include "ir/tensor.h"

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace kiln {

struct CaseValue {
  std::string name; // of the model's input or output
  bool is_sequence = false, is_optional = false;
  bool has_shape = true; // the model says how many dims the tensors have
  bool is_text = false; // strings, as u8 (tools/text_tensor.h)
  bool present = true;
  std::vector<Tensor> tensors;

  // The shape of a tensor as the model sees it.
  std::vector<int64_t> shape(size_t i) const {
    const std::vector<int64_t> &dims = tensors[i].dims();
    return {dims.begin(), dims.end() - (is_text ? 1 : 0)};
  }
  // "x", or "x.0", "x.1", ...
  std::string part_name(size_t i) const { return is_sequence ? name + "." + std::to_string(i) : name; }
};

struct CaseData {
  std::vector<CaseValue> inputs, outputs;
};

// The files of folder/test_data_set_<set>, by the types that the model declares.
Result<CaseData> read_case(const std::filesystem::path &folder, int set);

// What these inputs tell of the model: lengths and shapes of sequences, which optionals there are, and the
// shapes that the model leaves out.
void specialise(const std::vector<CaseValue> &inputs, OnnxOptions &options);

} // namespace kiln
