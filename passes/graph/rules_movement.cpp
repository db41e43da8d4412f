// Identities of movement ops, and moving them out of the way of fusions.
#include "passes/graph/index_map.h"
#include "passes/graph/rules.h"

#include <algorithm>

namespace kiln {
namespace {

ValueId reshape_to(Match &m, ValueId x, const Shape &shape) {
  return m.shape(x) == shape ? x : m.b(Op::reshape, {x}, {{"shape", shape}});
}

ValueId permute_permute(Match &m) {
  const Node *inner = m.def(m.operand(0), Op::permute);
  if (!inner)
    return {};
  size_t rank = m.type().shape.size();
  auto outer_dims = normal_axes(m.node().attrs, "dims", rank),
       inner_dims = normal_axes(inner->attrs, "dims", rank);
  ValueId x = inner->operands[0];
  std::vector<Dim> dims;
  for (int64_t d : outer_dims)
    dims.push_back(inner_dims[size_t(d)]);
  return m.b(Op::permute, {x}, {{"dims", dims}});
}

// Dims of size 1 may go anywhere: if the others keep their order, nothing moves.
ValueId permute_of_units(Match &m) {
  size_t rank = m.type().shape.size();
  int64_t last = -1;
  for (int64_t d : normal_axes(m.node().attrs, "dims", rank)) {
    if (m.shape(m.operand(0))[size_t(d)].is_const(1))
      continue;
    if (d < last)
      return {};
    last = d;
  }
  return reshape_to(m, m.operand(0), Shape(m.type().shape));
}

// permute(reshape(permute(x))) where the reshape only adds or drops dims of size 1: the reshape
// goes last
ValueId permute_before_units(Match &m) {
  const Node *view = m.def(m.operand(0), Op::reshape);
  if (!view || !m.def(view->operands[0], Op::permute))
    return {};
  ValueId x = view->operands[0];
  const Shape from = m.shape(x), to = m.shape(m.operand(0));
  if (squeezed(from) != squeezed(to))
    return {};
  std::vector<int64_t> from_dims, rank_of(to.size()), order;
  for (size_t d = 0; d < from.size(); ++d)
    if (!from[d].is_const(1))
      from_dims.push_back(int64_t(d));
  int64_t next = 0;
  for (size_t d = 0; d < to.size(); ++d)
    rank_of[d] = to[d].is_const(1) ? -1 : next++;
  for (int64_t d : normal_axes(m.node().attrs, "dims", to.size()))
    if (rank_of[size_t(d)] >= 0)
      order.push_back(rank_of[size_t(d)]);
  std::vector<Dim> dims;
  size_t taken = 0;
  for (size_t d = 0; d < from.size(); ++d)
    dims.push_back(from[d].is_const(1) ? int64_t(d) : from_dims[size_t(order[taken++])]);
  return reshape_to(m, m.b(Op::permute, {x}, {{"dims", dims}}), Shape(m.type().shape));
}

ValueId whole_slice(Match &m) {
  const Attrs &attrs = m.node().attrs;
  for (const Dim &step : attrs.get_dims("steps"))
    if (!step.is_const(1))
      return {};
  return m.same(m.operand(0)); // a step of 1 and the same size: from the start
}

ValueId pad_nothing(Match &m) {
  const Attrs &attrs = m.node().attrs;
  auto zero = [](const Dim &d) { return d.is_const(0); };
  const auto &lo = attrs.get_dims("lo"), &hi = attrs.get_dims("hi");
  bool nothing = std::all_of(lo.begin(), lo.end(), zero) && std::all_of(hi.begin(), hi.end(), zero);
  return nothing ? m.same(m.operand(0)) : ValueId();
}

ValueId concat_one(Match &m) {
  if (m.operand_count() == 1)
    return m.same(m.operand(0));
  // Empty parts add nothing.
  std::vector<ValueId> parts;
  size_t axis = size_t(normal_axis(m.node().attrs.get_dim("axis"), m.type().shape.size()));
  for (ValueId v : m.node().operands)
    if (!m.shape(v)[axis].is_const(0))
      parts.push_back(v);
  if (parts.empty() || parts.size() == m.operand_count())
    return {};
  return m.b(Op::concat, parts, m.node().attrs);
}

ValueId concat_concat(Match &m) {
  const Dim axis = m.node().attrs.get_dim("axis");
  std::vector<ValueId> parts;
  for (ValueId v : m.node().operands) {
    const Node *inner = m.has_one_use(v) ? m.def(v, Op::concat) : nullptr;
    if (inner && inner->attrs.get_dim("axis") == axis)
      parts.insert(parts.end(), inner->operands.begin(), inner->operands.end());
    else
      parts.push_back(v);
  }
  return parts.size() > m.operand_count() ? m.b(Op::concat, parts, m.node().attrs) : ValueId();
}

// A pad with zeros that only its sum reads.
const Node *padded_part(Match &m, ValueId v) {
  const Node *pad = m.has_one_use(v) ? m.def(v, Op::pad) : nullptr;
  if (!pad || pad->attrs.get_string("mode") != "constant" || pad->attrs.get_float("value") != 0)
    return nullptr;
  for (const char *side : {"lo", "hi"})
    for (const Dim &d : pad->attrs.get_dims(side))
      if (!d.is_const() || d.as_const() < 0)
        return nullptr;
  return pad;
}

// The gradients of the parts of a split are laid side by side, not added.
ValueId add_of_pads(Match &m) {
  const Node *x = padded_part(m, m.operand(0)), *y = padded_part(m, m.operand(1));
  if (!x || !y || m.shape(m.operand(0)) != m.shape(m.operand(1)))
    return {};
  std::optional<size_t> axis;
  for (size_t d = 0; d < m.type().shape.size(); ++d) {
    if (x->attrs.get_dims("lo")[d] == y->attrs.get_dims("lo")[d] && x->attrs.get_dims("hi")[d] == y->attrs.get_dims("hi")[d])
      continue;
    if (axis)
      return {};
    axis = d;
  }
  if (!axis)
    return {};
  if (x->attrs.get_dims("lo")[*axis].as_const() > y->attrs.get_dims("lo")[*axis].as_const())
    std::swap(x, y);
  ValueId first = x->operands[0], second = y->operands[0];
  if (!(x->attrs.get_dims("lo")[*axis] + m.shape(first)[*axis] == y->attrs.get_dims("lo")[*axis]))
    return {};
  Attrs attrs = x->attrs;
  attrs.set("hi", y->attrs.get_dims("hi"));
  ValueId joined = m.b(Op::concat, {first, second}, {{"axis", Dim(int64_t(*axis))}});
  return m.b(Op::pad, {joined}, attrs);
}

// reduce over dims of size 1 only
ValueId reduce_nothing(Match &m) {
  const Shape &shape = m.shape(m.operand(0));
  for (int64_t a : normal_axes(m.node().attrs, "axes", shape.size()))
    if (!shape[size_t(a)].is_const(1))
      return {};
  if (m.type(m.operand(0)).dtype != m.type().dtype)
    return {};
  return reshape_to(m, m.operand(0), Shape(m.type().shape));
}

// Whether an operand of an elementwise op means the same to the source of a reshape: a single
// element, or the last dim only, which the reshape keeps.
bool passes_reshape(Match &m, ValueId other, const Shape &from, const Shape &to) {
  const Shape s = squeezed(m.shape(other));
  if (s.empty())
    return m.shape(other).size() <= std::min(from.size(), to.size());
  return s.size() == 1 && m.shape(other).size() == 1 && !from.empty() && !to.empty() &&
         s[0] == from.back() && s[0] == to.back();
}

const Rule kRules[] = {
    {Op::reshape, "reshape(x) = x for the same shape",
     [](Match &m) { return m.same(m.operand(0)); }},
    {Op::reshape, "reshape(reshape(x)) = reshape(x)",
     [](Match &m) {
       const Node *n = m.def(m.operand(0), Op::reshape);
       return n ? reshape_to(m, n->operands[0], Shape(m.type().shape)) : ValueId();
     }},
    {Op::permute, "permute of dims of size 1 = reshape", permute_of_units},
    {Op::permute, "permute(permute(x)) = permute(x)", permute_permute},
    {Op::permute, "permute(reshape(permute(x))) = reshape(permute(x)) for dims of size 1",
     permute_before_units},
    {Op::broadcast_to, "broadcast_to(x) = x for the same shape",
     [](Match &m) { return m.same(m.operand(0)); }},
    {Op::slice, "x[:] = x", whole_slice},
    {Op::pad, "pad(x, 0) = x", pad_nothing},
    {Op::concat, "concat(x) = x", concat_one},
    {Op::concat, "concat(concat(x, y), z) = concat(x, y, z)", concat_concat},
    {Op::add, "pad(x) + pad(y) = pad(concat(x, y)) where y begins at the end of x", add_of_pads},
    {Op::reduce_sum, "reduce over dims of size 1 = reshape", reduce_nothing},
    {Op::reduce_mean, "reduce over dims of size 1 = reshape", reduce_nothing},
    {Op::reduce_max, "reduce over dims of size 1 = reshape", reduce_nothing},
    {Op::reduce_min, "reduce over dims of size 1 = reshape", reduce_nothing},
    {Op::reduce_prod, "reduce over dims of size 1 = reshape", reduce_nothing},
};

} // namespace

// f(reshape(x), c) = reshape(f(x, c)): so that f can be computed where x is
ValueId elementwise_before_view(Match &m) {
  const auto operands = m.node().operands;
  for (size_t i = 0; i < operands.size(); ++i) {
    const Node *view = m.def(operands[i]);
    if (!view || (view->op != Op::reshape && view->op != Op::permute) ||
        !m.has_one_use(operands[i]) || m.shape(operands[i]) != m.type().shape)
      continue;
    // Only where what is below computes; a view of an argument costs nothing where it is.
    ValueId x = view->operands[0];
    const Node *source = m.def(x);
    while (source && is_view(*source))
      source = m.def(source->operands[0]);
    if (!source || !(op_def(source->op).has(kContraction)))
      continue;
    Attrs view_attrs = view->attrs;
    Op view_op = view->op;
    Shape from = m.shape(x), to = m.shape(operands[i]);
    bool fits = true;
    for (size_t k = 0; k < operands.size(); ++k)
      fits &= k == i || (view_op == Op::reshape ? passes_reshape(m, operands[k], from, to)
                                                : squeezed(m.shape(operands[k])).empty() &&
                                                      m.shape(operands[k]).size() <= from.size());
    if (!fits)
      continue;
    std::vector<ValueId> inner = operands;
    inner[i] = x;
    ValueId y = m.b(m.node().op, inner, m.node().attrs);
    return m.shape(y) == from ? m.b(view_op, {y}, view_attrs) : ValueId();
  }
  return {};
}

std::span<const Rule> movement_rules() {
  return kRules;
}

} // namespace kiln
