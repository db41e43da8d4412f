// Constant weights in fewer bits, where the user asks for it: half or a quarter of the bytes to store
// and to read, for an error that is told.
//
//   dot(x, w, b)   =>  dot(x, convert(bf16(w)), b)                          bf16, f16
//                  =>  dot(x, convert(q)) * s + b     w = q * s, s of each column   int8
//
// Weights convert in registers as they are loaded, so what is bound by memory (batch 1) gets faster by
// the bytes saved. Arithmetic stays f32. Embedding tables are compressed too, by rows. Weights that are
// halves in the program come to the same form (widen_halves.h), whatever the user asks for.
#include "passes/graph/pack_weights.h"
#include "passes/graph/rewrite.h"
#include "passes/graph/widen_halves.h"

#include "ir/ops/op.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace kiln {
namespace {

constexpr int64_t kFewElements = 4096; // what is smaller stays as it is

struct Compressed {
  ValueId values;      // bf16, f16 or i8, of the weights' shape
  Tensor scale;        // int8 only: the weights' shape, 1 in every dim but the channels'
};

class Compressor {
public:
  Compressor(Module &module, PassContext &context) : module_(module), context_(context), pairs_(module) {}

  Changed run() {
    Changed changed = Changed::no;
    for (Function &function : module_.functions) {
      changed |= Sweep(module_, function).run([&](Sweep &s, NodeId id) { visit(s, id); });
    }
    if (changed == Changed::yes)
      tell();
    return changed;
  }

private:
  bool is_int8() const { return context_.flags.weights == DType::i8; }

  void visit(Sweep &s, NodeId id) {
    const Node node = s.node(id);
    if (node.op != Op::dot && node.op != Op::conv && node.op != Op::gather)
      return;
    size_t position = node.op == Op::gather ? 0 : 1;
    ValueId weights = node.operands[position];
    const TensorType type = s.function().type(weights);
    const Tensor *tensor = constant_tensor(module_, s.function(), weights);
    if (!tensor || type.dtype != DType::f32 || tensor->count() < kFewElements || type.rank() < 2)
      return;
    if (node.op == Op::gather)
      return gather(s, id, weights, *tensor);
    int channels = node.op == Op::conv                   ? 0
                   : node.attrs.get_bool("transpose_b") ? type.rank() - 2
                                                        : type.rank() - 1;
    if (node.op == Op::dot && type.rank() != 2 && is_int8()) // a scale for each matrix of a batch
      return;
    const Compressed small = compressed(s, weights, *tensor, channels);
    GraphBuilder &b = s.builder();
    std::vector<ValueId> operands = node.operands;
    Attrs attrs = node.attrs;
    if (auto wide = pairs_.widened(b, node, function_constant(s, small.values))) {
      operands[1] = *wide;
      attrs.set("transpose_b", false);
    } else {
      operands[1] = b(Op::convert, {small.values}, {{"dtype", DType::f32}});
    }
    ValueId bias;
    if (is_int8() && operands.size() > 2) {
      bias = operands[2];
      operands.pop_back();
    }
    ValueId result = b(node.op, operands, attrs);
    if (is_int8()) {
      Shape along{Dim(type.shape[size_t(channels)])};
      if (node.op == Op::conv)
        along.resize(size_t(type.rank()) - 1, Dim(1));
      result = b(Op::mul, {result, shaped(s, b.constant(small.scale), along)});
      if (bias.valid())
        result = b(Op::add, {result, node.op == Op::conv ? shaped(s, bias, along) : bias});
    }
    std::vector<ValueId> results = {result};
    s.replace_results(id, results);
  }

  static ConstantId function_constant(Sweep &s, ValueId v) { return s.function().def(v)->attrs.get_constant("value"); }

  // c in another shape, with as many elements.
  ValueId shaped(Sweep &s, ValueId c, const Shape &shape) {
    return s.function().type(c).shape == shape ? c : s.builder()(Op::reshape, {c}, {{"shape", shape}});
  }

  void gather(Sweep &s, NodeId id, ValueId weights, const Tensor &tensor) {
    const Node node = s.node(id);
    int64_t axis = node.attrs.get_int("axis");
    if (axis != 0 && axis != -tensor.rank())
      return;
    const Compressed small = compressed(s, weights, tensor, 0);
    GraphBuilder &b = s.builder();
    std::vector<ValueId> operands = node.operands;
    operands[0] = small.values;
    ValueId result = b(Op::convert, {b(Op::gather, operands, node.attrs)}, {{"dtype", DType::f32}});
    if (is_int8()) {
      operands[0] = b.constant(small.scale);
      result = b(Op::mul, {result, b(Op::gather, operands, node.attrs)});
    }
    std::vector<ValueId> results = {result};
    s.replace_results(id, results);
  }

