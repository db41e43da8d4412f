// Real models, compiled and run, against stored outputs of another engine; and against the interpreter
// where nothing is stored.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "codegen/compile.h"
#include "frontend/data/npz.h"
#include "frontend/onnx/import.h"
#include "ir/interpret.h"
#include "tools/session.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <iostream>

using namespace kiln;
namespace fs = std::filesystem;

namespace {

using Named = std::vector<std::pair<std::string, Tensor>>;

struct Loaded {
  Module module;
  Compiled compiled;
  std::shared_ptr<void> memory;
  std::span<const std::byte> bytes;
};

std::string compile(const std::string &path, OptLevel level, const MachineDesc &machine, Loaded &out) {
  Diagnostics diagnostics;
  CompileOptions options;
  options.machines = {machine};
  options.level = level;
  options.jobs = 2;
  if (!import_onnx(path, {}, out.module, diagnostics) ||
      !compile_module(out.module, options, out.compiled, diagnostics))
    return diagnostics.render();
  std::vector<uint8_t> bytes;
  if (std::string error = build_package(package_spec(out.module, out.compiled), bytes); !error.empty())
    return error;
  out.memory.reset(std::aligned_alloc(4096, (bytes.size() + 4096) / 4096 * 4096), std::free);
  std::memcpy(out.memory.get(), bytes.data(), bytes.size());
  out.bytes = {static_cast<const std::byte *>(out.memory.get()), bytes.size()};
  return "";
}

// The largest difference over the largest magnitude; infinite where shapes or NaNs differ.
double difference(const Tensor &got, const Tensor &want) {
  if (got.dims() != want.dims() || got.dtype() != want.dtype())
    return INFINITY;
  double scale = 1e-12, worst = 0;
  for (int64_t i = 0; i < want.count(); ++i)
    scale = std::max(scale, std::abs(want.at_f64(i)));
  for (int64_t i = 0; i < want.count(); ++i) {
    double d = std::abs(got.at_f64(i) - want.at_f64(i));
    worst = std::isnan(d) && !(std::isnan(got.at_f64(i)) && std::isnan(want.at_f64(i))) ? INFINITY : std::max(worst, std::isnan(d) ? 0 : d);
  }
  return worst / scale;
}

std::string run(const Loaded &model, const Named &inputs, int threads, std::vector<Tensor> &outputs,
                std::vector<std::string> &names) {
  SessionOptions options;
  options.threads = threads;
  auto session = Session::open(model.bytes, options);
  if (!session)
    return session.error().message;
  Named copy = inputs;
  if (auto status = session->bind(std::move(copy)); !status)
    return status.error().message;
  if (auto status = session->run(); !status)
    return status.error().message;
  names = session->output_names();
  outputs = session->outputs();
  return "";
}

} // namespace

TEST_CASE("real models give the outputs that are stored beside them") {
  const char *names[] = {"digits_cntk", "cifar_net", "resnet20_cifar10", "squeezenet", "super_resolution", "style_mosaic",
                         "ultraface_rfb", "fastestdet", "yunet_dynamic", "visual_wake_words", "keyword_spotting",
                         "iris_mlp", "keras_mlp", "vit_digits", "bert_toy_optimized"};
  if (!fs::exists(KILN_MODELS)) {
    std::cout << "no models in " KILN_MODELS ": only the repository's own are tested\n";
    return;
  }
  for (std::string name : names) {
    INFO(name);
    Loaded model;
    REQUIRE(compile(std::string(KILN_MODELS "/") + name + ".onnx", OptLevel::o2, host_machine(), model) == "");
    for (std::string data : {name + ".npz", name + ".2.npz"}) {
      if (!fs::exists(std::string(KILN_MODELS "/") + data))
        continue;
      auto arrays = read_npz(std::string(KILN_MODELS "/") + data);
      REQUIRE(arrays.ok());
      Named inputs, wants;
      for (auto &[key, tensor] : *arrays)
        (key.starts_with("in:") ? inputs : wants).emplace_back(key.substr(key.find(':') + 1), tensor);
      std::vector<Tensor> first, outputs;
      std::vector<std::string> output_names;
      REQUIRE(run(model, inputs, 1, first, output_names) == "");
      for (auto &[key, want] : wants)
        for (size_t i = 0; i < output_names.size(); ++i)
          if (output_names[i] == key) {
            INFO(data << " " << key);
            CHECK(difference(first[i], want) <= 1e-3);
          }
      // The same bits for any number of threads.
      for (int threads : {2, 3, 4}) {
        REQUIRE(run(model, inputs, threads, outputs, output_names) == "");
        for (size_t i = 0; i < first.size(); ++i)
          CHECK(std::memcmp(first[i].bytes().data(), outputs[i].bytes().data(), first[i].bytes().size()) == 0);
      }
    }
  }
}

TEST_CASE("every level computes what the interpreter does") {
  std::string path = KILN_EXAMPLES "/squeezenet/squeezenet.onnx";
  Module reference;
  Diagnostics diagnostics;
  REQUIRE(import_onnx(path, {}, reference, diagnostics));
  Tensor x(DType::f32, {1, 3, 224, 224});
  for (int64_t i = 0; i < x.count(); ++i)
    x.set_f64(i, double((i * 2654435761u >> 7) % 256) - 128);
  VariableValues variables;
  std::vector<Tensor> inputs{x};
  auto want = interpret(reference, reference.functions[0], inputs, variables);
  REQUIRE(want.ok());
  for (const MachineDesc &machine : cpu_machines()) {
    if (!runs_here(machine))
      continue;
    for (OptLevel level : {OptLevel::o0, OptLevel::o1, OptLevel::o2}) {
      INFO(machine.name << " -O" << int(level));
      Loaded model;
      REQUIRE(compile(path, level, machine, model) == "");
      std::vector<Tensor> outputs;
      std::vector<std::string> names;
      REQUIRE(run(model, {{"data_0", x}}, 1, outputs, names) == "");
      CHECK(difference(outputs[0], (*want)[0]) <= 1e-4);
    }
  }
}
