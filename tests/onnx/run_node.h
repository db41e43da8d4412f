// Runs a model of one node, and says what is wrong with one.
#pragma once

#include "tests/onnx/harness.h"

#include <set>

namespace kiln::test {

// A model of one node with the inputs x0, x1, ...; empty tensors are inputs that are left out, and those in
// `known` are initializers.
inline std::string node_model(const std::string &type, const std::vector<Tensor> &inputs,
                              const std::vector<std::string> &attributes, const Names &outputs,
                              const std::string &domain, int64_t opset, const std::set<size_t> &known) {
  GraphMaker g;
  Names names;
  for (size_t i = 0; i < inputs.size(); ++i) {
    names.push_back(inputs[i].count() ? "x" + std::to_string(i) : "");
    std::vector<TestDim> dims(inputs[i].dims().begin(), inputs[i].dims().end());
    if (known.contains(i))
      g.weight(names.back(), inputs[i]);
    else if (inputs[i].count())
      g.input(names.back(), inputs[i].dtype(), dims);
  }
  g.node(type, names, outputs, attributes, "", domain);
  for (const std::string &o : outputs)
    g.output(o);
  return g.model(opset);
}

inline std::vector<Tensor> run_node(const std::string &type, const std::vector<Tensor> &inputs,
                                    const std::vector<std::string> &attributes, const Names &outputs = {"y"},
                                    const std::string &domain = "", int64_t opset = 23,
                                    const std::set<size_t> &known = {}) {
  Imported m(node_model(type, inputs, attributes, outputs, domain, opset, known));
  std::vector<Tensor> given;
  for (size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].count() && !known.contains(i))
      given.push_back(inputs[i]);
  return m.run(given);
}

inline std::string error_of(const std::string &type, const std::vector<Tensor> &inputs,
                            const std::vector<std::string> &attributes, int64_t opset = 23,
                            const std::set<size_t> &known = {}) {
  return Imported(node_model(type, inputs, attributes, {"y"}, "", opset, known)).errors();
}

} // namespace kiln::test
