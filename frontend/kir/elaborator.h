// Runs a program over types: what is known at compile time is computed, what is not becomes a node. The
// class is spread over files by subject: elaborate.cpp (files and entries), statements.cpp, control.cpp
// (if, while and for over tensors), expressions.cpp, subscripts.cpp, arithmetic.cpp, calls.cpp
// (functions, models), op_calls.cpp, types.cpp, builtins.cpp, gradients.cpp, variables.cpp (names, weights, init).
#pragma once

#include "frontend/kir/datum.h"
#include "frontend/kir/kir.h"
#include "ir/grad/grad.h"

#include <deque>
#include <set>
#include <span>

namespace kiln::kir {

struct Arg {
  Datum value;
  Location location;
};
struct Args {
  std::vector<Arg> positional;
  std::vector<std::pair<std::string, Arg>> named;

  bool poison() const;
  const Arg *find(std::string_view name) const;
};

enum class Flow : uint8_t { next, break_, continue_, return_, error };

using Locals = std::map<std::string, Datum, std::less<>>;

// One activation of a function, a model's body or a file.
struct Frame {
  const Library *library = nullptr;
  Object *self = nullptr;
  bool constructing = false; // a model's body: assignments make fields
  std::string name;          // for messages
  Locals locals;
  std::map<std::string, Dim, std::less<>> dims;
  std::map<std::string, DType, std::less<>> dtypes;
  Datum result{None{}};
  bool in_region = false; // between braces after an op: yield ends it
};

// The graph function being built.
struct FunctionState {
  Function &function;
  GraphBuilder builder;
  std::map<VariableId, ValueId> current; // variables whose value is at hand
  std::set<VariableId> written;
  int region_depth = 0;
  GradientUnits units; // calls of remat(f), and of functions with a gradient of their own
  std::vector<Location> arguments = {}; // where they are declared
};

class Elaborator {
public:
  Elaborator(Module &module, const KirOptions &options, Diagnostics &diagnostics)
      : module_(module), options_(options), diagnostics_(diagnostics) {}

  bool run(std::string_view file_name, std::string_view text);

  // Used by builtins, which are free functions over the elaborator.
  Datum error(const Location &where, std::string message, std::vector<std::string> notes = {});
  Datum make_list(std::vector<Datum> items, bool tuple = false);
  Datum tensor(ValueId id) { return {TensorRef{id}}; }
  const TensorType &type_of(ValueId id) const { return fn_->function.type(id); }
  std::string describe(const Datum &d) const; // "f32[N, 10]", "the integer 3", "a list"
  Datum emit(Op op, std::vector<ValueId> operands, Attrs attrs, const Location &where);
  // A number (or nested list of numbers) as a constant of a dtype.
  std::optional<ValueId> number_tensor(const Datum &d, DType dtype, const Location &where);
  // A tensor: d itself, a variable's value, or a number with its own dtype (i64, f32, bool).
  std::optional<ValueId> as_tensor(const Datum &d, const Location &where);
  Datum dim_tensor(const Dim &d, const Location &where); // i64[]
  Datum call(const Datum &callee, const Args &args, const Location &where);
  Datum call_named(std::string_view name, const Args &args, const Location &where);
  Datum binary(std::string_view op, const Datum &a, const Datum &b, const Location &where);
  bool in_function(const Location &where);
  GradientUnits *units() { return &fn_->units; }
  GraphBuilder &builder() { return fn_->builder; } // within a function
  bool training = false; // within train(f, ...): see is_training()
  bool inside() const { return fn_ != nullptr; } // of a function
  int region_depth() const { return fn_ ? fn_->region_depth : 0; }
  size_t list_limit() const { return size_t(1) << 20; }

  // Set while a param's initial value is computed.
  struct InitState {
    TensorType type;
    std::string name;
    ValueId seed;
    int streams = 0;
  };
  const InitState *init() const { return init_; }
  Datum init_key(const Location &where);
  // A key for random_bits where the program has none: of manual_seed()'s number and a count, another each time.
  Datum random_key(const Location &where);
  void manual_seed(int64_t seed) { random_seed_ = seed, random_count_ = 0; }
  const std::function<void(std::string)> &display() const { return options_.display; }
  // Counts work done at compile time; false, after one error, where it is too much.
  bool spend(int64_t steps, const Location &where);
  Datum stop(const Location &where, std::string message);
  Datum weight(const std::string &name, const Location &where); // constant("name")

private:
  friend struct Deeper;

  // elaborate.cpp
  const Library *load_library(std::string_view name, const Location &where);
  void declare(Library &library);
  void run_top(Library &library, const Stmt &s);
  void find_entries();
  void elaborate_function(FunctionId id);
  bool declare_arguments(const FuncDecl &decl, Function &f);
  void set_results(const FuncDecl &decl, Function &f, Datum result);
  bool entry_type(const Expr &expr, TensorType &out);
  Location node_location(const Location &where) const;
  bool own() const { return frame_ && frame_->library->own; }

