// Reverse-mode differentiation of graphs: backpropagation as a source transformation. Nothing is
// recorded while a program runs; the gradient is more graph, which the passes fuse, plan and compile
// like any other.
//
//   y = exp(x)                      y  = exp(x)
//   loss = reduce_sum(y)     ->     loss = reduce_sum(y)
//                                   dy = broadcast_to(1, shape of y)
//                                   dx = dy * y
//
// The gradient of each op is a rule made of ops (rules_*.cpp), so gradients have gradients. Composites
// without a rule are expanded first. Regions (if, while, scan) run backwards through a region of
// their own: what it needs of the forward run is saved by scan and computed again by if and while.
//
// Griewank and Walther, "Evaluating Derivatives", 2nd ed., chapters 3 and 12.
#pragma once

#include "ir/graph.h"

#include <deque>
#include <functional>
#include <span>

namespace kiln {

// Nodes that are one thing for gradients. With `custom`, that makes the gradients of the inputs (one for each, not valid
// for what is no float) from those of the results; without, the values between are not kept for the way back: it computes
// them again, of inputs behind a `relayout`, so that nothing merges them with the first ones.
struct GradientUnit {
  std::vector<ValueId> inputs, results;
  std::vector<NodeId> nodes; // in their order, all in one block
  std::function<Result<std::vector<ValueId>>(GraphBuilder &b, std::span<const ValueId> inputs, std::span<const ValueId> gradients)> custom;
};
// Of one function. Copies that gradients make of units within units are added.
using GradientUnits = std::deque<GradientUnit>;

// Appends, where `b` stands, what computes for each of `wrt` the sum over k of
// <seeds[k], d of[k] / d wrt>: the vector-Jacobian product. `of` and `wrt` are floats visible there; a seed has the
// type of what it belongs to. A gradient has the type of its value, and is zeros where nothing depends
// on it. Values of `wrt` may depend on each other: each gets its whole derivative.
//
// The error names the op that has no gradient, why, where it stands, and how `of` depends on it.
Result<std::vector<ValueId>> reverse_gradient(GraphBuilder &b, std::span<const ValueId> of,
                                              std::span<const ValueId> seeds,
                                              std::span<const ValueId> wrt, GradientUnits *units = nullptr);

// The same for one scalar: the gradient of `loss`, a float of rank 0.
Result<std::vector<ValueId>> gradient(GraphBuilder &b, ValueId loss, std::span<const ValueId> wrt, GradientUnits *units = nullptr);

// The Jacobian-vector product: the derivative of each of `of` when wrt[k] moves by tangents[k]; by
// differentiating the vector-Jacobian product, which is linear in its seed.
Result<std::vector<ValueId>> forward_gradient(GraphBuilder &b, std::span<const ValueId> of,
                                              std::span<const ValueId> wrt,
                                              std::span<const ValueId> tangents, GradientUnits *units = nullptr);

} // namespace kiln
