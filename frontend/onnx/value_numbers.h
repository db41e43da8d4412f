// Numbers for values such that equal numbers are equal values, whichever nodes computed them. A model reads the same integer
// in many ways (Gather and Squeeze, Slice, a row that several nodes take apart), and whoever makes a size of it
// must get one size:
//
//     a = reshape(slice(shape, 1, 2), [])      the same number: element 1 of `shape`
//     b = convert(gather(shape, 1), i64)
#pragma once

#include "ir/graph.h"

#include <unordered_map>

namespace kiln::onnx {

class ValueNumbers {
public:
  ValueNumbers(const Module &module, const Function &function) : module_(module), function_(function) {}
  // Values of one element have the number of that element, whatever their shape and integer dtype.
  int of(ValueId value) { return number(value, 0); }
  // The same for one that becomes a size: `max(x, 0)` has the number of x, and `at_least_0` says which it was.
  int of_size(ValueId value, bool &at_least_0);

private:
  int number(ValueId value, int depth);
  int number_of_node(ValueId value, const Node &node, int depth);
  // The element of a value at a place in row-major order.
  int element(ValueId value, int64_t at, int depth);
  int intern(const std::string &key);
  bool is_one(ValueId value) const;

  const Module &module_;
  const Function &function_;
  std::unordered_map<std::string, int> interned_;
  std::unordered_map<ValueId, int> known_;
};

} // namespace kiln::onnx