  // statements.cpp
  Flow run_body(const Body &body);
  Flow run_statement(const Stmt &s);
  void run_assign(const Stmt &s);
  void assign_target(const Target &target, Datum value, bool several);
  void assign_name(const Expr &target, const std::string &name, Datum value);
  void assign_member(const Expr &target, Datum value);
  void assign_item(const Expr &target, Datum value);
  void assign_place(const Expr &target, Datum value); // a name, a field or an element
  Datum with_elements(const Datum &x, const Expr &target, const Datum &value);
  void assign_variable(VariableDatum &variable, const Datum &value, const Location &where);
  void name_value(const Datum &value, const std::string &name, bool force);
  void declare_variable(const Stmt &s);
  void check_assert(const Stmt &s);
  std::optional<bool> condition(const Datum &d, const Location &where); // compile-time truth

  // control.cpp
  struct Snapshot {
    Locals locals;
    std::map<VariableId, ValueId> current;
    std::set<VariableId> written;
  };
  struct Carry { // a name or a variable that a region changes
    std::string name;
    VariableId variable;
    Datum before, after;
  };
  Snapshot snapshot() const { return {frame_->locals, fn_->current, fn_->written}; }
  void restore(const Snapshot &s);
  std::vector<Carry> changes_since(const Snapshot &before) const;
  template <typename F>
  void in_block(Block &block, const F &run);
  template <typename F>
  std::vector<Carry> trial(const F &run); // runs, notes what changed, takes everything back
  Flow tensor_if(const Stmt &s, ValueId condition);
  Flow tensor_while(const Stmt &s);
  Flow tensor_for(const Stmt &s, ValueId over);
  std::vector<ValueId> carry_inputs(std::vector<Carry> &carries, const Location &where);
  void bind_carry(const Carry &carry, ValueId value);
  void finish_carry(const Carry &carry, ValueId value, const Location &where);
  bool yield_carries(const std::vector<Carry> &carries, Block &block, const Location &where);
  Datum region_call(const Stmt &s);

  // expressions.cpp, subscripts.cpp
  Datum eval(const Expr &e);
  Datum eval_inner(const Expr &e);
  std::optional<Datum> find_name(std::string_view name);
  Datum eval_name(const Expr &e);
  Datum eval_member(const Expr &e);
  std::optional<Datum> find_dotted(const Expr &e);
  Datum member_of(const Datum &base, const Expr &e);
  Datum eval_each(const Expr &e);
  Datum eval_literal(const Expr &e);
  Datum eval_index(const Expr &e);
  Datum index_tensor(ValueId x, const Expr &e);
  Datum index_list(const ListData &list, const Expr &e);
  std::optional<std::vector<Datum>> iterate(const Datum &d, const Location &where);
  Datum unknown_name(const Expr &e, std::string_view what);
  std::vector<std::string> known_names() const;

  // arithmetic.cpp
  Datum unary(std::string_view op, const Datum &a, const Location &where);
  Datum binary_numbers(std::string_view op, const Datum &a, const Datum &b, const Location &where);
  Datum matmul(ValueId a, ValueId b, const Location &where);

  // calls.cpp
  Datum eval_call(const Expr &e);
  Datum eval_plain_call(const Expr &e);
  const Expr *out_place(const Expr &e);
  bool eval_args(const Expr &e, Args &args);
  Datum call_function(const FuncRef &f, const Args &args, const Location &where);
  Datum construct(const ModelRef &m, const Args &args, const Location &where);
  bool bind_params(const std::vector<Param> &params, const Args &args, Frame &frame,
                   const Location &where);
  std::optional<Datum> find_callable(std::string_view name, const Library *library);

  // op_calls.cpp
  struct OpArgs {
    std::vector<ValueId> operands;
    Attrs attrs;
  };
  Result<OpArgs> match_op(Op op, const Args &args);
  Datum call_op(Op op, const Args &args, const Location &where, const FuncRef *fallback = nullptr);
  Result<Attr> to_attr(const Datum &d, int kind, std::string_view name);
  Datum op_on_numbers(Op op, const Args &args);
  Result<NodeId> emit_node(Op op, std::vector<ValueId> operands, Attrs attrs,
                           std::vector<Block> regions, const Location &where);
  Datum node_results(NodeId id);

  // devices.cpp
  ValueId copied_to(ValueId value, const std::string &device, const Location &where);
  void place_arguments(const FuncDecl &decl, const std::string &name, Frame &frame, const Location &where);
  void check_devices();

