// OpDef: everything the compiler knows of an operator, in one place.
//
// An op is one OpDef initializer in a file of ir/ops/, named op_<name>, and one line in ir/ops.def.
//   infer      types of the results from those of the operands: used to build and to verify
//   ref        the meaning, on concrete tensors, accumulating in f64: folds constants, is the tests' oracle
//   code       exactly one of
//     scalar     elementwise: an expression of the operands' elements (broadcasting is the caller's)
//     element    movement and index ops: the result's element at an index, from operands' elements
//     reduce     reductions, contractions, windows: a sum (max, ...) of terms over reduce axes
//     lower      anything else: writes a whole kernel body
//     decompose  composites: other ops
//     structural handled by the plan itself: constant, control flow, variables
#pragma once

#include "ir/graph.h"
#include "ir/kernel/build.h"

#include <span>
#include <string_view>
#include <vector>

namespace kiln {

enum class AttrKind : uint8_t { boolean, integer, real, string, dtype, dims, reals, strings, constant, variable, function };

// Whether an attribute's value is of that kind.
bool attr_matches(const Attr &value, AttrKind kind);

struct AttrSpec {
  std::string_view name;
  AttrKind kind;
  // Required where there is no default.
  std::optional<Attr> default_value = std::nullopt;
  std::string_view doc = "";
};

// What infer sees. Errors are Error{message}; the caller adds the op's name and the place.
struct InferContext {
  std::span<const TensorType> operands;
  const Attrs &attrs;
  std::span<const Block> regions;
  const Function *function = nullptr; // for types inside regions
  const Module *module = nullptr;
  // Equalities that hold only if these are equal at run time; the builder adds them to the module.
  std::vector<std::pair<Dim, Dim>> required = {};

