// Convolutions and matrix products of quantised operands, on their codes.
//
//   conv(dequantize(q, s, z), dequantize(w, t, 0), b)
//     ->  convert(conv(q, w, -z * sum(w)), f32) * (s * t) + b          q: u8, w: i8, the sums exact in i32
//
// What quantises such a result multiplies once: round(acc * (s * t / r) + b / r) + y, the usual
// requantisation, which differs from the float form by one step where a value lies next to the middle
// between two. Where floats by Winograd's tiles are faster still (flags.byte_dots), a convolution stays
// as it is. A relu in front of it is part of its saturation. i8 codes of activations become u8
// (those of z + 128), the form in which machines multiply them by i8. Padding with zeros of the
// float form is padding with the zero point, which only layouts' halos do where that is the code 0, as
// it is behind a relu; few channels (an image's) are padded to a whole group. Runs before constants
// are folded into float weights.
#include "passes/graph/pack_weights.h"
#include "passes/graph/rewrite.h"
#include "passes/graph/winograd.h"
#include "passes/graph/zero_points.h"

#include "ir/ops/op.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace kiln {
namespace {

constexpr int64_t kFewChannels = 8; // as in the layouts of convolutions
constexpr int64_t kGroup = 4;       // of products that are added in one step

int64_t least_code(DType dtype) { return dtype == DType::i8 ? -128 : 0; }
bool is_code(DType dtype) { return dtype == DType::u8 || dtype == DType::i8; }

struct Codes { // (value - zero) * scale
  ValueId value;
  double scale = 1;
  int64_t zero = 0;
};

struct Weights {
  Tensor codes; // i8, zero point 0
  std::vector<double> scales; // one for all, or for each output
};

// A float result made from integer sums: sum * scale[c] + bias[c], c along dim `channel`.
struct Scaled {
  ValueId sums;
  std::vector<double> scale, bias;
  Shape vector; // the shape of a constant along the channels
};

class IntegerProducts {
public:
  IntegerProducts(Module &module, Function &function, const PassFlags &flags)
      : module_(module), function_(function), flags_(flags) {}

  Changed run(PassContext &context) {
    Changed changed = make_unsigned();
    for (int round = 0; round < 4 && lift_quantize() == Changed::yes; ++round) {
      changed = Changed::yes;
      dce(module_, context);
    }
    Changed products = Sweep(module_, function_).run([&](Sweep &s, NodeId id) {
      Op op = s.node(id).op;
      if (op == Op::conv || op == Op::dot)
        rewrite_product(s, id);
      else if (op == Op::quantize)
        rewrite_quantize(s, id);
    });
    if (products == Changed::no)
      return changed;
    dce(module_, context);
    keep_in_registers();
    return Changed::yes;
  }

private:
  const Tensor *constant(ValueId v) const { return constant_tensor(module_, function_, v); }
  std::optional<double> splat(ValueId v) const { return splat_value(module_, function_, v); }

  // (x - zero) * scale with one number for all.
  std::optional<Codes> codes_of(const Node &node) const {
    Codes out{node.op == Op::quantize ? node.results[0] : node.operands[0]};
    auto scale = splat(node.operands[1]);
    auto zero = node.operands.size() > 2 ? splat(node.operands[2]) : std::optional<double>(0);
    if (!scale || !zero || !(*scale > 1e-30) || !(*scale < 1e30) ||
        !is_code(function_.type(out.value).dtype))
      return std::nullopt;
    out.scale = *scale;
    out.zero = int64_t(*zero);
    return out;
  }

  Changed make_unsigned();
  Changed lift_quantize();
  void rewrite_product(Sweep &s, NodeId id);
  void narrow_operands(Sweep &s, NodeId id);
  void rewrite_quantize(Sweep &s, NodeId id);
  void keep_in_registers();

