// Imports an ONNX model, runs it by the graph interpreter on stored inputs and compares with stored
// outputs. Arrays are named `in:NAME` and `out:NAME`, or `in_NAME` and `out_0`, `out_1`, ...
//
//   run_model MODEL.onnx DATA.npz... [--quantised] [--print]
//   run_model --all FOLDER    every NAME.onnx with its NAME.npz
#include "frontend/data/npz.h"
#include "frontend/onnx/import.h"
#include "ir/interpret.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>

using namespace kiln;

namespace {

double difference(const Tensor &got, const Tensor &want) {
  double scale = 1e-12, worst = 0;
  for (int64_t i = 0; i < want.count(); ++i)
    if (std::isfinite(want.at_f64(i)))
      scale = std::max(scale, std::abs(want.at_f64(i)));
  for (int64_t i = 0; i < want.count(); ++i) {
    double a = got.at_f64(i), b = want.at_f64(i);
    if (std::isnan(a) != std::isnan(b))
      return INFINITY;
    if (a != b && !std::isnan(a))
      worst = std::max(worst, std::abs(a - b) / scale);
  }
  return worst;
}

const Tensor *find(const std::vector<std::pair<std::string, Tensor>> &arrays, const std::string &name) {
  for (const auto &[key, tensor] : arrays)
    if (key == name)
      return &tensor;
  return nullptr;
}

bool check(const Module &module, const std::string &path, double limit) {
  const Function &function = module.functions.at(0);
  auto arrays = read_npz(path);
  if (!arrays) {
    std::printf("%s\n", arrays.error().message.c_str());
    return false;
  }
  std::vector<Tensor> inputs;
  for (ValueId arg : function.body.args) {
    const std::string &name = function.value(arg).name;
    const Tensor *t = find(*arrays, "in:" + name);
    t = t ? t : find(*arrays, "in_" + name);
    if (!t) {
      std::printf("%s has no input '%s'\n", path.c_str(), name.c_str());
      return false;
    }
    inputs.push_back(*t);
  }
  auto start = std::chrono::steady_clock::now();
  VariableValues variables;
  auto results = interpret(module, function, inputs, variables);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!results) {
    std::printf("%s: %s\n", path.c_str(), results.error().message.c_str());
    return false;
  }
  bool ok = true;
  for (size_t i = 0; i < results->size(); ++i) {
    const Tensor *want = find(*arrays, "out:" + function.result_names[i]);
    want = want ? want : find(*arrays, "out_" + std::to_string(i));
    const Tensor &got = (*results)[i];
    if (!want || want->dims() != got.dims() || want->dtype() != got.dtype()) {
      std::printf("%s: the result '%s' is %s, stored is %s\n", path.c_str(), function.result_names[i].c_str(),
                  got.type().text().c_str(), want ? want->type().text().c_str() : "none");
      ok = false;
      continue;
    }
    double off = difference(got, *want);
    ok &= off <= limit;
    std::printf("%s %s %s: %.1e (%.1f s)\n", off <= limit ? "ok  " : "FAIL", path.c_str(),
                function.result_names[i].c_str(), off, seconds);
  }
  return ok;
}

bool check_model(const std::string &path, const std::vector<std::string> &data, double limit, bool print) {
  Module module;
  Diagnostics diagnostics;
  bool ok = import_onnx(path, {}, module, diagnostics);
  if (ok)
    verify(module, diagnostics);
  std::printf("%s", diagnostics.render().c_str());
  if (!ok || diagnostics.has_errors())
    return false;
  if (print)
    std::printf("%s", print_module(module).c_str());
  for (const std::string &file : data)
    ok &= check(module, file, limit);
  return ok;
}

bool check_folder(const std::string &folder, double limit) {
  std::vector<std::string> models;
  for (const auto &entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".onnx")
      models.push_back(entry.path().string());
  std::sort(models.begin(), models.end());
  bool ok = !models.empty();
  for (const std::string &model : models)
    ok &= check_model(model, {std::filesystem::path(model).replace_extension(".npz").string()}, limit, false);
  return ok;
}

} // namespace

int main(int argc, char **argv) {
  std::vector<std::string> files;
  bool print = false, all = false;
  double limit = 1e-3;
  for (int i = 1; i < argc; ++i) {
    std::string arg = argv[i];
    if (arg == "--print")
      print = true;
    else if (arg == "--all")
      all = true;
    else if (arg == "--quantised")
      limit = 0.05;
    else
      files.push_back(arg);
  }
  if (files.empty() || (all && files.size() > 1)) {
    std::printf("usage: run_model MODEL.onnx DATA.npz... [--quantised] [--print]\n       run_model --all FOLDER\n");
    return 2;
  }
  bool ok = all ? check_folder(files[0], limit) : check_model(files[0], {files.begin() + 1, files.end()}, limit, print);
  return ok ? 0 : 1;
}
