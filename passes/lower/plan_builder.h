// Builds one entry's plan: walks the function, launches a kernel for each node, gives every value a
// buffer, and follows regions into if, while and loop steps.
#pragma once

#include "passes/lower/lower.h"

#include <unordered_map>
#include <unordered_set>

namespace kiln {

// Kernels and weights, shared by all entries of a program: equal ones exist once.
class ProgramBuilder {
public:
  ProgramBuilder(const Module &module, Program &program, const LowerOptions &options)
      : module_(module), program_(program), options_(options) {}

  int add_kernel(Kernel kernel);
  int add_weight(ConstantId constant, const Layout &layout, int64_t bytes);
  void place_variables();
  const Module &module() const { return module_; }
  Program &program() { return program_; }
  const LowerOptions &options() const { return options_; }
  void set_options(const LowerOptions &options) { options_ = options; }

private:
  const Module &module_;
  Program &program_;
  LowerOptions options_;
  std::unordered_multimap<size_t, int> kernel_index_;
  std::unordered_multimap<size_t, int> weight_index_; // by a part of the bytes
};

class PlanBuilder {
public:
  PlanBuilder(ProgramBuilder &program, const Function &function, Diagnostics &diagnostics)
      : program_(program), function_(function), diagnostics_(diagnostics) {}
  bool build(Plan &plan);

private:
  bool bind_arguments();
  bool find_dims();
  bool find_sizes();
  void bind_size(const Node &node, std::vector<PlanStep> &steps);
  bool follows(const Module::Constraint &c) const;
  DimBounds bounds(const Dim &d) const;
  Dim largest(const Dim &d) const; // over the entry's dims alone
  Shape largest(const Shape &shape) const;
  Dim buffer_size(const TensorType &type, const Layout &layout) const;
  void order_nodes(const Block &block);
  bool walk(const Block &block, std::vector<PlanStep> &steps);
  bool walk_node(NodeId id, std::vector<PlanStep> &steps);
  bool walk_if(const Node &node, std::vector<PlanStep> &steps);
  bool walk_while(const Node &node, std::vector<PlanStep> &steps);
  bool walk_scan(const Node &node, std::vector<PlanStep> &steps);
  void read_variable(NodeId id, std::vector<PlanStep> &steps);
  int last_use(ValueId value) const;
  int variable_rows(const Node &assign);
  void write_in_place(const Block &block);
  // Lets an elementwise kernel put a variable's new value where it reads the old one.
  void update_in_place(NodeId id, LoweredNode &lowered);
  bool try_view(const Node &node);
  void launch(NodeId id, std::vector<PlanStep> &steps);
  void copy(int from, int to, std::vector<PlanStep> &steps, const Location &location);

  int new_buffer(PlanBuffer buffer);
  int arena_buffer(ValueId value);
  int view(int parent, Dim extra, const TensorType &type, std::string name);
  int buffer_of(ValueId value); // of one that exists, or a constant
  void join_parts(const Block &block);
  int result_buffer(ValueId value);
  void touch(int buffer);
  // Lets the kernel that makes `value` write to `buffer`, if one does and the layout agrees.
  bool try_redirect(ValueId value, int buffer, const Block &block);
  void deliver(ValueId value, int buffer, std::vector<PlanStep> &steps, const Location &location);
  // Copies operands into the buffers that a loop carries.
  std::vector<int> start_carried(const Node &node, size_t count, std::vector<PlanStep> &steps);
  void update_carried(const Block &body, const std::vector<int> &carried, std::vector<PlanStep> &steps,
                      const Location &location);
  // The buffer of a loop's first value, where it can be the loop's own; -1 otherwise.
  int adopted(ValueId operand, ValueId result);
  // Lets nodes that change some elements of what a loop carries write those alone.
  void change_in_place(const Block &body, std::span<const int> carried);
  void extend_over_loop(int begin);
  void take_turns(Kernel &kernel, PlanStep &step);

  ProgramBuilder &program_;
  const Function &function_;
  Diagnostics &diagnostics_;
  Plan *plan_ = nullptr;
  std::unordered_map<ValueId, int> buffers_;
  std::unordered_map<ValueId, int> destination_;
  std::unordered_map<ValueId, std::pair<ValueId, Dim>> part_of_; // parts of concats, and where they lie in it
  std::unordered_set<ValueId> joined_;                           // results of concats that are no kernel
  std::vector<int> parent_; // of views; -1 elsewhere
  std::unordered_map<Symbol, Dim> largest_; // of sizes that the run finds
  std::vector<Symbol> bound_;               // of those, the ones that the steps so far have bound
  std::unordered_map<NodeId, ValueId> changes_; // nodes that write into a carried value
  std::vector<int> uses_;
  const Block *block_ = nullptr; // that is walked
  std::vector<int> node_order_;
  int next_order_ = 0;
  std::unordered_map<NodeId, int> rows_of_;                     // buffers that assignments write
  std::unordered_map<ValueId, NodeId> updates_; // new values of variables that are read before, and their assignments
  int clock_ = 0; // counts launches and copies, for lifetimes
  int next_loop_ = 0;
  // The loop around: its variable, the buffers that were there before its body, and which of them it changes.
  struct Turns {
    Symbol variable;
    int buffers = 0;
    std::vector<int> carried;
  };
  Turns turns_;
};

// Makes entries that are forms of others (passes/graph/specialise.h) parts of those.
bool merge_forms(std::vector<Plan> &plans, Diagnostics &diagnostics);

// Places the arena buffers of a plan that are no views (parent -1): offsets and arena_size.
void plan_memory(Plan &plan, const std::vector<int> &parents, const Module &module);

// Where a slice begins in its operand, in elements, if it is one piece of it.
std::optional<Dim> piece_begin(const Function &function, const Node &slice);

// Lets a kernel that changes some elements of `from` and copies the others write only the former, for one buffer
// holds both.
bool drop_copy(LoweredNode &lowered, ValueId from, ValueId to);

// Elements of a value that are the same memory as those of its operand: a reshape, row-major to row-major.
bool is_alias(const Function &function, const Node &node);

} // namespace kiln