  std::optional<Codes> activation(Sweep &s, ValueId v);
  std::optional<Weights> weights(ValueId v, int output_axis);
  bool padding_is_zero(const Node &conv) const;
  void pad_input(GraphBuilder &b, Codes &x, Tensor &weights, Attrs &attrs) const;
  bool comes_from_codes(ValueId v, int depth) const;
  ValueId scale_sums(GraphBuilder &b, const Scaled &x, double by) const;

  Module &module_;
  Function &function_;
  const PassFlags &flags_;
  std::map<ValueId, Scaled> scaled_;
};

// i8 activations whose only readers are dequantize nodes.
Changed IntegerProducts::make_unsigned() {
  std::map<ValueId, int> readers;
  for_each_node(function_, [&](NodeId id) {
    const Node &n = function_.node(id);
    if (n.op == Op::dequantize && codes_of(n))
      ++readers[n.operands[0]];
  });
  std::map<ValueId, ValueId> shifted;
  return Sweep(module_, function_).run([&](Sweep &s, NodeId id) {
    const Node node = s.node(id);
    GraphBuilder &b = s.builder();
    if (node.op != Op::quantize && node.op != Op::dequantize)
      return;
    auto codes = codes_of(node);
    if (!codes || function_.type(codes->value).dtype != DType::i8)
      return;
    ValueId scale = node.operands[1];
    if (node.op == Op::quantize) {
      auto it = readers.find(codes->value);
      if (it == readers.end() || it->second != s.uses(codes->value))
        return;
      ValueId zero = b.constant(Tensor::scalar_i64(DType::u8, codes->zero + 128));
      if (function_.type(scale).rank() != 0)
        scale = b.scalar(function_.type(scale).dtype, codes->scale);
      Attrs attrs = node.attrs;
      attrs.set("dtype", DType::u8);
      shifted[codes->value] = b(Op::quantize, {node.operands[0], scale, zero}, attrs);
      return;
    }
    auto from = shifted.find(codes->value);
    if (from == shifted.end())
      return;
    ValueId zero = b.constant(Tensor::scalar_i64(DType::u8, codes->zero + 128));
    if (function_.type(scale).rank() != 0)
      scale = b.scalar(function_.type(scale).dtype, codes->scale);
    s.replace(node.results[0], b(Op::dequantize, {from->second, scale, zero}, node.attrs));
  });
}

// quantize(f(x)) = f(quantize(x)) for what only moves elements or takes the largest: codes are moved
// instead of floats. quantize(dequantize(q)) = q.
Changed IntegerProducts::lift_quantize() {
  return Sweep(module_, function_).run([&](Sweep &s, NodeId id) {
    const Node node = s.node(id);
    auto codes = node.op == Op::quantize ? codes_of(node) : std::nullopt;
    const Node *below = codes ? function_.def(node.operands[0]) : nullptr;
    if (!below)
      return;
    auto same = [&](const Node &n) {
      auto from = n.op == Op::dequantize ? codes_of(n) : std::nullopt;
      return from && from->scale == codes->scale && from->zero == codes->zero &&
             function_.type(from->value).dtype == node.attrs.get_dtype("dtype");
    };
    if (same(*below))
      return s.replace(node.results[0], below->operands[0]);
    bool moves = below->op == Op::concat || below->op == Op::max_pool || below->op == Op::reshape ||
                 below->op == Op::permute;
    if (!moves || s.uses(node.operands[0]) != 1 || below->results.size() != 1)
      return;
    const Node moving = *below;
    std::vector<ValueId> operands;
    for (ValueId v : moving.operands) {
      const Node *n = function_.def(v);
      operands.push_back(n && same(*n)
                             ? n->operands[0]
                             : s.builder()(Op::quantize, {v, node.operands[1], node.operands[2]},
                                           node.attrs));
    }
    s.replace(node.results[0], s.builder()(moving.op, operands, moving.attrs));
  });
}

std::optional<Codes> IntegerProducts::activation(Sweep &s, ValueId v) {
  const Node *n = function_.def(v);
  if (!n || n->op != Op::dequantize || function_.type(v).dtype != DType::f32 ||
      constant(n->operands[0]))
    return std::nullopt;
  auto codes = codes_of(*n);
  if (codes && function_.type(codes->value).dtype == DType::i8) {
    GraphBuilder &b = s.builder();
    ValueId wide = b(Op::convert, {codes->value}, {{"dtype", DType::i32}});
    ValueId moved = b(Op::add, {wide, b.scalar(DType::i32, 128)});
    codes->value = b(Op::convert, {moved}, {{"dtype", DType::u8}});
    codes->zero += 128;
  }
  return codes;
}

std::optional<Weights> IntegerProducts::weights(ValueId v, int output_axis) {
  const Node *n = function_.def(v);
  const Tensor *codes = n && n->op == Op::dequantize ? constant(n->operands[0]) : nullptr;
  const Tensor *scale = codes ? constant(n->operands[1]) : nullptr;
  if (!scale || !is_code(codes->dtype()) || (scale->rank() > 1 && scale->count() != 1)) // blocks
    return std::nullopt;
  int64_t outputs = codes->dims()[size_t(output_axis)];
  int64_t axis = n->attrs.get_int("axis");
  axis = axis < 0 ? axis + codes->rank() : axis;
  if (scale->count() != 1 && (axis != output_axis || scale->count() != outputs))
    return std::nullopt;
  int64_t middle = codes->dtype() == DType::u8 ? 128 : 0;
  auto zero = n->operands.size() > 2 ? splat(n->operands[2]) : std::optional<double>(0);
  if (!zero || *zero != double(middle))
    return std::nullopt;
  Weights out;
  for (int64_t i = 0; i < scale->count(); ++i)
    out.scales.push_back(scale->at_f64(i));
  out.codes = *codes;
  if (middle != 0) {
    out.codes = Tensor(DType::i8, codes->dims());
    for (int64_t i = 0; i < codes->count(); ++i)
      out.codes.set_i64(i, codes->at_i64(i) - middle);
  }
  return out;
}

bool IntegerProducts::padding_is_zero(const Node &conv) const {
  for (const Dim &d : conv.attrs.get_dims("pad"))
    if (!d.is_const(0))
      return false;
  return true;
}

// What the convolution pads with is the zero point; and few channels become a whole group, whose weights
// are zeros.
void IntegerProducts::pad_input(GraphBuilder &b, Codes &x, Tensor &weights, Attrs &attrs) const {
  const Shape &shape = function_.type(x.value).shape;
  std::vector<Dim> lo(shape.size(), Dim(0)), hi = lo;
  int64_t channels = weights.dims()[1];
  bool grouped = attrs.get_int("groups") != 1, moves = false;
  int64_t more = grouped ? 0 : (kGroup - channels % kGroup) % kGroup;
  hi[1] = Dim(more);
  if (auto pad = attrs.get_dims("pad"); x.zero != 0) {
    size_t spatial = pad.size() / 2;
    for (size_t d = 0; d < spatial; ++d) {
      lo[d + 2] = pad[d];
      hi[d + 2] = pad[spatial + d];
      moves |= !pad[d].is_const(0) || !pad[spatial + d].is_const(0);
    }
    attrs.set("pad", std::vector<Dim>(pad.size(), Dim(0)));
  }
  if (!moves && more == 0)
    return;
  x.value = b(Op::pad, {x.value},
              {{"lo", lo}, {"hi", hi}, {"mode", "constant"}, {"value", double(x.zero)}});
  if (more == 0)
    return;
  std::vector<int64_t> dims = weights.dims();
  dims[1] += more;
  int64_t outputs = dims[0], from = weights.count() / outputs, to = from / channels * dims[1];
  Tensor wide(DType::i8, dims);
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t i = 0; i < to; ++i)
      wide.set_i64(o * to + i, i < from ? weights.at_i64(o * from + i) : 0);
  weights = std::move(wide);
}

