// What ops do to small tensors whose elements are sizes, known as expressions over the symbols.
#pragma once

#include "frontend/onnx/value.h"
#include "ir/ops/op.h"

#include <optional>
#include <span>

namespace kiln::onnx {

// One operand: its elements and its static shape.
struct SymbolicOperand {
  const std::vector<Element> *elements;
  std::vector<int64_t> dims;
};

// The elements of the op's result; nothing where the op is not one of shape arithmetic or its result
// cannot be written down (a comparison that depends on the sizes). `result` is the static result type.
std::optional<std::vector<Element>> evaluate_symbolic(Op op, std::span<const SymbolicOperand> operands,
                                                      const Attrs &attrs, const TensorType &result);

// The op on concrete tensors, by its `ref`; an Error where infer or ref refuse.
Result<std::vector<Tensor>> evaluate_concrete(Op op, std::span<const Tensor *const> operands,
                                              const Attrs &attrs);

// The types of the results and the attributes with their defaults, without touching a module.
struct Inferred {
  std::vector<TensorType> results;
  Attrs attrs;
};
Result<Inferred> infer_alone(Op op, std::span<const TensorType> operands, const Attrs &attrs);

// An exact fraction of a float, where it is a small one.
std::optional<Element> element_from_f64(double value);

} // namespace kiln::onnx
