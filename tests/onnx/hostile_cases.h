// Malformed ONNX files, by family: what each is, and what must be said of it. hostile_files.cpp gives every
// one of them to the `kiln` command.
#pragma once

#include "tests/onnx/model_maker.h"

#include <filesystem>
#include <functional>
#include <memory>

namespace kiln::test {

struct HostileCase {
  std::string name;
  std::string model;  // the file's bytes
  std::string expect; // words that what is said must hold: the place, or what is wrong with the file
  bool may_compile = false; // sound, only large or odd: it compiles, or is refused with those words
  std::function<void(const std::filesystem::path &folder)> files = nullptr; // what lies beside it
};

using HostileCases = std::vector<HostileCase>;

// The name of the node that is wrong in most cases.
inline const std::string kBad = "bad_node";

void add_wire_cases(HostileCases &cases);     // bytes that are no model, sizes, varints, nesting
void add_tensor_cases(HostileCases &cases);   // initializers, external data, types
void add_graph_cases(HostileCases &cases);    // names, order, arity, functions, subgraphs
void add_node_cases(HostileCases &cases);     // attributes and shapes of operators
void add_size_cases(HostileCases &cases);     // sizes that multiply, constants that explode
void add_operator_cases(HostileCases &cases); // every operator of the table with wrong operands

// -- a model around one node, which computes `y` of the inputs and weights given before

class NodeModel {
public:
  explicit NodeModel(std::string name, int64_t opset = 17) : name_(std::move(name)), opset_(opset) {}
  NodeModel &input(const std::string &value, DType dtype, const std::vector<TestDim> &dims) {
    graph_->input(value, dtype, dims);
    names_.push_back(value);
    return *this;
  }
  NodeModel &weight(const std::string &value, const Tensor &t) {
    graph_->weight(value, t);
    names_.push_back(value);
    return *this;
  }
  HostileCase node(const std::string &type, const std::vector<std::string> &attributes = {}, const std::string &expect = kBad,
                   const std::string &domain = "") {
    graph_->node(type, names_, {"y"}, attributes, kBad, domain).output("y");
    return {name_, graph_->model(opset_, domain.empty() ? "" : opset_import(domain)), expect};
  }
  static std::string opset_import(const std::string &domain, int64_t version = 1) {
    std::string set, out;
    pbf_writer s(set);
    s.add_string(1, domain), s.add_int64(2, version);
    pbf_writer(out).add_message(8, set);
    return out;
  }

private:
  std::string name_;
  int64_t opset_;
  std::shared_ptr<GraphMaker> graph_ = std::make_shared<GraphMaker>();
  Names names_;
};

} // namespace kiln::test