void IntegerProducts::rewrite_product(Sweep &s, NodeId id) {
  const Node node = s.node(id);
  const bool is_conv = node.op == Op::conv;
  if (function_.type(node.results[0]).dtype == DType::i32)
    return narrow_operands(s, id);
  if (function_.type(node.results[0]).dtype != DType::f32)
    return;
  // The weights as [outputs, ...] or, for a dot, perhaps the other way round.
  ValueId right = node.operands[1];
  bool transposed = !is_conv && node.attrs.get_bool("transpose_b");
  if (const Node *p = function_.def(right); !is_conv && p && p->op == Op::permute &&
                                            function_.type(right).rank() == 2 &&
                                            p->attrs.get_dims("dims")[0].is_const(1)) {
    right = p->operands[0];
    transposed = !transposed;
  }
  const Shape shape = function_.type(right).shape;
  if (!is_static(shape) || (!is_conv && shape.size() != 2))
    return;
  int output_axis = is_conv || transposed ? 0 : 1;
  int64_t outputs = shape[size_t(output_axis)].as_const();
  if (is_conv) {
    int64_t groups = node.attrs.get_int("groups"), inputs = shape[1].as_const() * groups;
    bool deep = groups == 1 && (inputs % kGroup == 0 || inputs < kFewChannels) && inputs > 2 &&
                is_static(node.attrs.get_dims("pad"));
    bool depthwise = groups == inputs && outputs == inputs;
    if ((!deep && !depthwise) || outputs < kFewChannels)
      return;
    if (winograd_gain(module_, function_, node, flags_) > flags_.byte_dots)
      return;
  } else if (shape[size_t(1 - output_axis)].as_const() % 4 != 0 || outputs < kFewChannels) {
    return;
  }
  std::vector<double> bias(size_t(outputs), 0);
  if (node.operands.size() > 2) {
    const Tensor *given = constant(node.operands[2]);
    bool fits = given && (given->count() == 1 || (given->count() == outputs &&
                                                  given->dims().back() == outputs));
    if (!fits)
      return;
    for (int64_t i = 0; i < outputs; ++i)
      bias[size_t(i)] = given->at_f64(given->count() == 1 ? 0 : i);
  }
  auto w = weights(right, output_axis);
  if (!w)
    return;
  auto x = activation(s, node.operands[0]);
  if (!x)
    return;

  GraphBuilder &b = s.builder();
  Scaled out;
  int64_t inner = std::max<int64_t>(1, w->codes.count() / std::max<int64_t>(outputs, 1));
  Tensor offsets(DType::i32, {outputs});
  for (int64_t o = 0; o < outputs; ++o) {
    int64_t sum = 0;
    for (int64_t k = 0; k < inner; ++k)
      sum += w->codes.at_i64(output_axis == 0 ? o * inner + k : k * outputs + o);
    offsets.set_i64(o, -x->zero * sum);
    out.scale.push_back(x->scale * w->scales[w->scales.size() == 1 ? 0 : size_t(o)]);
  }
  out.bias = std::move(bias);
  Attrs attrs = node.attrs;
  if (is_conv)
    pad_input(b, *x, w->codes, attrs);
  std::vector<ValueId> operands = {x->value, b.constant(std::move(w->codes))};
  if (x->zero != 0)
    operands.push_back(b.constant(std::move(offsets)));
  if (!is_conv)
    attrs.set("transpose_b", transposed);
  out.sums = b(node.op, operands, attrs);
  out.vector = {Dim(outputs)};
  if (is_conv)
    out.vector.resize(shape.size() - 1, Dim(1));
  ValueId y = scale_sums(b, out, 1);
  scaled_[y] = out;
  s.replace(node.results[0], y);
}

