// Weights whose author keeps them in 8 bits or fewer stay so: products unpack them as they read.
//
//   dot(x, dequantize(codes, s, z))     codes constant, x in floats
//     ->  dot(x, (float(words >> [0, 4, ..., 28] & 15) - z) * s)           words: i32[K / 8, 1, N]
//
// A quarter of the bytes or less to store and to read, for the same values as in floats. A word holds the codes of
// neighbouring rows of a column, so that lanes are columns and a load serves several steps of a product. Scales may
// be one for all, one for each column (they follow the product then), or one for each block of rows of a
// column. What has another form is folded into floats afterwards.
#include "passes/graph/pack_weights.h"

#include "ir/ops/op.h"
#include "passes/graph/rewrite.h"

#include <algorithm>
#include <map>

namespace kiln {
namespace {

constexpr int64_t kFewElements = 1 << 15; // as floats, what is smaller stays in a near cache, and is folded
constexpr int64_t kFewColumns = 8;     // as in layouts
constexpr int64_t kWordBits = 32;
constexpr int64_t kFewRows = 8; // of a product that waits for its weights

// A whole number below 2^23 in the mantissa of 2^23 is a float at once.
constexpr double kRaised = 8388608;
constexpr int64_t kRaisedBits = 0x4b000000;

// A constant [rows, columns], stored so or transposed. Scales have one row for each block of rows, and so on.
struct Matrix {
  const Tensor *tensor = nullptr;
  bool transposed = false;
  int64_t rows = 1, columns = 1;

  int64_t at(int64_t row, int64_t column) const { return transposed ? column * rows + row : row * columns + column; }
};

struct Codes {
  Matrix codes, scales, zeros;  // zeros without a tensor: 0
  int64_t bits = 8, offset = 0; // what makes the codes unsigned
};

// Words of 32 bits; scales and zero points [blocks, columns].
struct Packed {
  ConstantId words, scales, zeros;
  int64_t bits = 8, rows = 0, columns = 0, blocks = 1;
  std::optional<double> zero; // where all are equal
};

class Packer {
public:
  Packer(Module &module, Function &function) : module_(module), function_(function) {}

  Changed run() {
    return Sweep(module_, function_).run([&](Sweep &s, NodeId id) {
      if (s.node(id).op == Op::dot && s.fusion_depth() == 0)
        visit(s, id);
    });
  }

private:
  const Tensor *constant(ValueId v) const { return constant_tensor(module_, function_, v); }

  // Scales or zero points beside codes of two dims.
  static std::optional<Matrix> spread(const Tensor *t, int64_t axis, bool transposed) {
    Matrix m{t, transposed};
    if (!t)
      return std::nullopt;
    if (t->count() == 1)
      return m;
    std::vector<int64_t> dims = t->dims();
    if (dims.size() == 1)
      dims = axis == 0 ? std::vector{dims[0], int64_t(1)} : std::vector{int64_t(1), dims[0]};
    m.rows = dims[transposed ? 1 : 0];
    m.columns = dims[transposed ? 0 : 1];
    return m;
  }

  std::optional<Codes> codes_of(ValueId right, bool transposed) const {
    const Node *n = function_.def(right);
    if (n && n->op == Op::permute && function_.type(right).rank() == 2 && n->attrs.get_dims("dims")[0].is_const(1)) {
      transposed = !transposed;
      n = function_.def(n->operands[0]);
    }
    if (!n || n->op != Op::dequantize)
      return std::nullopt;
    const Tensor *codes = constant(n->operands[0]);
    if (!codes || codes->rank() != 2 || codes->count() < kFewElements)
      return std::nullopt;
    Codes out;
    DTypeKind kind = dtype_kind(codes->dtype());
    bool is_signed = kind == DTypeKind::signed_ || kind == DTypeKind::narrow_signed_,
         is_unsigned = kind == DTypeKind::unsigned_ || kind == DTypeKind::narrow_unsigned_;
    out.bits = dtype_bits(codes->dtype());
    if ((!is_signed && !is_unsigned) || out.bits > 8)
      return std::nullopt;
    out.offset = is_signed ? int64_t(1) << (out.bits - 1) : 0;
    out.codes = {codes, transposed, codes->dims()[transposed ? 1 : 0], codes->dims()[transposed ? 0 : 1]};
    int64_t axis = n->attrs.get_int("axis");
    axis = axis < 0 ? axis + 2 : axis;
    auto scales = spread(constant(n->operands[1]), axis, transposed);
    if (!scales)
      return std::nullopt;
    out.scales = *scales;
    if (n->operands.size() > 2) {
      auto zeros = spread(constant(n->operands[2]), axis, transposed);
      if (!zeros)
        return std::nullopt;
      out.zeros = *zeros;
    }
    int64_t block = out.codes.rows / std::max<int64_t>(1, out.scales.rows);
    bool whole_words = block % (kWordBits / out.bits) == 0;
    return out.codes.columns >= kFewColumns && whole_words ? std::optional(out) : std::nullopt;
  }

