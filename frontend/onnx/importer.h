// Walks a model's graph and calls the handler of each node. See import.h for what it promises.
#pragma once

#include "frontend/onnx/import.h"
#include "frontend/onnx/lists.h"
#include "frontend/onnx/node.h"
#include "frontend/onnx/tensors.h"

#include <deque>
#include <functional>
#include <map>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

namespace kiln::onnx {

// The sizes that a model leaves open, and what the user said of them.
class DimTable {
public:
  DimTable(const OnnxOptions &options, Diagnostics &diagnostics, Symbol file)
      : options_(options), diagnostics_(diagnostics), file_(file) {}

  // The symbol for the width of strings; nothing where no input holds any.
  std::optional<Symbol> text_width() const { return text_width_; }

  // Types of the real inputs, or nothing where a diagnostic was given.
  std::optional<std::vector<TensorType>> input_types(const std::vector<const ValueInfoView *> &inputs);

private:
  std::optional<Shape> shape_of(const ValueInfoView &input);
  std::optional<Shape> placed_shape(const ValueInfoView &input, Shape declared, const Shape &sizes);
  Dim dim_of(std::string_view input, size_t i, const DimView &view);
  Symbol symbol_for(std::string_view param);
  bool bind(Symbol name, int64_t value, const ValueInfoView &input);
  bool apply(std::vector<TensorType> &types, const std::vector<const ValueInfoView *> &inputs);
  void error(std::string message);

  const OnnxOptions &options_;
  Diagnostics &diagnostics_;
  Symbol file_;
  std::map<std::string, Symbol, std::less<>> symbols_; // by dim_param
  std::unordered_set<Symbol> used_;
  std::map<Symbol, Dim> values_;
  std::optional<Symbol> text_width_;
};

inline constexpr int kMaxGraphDepth = 16; // of graphs within each other
// "Conv", "com.microsoft.FusedConv"
std::string operator_name(std::string_view domain, std::string_view type);

// A name as the language spells dims: letters, digits and underscores.
std::string identifier(std::string_view name);

class Importer {
public:
  Importer(const OnnxOptions &options, Module &module, Diagnostics &diagnostics, std::string file,
           ExternalFiles files);

  bool run(const ModelView &model);

  // Imports a graph of a control-flow node: its inputs are bound to `inputs`, names of the graphs
  // around it are seen. The ops go where the emitter's builder stands. Gives the outputs.
  Result<std::vector<Val>> import_subgraph(const GraphView &graph, std::span<const Val> inputs);

  Emitter &emitter() { return *emitter_; }
  WireBudget &budget() { return budget_; }
  ExternalFiles &files() { return files_; }
  int64_t opset(std::string_view domain) const;
  // The value of that name where the node being imported stands; null where there is none.
  const Val *value_named(std::string_view name) const;
  // A warning at the node being imported.
  void warn(std::string message);

private:
  struct Produced {
    Val value;
    const NodeView *node = nullptr; // null for inputs and initializers
    std::string where;
  };
  struct Scope {
    std::unordered_map<std::string_view, Produced> values;
    std::string prefix; // of the names of nodes without a name
  };

  using Unsupported = std::map<std::string, std::vector<std::string>>;
  void find_unsupported(const std::vector<NodeView> &nodes, const std::string &prefix, int depth,
                        Unsupported &out, std::unordered_set<const FunctionView *> &called);
  void report_unsupported(const ModelView &model);
  std::optional<Val> fixed_input(const ValueInfoView &input, const Tensor &tensor);
  bool fits_weight(const ValueInfoView &input);
  bool define_inputs(const GraphView &graph);
  bool define_initializers(const GraphView &graph);
  bool define(std::string_view name, Produced produced);
  const Produced *find(std::string_view name) const;
  void uses_of(const NodeView &node, int depth, std::vector<std::string_view> &out);
  std::optional<std::vector<size_t>> order(const std::vector<NodeView> &nodes);
  bool import_nodes(const std::vector<NodeView> &nodes);
  bool import_node(const NodeView &node, const std::string &name);
  Status call_handler(OnnxNode &node);
  Status call_function(const FunctionView &function, OnnxNode &node);
  const FunctionView *find_function(const NodeView &node) const;
  const NodeView &with_attributes_of_call(const NodeView &node);
  void define_outputs(const NodeView &node, const std::string &name, OnnxNode &made, bool ok);
  void explain(Diagnostic &diagnostic, const NodeView &node, const std::vector<Val> &inputs) const;
  void merge_constraints();
  void note_group(bool is_output, std::string_view name, bool is_optional, const Val &value);
  bool define_results(const GraphView &graph);
  bool define_chosen_results(const GraphView &graph);
  std::vector<NodeView> needed_nodes(const GraphView &graph);
  std::string node_name(const NodeView &node, size_t index) const;
  Location at(std::string_view node) const;

  const OnnxOptions &options_;
  Module &module_;
  Diagnostics &diagnostics_;
  Symbol file_;
  ExternalFiles files_;
  WireBudget budget_;
  std::map<std::string, int64_t, std::less<>> opsets_;
  std::unordered_set<std::string> unsupported_; // operators that have been reported
  std::map<std::tuple<std::string_view, std::string_view, std::string_view>, const FunctionView *> functions_; // by domain, name, overload
  std::optional<Emitter> emitter_;
  InputGroups groups_;
  std::vector<Scope> scopes_;
  struct Call {
    const FunctionView *function;
    const OnnxNode *node;
  };
  std::vector<Call> calls_; // of model-local functions being expanded
  std::deque<NodeView> filled_; // nodes of functions, with the attributes of a call
  Location location_;
  int64_t expanded_ = 0; // nodes imported, those of expanded functions counted each time
};

} // namespace kiln::onnx