// Products of integers that are wider than their values:
//   dot(convert(q, i32) - z, w) = dot(q, w as i8) - z * sum(w)       q: u8, w constant
void IntegerProducts::narrow_operands(Sweep &s, NodeId id) {
  const Node node = s.node(id);
  const bool is_conv = node.op == Op::conv;
  const Tensor *w = constant(node.operands[1]);
  if (!w || w->dtype() != DType::i32 || w->rank() < 2 || (!is_conv && w->rank() != 2) ||
      node.operands.size() > 2)
    return;
  const Node *x = function_.def(node.operands[0]);
  ValueId zero;
  if (x && x->op == Op::sub && function_.type(x->operands[1]).rank() == 0) {
    zero = x->operands[1];
    x = function_.def(x->operands[0]);
  }
  if (!x || x->op != Op::convert || function_.type(x->operands[0]).dtype != DType::u8 ||
      constant(x->operands[0]))
    return;
  ValueId codes = x->operands[0];
  bool transposed = !is_conv && node.attrs.get_bool("transpose_b");
  size_t output_axis = is_conv || transposed ? 0 : 1;
  int64_t outputs = w->dims()[output_axis], inner = w->count() / std::max<int64_t>(outputs, 1);
  int64_t deep = is_conv ? w->dims()[1] : inner;
  if (outputs < kFewChannels || deep % 4 != 0 || deep < kFewChannels ||
      (is_conv && (node.attrs.get_int("groups") != 1 || (zero.valid() && !padding_is_zero(node)))))
    return;
  Tensor narrow(DType::i8, w->dims()), sums(DType::i32, {outputs});
  for (int64_t i = 0; i < w->count(); ++i) {
    int64_t value = w->at_i64(i), o = output_axis == 0 ? i / inner : i % outputs;
    if (value < -128 || value > 127)
      return;
    narrow.set_i64(i, value);
    sums.set_i64(o, sums.at_i64(o) - value);
  }
  GraphBuilder &b = s.builder();
  std::vector<ValueId> operands = {codes, b.constant(std::move(narrow))};
  if (zero.valid())
    operands.push_back(b(Op::mul, {b.constant(std::move(sums)), zero}));
  s.replace(node.results[0], b(node.op, operands, node.attrs));
}