  Packed packed(const Codes &w, std::string name) {
    Packed out{{}, {}, {}, w.bits, w.codes.rows, w.codes.columns, w.scales.rows, {}};
    int64_t each = kWordBits / w.bits, columns = out.columns;
    Tensor words(DType::i32, {out.rows / each, 1, columns}), scales(DType::f32, {out.blocks, columns}),
        zeros(DType::u8, {out.blocks, columns});
    auto *word = words.data<uint32_t>();
    uint32_t mask = (uint32_t(1) << w.bits) - 1;
    for (int64_t k = 0; k < out.rows; ++k)
      for (int64_t n = 0; n < columns; ++n)
        word[k / each * columns + n] |= (uint32_t(w.codes.tensor->at_i64(w.codes.at(k, n)) + w.offset) & mask) << k % each * w.bits;
    float *scale = scales.data<float>();
    auto *zero = zeros.data<uint8_t>();
    for (int64_t k = 0; k < out.blocks; ++k)
      for (int64_t n = 0; n < columns; ++n) {
        auto from = [&](const Matrix &m) { return m.at(k * m.rows / out.blocks, n * m.columns / columns); };
        *scale++ = float(w.scales.tensor->at_f64(from(w.scales)));
        *zero++ = uint8_t((w.zeros.tensor ? w.zeros.tensor->at_i64(from(w.zeros)) : 0) + w.offset);
      }
    const uint8_t *first = zeros.data<uint8_t>(), *last = zero;
    if (std::all_of(first, last, [&](uint8_t z) { return z == *first; }))
      out.zero = *first;
    else
      out.zeros = module_.add_constant(std::move(zeros), name + ".zero");
    out.words = module_.add_constant(std::move(words), name);
    out.scales = module_.add_constant(std::move(scales), name + ".scale");
    return out;
  }

  // [blocks, columns] as [rows, columns].
  static ValueId each_row(GraphBuilder &b, ConstantId constant, const Packed &w) {
    ValueId v = b(Op::constant, {}, {{"value", constant}});
    if (w.blocks == 1)
      return v;
    Dim blocks = w.blocks, block = w.rows / w.blocks, columns = w.columns;
    v = b(Op::reshape, {v}, {{"shape", Shape{blocks, 1, columns}}});
    v = b(Op::broadcast_to, {v}, {{"shape", Shape{blocks, block, columns}}});
    return b(Op::reshape, {v}, {{"shape", Shape{w.rows, columns}}});
  }

  // code - zero, [rows, columns].
  static ValueId centred(GraphBuilder &b, const Packed &w) {
    int64_t each = kWordBits / w.bits;
    Tensor shifts(DType::i32, {each, 1});
    for (int64_t i = 0; i < each; ++i)
      shifts.set_i64(i, i * w.bits);
    auto whole = [&](int64_t v) { return b.constant(Tensor::scalar_i64(DType::i32, v)); };
    ValueId v = b(Op::constant, {}, {{"value", w.words}});
    v = b(Op::shift_right, {v, b.constant(std::move(shifts))});
    v = b(Op::bitwise_and, {v, whole((int64_t(1) << w.bits) - 1)});
    v = b(Op::bitcast, {b(Op::bitwise_or, {v, whole(kRaisedBits)})}, {{"dtype", DType::f32}});
    v = b(Op::reshape, {v}, {{"shape", Shape{w.rows, w.columns}}});
    if (w.zero)
      return b(Op::sub, {v, b.scalar(DType::f32, kRaised + *w.zero)});
    ValueId zeros = b(Op::convert, {each_row(b, w.zeros, w)}, {{"dtype", DType::f32}});
    return b(Op::sub, {v, b(Op::add, {zeros, b.scalar(DType::f32, kRaised)})});
  }

