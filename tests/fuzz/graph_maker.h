// The state of a random graph under construction; see random_graph.h. Members are grouped by the file that
// defines them.
#pragma once

#include "ir/ops/op.h"
#include "tests/fuzz/random_graph.h"

#include <map>
#include <optional>

namespace kiln::fuzz {

// Types with numbers as sizes, and those of the values that stand for them, which may have symbols.
using Sizes = std::vector<int64_t>;
Sizes sizes_of(const Shape &shape); // all known
int64_t count_of(const Sizes &sizes);

struct InputRange {
  double lo = -2, hi = 2;
  bool nonzero = false;
};

class GraphMaker {
public:
  GraphMaker(Module &module, uint64_t seed, std::string name, GraphStyle style);
  RandomGraph make();

  // -- random_graph.cpp: values
  // A node and its results, evaluated and put into the pool; nothing, and no trace of it, where the op
  // refuses, fails or gives what is too large or too wild to compare.
  std::optional<std::vector<ValueId>> emit(Op op, std::vector<ValueId> operands, Attrs attrs = {},
                                           std::vector<Block> regions = {});
  std::optional<ValueId> emit1(Op op, std::vector<ValueId> operands, Attrs attrs = {});
  ValueId new_input(const TensorType &type, const InputRange &range);
  ValueId new_constant(Tensor tensor);
  // A new input or constant of these sizes; those of inputs may become symbolic.
  ValueId new_value(DType dtype, const Sizes &sizes, const InputRange &range);
  const Tensor &value(ValueId id) const { return *values_[size_t(id)]; }
  const TensorType &type(ValueId id) const { return function_.type(id); }
  // Values that may be used here, the newest most likely.
  std::optional<ValueId> any_value();
  bool in_range(ValueId id, const InputRange &range) const;
  std::optional<int64_t> size_of(const Dim &d) const;
  void set_value(ValueId id, Tensor tensor, bool usable = true);

  // -- random_fit.cpp: a value of another type made of one that is there
  std::optional<ValueId> fit(ValueId from, DType dtype, Sizes sizes);
  std::optional<ValueId> fit_range(ValueId from, const InputRange &range);
  std::optional<ValueId> fit_shape(ValueId from, const Sizes &sizes);
  void movement(); // an op of any value that moves its elements

  // -- random_op.cpp
  bool table_op(Op op);
  struct Draft; // a sample on its way
  bool try_sample(Op op, const OpSample &sample, int wildness);

  // -- random_control.cpp
  bool control_op(Op op);
  void fill_block(Block &block, int nodes);
  void step();

private:
  friend struct BlockScope;
  bool sound(const std::vector<Tensor> &results);
  Result<std::vector<Tensor>> evaluate_node(NodeId id);
  std::optional<Attrs> known_attrs(const Attrs &attrs) const;
  Dim dim_for(int64_t size);
  void choose_results();
  Tensor resized_input(size_t index, const std::map<std::string, int64_t> &sizes);

  bool try_if();
  bool try_while();
  bool try_scan();
  bool try_call();
  bool try_variable();
  // The value's type as a type of numbers alone.
  std::optional<ValueId> boolean_scalar();

  Module &module_;
  Function function_;
  std::string name_;
  GraphStyle style_;
  Random random_;
  Block *block_;
  int depth_ = 0;
  bool symbolic_ = false, wild_ = false; // wild: infinities and NaNs may stay
  int64_t largest_ = 600;                // elements of a value
  std::vector<std::optional<Tensor>> values_;
  std::vector<ValueId> pool_;
  std::vector<Tensor> inputs_;
  std::vector<InputRange> ranges_; // of the inputs
  DimValues dims_;
  std::string error_;
};

} // namespace kiln::fuzz
