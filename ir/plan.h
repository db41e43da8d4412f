// A Program: what is left of a module when every fused region is a kernel. A Plan is one entry point:
// where every buffer lies, and which kernels run on them in which order. Code generators turn a plan
// into a native function (run) and a function for sizes (plan); see runtime/entry_abi.h.
//
// All sizes are Dims over the entry's symbolic dims (and, inside `loop` steps, the loop's variable).
#pragma once

#include "ir/graph.h"
#include "ir/kernel/kernel.h"

namespace kiln {

struct PlanBuffer {
  enum class Kind : uint8_t { argument, weight, variable, arena };
  Kind kind = Kind::arena;
  std::string name; // of the value it holds, for people
  TensorType type;  // logical
  Layout layout;
  int argument = -1;  // kind argument: position among inputs followed by outputs
  int weight = -1;    // kind weight: index in Program::weights
  int variable = -1;  // kind variable: index in Module::variables
  Dim offset;         // bytes, added to the start of the arena, of the argument, or of the weight's or
                      // variable's own place in the Program; may use the variables of `loop` steps
  Dim size;           // bytes, at most: over the entry's dims alone
  ValueId value;      // the graph value it holds first
  int first_step = 0, last_step = 0; // lifetime, in steps counted depth-first
};

struct PlanStep {
  enum class Kind : uint8_t {
    launch, // kernel(buffers..., dims...)
    if_,    // if buffer `condition` (bool) then body else other
    while_, // condition_body, then while buffer `condition`: body, condition_body; `var`, if any, counts the turns
    loop,   // for `var` in 0..count: body
    bind,   // the i64 in buffers[0] becomes the size sizes[index], in what follows in this list of steps
    require, // dims[0] == dims[1], or the run ends: constraint `index` of constraints + run_constraints
    form,   // if the dims are those of Plan::forms[form] then body else other
  };
  Kind kind = Kind::launch;
  int kernel = -1;            // index in Program::kernels
  std::vector<int> buffers;   // indices in Plan::buffers, for each of the kernel's buffers
  std::vector<Dim> dims;      // for each of the kernel's dims
  int position = -1;          // launches are numbered from 0 in program order: after_kernel()'s argument
  std::string name;           // "conv1+relu", for profiles
  Location location;
  int condition = -1;
  int index = -1;
  int form = -1;
  Symbol var;
  Dim count;
  std::vector<PlanStep> condition_body, body, other;
};

struct PlanArgument {
  std::string name;
  TensorType type;
  Shape largest = {}; // of outputs whose sizes a run finds: the most, over dims alone
  const Shape &planned() const { return largest.empty() ? type.shape : largest; }
};

// A size that a run finds in its data. More than the bound ends the run.
struct PlanSize {
  Symbol name;
  Dim bound;         // over dims and the sizes before it
  Dim largest;       // the greatest value of the bound, over dims
  int capacity = -1; // index in dims of the capacity that the bound is
};

// Code of its own for some values of an entry's dims.
struct PlanForm {
  std::vector<std::pair<Symbol, int64_t>> dims;
  Dim arena_size; // bytes, over the other dims
  std::string text() const; // "N=1,H=224"
};

struct Plan {
  std::string name;
  std::vector<PlanArgument> inputs, outputs;
  std::vector<Symbol> dims; // symbolic dims that inputs have, in order of first appearance, then capacities
  std::vector<Module::Constraint> constraints; // over dims; checked by plan()
  std::vector<PlanSize> sizes;                 // in order of their steps
  std::vector<Module::Constraint> run_constraints; // that involve sizes; checked by `require` steps
  std::vector<PlanBuffer> buffers;
  std::vector<PlanStep> steps;
  int launches = 0;
  Dim arena_size; // bytes, of the general form
  std::vector<PlanForm> forms;
  // Bytes of scratch memory that a worker needs for the largest kernel, on any of the targets that the
  // program is compiled for (ir/kernel/scratch.h).
  int64_t scratch_size = 0;
};

// A constant as it lies in the weights section.
struct Weight {
  ConstantId constant;
  Layout layout;
  int64_t offset = 0, size = 0; // bytes
};

struct VariableSlot {
  int64_t offset = 0, size = 0; // bytes in the variables block
  int weight = -1;              // of the initial value; -1 for zeros
};

struct Program {
  std::string name;
  std::vector<Kernel> kernels;
  std::vector<Plan> entries;
  std::vector<Weight> weights;
  int64_t weights_size = 0;
  std::vector<VariableSlot> variables; // one for each of Module::variables
  int64_t variables_size = 0;
};

} // namespace kiln
