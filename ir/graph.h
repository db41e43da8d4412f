// The graph: functions of typed SSA values, ops from the table in ir/ops.def.
//
// A Module holds functions, variables (param and state) and constants. A Function is an arena of values
// and nodes; a Block is an ordered list of nodes with arguments and results. Ops with regions (if,
// while, scan, fusion) hold Blocks, which may use values of the blocks around them. Ids stay valid while
// passes add and remove nodes; compact() renumbers.
//
// Values are named for people (`h0`, `net.fc1.out`); names are kept by passes where they can and made
// unique when printing.
#pragma once

#include "ir/ids.h"
#include "ir/op_id.h"
#include "ir/support/diagnostic.h"
#include "ir/tensor.h"

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace kiln {

// A compile-time argument of an op. Integers and lists of integers are Dims, since sizes may be symbolic.
using Attr = std::variant<bool, Dim, double, std::string, DType, std::vector<Dim>, std::vector<double>,
                          std::vector<std::string>, ConstantId, VariableId, FunctionId>;

class Attrs {
public:
  Attrs() = default;
  Attrs(std::initializer_list<std::pair<std::string_view, Attr>> list);

  const Attr *find(std::string_view name) const;
  bool has(std::string_view name) const { return find(name) != nullptr; }
  void set(std::string_view name, Attr value);
  void erase(std::string_view name);

  // KILN_CHECK presence and kind; the op's schema has been applied before (defaults filled in).
  bool get_bool(std::string_view name) const;
  int64_t get_int(std::string_view name) const;
  const Dim &get_dim(std::string_view name) const;
  double get_float(std::string_view name) const;
  const std::string &get_string(std::string_view name) const;
  DType get_dtype(std::string_view name) const;
  const std::vector<Dim> &get_dims(std::string_view name) const;
  std::vector<int64_t> get_ints(std::string_view name) const;
  const std::vector<double> &get_floats(std::string_view name) const;
  ConstantId get_constant(std::string_view name) const;
  VariableId get_variable(std::string_view name) const;
  FunctionId get_function(std::string_view name) const;

  const std::vector<std::pair<std::string, Attr>> &all() const { return list_; }
  friend bool operator==(const Attrs &, const Attrs &) = default;

private:
  std::vector<std::pair<std::string, Attr>> list_; // sorted by name
};

struct Block {
  std::vector<ValueId> args;
  std::vector<NodeId> nodes;
  std::vector<ValueId> results;
};

struct Node {
  Op op{};
  std::vector<ValueId> operands;
  std::vector<ValueId> results;
  Attrs attrs;
  std::vector<Block> regions;
  Location location;
  bool removed = false;
};

struct Value {
  TensorType type;
  Layout layout;
  std::string name;
  NodeId def; // not valid for a block argument
  int result = 0;
};

struct Function {
  std::string name;
  bool exported = false;
  Location location;
  Block body;
  std::vector<std::string> result_names; // one for each of body.results
  std::vector<Node> nodes;
  std::vector<Value> values;

  Node &node(NodeId id) { return nodes[size_t(id)]; }
  const Node &node(NodeId id) const { return nodes[size_t(id)]; }
  Value &value(ValueId id) { return values[size_t(id)]; }
  const Value &value(ValueId id) const { return values[size_t(id)]; }
  const TensorType &type(ValueId id) const { return value(id).type; }

  ValueId add_value(TensorType type, std::string name = "");
  ValueId add_argument(Block &block, TensorType type, std::string name);
  // The node that defines a value; null for a block argument.
  const Node *def(ValueId id) const;

  // Replaces every use (operands and block results, nested ones too) of `from`.
  void replace_uses(ValueId from, ValueId to);
  // Uses of each value, block results included.
  std::vector<int> use_counts() const;
  // Drops removed and unreachable nodes and values and renumbers what is left.
  void compact();
};

enum class VariableKind : uint8_t { param, state };

// A value that outlives a run. Read and written in functions by the ops read_variable and assign.
struct Variable {
  std::string name; // "net.conv1.weight"
  VariableKind kind = VariableKind::param;
  TensorType type;  // static
  ConstantId initial; // not valid: zeros, or set by an exported `init`
  Location location;
};

// Bytes of a constant. Large ones are views into mapped source files, which the module keeps alive.
struct Constant {
  std::string name; // "conv1.weight"; where it came from, for dumps
  Tensor tensor;
};

struct Module {
  std::string name;
  std::vector<Function> functions;
  std::vector<Variable> variables;
  std::vector<Constant> constants;
  // Equalities between dims that could not be shown when a type was inferred; checked before a run.
  struct Constraint {
    Dim a, b;
    Location location;
    std::string reason;
  };
  std::vector<Constraint> constraints;
  std::map<std::string, std::pair<int64_t, int64_t>> dim_bounds; // symbol -> [min, max]
  // Symbols that no input tells: room for what nothing bounds, chosen by the caller of a run, and the
  // value that each has where the caller says nothing. Text: `capacity C = 256`.
  std::map<std::string, int64_t> capacities;
  // Symbol -> the i64[] variable whose value when a run begins is the symbol's: how much a cache holds.
  std::map<std::string, VariableId> dim_variables;
  std::map<std::string, std::string> metadata;
  // Whatever must stay alive for the constants' views: mapped files.
  std::vector<std::shared_ptr<const void>> keep_alive;

  ConstantId add_constant(Tensor tensor, std::string name = "");
  const Function *find_function(std::string_view name) const;
};

// Text of the subset of the language that a flat graph is; frontend/kir parses it back to an equal
// module. Constants of more than `inline_limit` elements print as constant("name").
std::string print_module(const Module &module, int64_t inline_limit = 16);
std::string print_function(const Module &module, const Function &function);
std::string print_node(const Module &module, const Function &function, NodeId node);

// Structure (dominance, ids, arity, schema) and types (infers again); every violation.
void verify(const Module &module, Diagnostics &diagnostics);

// Appends nodes to a block. emit() checks the schema, fills in defaults and infers; an error is the
// user's mistake, without a place (the caller knows it).
class GraphBuilder {
public:
  GraphBuilder(Module &module, Function &function, Block &block)
      : module_(module), function_(function), block_(&block) {}

  Result<NodeId> emit(Op op, std::vector<ValueId> operands, Attrs attrs = {},
                      std::vector<Block> regions = {});
  // For passes and decompositions, where a failure is our bug: the single result.
  ValueId operator()(Op op, std::vector<ValueId> operands, Attrs attrs = {});
  std::vector<ValueId> multi(Op op, std::vector<ValueId> operands, Attrs attrs = {});

  ValueId constant(Tensor tensor, std::string name = "");
  ValueId scalar(DType dtype, double value); // rank 0

  const TensorType &type(ValueId id) const { return function_.type(id); }
  Module &module() { return module_; }
  Function &function() { return function_; }
  Block &block() { return *block_; }
  // Where new nodes go: before position `at` of the block (it moves on), or at the end.
  void set_position(Block &block, size_t at) { block_ = &block, at_ = at; }
  size_t position() const { return at_; }
  void set_location(const Location &location) { location_ = location; }
  const Location &location() const { return location_; }

private:
  Module &module_;
  Function &function_;
  Block *block_;
  size_t at_ = SIZE_MAX;
  Location location_;
};

} // namespace kiln
