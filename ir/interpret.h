// The graph interpreter: runs a function on concrete tensors by the ops' refs. Slow, plain and the
// meaning of a graph: compiled code is compared with it, value by value.
//
// Symbolic dims are bound from the inputs' sizes, then attributes and types are made concrete, and
// every node's types are inferred again, so that shapes which only fail at run time fail here with
// the node's place.
#pragma once

#include "ir/graph.h"

#include <functional>
#include <span>

namespace kiln {

// The values of the module's variables, in the order of Module::variables.
using VariableValues = std::vector<Tensor>;
// Their initial values; zeros where they have none.
Result<VariableValues> initial_variables(const Module &module);

struct EvaluateOptions {
  // Called with each node of the function and its results, in the order they run; in loops once for
  // each iteration. Nodes of functions that it calls are not reported.
  std::function<void(NodeId, std::span<const Tensor>)> after_node;
  // May change the results of an op (not those of constants, control flow, calls and variables) before
  // anything uses them, in called functions too: how tests learn what rounding does to what follows.
  std::function<void(const Node &, std::span<Tensor>)> perturb;
  int64_t max_steps = int64_t(1) << 32;  // nodes run before giving up
  int64_t max_bytes = int64_t(32) << 30; // of values alive at one time
};

// `inputs` are the function's arguments, in order, and must stay alive during the call; variables
// are read and assigned in place. Errors say which node failed and why.
Result<std::vector<Tensor>> interpret(const Module &module, const Function &function,
                                      std::span<const Tensor> inputs, VariableValues &variables,
                                      const EvaluateOptions &options = {});

// One op without regions on concrete operands; attributes must be complete and without symbols.
Result<std::vector<Tensor>> evaluate(const Module &module, Op op,
                                     std::span<const Tensor *const> operands, const Attrs &attrs);

// The value of each symbol, from the shapes of arguments of these types; errors name the argument.
using DimValues = std::vector<std::pair<Symbol, int64_t>>;
Result<DimValues> bind_dims(std::span<const TensorType> types, std::span<const std::string> names,
                            std::span<const Tensor> inputs);

} // namespace kiln
