#include "passes/graph/index_map.h"

#include "ir/ops/op.h"

#include <algorithm>

namespace kiln {
namespace {

using Index = std::vector<Dim>;

Index broadcast_index(const Shape &from, std::span<const Dim> index) {
  Index out;
  size_t skip = index.size() - from.size();
  for (size_t d = 0; d < from.size(); ++d)
    out.push_back(from[d].is_const(1) ? Dim(0) : index[skip + d]);
  return out;
}

// Runs of dims that hold equally many elements on both sides are linearised on their own.
Index reshape_index(const Shape &from, const Shape &to, std::span<const Dim> index) {
  Index out(from.size(), Dim(0));
  size_t f = 0, t = 0;
  while (f < from.size() || t < to.size()) {
    size_t f_begin = f, t_begin = t;
    Dim f_count = 1, t_count = 1;
    auto grow_from = [&] { f_count *= from[f++]; };
    auto grow_to = [&] { t_count *= to[t++]; };
    if (f < from.size())
      grow_from();
    if (t < to.size())
      grow_to();
    while (f_count != t_count && (f < from.size() || t < to.size())) {
      auto a = f_count.try_const(), b = t_count.try_const();
      bool from_smaller = a && b ? *a < *b : f - f_begin < t - t_begin;
      if ((from_smaller && f < from.size()) || t == to.size())
        grow_from();
      else
        grow_to();
    }
    Dim linear = 0;
    for (size_t d = t_begin; d < t; ++d)
      linear = linear * to[d] + index[d];
    for (size_t d = f; d-- > f_begin;) {
      bool outermost = true;
      for (size_t o = f_begin; o < d; ++o)
        outermost &= from[o].is_const(1);
      if (from[d].is_const(1))
        continue;
      out[d] = outermost ? linear : mod(linear, from[d]);
      linear = floordiv(linear, from[d]);
    }
  }
  return out;
}

size_t axis_of(const Dim &axis, size_t rank) {
  int64_t a = axis.as_const();
  return size_t(a < 0 ? a + int64_t(rank) : a);
}

std::optional<Index> movement_index(const Function &function, const Node &node,
                                    std::span<const Dim> index) {
  const Shape &from = function.type(node.operands[0]).shape;
  const Shape &to = function.type(node.results[0]).shape;
  Index out(index.begin(), index.end());
  switch (node.op) {
  case Op::broadcast_to:
    return broadcast_index(from, index);
  case Op::reshape:
    return reshape_index(from, to, index);
  case Op::permute: {
    const auto &dims = node.attrs.get_dims("dims");
    for (size_t d = 0; d < dims.size(); ++d)
      out[axis_of(dims[d], dims.size())] = index[d];
    return out;
  }
  case Op::slice: {
    const auto &axes = node.attrs.get_dims("axes"), &starts = node.attrs.get_dims("starts"),
               &steps = node.attrs.get_dims("steps");
    for (size_t i = 0; i < axes.size(); ++i) {
      size_t d = axis_of(axes[i], out.size());
      out[d] = starts[i] + out[d] * steps[i];
    }
    return out;
  }
  case Op::flip:
    for (const Dim &axis : node.attrs.get_dims("axes")) {
      size_t d = axis_of(axis, out.size());
      out[d] = from[d] - Dim(1) - out[d];
    }
    return out;
  default:
    return std::nullopt;
  }
}

} // namespace

IndexSpace index_space(const Shape &shape) {
  IndexSpace out;
  for (const Dim &size : shape)
    for (Symbol s : size.symbols())
      if (!out.ranges.find(s))
        out.ranges.set(s, {Dim(1), std::nullopt});
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d].is_const(1)) {
      out.index.push_back(0);
      continue;
    }
    Symbol symbol("$" + std::to_string(d));
    out.ranges.set(symbol, {Dim(0), shape[d]});
    out.index.push_back(Dim::symbol(symbol));
    out.symbols.push_back(symbol);
  }
  return out;
}

std::optional<Index> operand_index(const Function &function, const Node &node, int i,
                                   std::span<const Dim> index, const DimRanges &ranges) {
  const OpDef &def = op_def(node.op);
  std::optional<Index> out;
  if (def.scalar || node.op == Op::bitcast)
    out = broadcast_index(function.type(node.operands[size_t(i)]).shape, index);
  else if (def.has(kMovement) && i == 0)
    out = movement_index(function, node, index);
  if (out)
    for (Dim &d : *out)
      d = simplify(d, ranges);
  return out;
}

bool is_linear(const Dim &offset, const IndexSpace &space) {
  for (Symbol s : space.symbols) {
    auto coefficient = offset.coefficient_of(s);
    if (!coefficient)
      return false;
    for (Symbol other : space.symbols)
      if (coefficient->depends_on(other))
        return false;
  }
  return offset.is_valid();
}

namespace {

constexpr int kDeepestUnpacking = 12; // of nodes on the way to a constant

bool keeps_elements(const Node &node) { return op_def(node.op).scalar || node.op == Op::bitcast || is_view(node); }

bool is_made_of_constants(const Function &function, ValueId value, int depth, bool &shifts) {
  const Node *def = function.def(value);
  if (!def || depth == 0)
    return false;
  if (def->op == Op::constant)
    return true;
  shifts |= def->op == Op::shift_right || def->op == Op::shift_left;
  if (def->results.size() != 1 || def->operands.empty() || !keeps_elements(*def))
    return false;
  return std::all_of(def->operands.begin(), def->operands.end(),
                     [&](ValueId v) { return is_made_of_constants(function, v, depth - 1, shifts); });
}

constexpr int kDeepestIndex = 8; // of nodes on the way to an iota

bool is_made_of_indices(const Function &function, ValueId value, int depth, bool &counts) {
  const Node *def = function.def(value);
  if (!def || depth == 0)
    return false;
  counts |= def->op == Op::iota;
  if (def->op == Op::iota)
    return true;
  if (def->op == Op::constant)
    return element_count(function.type(value).shape).is_const(1);
  if (def->results.size() != 1 || def->operands.empty() || !keeps_elements(*def) || op_def(def->op).has(kExpensive))
    return false;
  return std::all_of(def->operands.begin(), def->operands.end(), [&](ValueId v) { return is_made_of_indices(function, v, depth - 1, counts); });
}

} // namespace

bool is_made_of_constants(const Function &function, ValueId value) {
  bool shifts = false;
  return is_made_of_constants(function, value, kDeepestUnpacking, shifts);
}

bool is_made_of_indices(const Function &function, ValueId value) {
  bool counts = false;
  return is_made_of_indices(function, value, kDeepestIndex, counts) && counts;
}

bool unpacks(const Function &function, ValueId value) {
  bool shifts = false;
  return is_made_of_constants(function, value, kDeepestUnpacking, shifts) && shifts;
}

bool is_view(const Node &node) {
  switch (node.op) {
  case Op::broadcast_to:
  case Op::reshape:
  case Op::permute:
  case Op::slice:
  case Op::flip:
    return true;
  default:
    return false;
  }
}

Shape squeezed(const Shape &shape) {
  Shape out;
  for (const Dim &d : shape)
    if (!d.is_const(1))
      out.push_back(d);
  return out;
}

} // namespace kiln
