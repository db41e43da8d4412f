// Rewrite rules: one-liners with the equation they stand for, grouped by the op at their root.
//
// A rule gives the value that replaces the root's result, or an invalid id where it does not apply.
// The new form is never larger. Values are equal bit for bit for integers; for floats up to the
// sign of zero and, where constants meet, one rounding. Rules that lose more are marked `unsafe`
// and only run where the user asks for them.
#pragma once

#include "ir/ops/op.h"
#include "passes/graph/rewrite.h"

#include <map>

namespace kiln {

class Match {
public:
  Match(Sweep &sweep, NodeId id) : s(sweep), b(sweep.builder()), id_(id) {}

  const Node &node() const { return s.node(id_); }
  const Function &function() const { return s.function(); }
  ValueId operand(int i) const { return node().operands[size_t(i)]; }
  size_t operand_count() const { return node().operands.size(); }
  ValueId result() const { return node().results[0]; }
  const TensorType &type(ValueId v) const { return function().type(v); }
  const TensorType &type() const { return type(result()); }
  const Shape &shape(ValueId v) const { return type(v).shape; }
  bool is_float_result() const { return is_float(type().dtype); }

  // The node that computes v, if it is of this op.
  const Node *def(ValueId v, Op op) const {
    const Node *n = function().def(v);
    return n && n->op == op ? n : nullptr;
  }
  const Node *def(ValueId v) const { return function().def(v); }
  std::optional<double> splat(ValueId v) const { return splat_value(s.module(), function(), v); }
  bool is_splat(ValueId v, double value) const { return splat(v) == std::optional(value); }
  bool is_constant(ValueId v) const {
    return constant_tensor(s.module(), function(), v) != nullptr;
  }
  bool has_one_use(ValueId v) const { return s.uses(v) == 1; }
  // v, if it can stand for the result.
  ValueId same(ValueId v) const { return type(v) == type() ? v : ValueId(); }
  ValueId same_shape(ValueId v) const { return shape(v) == type().shape ? v : ValueId(); }

  Sweep &s;
  GraphBuilder &b;

private:
  NodeId id_;
};

struct Rule {
  Op root;
  std::string_view equation;
  ValueId (*rewrite)(Match &m);
  bool unsafe = false; // for floats
};

// Rules for every op with a trait, tried before those of the op.
struct TraitRule {
  Trait trait;
  std::string_view equation;
  ValueId (*rewrite)(Match &m);
};

std::span<const TraitRule> trait_rules();
ValueId elementwise_before_view(Match &m); // of rules_movement.cpp, for trait_rules()
std::span<const Rule> arithmetic_rules();
std::span<const Rule> movement_rules();
std::span<const Rule> contraction_rules();
std::span<const Rule> raising_rules();

// One sweep over every function with these rules, outside fusions.
Changed apply_rules(Module &module, std::span<const std::span<const Rule>> tables,
                    bool with_trait_rules, bool unsafe);

// Axis attributes, non-negative.
int64_t normal_axis(const Dim &axis, size_t rank);
std::vector<int64_t> normal_axes(const Attrs &attrs, std::string_view name, size_t rank);

} // namespace kiln