  Compressed compressed(Sweep &s, ValueId weights, const Tensor &tensor, int channels) {
    ConstantId constant = s.function().def(weights)->attrs.get_constant("value");
    auto [it, fresh] = tensors_.try_emplace({size_t(constant), is_int8() ? channels : 0});
    if (fresh)
      it->second = is_int8() ? to_int8(tensor, channels) : to_half(tensor);
    Compressed out;
    out.scale = it->second.scale;
    GraphBuilder &b = s.builder();
    if (!it->second.id.valid())
      it->second.id = module_.add_constant(std::move(it->second.values), s.function().value(weights).name);
    out.values = b(Op::constant, {}, {{"value", it->second.id}});
    return out;
  }

  struct Small {
    Tensor values, scale;
    ConstantId id;
  };

  void count_error(double wanted, double got, double largest) {
    double difference = std::fabs(wanted - got);
    squares_ += difference * difference;
    wanted_squares_ += wanted * wanted;
    if (largest > 0)
      worst_ = std::max(worst_, difference / largest);
  }

  static double largest_of(const Tensor &tensor) {
    const float *w = tensor.data<float>();
    float most = 0;
    for (int64_t i = 0; i < tensor.count(); ++i)
      most = std::max(most, std::fabs(w[i]));
    return most;
  }

  Small to_half(const Tensor &tensor) {
    Small out;
    out.values = Tensor(context_.flags.weights, tensor.dims());
    const float *w = tensor.data<float>();
    auto *bits = out.values.data<uint16_t>();
    double largest = largest_of(tensor);
    bool brain = context_.flags.weights == DType::bf16;
    for (int64_t i = 0; i < tensor.count(); ++i) {
      bits[i] = brain ? f32_to_bf16(w[i]) : f32_to_f16(w[i]);
      count_error(w[i], brain ? bf16_to_f32(bits[i]) : f16_to_f32(bits[i]), largest);
    }
    count_bytes(tensor, out);
    return out;
  }

  // Symmetric, -127..127, a scale for each index of the dim `channels`.
  Small to_int8(const Tensor &tensor, int channels) {
    Small out;
    out.values = Tensor(DType::i8, tensor.dims());
    std::vector<int64_t> shape(size_t(tensor.rank()), 1);
    int64_t count = shape[size_t(channels)] = tensor.dims()[size_t(channels)], inner = 1;
    for (int d = channels + 1; d < tensor.rank(); ++d)
      inner *= tensor.dims()[size_t(d)];
    out.scale = Tensor(DType::f32, shape);
    float *scale = out.scale.data<float>();
    const float *w = tensor.data<float>();
    auto channel = [&](int64_t i) { return size_t(i / inner % count); };
    for (int64_t i = 0; i < tensor.count(); ++i)
      scale[channel(i)] = std::max(scale[channel(i)], std::fabs(w[i]));
    for (int64_t c = 0; c < count; ++c)
      scale[c] /= 127;
    auto *q = out.values.data<int8_t>();
    for (int64_t i = 0; i < tensor.count(); ++i) {
      float step = scale[channel(i)];
      q[i] = step > 0 ? int8_t(std::clamp(std::nearbyint(w[i] / step), -127.0f, 127.0f)) : int8_t(0);
      count_error(w[i], double(q[i]) * step, 127.0 * step);
    }
    count_bytes(tensor, out);
    return out;
  }

  void count_bytes(const Tensor &tensor, const Small &small) {
    ++count_;
    before_ += double(tensor.bytes().size());
    after_ += double(small.values.bytes().size() + small.scale.bytes().size());
  }

  void tell() {
    double relative = wanted_squares_ > 0 ? std::sqrt(squares_ / wanted_squares_) : 0;
    context_.diagnostics.note(
        {}, fmt::format("weights: {} of the constants are {} now, {:.1f} MB instead of {:.1f}; largest error {:.2g} of the "
                        "largest weight of its {}, root mean square {:.2g} of the weights'",
                        count_, dtype_name(context_.flags.weights), after_ / 1e6, before_ / 1e6, worst_,
                        is_int8() ? "channel" : "tensor", relative));
  }

  Module &module_;
  PassContext &context_;
  PairedWeights pairs_;
  std::map<std::pair<size_t, int>, Small> tensors_;
  int count_ = 0;
  double before_ = 0, after_ = 0, worst_ = 0, squares_ = 0, wanted_squares_ = 0;
};

} // namespace

Changed compress_weights(Module &module, PassContext &context) {
  Changed changed = widen_halves(module, context.flags);
  return context.flags.weights == DType::f32 ? changed : changed | Compressor(module, context).run();
}

} // namespace kiln