// The floats, divided by `by`.
ValueId IntegerProducts::scale_sums(GraphBuilder &b, const Scaled &x, double by) const {
  std::vector<int64_t> dims;
  for (const Dim &d : x.vector)
    dims.push_back(d.as_const());
  Tensor scale(DType::f32, dims), bias(DType::f32, dims);
  bool biased = false;
  for (int64_t i = 0; i < scale.count(); ++i) {
    scale.set_f64(i, x.scale[size_t(i)] / by);
    bias.set_f64(i, x.bias[size_t(i)] / by);
    biased |= x.bias[size_t(i)] != 0;
  }
  ValueId floats = b(Op::convert, {x.sums}, {{"dtype", DType::f32}});
  ValueId product = b(Op::mul, {floats, b.constant(std::move(scale))});
  return biased ? b(Op::add, {product, b.constant(std::move(bias))}) : product;
}

// Whether a value is made of integer sums or codes by a few ops on elements.
bool IntegerProducts::comes_from_codes(ValueId v, int depth) const {
  if (scaled_.contains(v))
    return true;
  const Node *n = function_.def(v);
  if (!n || depth == 0)
    return false;
  if (n->op == Op::dequantize)
    return true;
  if (op_def(n->op).has(kContraction))
    return comes_from_codes(n->operands[0], 1);
  if (!op_def(n->op).scalar)
    return false;
  return std::any_of(n->operands.begin(), n->operands.end(),
                     [&](ValueId operand) { return comes_from_codes(operand, depth - 1); });
}