  // types.cpp
  bool unify(const Expr &pattern, Datum &value, const std::string &what, const Location &where);
  bool unify_shape(const Expr &pattern, const TensorType &type, const std::string &what,
                   const Location &where);
  void bind_size(const Stmt &s);
  void note_dims(const Expr &e);
  bool require_equal(const Dim &a, const Dim &b, const Location &where, const std::string &reason);
  std::optional<TensorType> concrete_type(const Expr &pattern); // every dim bound
  std::optional<DType> dtype_named(const Expr &e);
  std::string pattern_text(const Expr &pattern);
  std::optional<Dim> eval_dim(const Expr &e, bool report = true);
  std::optional<Shape> eval_dims(const Expr &e);
  void bind_symbols(const Expr &e);

  // imports.cpp
  Datum import_model(const Stmt &s, const Library &library);
  Datum call_imported(const ImportedModel &model, const Args &args, const Location &where);
  std::optional<std::vector<ValueId>> place_imported(const ImportedModel &model, Module &part, std::span<const ValueId> arguments,
                                                     const Location &where);
  void name_imported();

  // apart.cpp
  template <typename F>
  Datum trace_unit(const F &run, const std::function<void(GradientUnit &)> &finish);
  Datum call_again(const Datum &callee, const Args &args, const Location &where);
  Datum call_custom(const FuncRef &f, const Args &args, const Location &where);

  // variables.cpp
  ValueId read(VariableDatum &variable, const Location &where);
  ValueId read(VariableId id, const Location &where);
  void name_objects(const std::string &path, Datum &value);
  void register_variable(const std::string &name, VariableDatum &variable);
  void load_weights();
  void bind_dim_sources();
  void elaborate_init();

  Module &module_;
  const KirOptions &options_;
  Diagnostics &diagnostics_;
  std::deque<Library> libraries_;
  Library *main_ = nullptr;
  Library *prelude_ = nullptr;
  std::deque<ListData> lists_;
  std::deque<Object> objects_;
  std::deque<VariableDatum> variable_data_;
  std::deque<ImportedModel> imported_;
  std::vector<VariableDatum *> registered_; // by VariableId
  std::map<std::string, FunctionId, std::less<>> entry_ids_;
  std::vector<const FuncDecl *> entry_decls_; // by FunctionId; null for init
  enum class EntryState : uint8_t { waiting, running, done };
  std::vector<EntryState> entry_states_;
  std::vector<const Stmt *> dim_sources_; // dims that are taken from a state
  std::set<std::string, std::less<>> used_weights_;
  std::map<std::string, ConstantId, std::less<>> weight_constants_;
  // Names of sizes that runs find, and what such a size cannot be called: constraints go by the name.
  std::set<std::string, std::less<>> size_names_;
  bool dims_noted_ = false;
  std::set<std::string> reported_;
  Frame *frame_ = nullptr;
  FunctionState *fn_ = nullptr;
  InitState *init_ = nullptr;
  const FuncDecl *custom_ = nullptr; // whose body is traced: the function with a gradient of its own
  const Object *again_ = nullptr;    // the module whose call is traced to be computed again
  Location call_site_; // in the user's own file: where the library was entered
  std::vector<std::string> trace_;
  int depth_ = 0;
  int64_t steps_ = 0;
  bool stopped_ = false; // a limit was reached: nothing runs any more
  int trial_depth_ = 0;
  int64_t random_seed_ = 0, random_count_ = 0;
};

// Bounds recursion over expressions and calls together.
struct Deeper {
  explicit Deeper(Elaborator &e) : e_(e) { ++e_.depth_; }
  ~Deeper() { --e_.depth_; }
  bool too_deep() const { return e_.depth_ > 1500; }
  Elaborator &e_;
};

// The builtins' table, in builtins.cpp.
using BuiltinFn = Datum (*)(Elaborator &, const Args &, const Location &);
struct Builtin {
  std::string_view name;
  std::string_view usage;
  BuiltinFn run;
};
std::span<const Builtin> builtins();
// In gradients.cpp.
Datum grad_builtin(Elaborator &, const Args &, const Location &);
Datum vjp_builtin(Elaborator &, const Args &, const Location &);
Datum jvp_builtin(Elaborator &, const Args &, const Location &);
Datum parameters_builtin(Elaborator &, const Args &, const Location &);
Datum remat_builtin(Elaborator &, const Args &, const Location &); // in apart.cpp
Datum freeze_builtin(Elaborator &, const Args &, const Location &);
Datum unfreeze_builtin(Elaborator &, const Args &, const Location &);
Datum states_builtin(Elaborator &, const Args &, const Location &);

// What stands here for a name of PyTorch's or Python's that the language has not; empty for others.
std::string_view said_otherwise(std::string_view name);
// The closest of `known` to `name`, if it is close: for "did you mean".
std::string suggestion(std::string_view name, std::span<const std::string> known);

} // namespace kiln::kir