  // True if a == b is known or may be required; false if they can never be equal.
  bool require_equal(const Dim &a, const Dim &b);
};
using InferFn = Result<std::vector<TensorType>> (*)(InferContext &);

struct RefContext {
  std::span<const Tensor *const> operands;
  const Attrs &attrs;
  // Concrete types of the results: what infer gives for the concrete operands.
  std::span<const TensorType> results;
};
using RefFn = Result<std::vector<Tensor>> (*)(const RefContext &);

// What code generators see of the node being lowered. Implemented by passes/lower.
class LowerContext {
public:
  virtual ~LowerContext() = default;
  virtual const Node &node() const = 0;
  const Attrs &attrs() const { return node().attrs; }
  virtual const TensorType &operand_type(int i) const = 0;
  virtual const TensorType &result_type(int i = 0) const = 0;
  // Operand i's element at a logical index, in compute_dtype(dtype). Indices outside the shape are only
  // allowed where operand_zero_padded() says so.
  virtual Expr operand(int i, std::span<const Dim> index) = 0;
  // Whether operand i may be read up to lo/hi elements outside dim d, giving 0 there (a halo covers it).
  virtual bool operand_zero_padded(int i, int d, const Dim &lo, const Dim &hi) const = 0;
  // An i64 scalar expression as a symbol for use in indices (emits a let), known to lie in [lo, hi).
  virtual Dim bind_index(Expr value, const Dim &lo, const std::optional<Dim> &hi) = 0;
  // Names a value used more than once (emits a let).
  virtual Expr bind(Expr value) = 0;
  // Traps with `trap` (KilnTrap) unless the condition holds.
  virtual void require(Expr condition, int trap) = 0;
  // Emits a statement before the element being computed; for `lower`, appends to the kernel body.
  virtual void emit(Stmt stmt) = 0;
  // Dims simplified under what is known of loop variables here.
  virtual Dim simplified(const Dim &d) const = 0;
  // `lower` only: stores an element (in compute_dtype) of result i at a logical index; as a statement.
  virtual Stmt store_result(int i, std::span<const Dim> index, Expr value) = 0;
  // `lower` only: runs `body` with statements going to a new list, with `var` in [begin, end) known, and
  // emits the loop over it.
  virtual void loop(std::string_view name, const Dim &begin, const Dim &end, LoopKind kind,
                    const std::function<void(const Dim &var)> &body) = 0;
  // `lower` only: statements emitted by `body` go under if (condition).
  virtual void if_then(Expr condition, const std::function<void()> &body) = 0;
};

using ScalarFn = Expr (*)(const Attrs &attrs, DType result, std::span<const Expr> operands);
using ElementFn = Expr (*)(LowerContext &, int result, std::span<const Dim> index);

// result[index] = finish(combine over axes of term(axes)), starting from init. The axes' symbols are
// fresh; bounds may depend on `index`. Terms are in `accumulator`.
struct ReduceSpec {
  struct Axis {
    Symbol var;
    Dim begin, end;
  };
  std::vector<Axis> axes;
  BinaryOp combine = BinaryOp::add;
  DType accumulator = DType::f32;
  Expr init;
  std::function<Expr(LowerContext &)> term;
  std::function<Expr(Expr)> finish = nullptr; // none: the accumulator itself
};
using ReduceFn = ReduceSpec (*)(LowerContext &, std::span<const Dim> index);
using LowerFn = void (*)(LowerContext &);
// The op's results, made of other ops through `b`.
using DecomposeFn = std::vector<ValueId> (*)(GraphBuilder &b, const Node &node);

// Traits that passes ask for instead of naming ops.
enum Trait : uint32_t {
  kElementwise = 1u << 0,   // has `scalar`; operands broadcast
  kCommutative = 1u << 1,
  kMovement = 1u << 2,      // elements are copied, not changed (reshape, permute, slice, broadcast_to, ...)
  kReduction = 1u << 3,     // has `reduce` over axes of one operand
  kContraction = 1u << 4,   // has `reduce`: sums of products of operands 0 and 1
  kWindow = 1u << 5,        // has `reduce` over windows of operand 0
  kSideEffect = 1u << 6,    // not removed, not reordered with others of its kind
  kRegions = 1u << 7,
  kInvolution = 1u << 8,    // f(f(x)) = x
  kIdempotent = 1u << 9,    // f(f(x)) = f(x)
  kExpensive = 1u << 10,    // not worth computing twice
  kZeroPreserving = 1u << 11, // f(0) = 0
  kNoFold = 1u << 12,       // never evaluated at compile time (random bits, variables)
  kTrapsOnZero = 1u << 13,  // elementwise; an integer 0 as the last operand is an error of the run
  kEpilogue = 1u << 14,     // has `lower` and one result, every element of which is stored once: what
                            // follows elementwise is computed with the store
};

// Shapes, dtypes and attributes the table test runs an op on. Values are drawn from [lo, hi].
struct OpSample {
  std::vector<TensorType> operands;
  Attrs attrs = {};
  double lo = -2, hi = 2;
  bool nonzero = false; // no integer drawn is 0
};

struct OpDef {
  std::string_view name;
  std::string_view doc;
  int min_operands = 0;
  int max_operands = 0; // -1: any number
  std::vector<AttrSpec> attrs = {};
  InferFn infer = nullptr;
  RefFn ref = nullptr;
  ScalarFn scalar = nullptr;
  ElementFn element = nullptr;
  ReduceFn reduce = nullptr;
  LowerFn lower = nullptr;
  DecomposeFn decompose = nullptr;
  bool structural = false;
  uint32_t traits = 0;
  std::vector<OpSample> samples = {};
  // Compiled against ref: |difference| <= tolerance * max(1, |ref|), for f32.
  double tolerance = 1e-5;

  bool has(Trait t) const { return (traits & t) != 0; }
};

#define KILN_OP(name) extern const OpDef op_##name;
#include "ir/ops.def"
#undef KILN_OP

const OpDef &op_def(Op op);
std::optional<Op> find_op(std::string_view name);
std::span<const OpDef *const> all_ops(); // in the order of ops.def

} // namespace kiln
