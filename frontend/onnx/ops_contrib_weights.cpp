// Weights of a few bits, packed in bytes (com.microsoft): those of products stay packed (passes/graph/pack_weights.cpp), those of
// embeddings are unpacked row by row as they are looked up.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <numeric>

namespace kiln::onnx {
namespace {

// The codes of packed[..., W] (u8), low bits first: [..., W * 8 / bits].
Result<Val> unpacked(OnnxNode &n, const Val &packed, int64_t bits) {
  Emitter &e = n.emitter();
  if (bits == 8)
    return packed;
  Tensor shifts(DType::u8, {8 / bits});
  for (int64_t i = 0; i < 8 / bits; ++i)
    shifts.set_i64(i, i * bits);
  Shape column = packed.type.shape, flat = column;
  column.push_back(1);
  flat.back() *= Dim(8 / bits);
  KILN_TRY(bytes, reshape(e, packed, column));
  KILN_TRY(moved, n.emit(Op::shift_right, {bytes, e.constant(std::move(shifts))}));
  KILN_TRY(codes, n.emit(Op::bitwise_and, {moved, e.constant(Tensor::scalar_i64(DType::u8, (int64_t(1) << bits) - 1))}));
  return reshape(e, codes, flat);
}

} // namespace

namespace {

// The weights of MatMulNBits: B[N, K] in blocks along K, packed in bytes.
struct BlockWeights {
  int64_t k = 0, rows = 0, bits = 4, block = 0;
  const Tensor *packed = nullptr, *scales = nullptr, *zeros = nullptr;
  std::vector<int64_t> group_of; // the group of each input, where that is not its block

  int64_t blocks() const { return (k + block - 1) / block; }
  int64_t bytes_in_block() const { return (block * bits + 7) / 8; }
  int64_t zero_bytes() const { return (blocks() * bits + 7) / 8; }

