// What goes into a contraction for free: a bias as the value it starts from, a scale of its
// constant weights, padding, a transposed operand. The arithmetic on weights is emitted as nodes on
// constants, for fold to evaluate.
#include "passes/graph/index_map.h"
#include "passes/graph/rules.h"

#include <algorithm>

namespace kiln {
namespace {

// A constant that varies along dim `axis` of the result at most, as a vector [size]; invalid
// otherwise.
ValueId as_vector(Match &m, ValueId c, int axis, const Shape &result) {
  const Shape shape = m.shape(c);
  if (!m.is_constant(c) || shape.size() > result.size())
    return {};
  size_t skip = result.size() - shape.size();
  for (size_t d = 0; d < shape.size(); ++d)
    if (!shape[d].is_const(1) && (int(skip + d) != axis || shape[d] != result[size_t(axis)]))
      return {};
  Dim size = result[size_t(axis)];
  if (!size.is_const())
    return {};
  if (element_count(shape).is_const(1) && !size.is_const(1)) {
    ValueId one = shape.size() == 1 ? c : m.b(Op::reshape, {c}, {{"shape", Shape{1}}});
    return m.b(Op::broadcast_to, {one}, {{"shape", Shape{size}}});
  }
  return shape == Shape{size} ? c : m.b(Op::reshape, {c}, {{"shape", Shape{size}}});
}

// The contraction at operand 0, if nothing else uses it, and the axis of the result its weights'
// output channels lie on.
struct Contraction {
  Node node;
  int channels;
};
std::optional<Contraction> contraction_below(Match &m) {
  const Node *n = m.def(m.operand(0));
  if (!n || !m.has_one_use(m.operand(0)) || m.type(m.operand(0)) != m.type() ||
      !m.is_float_result())
    return std::nullopt;
  if (n->op == Op::conv || n->op == Op::conv_transpose)
    return Contraction{*n, 1};
  if (n->op == Op::dot && m.type().rank() > 0)
    return Contraction{*n, m.type().rank() - 1};
  return std::nullopt;
}

ValueId add_bias(Match &m) {
  auto below = contraction_below(m);
  if (!below)
    return {};
  ValueId bias = as_vector(m, m.operand(1), below->channels, m.type().shape);
  if (!bias.valid())
    return {};
  auto &operands = below->node.operands;
  if (operands.size() < 3)
    operands.push_back(bias);
  else if (!m.is_constant(operands[2]))
    return {};
  else
    operands[2] = m.b(Op::add, {operands[2], bias});
  return m.b(below->node.op, operands, below->node.attrs);
}

// conv(x, w, b) * c = conv(x, w * c, b * c)
ValueId scale_weights(Match &m) {
  auto below = contraction_below(m);
  if (!below)
    return {};
  Node &n = below->node;
  const TensorType weights = m.type(n.operands[1]);
  if (!m.is_constant(n.operands[1]) || (n.operands.size() > 2 && !m.is_constant(n.operands[2])))
    return {};
  // The output channels in the weights; a grouped transposed convolution has them spread over two
  // dims.
  int axis = 0;
  if (n.op == Op::conv_transpose) {
    if (!n.attrs.get_dim("groups").is_const(1))
      return {};
    axis = 1;
  } else if (n.op == Op::dot) {
    axis = n.attrs.get_bool("transpose_b") ? weights.rank() - 2 : weights.rank() - 1;
    if (n.operands.size() > 2 && squeezed(m.shape(n.operands[2])).size() > 1)
      return {};
  }
  ValueId scale = as_vector(m, m.operand(1), below->channels, m.type().shape);
  if (!scale.valid() || axis < 0)
    return {};
  Shape along(size_t(weights.rank()), Dim(1));
  along[size_t(axis)] = weights.shape[size_t(axis)];
  n.operands[1] = m.b(Op::mul, {n.operands[1], m.b(Op::reshape, {scale}, {{"shape", along}})});
  if (n.operands.size() > 2)
    n.operands[2] = m.b(Op::mul, {n.operands[2], scale});
  return m.b(n.op, n.operands, n.attrs);
}

// dot(a, permute(b)) with the last dims swapped = dot(a, b) with transpose_b flipped. The form in
// which the innermost dim of b's source is the innermost of what the dot reads is the one to have.
ValueId transpose_into_dot(Match &m) {
  const Node *p = m.def(m.operand(1), Op::permute);
  if (!p)
    return {};
  size_t rank = m.shape(m.operand(1)).size();
  auto dims = normal_axes(p->attrs, "dims", rank);
  if (rank < 2 || dims[rank - 2] != int64_t(rank) - 1)
    return {};
  std::swap(dims[rank - 1], dims[rank - 2]);
  ValueId b = p->operands[0];
  if (!std::is_sorted(dims.begin(), dims.end()))
    b = m.b(Op::permute, {b}, {{"dims", std::vector<Dim>(dims.begin(), dims.end())}});
  Attrs attrs = m.node().attrs;
  attrs.set("transpose_b", !attrs.get_bool("transpose_b"));
  auto operands = m.node().operands;
  operands[1] = b;
  return m.b(Op::dot, operands, attrs);
}

// conv(pad(x, 0), w) = conv(x, w) with more padding
ValueId pad_into_conv(Match &m) {
  const Node *p = m.def(m.operand(0), Op::pad);
  if (!p || p->attrs.get_string("mode") != "constant" || p->attrs.get_float("value") != 0)
    return {};
  const auto lo = p->attrs.get_dims("lo"), hi = p->attrs.get_dims("hi");
  for (size_t d = 0; d < lo.size(); ++d) {
    auto a = lo[d].try_const(), b = hi[d].try_const();
    if (!a || !b || *a < 0 || *b < 0 || (d < 2 && (*a || *b)))
      return {};
  }
  Attrs attrs = m.node().attrs;
  auto pad = attrs.get_dims("pad");
  size_t spatial = lo.size() - 2;
  if (pad.size() != 2 * spatial)
    return {};
  for (size_t d = 0; d < spatial; ++d) {
    pad[d] += lo[d + 2];
    pad[spatial + d] += hi[d + 2];
  }
  attrs.set("pad", pad);
  auto operands = m.node().operands;
  operands[0] = p->operands[0];
  return m.b(Op::conv, operands, attrs);
}

// slice(conv_transpose(x, w)) = conv_transpose(x, w) with more taken off
ValueId crop_into_transposed_conv(Match &m) {
  const Node *below = m.def(m.operand(0), Op::conv_transpose);
  if (!below || !m.has_one_use(m.operand(0)))
    return {};
  const Attrs &slice = m.node().attrs;
  const Shape &whole = m.shape(m.operand(0)), &part = m.type().shape;
  auto axes = normal_axes(slice, "axes", whole.size());
  const auto &starts = slice.get_dims("starts"), &steps = slice.get_dims("steps");
  Attrs attrs = below->attrs;
  auto pad = attrs.get_dims("pad");
  size_t spatial = whole.size() - 2;
  if (pad.size() != 2 * spatial || starts.size() != axes.size() || steps.size() != axes.size())
    return {};
  for (size_t i = 0; i < axes.size(); ++i) {
    size_t d = size_t(axes[i]);
    auto start = starts[i].try_const();
    if (d < 2 || !steps[i].is_const(1) || !start || *start < 0)
      return {};
    auto end = (whole[d] - part[d] - Dim(*start)).try_const();
    if (!end || *end < 0)
      return {};
    pad[d - 2] += Dim(*start);
    pad[spatial + d - 2] += Dim(*end);
  }
  attrs.set("pad", pad);
  return m.b(Op::conv_transpose, below->operands, attrs);
}

// Whether a factor of x ends up in the weights of the contraction that makes it, by the other
// rules.
bool scales_weights_above(Match &m, ValueId x) {
  const Node *n = m.def(x);
  while (n && (n->op == Op::reshape || n->op == Op::permute))
    n = m.def(n->operands[0]);
  return n && op_def(n->op).has(kContraction) && m.is_constant(n->operands[1]);
}

// dot(view(a * c), b) = dot(view(a), b) * c: an epilogue multiplies for free, a kernel of its own
// does not
ValueId scale_after_dot(Match &m) {
  if (m.operand_count() > 2 || !m.is_float_result() || dtype_bits(m.type().dtype) < 32)
    return {};
  for (int i = 0; i < 2; ++i) {
    std::vector<Node> views;
    ValueId at = m.operand(i);
    for (const Node *n = m.def(at); n && is_view(*n) && views.size() < 8 && m.has_one_use(at);
         n = m.def(at)) {
      views.push_back(*n);
      at = n->operands[0];
    }
    const Node *mul = m.def(at, Op::mul);
    auto c = mul && m.has_one_use(at) ? m.splat(mul->operands[1]) : std::nullopt;
    if (!c || m.type(mul->operands[0]) != m.type(at) || scales_weights_above(m, mul->operands[0]))
      continue;
    ValueId x = mul->operands[0];
    for (size_t v = views.size(); v-- > 0;)
      x = m.b(views[v].op, {x}, views[v].attrs);
    auto operands = m.node().operands;
    operands[size_t(i)] = x;
    ValueId y = m.b(Op::dot, operands, m.node().attrs);
    return m.b(Op::mul, {y, m.b.scalar(m.type().dtype, *c)});
  }
  return {};
}

const Rule kRules[] = {
    {Op::add, "conv(x, w, b) + c = conv(x, w, b + c)", add_bias},
    {Op::mul, "conv(x, w, b) * c = conv(x, w * c, b * c)", scale_weights},
    {Op::dot, "dot(a, permute(b)) = dot(a, b), transposed", transpose_into_dot},
    {Op::dot, "dot(a * c, b) = dot(a, b) * c", scale_after_dot},
    {Op::conv, "conv(pad(x)) = conv(x), padded", pad_into_conv},
    {Op::slice, "conv_transpose(x)[i:j] = conv_transpose(x), cropped", crop_into_transposed_conv},
};

} // namespace

std::span<const Rule> contraction_rules() {
  return kRules;
}

} // namespace kiln