  void visit(Sweep &s, NodeId id) {
    const Node node = s.node(id);
    DType dtype = function_.type(node.results[0]).dtype;
    if (compute_dtype(dtype) != DType::f32)
      return;
    auto key = std::pair(node.operands[1], node.attrs.get_bool("transpose_b"));
    auto known = made_.find(key);
    if (known == made_.end()) {
      auto codes = codes_of(key.first, key.second);
      if (!codes)
        return;
      const std::string &name = function_.value(key.first).name;
      known = made_.emplace(key, packed(*codes, name.empty() ? "weights" : name)).first;
    }
    const Packed &w = known->second;
    GraphBuilder &b = s.builder();
    // Sums are in f32, and so are products with weights that the program has as halves.
    auto wide = [&](ValueId v) { return function_.type(v).dtype == DType::f32 ? v : b(Op::convert, {v}, {{"dtype", DType::f32}}); };
    ValueId weights = centred(b, w);
    bool after = w.blocks == 1;
    if (!after)
      weights = b(Op::mul, {weights, each_row(b, w.scales, w)});
    Attrs attrs = node.attrs;
    attrs.set("transpose_b", false);
    ValueId y = b(Op::dot, {wide(node.operands[0]), weights}, attrs);
    if (after)
      y = b(Op::mul, {y, each_row(b, w.scales, w)});
    if (node.operands.size() > 2)
      y = b(Op::add, {y, wide(node.operands[2])});
    s.replace(node.results[0], dtype == DType::f32 ? y : b(Op::convert, {y}, {{"dtype", dtype}}));
  }

  Module &module_;
  Function &function_;
  std::map<std::pair<ValueId, bool>, Packed> made_;
};

} // namespace

std::optional<ValueId> PairedWeights::widened(GraphBuilder &b, const Node &dot, ConstantId weights) {
  if (dot.op != Op::dot)
    return std::nullopt;
  const Shape &x = b.type(dot.operands[0]).shape;
  auto count = element_count(Shape(x.begin(), x.end() - 1)).try_const();
  if (!count || *count > kFewRows)
    return std::nullopt;
  const bool transposed = dot.attrs.get_bool("transpose_b");
  const Tensor &tensor = module_.constants[size_t(weights)].tensor;
  if (tensor.rank() != 2 || tensor.dtype() != DType::bf16 || tensor.count() < kFewElements)
    return std::nullopt;
  int64_t rows = tensor.dims()[transposed ? 1 : 0], columns = tensor.dims()[transposed ? 0 : 1];
  if (rows % 2 != 0 || columns < kFewColumns)
    return std::nullopt;
  auto [it, fresh] = words_.try_emplace({size_t(weights), transposed});
  if (fresh) {
    Tensor words(DType::i32, {rows / 2, 1, columns});
    auto *word = words.data<uint32_t>();
    const auto *half = tensor.data<uint16_t>();
    for (int64_t k = 0; k < rows; ++k)
      for (int64_t n = 0; n < columns; ++n)
        word[k / 2 * columns + n] |= uint32_t(half[transposed ? n * rows + k : k * columns + n]) << k % 2 * 16;
    it->second = module_.add_constant(std::move(words), module_.constants[size_t(weights)].name);
  }
  Tensor shifts(DType::i32, {2, 1});
  shifts.set_i64(0, 16);
  ValueId v = b(Op::constant, {}, {{"value", it->second}});
  v = b(Op::shift_left, {v, b.constant(std::move(shifts))});
  v = b(Op::bitwise_and, {v, b.constant(Tensor::scalar_i64(DType::i32, -65536))});
  v = b(Op::bitcast, {v}, {{"dtype", DType::f32}});
  return b(Op::reshape, {v}, {{"shape", Shape{rows, columns}}});
}

Changed pack_weights(Module &module, Function &function) { return Packer(module, function).run(); }

} // namespace kiln