  uint32_t field(const uint8_t *bytes, int64_t i) const {
    int64_t each = 8 / bits;
    return uint32_t(bytes[i / each] >> (i % each * bits)) & ((1u << bits) - 1);
  }
  uint32_t code(int64_t row, int64_t at) const {
    return field(packed->data<uint8_t>() + (row * blocks() + at / block) * bytes_in_block(), at % block);
  }
  double zero(int64_t row, int64_t group) const {
    if (!zeros)
      return double(int64_t(1) << (bits - 1));
    return zeros->dtype() == DType::u8 ? field(zeros->data<uint8_t>() + row * zero_bytes(), group)
                                       : zeros->at_f64(row * blocks() + group);
  }
};

Result<BlockWeights> block_weights(OnnxNode &n) {
  BlockWeights w;
  w.k = n.get_int("K", 0), w.rows = n.get_int("N", 0), w.bits = n.get_int("bits", 4), w.block = n.get_int("block_size", 0);
  int64_t k = w.k, rows = w.rows, bits = w.bits, block = w.block;
  if (n.get_int("weight_prepacked", 0) != 0)
    return Error{"weights packed for another machine (weight_prepacked) are not supported"};
  if (k < 1 || rows < 1 || block < 1 || block > (1 << 30) || (bits != 2 && bits != 4 && bits != 8))
    return Error{fmt::format("K {}, N {}, bits {} and block_size {} do not go together", k, rows, bits, block)};
  KILN_TRY(packed, n.constant_of(1, "weights"));
  KILN_TRY(scales, n.constant_of(2, "scales"));
  w.packed = packed, w.scales = scales;
  int64_t count = 0;
  if (__builtin_mul_overflow(rows, k, &count) || count > (int64_t(1) << 33))
    return Error{fmt::format("{} x {} weights are too many", rows, k)};
  int64_t blocks = w.blocks();
  if (packed->dtype() != DType::u8 || packed->count() != rows * blocks * w.bytes_in_block() || scales->count() != rows * blocks)
    return Error{fmt::format("{} packed bytes and {} scales are not those of {} rows of {} blocks", packed->count(),
                             scales->count(), rows, blocks)};
  if (n.has(3)) {
    KILN_TRY(zeros, n.constant_of(3, "zero points"));
    w.zeros = zeros;
    bool fits = zeros->dtype() == DType::u8 ? zeros->count() == rows * w.zero_bytes() : zeros->count() == rows * blocks;
    if (!fits)
      return Error{fmt::format("{} zero points are not those of {} rows of {} blocks", zeros->count(), rows, blocks)};
  }
  if (n.has(4)) {
    KILN_TRY(given, n.ints_of(4, "groups (g_idx)"));
    for (int64_t g : given)
      if (g < 0 || g >= blocks)
        return Error{fmt::format("an input is in group {} of {}", g, blocks)};
    if (int64_t(given.size()) < k)
      return Error{fmt::format("it has groups for {} of {} inputs", given.size(), k)};
    for (int64_t i = 0; i < k; ++i)
      if (given[size_t(i)] != i / block) {
        w.group_of = std::move(given);
        break;
      }
  }
  return w;
}

// [K, N] as codes and what they stand for; nothing where that is no dequantize.
Result<std::optional<Val>> as_codes(OnnxNode &n, const BlockWeights &w) {
  Emitter &e = n.emitter();
  int64_t block = std::gcd(w.block, w.k), blocks = w.k / block;
  DType dtype = w.bits == 2 ? DType::u2 : w.bits == 4 ? DType::u4 : DType::u8;
  if (!w.group_of.empty() || (w.zeros && w.zeros->dtype() != DType::u8))
    return std::optional<Val>();
  Tensor codes(dtype, {w.k, w.rows}), scales(DType::f32, {blocks, w.rows}), zeros(dtype, {blocks, w.rows});
  auto *code = codes.data<uint8_t>(), *zero = zeros.data<uint8_t>();
  for (int64_t r = 0; r < w.rows; ++r) {
    for (int64_t at = 0; at < w.k; ++at)
      code[at * w.rows + r] = uint8_t(w.code(r, at));
    for (int64_t b = 0; b < blocks; ++b) {
      int64_t group = b * block / w.block;
      scales.set_f64(b * w.rows + r, w.scales->at_f64(r * w.blocks() + group));
      zero[b * w.rows + r] = uint8_t(w.zero(r, group));
    }
  }
  KILN_TRY(weights, e.emit(Op::dequantize, {e.constant(std::move(codes)), e.constant(std::move(scales)), e.constant(std::move(zeros))}));
  return std::optional(weights);
}

// [K, N] in floats.
Tensor expanded(const BlockWeights &w) {
  Tensor out(DType::f32, {w.k, w.rows});
  for (int64_t r = 0; r < w.rows; ++r)
    for (int64_t at = 0; at < w.k; ++at) {
      int64_t group = w.group_of.empty() ? at / w.block : w.group_of[size_t(at)];
      double scale = w.scales->at_f64(r * w.blocks() + group);
      out.data<float>()[at * w.rows + r] = float((w.code(r, at) - w.zero(r, group)) * scale);
    }
  return out;
}

} // namespace

// A[..., K] times the transpose of B[N, K], whose elements have 2, 4 or 8 bits; each block of a row has
// a scale and a zero point (half of the range where there is none).
Status import_matmul_nbits(OnnxNode &n) {
  Emitter &e = n.emitter();
  n.ignore({"accuracy_level"});
  KILN_TRY(given, block_weights(n));
  KILN_TRY(kept, as_codes(n, given));
  Val weights = kept ? *kept : e.constant(expanded(given));
  KILN_TRY(x, convert(e, n.in(0), DType::f32));
  KILN_TRY(sum, n.emit(Op::dot, {x, weights}));
  KILN_TRY(product, convert(e, sum, n.dtype(0)));
  if (!n.has(5))
    return n.finish(Result<Val>(product));
  return n.finish(Op::add, {product, n.in(5)});
}

// Rows of a table whose elements have 2, 4 or 8 bits; each block of a row has a scale and a zero point (half
// of the range where there is none). Operands data, indices, scales, zero points.
Status import_gather_block_quantized(OnnxNode &n) {
  Emitter &e = n.emitter();
  int64_t bits = n.get_int("bits", 4), block = n.get_int("block_size", 128);
  if (n.dtype(0) != DType::u8 || (bits != 2 && bits != 4 && bits != 8))
    return Error{fmt::format("{} bits in {} are not supported; its data must be packed in u8", bits, n.in(0).type.text())};
  KILN_TRY(gather_axis, n.axis(n.get_int("gather_axis", 0), n.rank()));
  KILN_TRY(quantize_axis, n.axis(n.get_int("quantize_axis", 1), n.rank()));
  if (gather_axis != 0 || quantize_axis != n.rank() - 1 || n.rank() < 2)
    return Error{"it must gather along the first axis, with blocks along the last"};
  auto bytes = n.shape(0).back().try_const();
  int64_t width = bytes ? *bytes * 8 / bits : 0;
  Shape scale_shape = n.shape(0);
  if (width < 1 || block < 1 || width % block != 0)
    return Error{fmt::format("rows of {} do not divide into blocks of {}", width, block)};
  scale_shape.back() = width / block;
  if (n.shape(2) != scale_shape)
    return Error{fmt::format("its scales are {}, not one for each block", n.in(2).type.text())};
  auto rows = [&](size_t i) { return n.emit(Op::gather, {n.in(i), n.in(1)}, {{"axis", attr_int(0)}}); };
  KILN_TRY(packed, rows(0));
  KILN_TRY(codes, unpacked(n, packed, bits));
  KILN_TRY(scales, rows(2));
  DType t = compute_dtype(scales.dtype());
  Val zeros = e.scalar(t, double(int64_t(1) << (bits - 1)));
  Shape blocks = codes.type.shape, each = scales.type.shape;
  Shape flat = blocks;
  blocks.back() = width / block;
  blocks.push_back(block);
  each.push_back(1);
  if (n.has(3)) {
    KILN_TRY(packed_zeros, rows(3));
    KILN_TRY(all, unpacked(n, packed_zeros, bits));
    KILN_TRY(own, slice_axis(e, all, all.rank() - 1, 0, width / block));
    KILN_TRY(spread, reshape(e, own, each));
    KILN_TRY(typed, convert(e, spread, t));
    zeros = typed;
  }
  KILN_TRY(split, reshape(e, codes, blocks));
  KILN_TRY(numbers, convert(e, split, t));
  KILN_TRY(centred, n.emit(Op::sub, {numbers, zeros}));
  KILN_TRY(column, reshape(e, scales, each));
  KILN_TRY(wide, convert(e, column, t));
  KILN_TRY(real, n.emit(Op::mul, {centred, wide}));
  KILN_TRY(joined, reshape(e, real, flat));
  return n.finish(convert(e, joined, n.dtype(2)));
}

} // namespace kiln::onnx