void IntegerProducts::rewrite_quantize(Sweep &s, NodeId id) {
  const Node node = s.node(id);
  auto codes = codes_of(node);
  ValueId x = node.operands[0];
  if (!codes || function_.type(x).dtype != DType::f32 || !comes_from_codes(x, 6))
    return;
  DType dtype = node.attrs.get_dtype("dtype");
  GraphBuilder &b = s.builder();
  auto scalar = [&](double value) { return b.scalar(DType::f32, value); };
  // What is below zero saturates at the least code where that is the zero point.
  bool saturates_at_zero = codes->zero == least_code(dtype);
  std::optional<std::pair<double, double>> limits;
  ValueId sums = x;
  if (const Node *n = function_.def(x); n && (n->op == Op::relu || n->op == Op::clamp)) {
    sums = n->operands[0];
    double lo = n->op == Op::relu ? 0 : n->attrs.get_float("min"),
           hi = n->op == Op::relu ? INFINITY : n->attrs.get_float("max");
    limits = {lo / codes->scale, hi / codes->scale};
    double most = double(dtype == DType::i8 ? 127 : 255) - double(codes->zero);
    if (saturates_at_zero && lo == 0 && limits->second >= most + 0.5)
      limits.reset();
  }
  auto found = scaled_.find(sums);
  ValueId steps;
  if (found == scaled_.end()) {
    steps = b(Op::mul, {limits ? x : sums, scalar(1 / codes->scale)});
  } else {
    steps = scale_sums(b, found->second, codes->scale);
    if (limits)
      steps = b(Op::clamp, {steps}, {{"min", limits->first}, {"max", limits->second}});
  }
  ValueId code = b(Op::round, {steps});
  if (codes->zero != 0)
    code = b(Op::add, {code, scalar(double(codes->zero))});
  s.replace(node.results[0], b(Op::convert, {code}, {{"dtype", dtype}}));
}

// Codes that nobody but one dequantize reads are not made: its value is the saturated whole number.
void IntegerProducts::keep_in_registers() {
  std::map<ValueId, std::vector<ValueId>> beside; // the operands of the user
  for_each_node(function_, [&](NodeId id) {
    for (ValueId v : function_.node(id).operands)
      beside[v] = function_.node(id).operands;
  });
  std::set<ValueId> kept;
  Sweep(module_, function_).run([&](Sweep &s, NodeId id) {
    const Node node = s.node(id);
    if (node.op != Op::dequantize || s.uses(node.results[0]) != 1 || s.uses(node.operands[0]) != 1)
      return;
    // Of two contractions that are added, one is in registers; the other comes from memory.
    const auto &others = beside[node.results[0]];
    if (std::any_of(others.begin(), others.end(), [&](ValueId v) { return kept.contains(v); }))
      return;
    auto codes = codes_of(node);
    const Node *code = codes ? function_.def(codes->value) : nullptr;
    if (!code || code->op != Op::convert || function_.type(node.results[0]).dtype != DType::f32)
      return;
    ValueId rounded = code->operands[0];
    if (const Node *add = function_.def(rounded); codes->zero != 0) {
      if (!add || add->op != Op::add || splat(add->operands[1]) != double(codes->zero))
        return;
      rounded = add->operands[0];
    }
    const Node *round = function_.def(rounded);
    if (!round || round->op != Op::round || function_.type(rounded).dtype != DType::f32)
      return;
    DType dtype = function_.type(codes->value).dtype;
    double least = double(least_code(dtype) - codes->zero);
    kept.insert(node.results[0]);
    GraphBuilder &b = s.builder();
    ValueId steps = b(Op::clamp, {rounded}, {{"min", least}, {"max", least + 255}});
    s.replace(node.results[0], b(Op::mul, {steps, b.scalar(DType::f32, codes->scale)}));
  });
}

} // namespace

Changed integer_products(Module &module, PassContext &context) {
  Changed changed = Changed::no;
  for (Function &function : module.functions) {
    changed |= split_zero_points(module, function, context.flags);
    changed |= IntegerProducts(module, function, context.flags).run(context);
  }
  for (Function &function : module.functions)
    changed |= pack_weights(module, function);
  if (changed == Changed::yes)
    dce(module, context);
  return changed;
}

} // namespace kiln
