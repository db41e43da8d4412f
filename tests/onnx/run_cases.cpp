// Runs folders of ONNX test cases (model.onnx, test_data_set_N/input_I.pb and output_I.pb, tolerance.json)
// by the importer and the graph interpreter; a line for each case that does not pass, and a table.
//
//   run_cases [--skip-unsupported] FOLDER...
//
// With --skip-unsupported a model that uses operators Kiln lacks counts as skipped, not as failed.
#include "frontend/files/mapped_file.h"
#include "frontend/onnx/import.h"
#include "frontend/onnx/tensors.h"
#include "ir/interpret.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>

using namespace kiln;
namespace fs = std::filesystem;

namespace {

enum class Outcome { passed, failed, unsupported };
struct Report {
  Outcome outcome = Outcome::passed;
  std::string why;
};

Report failed(std::string why) { return {Outcome::failed, std::move(why)}; }

Result<std::pair<std::string, Tensor>> read_pb(const fs::path &path) {
  KILN_TRY(file, MappedFile::open(path.string()));
  onnx::WireBudget budget;
  onnx::ExternalFiles files(std::nullopt);
  std::string_view bytes(reinterpret_cast<const char *>(file->bytes().data()), file->size());
  KILN_TRY(view, onnx::read_tensor(bytes, budget));
  KILN_TRY(tensor, onnx::make_tensor(view, files));
  // A copy: the mapping goes away.
  Tensor out(tensor.dtype(), tensor.dims());
  std::copy(tensor.bytes().begin(), tensor.bytes().end(), out.mutable_bytes());
  return std::pair(std::string(view.name), std::move(out));
}

// The numbers of a file such as {"rtol": 0.001, "atol": 1e-07}.
double tolerance(const fs::path &folder, const std::string &key, double otherwise) {
  auto file = MappedFile::open((folder / "tolerance.json").string());
  if (!file)
    return otherwise;
  std::string text(reinterpret_cast<const char *>((*file)->bytes().data()), (*file)->size());
  size_t at = text.find("\"" + key + "\":");
  return at == std::string::npos ? otherwise : std::strtod(text.c_str() + at + key.size() + 3, nullptr);
}

bool close(const Tensor &got, const Tensor &want, double rtol, double atol, std::string &why) {
  if (got.dtype() != want.dtype() || got.dims() != want.dims()) {
    why = "is " + got.type().text() + ", not " + want.type().text();
    return false;
  }
  for (int64_t i = 0; i < got.count(); ++i) {
    bool exact = !holds_floats(got.dtype());
    double a = exact ? double(got.at_i64(i)) : got.at_f64(i), b = exact ? double(want.at_i64(i)) : want.at_f64(i);
    bool same = exact ? got.at_i64(i) == want.at_i64(i)
                      : (std::isnan(a) && std::isnan(b)) || a == b || std::abs(a - b) <= atol + rtol * std::abs(b);
    if (!same) {
      why = "element " + std::to_string(i) + " is " + std::to_string(a) + ", not " + std::to_string(b);
      return false;
    }
  }
  return true;
}

using Arrays = std::vector<std::pair<std::string, Tensor>>;

Result<Arrays> read_inputs(const fs::path &data) {
  Arrays out;
  for (int i = 0; fs::exists(data / ("input_" + std::to_string(i) + ".pb")); ++i) {
    KILN_TRY(tensor, read_pb(data / ("input_" + std::to_string(i) + ".pb")));
    out.push_back(std::move(tensor));
  }
  return out;
}

Report run_data(const Module &module, const fs::path &folder, const fs::path &data) {
  const Function &function = module.functions.at(0);
  auto arrays = read_inputs(data);
  if (!arrays)
    return failed(arrays.error().message);
  std::vector<Tensor> inputs;
  // By name, or in order where the files do not name them.
  for (size_t i = 0; i < function.body.args.size(); ++i)
    for (size_t k = 0; k < arrays->size(); ++k) {
      const auto &[name, tensor] = (*arrays)[k];
      if (name.empty() ? i == k : name == function.value(function.body.args[i]).name)
        inputs.push_back(tensor);
    }
  if (inputs.size() != function.body.args.size())
    return failed("the case lacks an input");
  VariableValues variables;
  auto results = interpret(module, function, inputs, variables);
  if (!results)
    return failed(results.error().message);
  double rtol = tolerance(folder, "rtol", 1e-3), atol = tolerance(folder, "atol", 1e-7);
  for (size_t i = 0; i < results->size(); ++i) {
    auto want = read_pb(data / ("output_" + std::to_string(i) + ".pb"));
    if (!want)
      return failed(want.error().message);
    std::string why;
    if (!close((*results)[i], want->second, rtol, atol, why))
      return failed("output " + std::to_string(i) + " " + why);
  }
  return {};
}

Report run_case(const fs::path &folder) {
  Module module;
  Diagnostics diagnostics;
  OnnxOptions options;
  std::string path = (folder / "model.onnx").string();
  bool ok = import_onnx(path, options, module, diagnostics);
  // Cases pass shapes, axes and the like as inputs: once more with those fixed.
  if (!ok && fs::exists(folder / "test_data_set_0")) {
    if (auto arrays = read_inputs(folder / "test_data_set_0"))
      for (auto &[name, tensor] : *arrays)
        if (tensor.rank() <= 1)
          options.constants.emplace(name, tensor);
    Module again;
    Diagnostics said;
    if (import_onnx(path, options, again, said)) {
      module = std::move(again);
      ok = true;
    } else if (diagnostics.all()[0].message.find("compile time") != std::string::npos) {
      diagnostics = said;
    }
  }
  if (!ok) {
    std::string text = diagnostics.all().empty() ? "" : diagnostics.all()[0].message;
    bool lacks = text.find("is not supported") != std::string::npos;
    return {lacks ? Outcome::unsupported : Outcome::failed, text};
  }
  Diagnostics broken;
  verify(module, broken);
  if (broken.has_errors())
    return failed("verify: " + broken.all()[0].message);
  for (int i = 0; fs::exists(folder / ("test_data_set_" + std::to_string(i))); ++i)
    if (Report r = run_data(module, folder, folder / ("test_data_set_" + std::to_string(i))); r.outcome != Outcome::passed)
      return r;
  return {};
}

} // namespace

int main(int argc, char **argv) {
  bool skip = false;
  int counts[3] = {0, 0, 0};
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--skip-unsupported") {
      skip = true;
      continue;
    }
    std::vector<fs::path> folders;
    for (const auto &entry : fs::directory_iterator(argv[i]))
      if (fs::exists(entry.path() / "model.onnx"))
        folders.push_back(entry.path());
    std::sort(folders.begin(), folders.end());
    for (const fs::path &folder : folders) {
      Report r = run_case(folder);
      ++counts[int(r.outcome)];
      if (r.outcome != Outcome::passed)
        std::printf("%s %s: %s\n", r.outcome == Outcome::failed ? "FAIL" : "lack",
                    folder.filename().c_str(), r.why.c_str());
      std::fflush(stdout);
    }
  }
  std::printf("%d passed, %d failed, %d unsupported\n", counts[0], counts[1], counts[2]);
  return counts[1] > 0 || (counts[2] > 0 && !skip) || counts[0] == 0 ? 1 : 0;
}
