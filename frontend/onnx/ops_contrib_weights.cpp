// Weights of a few bits, packed in bytes (com.microsoft): those of products are unpacked while the model is
// read, those of embeddings row by row as they are looked up.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

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

// A[..., K] times the transpose of B[N, K], whose elements have 2, 4 or 8 bits; each block of a row has
// a scale and a zero point (half of the range where there is none).
Status import_matmul_nbits(OnnxNode &n) {
  int64_t k = n.get_int("K", 0), rows = n.get_int("N", 0), bits = n.get_int("bits", 4), block = n.get_int("block_size", 0);
  n.ignore({"accuracy_level"});
  if (n.get_int("weight_prepacked", 0) != 0)
    return Error{"weights packed for another machine (weight_prepacked) are not supported"};
  if (k < 1 || rows < 1 || block < 1 || (bits != 2 && bits != 4 && bits != 8))
    return Error{fmt::format("K {}, N {}, bits {} and block_size {} do not go together", k, rows, bits, block)};
  KILN_TRY(packed, n.constant_of(1, "weights"));
  KILN_TRY(scales, n.constant_of(2, "scales"));
  int64_t blocks = (k + block - 1) / block, per_byte = 8 / bits, in_block = (block * bits + 7) / 8;
  int64_t zero_bytes = (blocks * bits + 7) / 8, count = 0;
  if (__builtin_mul_overflow(rows, k, &count) || count > (int64_t(1) << 33))
    return Error{fmt::format("{} x {} weights are too many", rows, k)};
  if (packed->dtype() != DType::u8 || packed->count() != rows * blocks * in_block || scales->count() != rows * blocks)
    return Error{fmt::format("{} packed bytes and {} scales are not those of {} rows of {} blocks", packed->count(),
                             scales->count(), rows, blocks)};
  const Tensor *zeros = nullptr;
  if (n.has(3)) {
    KILN_TRY(given, n.constant_of(3, "zero points"));
    zeros = given;
    bool fits = zeros->dtype() == DType::u8 ? zeros->count() == rows * zero_bytes : zeros->count() == rows * blocks;
    if (!fits)
      return Error{fmt::format("{} zero points are not those of {} rows of {} blocks", zeros->count(), rows, blocks)};
  }
  // The group of each input, where that is not its block.
  std::vector<int64_t> group_of;
  if (n.has(4)) {
    KILN_TRY(given, n.ints_of(4, "groups (g_idx)"));
    group_of = std::move(given);
    for (int64_t g : group_of)
      if (g < 0 || g >= blocks)
        return Error{fmt::format("an input is in group {} of {}", g, blocks)};
    if (int64_t(group_of.size()) < k)
      return Error{fmt::format("it has groups for {} of {} inputs", group_of.size(), k)};
  }
  int64_t mask = (int64_t(1) << bits) - 1;
  auto field = [&](const uint8_t *bytes, int64_t i) {
    return double(bytes[i / per_byte] >> (i % per_byte * bits) & mask);
  };
  Tensor weights(DType::f32, {rows, k});
  float *out = weights.data<float>();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t b = 0; b < blocks; ++b) {
      const uint8_t *bytes = packed->data<uint8_t>() + (r * blocks + b) * in_block;
      double zero = 0, scale = 0;
      for (int64_t i = 0; i < block && b * block + i < k; ++i) {
        int64_t at = b * block + i, group = group_of.empty() ? b : group_of[size_t(at)];
        if (i == 0 || !group_of.empty()) {
          scale = scales->at_f64(r * blocks + group);
          zero = !zeros                            ? double(int64_t(1) << (bits - 1))
                 : zeros->dtype() == DType::u8 ? field(zeros->data<uint8_t>() + r * zero_bytes, group)
                                                 : zeros->at_f64(r * blocks + group);
        }
        out[r * k + at] = float((field(bytes, i) - zero) * scale);
      }
    }
  KILN_TRY(b, convert(n.emitter(), n.emitter().constant(std::move(weights)), n.dtype(0)));
  KILN_TRY(product, n.emit(Op::dot, {n.in(0), b}, {{"transpose_b", true}}));
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
