// Adds ops to the graph, or computes them at once where every operand is known: constants by the op's
// `ref`, sizes as expressions. Known values enter the graph only when an op that cannot be computed
// uses them.
#pragma once

#include "frontend/onnx/shape_values.h"
#include "frontend/onnx/value.h"
#include "frontend/onnx/value_numbers.h"

#include <deque>
#include <map>
#include <unordered_map>

namespace kiln::onnx {

class Emitter {
public:
  Emitter(Module &module, Function &function)
      : module_(module), function_(function), builder_(module, function, function.body), numbers_(module, function) {}

  Result<std::vector<Val>> emit_all(Op op, std::span<const Val> operands, Attrs attrs = {},
                                    std::vector<Block> regions = {});
  // The first result.
  Result<Val> emit(Op op, std::vector<Val> operands, Attrs attrs = {});

  Val constant(Tensor tensor, std::string_view name = {});
  Val scalar(DType dtype, double value);
  Val ints(std::vector<int64_t> values);
  // An integer tensor of sizes. `shape` is static and holds as many elements.
  Val sizes(std::vector<Element> elements, std::vector<int64_t> shape, DType dtype = DType::i64);
  Val sizes(std::span<const Dim> dims);

  Val list(std::vector<Val> items, DType dtype);
  Val absent();

  // The elements as sizes; nothing where they are computed at run time or too many.
  std::optional<std::vector<Element>> elements(const Val &val);
  // The elements as integers, symbolic ones included; nothing where they are not known.
  std::optional<std::vector<Dim>> dims(const Val &val);

  // A number that the model computes (i64, one element) as a size: what it is known to be, or a symbol that
  // is bound here, at most `bound`. Equal numbers have one symbol. `stem` is what it is called.
  Result<Dim> bind_size(const Val &count, const Dim &bound, std::string_view stem);
  // The same where nothing bounds the number: below a capacity `<stem>_room`, a dim that the caller of a run may choose.
  Result<Dim> bind_free_size(const Val &count, int64_t room, std::string_view stem, std::string_view room_stem = {});
  // A dim that the caller of a run may choose.
  Dim capacity(std::string_view stem, int64_t otherwise);
  // Whether a size depends on one that only a run finds.
  bool is_found(const Dim &d) const;
  bool is_found(const Shape &shape) const;
  // Whether it depends on one that is found in a region, and means nothing outside of it.
  bool is_local(const Dim &d) const;
  // The greatest value of a size over those that are known before a run.
  Dim largest(const Dim &d) const;

  // The elements of a row of integers in the graph, where it was put together from known ones and others.
  std::vector<std::optional<Dim>> known_pieces(ValueId value) const;

  // An argument of a region.
  Val argument(Block &block, TensorType type, std::string name);

  // The value in the graph, put there if need be.
  Result<ValueId> materialize(const Val &val);

  // No size of the shape is too complicated to go on with.
  Status check_shape(const TensorType &type) const;

  Module &module() { return module_; }
  Function &function() { return function_; }
  const Function &function() const { return function_; }
  GraphBuilder &builder() { return builder_; }
  // The sizes that a bool in the graph says are equal, where an Equal of sizes made it and it depends on
  // the symbols.
  const std::pair<Dim, Dim> *equality_of(const Val &condition) const;
  // Records that a and b are equal at run time; false if they cannot be.
  bool require_equal(const Dim &a, const Dim &b, std::string reason);

private:
  Result<std::optional<std::vector<Val>>> try_compute(Op op, std::span<const Val> operands,
                                                      const Attrs &attrs);
  Result<ValueId> materialize_elements(const Val &val);
  Result<ValueId> value_of(const Dim &d);
  Result<ValueId> value_of(const DimAtom &atom);
  std::string unique_size(std::string_view stem);
  Result<std::optional<Dim>> known_size(const Val &count);
  Result<Dim> bind_new(ValueId count, const Dim &bound, std::string_view stem);
  // The symbol that was bound to the same number, where it can be seen.
  Result<std::optional<Symbol>> bound_before(ValueId count);
  Result<ValueId> raw(Op op, std::vector<ValueId> operands, Attrs attrs = {});
  ValueId outer_constant(Tensor tensor, std::string name);

  Module &module_;
  Function &function_;
  GraphBuilder builder_;
  ValueNumbers numbers_;
  std::deque<Tensor> tensors_;
  std::deque<std::vector<Element>> elements_;
  std::deque<std::vector<Val>> lists_;
  // What has been put into the graph, in the function's own block, where all blocks see it.
  std::unordered_map<const void *, ValueId> placed_;
  std::map<std::string, ValueId> placed_dims_;
  std::map<ValueId, std::pair<Dim, Dim>> equalities_;
  struct FoundSize {
    ValueId value; // i64[]
    Dim largest;
    bool local;
    bool at_least_0; // it was not negative before it was bound
    NodeId bound;    // by this node
  };
  std::unordered_map<Symbol, FoundSize> found_;
  std::multimap<int, Symbol> found_by_number_;
  std::map<ValueId, std::vector<Element>> placed_elements_; // what a value in the graph was made of
};

// New ops go to `block` while this lives.
class IntoBlock {
public:
  IntoBlock(GraphBuilder &builder, Block &block)
      : builder_(builder), outer_(&builder.block()), position_(builder.position()) {
    builder_.set_position(block, SIZE_MAX);
  }
  ~IntoBlock() { builder_.set_position(*outer_, position_); }
  IntoBlock(const IntoBlock &) = delete;
  Block &outer() const { return *outer_; }
  IntoBlock &operator=(const IntoBlock &) = delete;

private:
  GraphBuilder &builder_;
  Block *outer_;
  size_t position_;
};

} // namespace kiln::onnx
