// Rows of integers that say sizes or places (a shape, starts and ends, repeats) where some of the elements
// are known when a model is imported and others only when it runs.
#pragma once

#include "frontend/onnx/node.h"

namespace kiln::onnx {

struct RunInt {
  std::optional<Dim> known;
  Val value; // i64[], in the graph or known
};

// Operand i of a node, which must be a row of known length or one number.
Result<std::vector<RunInt>> run_ints(OnnxNode &n, size_t i, std::string_view what);
bool all_known(std::span<const RunInt> list);
std::vector<Dim> known_dims(std::span<const RunInt> list);

// The sizes of a result where nothing bounds those that are not known: each gets a capacity of its own,
// smaller the more of them there are.
Result<std::vector<Dim>> bind_free(OnnxNode &n, std::span<const RunInt> list, std::string_view stem);

// Arithmetic on numbers of the graph, all i64[].
Result<Val> choose(Emitter &e, const Val &condition, const Val &a, const Val &b);
// ceil(a / b) for any signs; b is not 0.
Result<Val> ceil_quotient(Emitter &e, const Val &a, const Val &b);

// end - start, where the one is made of the other by adding a constant.
std::optional<int64_t> constant_difference(const Emitter &e, const Val &end, const Val &start);

// A slice of which a bound is only known when it runs, along one axis.
// With `length`, the end is that far behind the start.
Result<Val> slice_found(OnnxNode &n, const Val &x, int axis, const RunInt &start, const RunInt &end, const RunInt &step,
                        std::optional<int64_t> length);

} // namespace kiln::onnx
