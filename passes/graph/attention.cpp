#include "passes/graph/attention.h"

#include "ir/ops/op.h"
#include "passes/graph/fuse.h"
#include "passes/graph/rewrite.h"

#include <functional>

namespace kiln {
namespace {

constexpr int kDepth = 12; // nodes between the softmax and a dot

class Matcher {
public:
  Matcher(const Module &module, const Function &function) : module_(module), function_(function) {}

  std::optional<AttentionParts> run(NodeId values_dot) {
    const Node &last = function_.node(values_dot);
    if (last.op != Op::dot || last.operands.size() != 2)
      return std::nullopt;
    AttentionParts out;
    out.values_dot = values_dot;
    out.weights = last.operands[0];
    if (!find_normalised(out.weights, 0, out) || !read_softmax(out))
      return std::nullopt;
    if (!find_dot(out.scores, 0, out.to_dot))
      return std::nullopt;
    out.keys_dot = function_.value(result_of(out.to_dot, out.scores)).def;
    read_guard(out);
    return out;
  }

private:
  const Node *def(ValueId v) const { return function_.def(v); }
  const Shape &shape(ValueId v) const { return function_.type(v).shape; }

  ValueId result_of(const OperandPath &path, ValueId from) const {
    return path.empty() ? from
                        : function_.node(path.back().first).operands[size_t(path.back().second)];
  }

  // A reshape that leaves the last two dims alone.
  bool regroups(const Node &n) const {
    if (n.op != Op::reshape)
      return false;
    const Shape &a = shape(n.operands[0]), &b = shape(n.results[0]);
    return a.size() >= 2 && b.size() >= 2 && a.back() == b.back() &&
           a[a.size() - 2] == b[b.size() - 2];
  }

  bool is_exp(ValueId v) const {
    const Node *n = def(v);
    return n && n->op == Op::exp;
  }

  // e / sum or e * (1 / sum).
  bool is_normalised(const Node &n) const {
    if (n.op == Op::div)
      return is_exp(n.operands[0]);
    const Node *inverse = n.op == Op::mul ? def(n.operands[1]) : nullptr;
    return inverse && inverse->op == Op::reciprocal && is_exp(n.operands[0]);
  }

  // Through nodes that work on elements, along operands as large as their results.
  bool find_normalised(ValueId v, int depth, AttentionParts &out) const {
    const Node *n = def(v);
    if (!n || depth > kDepth)
      return false;
    if (is_normalised(*n) && read_sum(*n, out)) {
      out.normalised = v;
      return true;
    }
    return each_operand(v, [&](int i, ValueId operand) {
      out.to_normalised.emplace_back(function_.value(v).def, i);
      out.softmax.push_back(function_.value(v).def);
      if (find_normalised(operand, depth + 1, out))
        return true;
      out.to_normalised.pop_back();
      out.softmax.pop_back();
      return false;
    });
  }

  bool find_dot(ValueId v, int depth, OperandPath &path) const {
    const Node *n = def(v);
    if (!n || depth > kDepth)
      return false;
    if (n->op == Op::dot)
      return true;
    return each_operand(v, [&](int i, ValueId operand) {
      path.emplace_back(function_.value(v).def, i);
      if (find_dot(operand, depth + 1, path))
        return true;
      path.pop_back();
      return false;
    });
  }

  bool each_operand(ValueId v, const std::function<bool(int, ValueId)> &f) const {
    const Node &n = *def(v);
    if (n.results.size() != 1)
      return false;
    if (regroups(n))
      return f(0, n.operands[0]);
    if (!op_def(n.op).scalar)
      return false;
    for (size_t i = n.operands.size(); i-- > 0;) // conditions come first
      if (shape(n.operands[i]) == shape(v) && f(int(i), n.operands[i]))
        return true;
    return false;
  }

  // Over the last axis, which stays as a dim of size 1.
  bool reduces_keys(const Node *n, Op op) const {
    return n && n->op == op && trailing_axes(function_, *n) == 1 &&
           shape(n->results[0]).size() == shape(n->operands[0]).size();
  }

  bool read_sum(const Node &normalised, AttentionParts &out) const {
    const Node *sum = def(normalised.operands[1]);
    NodeId inverse;
    if (normalised.op == Op::mul) {
      inverse = function_.value(normalised.operands[1]).def;
      sum = def(sum->operands[0]);
    }
    if (!reduces_keys(sum, Op::reduce_sum) || sum->operands[0] != normalised.operands[0])
      return false;
    out.sum = sum->results[0];
    out.exponential = normalised.operands[0];
    if (inverse.valid())
      out.softmax.push_back(inverse);
    return true;
  }

  bool read_softmax(AttentionParts &out) const {
    const Node *shifted = def(def(out.exponential)->operands[0]);
    if (!shifted || shifted->op != Op::sub)
      return false;
    const Node *maximum = def(shifted->operands[1]);
    if (!reduces_keys(maximum, Op::reduce_max) || maximum->operands[0] != shifted->operands[0] ||
        shape(shifted->operands[0]) != shape(out.exponential))
      return false;
    out.scores = shifted->operands[0];
    out.maximum = maximum->results[0];
    for (ValueId v : {out.normalised, out.sum, out.exponential, shifted->results[0], out.maximum})
      out.softmax.push_back(function_.value(v).def);
    return true;
  }

  void read_guard(AttentionParts &out) const {
    const Node *n = def(out.weights);
    if (out.to_normalised.size() != 1 || n->op != Op::where || n->operands[2] != out.normalised ||
        out.to_normalised[0].second != 2)
      return;
    const Node *test = def(n->operands[0]);
    if (test && test->op == Op::is_nan && test->operands[0] == out.normalised &&
        splat_value(module_, function_, n->operands[1]) == std::optional(0.0)) {
      out.nan_to_zero = true;
      out.softmax.push_back(function_.value(test->results[0]).def);
    }
  }

  const Module &module_;
  const Function &function_;
};

} // namespace

std::optional<AttentionParts> match_attention(const Module &module, const Function &function,
                                              NodeId values_dot) {
  return Matcher(module, function).run(values_dot);
}

} // namespace kiln
