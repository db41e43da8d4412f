#include "tools/case_values.h"

#include "frontend/files/mapped_file.h"
#include "frontend/onnx/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace kiln {
namespace {

namespace fs = std::filesystem;

std::string_view text_of(const MappedFile &file) {
  return {reinterpret_cast<const char *>(file.bytes().data()), file.size()};
}

Result<CaseValue> read_value(const fs::path &path, const onnx::ValueInfoView *declared) {
  KILN_TRY(file, MappedFile::open(path.string()));
  onnx::WireBudget budget;
  onnx::ExternalFiles files(std::nullopt);
  CaseValue out;
  if (declared) {
    out.is_sequence = declared->is_sequence;
    out.is_optional = declared->is_optional;
    out.has_shape = declared->has_shape;
  }
  KILN_TRY(stored, onnx::read_stored(text_of(*file), out.is_sequence, out.is_optional, budget));
  out.name = stored.name;
  out.present = stored.present;
  for (const onnx::TensorView &view : stored.tensors) {
    out.is_text = view.data_type == onnx::kStringType;
    KILN_TRY(tensor, out.is_text ? onnx::make_text(view) : onnx::make_tensor(view, files));
    Tensor copy(tensor.dtype(), tensor.dims()); // the mapping goes away
    std::copy(tensor.bytes().begin(), tensor.bytes().end(), copy.mutable_bytes());
    out.tensors.push_back(std::move(copy));
  }
  return out;
}

Result<std::vector<CaseValue>> read_values(const fs::path &data, std::string_view kind,
                                           const std::vector<const onnx::ValueInfoView *> &declared) {
  std::vector<CaseValue> out;
  for (size_t i = 0; fs::exists(data / fmt::format("{}_{}.pb", kind, i)); ++i) {
    KILN_TRY(value, read_value(data / fmt::format("{}_{}.pb", kind, i), i < declared.size() ? declared[i] : nullptr));
    if (value.name.empty() && i < declared.size())
      value.name = std::string(declared[i]->name);
    out.push_back(std::move(value));
  }
  return out;
}

} // namespace

Result<CaseData> read_case(const fs::path &folder, int set) {
  KILN_TRY(file, MappedFile::open((folder / "model.onnx").string()));
  onnx::WireBudget budget;
  KILN_TRY(model, onnx::read_model(text_of(*file), budget));
  std::set<std::string_view> constants;
  for (const onnx::TensorView &view : model.graph.initializers)
    constants.insert(view.name);
  std::vector<const onnx::ValueInfoView *> inputs, outputs;
  for (const onnx::ValueInfoView &input : model.graph.inputs)
    if (!constants.contains(input.name))
      inputs.push_back(&input);
  for (const onnx::ValueInfoView &output : model.graph.outputs)
    outputs.push_back(&output);
  fs::path data = folder / fmt::format("test_data_set_{}", set);
  CaseData out;
  KILN_TRY(given, read_values(data, "input", inputs));
  KILN_TRY(wanted, read_values(data, "output", outputs));
  out.inputs = std::move(given);
  out.outputs = std::move(wanted);
  return out;
}

void specialise(const std::vector<CaseValue> &inputs, OnnxOptions &options) {
  for (const CaseValue &input : inputs) {
    if (!input.is_sequence && !input.is_optional) {
      if (!input.has_shape && input.tensors.size() == 1)
        options.shapes[input.name] = input.shape(0);
      continue;
    }
    OnnxList list;
    list.absent = !input.present;
    list.is_list = input.is_sequence;
    for (size_t i = 0; i < input.tensors.size(); ++i)
      list.items.emplace_back(input.shape(i));
    options.lists[input.name] = std::move(list);
  }
}

} // namespace kiln
