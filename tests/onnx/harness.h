// Imports test models and runs them by the graph interpreter.
#pragma once

#include "frontend/onnx/import.h"
#include "ir/interpret.h"
#include "tests/onnx/model_maker.h"

#include <catch2/catch.hpp>

namespace kiln::test {

struct Imported {
  std::string bytes; // constants may be views of these
  Module module;
  Diagnostics diagnostics;
  bool ok = false;

  explicit Imported(std::string model, const OnnxOptions &options = {}) : bytes(std::move(model)) {
    ok = import_onnx(std::as_bytes(std::span(bytes)), "test.onnx", options, module, diagnostics);
  }
  Imported(const Imported &) = delete;

  const Function &main() const { return module.functions.at(0); }
  // All messages and notes in one text.
  std::string errors() const { return diagnostics.render(); }
  TensorType result_type(size_t i = 0) const { return main().type(main().body.results.at(i)); }
  // The names of the ops, constants left out.
  std::vector<Op> ops() const {
    std::vector<Op> out;
    for (NodeId id : main().body.nodes)
      if (main().node(id).op != Op::constant)
        out.push_back(main().node(id).op);
    return out;
  }
  std::vector<Tensor> run(const std::vector<Tensor> &inputs) const {
    INFO(errors());
    REQUIRE(ok);
    VariableValues variables;
    auto results = interpret(module, main(), inputs, variables);
    INFO((results ? "" : results.error().message));
    REQUIRE(results.ok());
    return *results;
  }
};

inline std::vector<double> values(const Tensor &t) {
  std::vector<double> out;
  for (int64_t i = 0; i < t.count(); ++i)
    out.push_back(t.at_f64(i));
  return out;
}

inline void check_near(const Tensor &got, const std::vector<double> &want, double tolerance = 1e-6) {
  std::vector<double> numbers = values(got);
  REQUIRE(numbers.size() == want.size());
  for (size_t i = 0; i < want.size(); ++i)
    CHECK(numbers[i] == Approx(want[i]).margin(tolerance));
}

} // namespace kiln::test
