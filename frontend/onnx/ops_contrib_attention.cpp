// The attentions of com.microsoft: Attention (one product for queries, keys and values),
// MultiHeadAttention (three operands, or packed ones) and its form for decoders, with their masks.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <cmath>

namespace kiln::onnx {
namespace {

// [B, L, H * E] as [B, H, L, E]
Result<Val> split_heads(OnnxNode &n, const Val &x, int64_t heads) {
  if (x.rank() == 4)
    return x;
  auto width = x.rank() == 3 ? x.dim(2).try_const() : std::nullopt;
  if (!width || heads < 1 || *width % heads != 0)
    return Error{fmt::format("{} does not divide into {} heads", x.type.text(), heads)};
  KILN_TRY(split, reshape(n.emitter(), x, {x.dim(0), x.dim(1), Dim(heads), Dim(*width / heads)}));
  return permute(n.emitter(), split, {0, 2, 1, 3});
}

Result<Val> add_bias(OnnxNode &n, const Val &x, const Val &bias, int64_t from, int64_t size) {
  if (bias.rank() != 1)
    return Error{fmt::format("its bias is {}; it must be a number for each column of the queries, keys and values", bias.type.text())};
  KILN_TRY(part, slice_axis(n.emitter(), bias, 0, from, size));
  return n.emit(Op::add, {x, part});
}

struct Heads {
  Val q, k, v; // [B, H, L, E], [B, H, S, E], [B, H, S, V]
};

struct Masks {
  std::optional<Val> keys; // a number for each key that is seen: [B] lengths, or [B, S], [B, L, S], [B, 1, L, S] of 0 and 1
  bool starts = false;     // `keys` is [2 B]: where each sample ends, then where each begins
  std::optional<Val> bias; // added to the scores
  double filter = -10000;  // added where a key is hidden
  bool causal = false;
  Dim past;
};

// `keys` is the operand that masks keys; operand 5 is added to the scores in both operators.
Status read_masks(OnnxNode &n, size_t keys, Masks &masks) {
  if (n.has(keys)) {
    const Dim &batch = n.shape(0)[0];
    if (n.rank(keys) == 1 && n.shape(keys)[0] != batch && n.shape(keys)[0] != Dim(2) * batch)
      return Error{fmt::format("a mask {} for {} samples is not supported", n.in(keys).type.text(), batch.text())};
    masks.keys = n.in(keys);
    masks.starts = n.rank(keys) == 1 && n.shape(keys)[0] != batch;
  }
  if (n.has(5))
    masks.bias = n.in(5);
  masks.causal = n.get_flag("unidirectional", false);
  masks.filter = n.get_float("mask_filter_value", -10000);
  return Unit{};
}

Result<Val> positions(OnnxNode &n, const Shape &shape, int axis) {
  return n.emit(Op::iota, {}, {{"shape", shape}, {"axis", attr_int(axis)}, {"dtype", DType::i64}});
}

// What is added to the scores for the keys that a mask hides.
Result<Val> penalty(OnnxNode &n, const Masks &masks, const Val &scores) {
  Val mask = *masks.keys;
  const Dim &keys = scores.dim(3);
  Val seen;
  if (mask.rank() == 1) {
    Emitter &e = n.emitter();
    const Dim &batch = scores.dim(0);
    KILN_TRY(numbers, convert(e, mask, DType::i64));
    KILN_TRY(ends, slice_axis(e, numbers, 0, 0, batch));
    KILN_TRY(end, reshape(e, ends, {batch, 1, 1, 1}));
    KILN_TRY(key, positions(n, {1, 1, 1, keys}, 3));
    KILN_TRY(inside, n.emit(Op::lt, {key, end}));
    seen = inside;
    if (masks.starts) {
      KILN_TRY(starts, slice_axis(e, numbers, 0, batch, batch));
      KILN_TRY(start, reshape(e, starts, {batch, 1, 1, 1}));
      KILN_TRY(after, n.emit(Op::ge, {key, start}));
      KILN_TRY(both, n.emit(Op::logical_and, {inside, after}));
      seen = both;
    }
  } else {
    Shape shape = mask.type.shape;
    if (shape.size() == 2)
      shape.insert(shape.begin() + 1, {Dim(1), Dim(1)});
    else if (shape.size() == 3)
      shape.insert(shape.begin() + 1, Dim(1));
    KILN_TRY(whole, reshape(n.emitter(), mask, shape));
    KILN_TRY(is, n.emit(Op::ne, {whole, n.emitter().scalar(mask.dtype(), 0)}));
    seen = is;
  }
  DType t = scores.dtype();
  return n.emit(Op::where, {seen, n.emitter().scalar(t, 0), n.emitter().scalar(t, masks.filter)});
}

// softmax(q k^T * scale + masks) v as [B, L, H * V].
Result<Val> attend(OnnxNode &n, const Heads &heads, double scale, const Masks &masks) {
  Emitter &e = n.emitter();
  auto size = heads.q.dim(3).try_const();
  if (scale == 0 && !size)
    return Error{"the size of a head must be known"};
  KILN_TRY(product, n.emit(Op::dot, {heads.q, heads.k}, {{"transpose_b", true}}));
  KILN_TRY(wide, convert(e, product, compute_dtype(product.dtype())));
  DType t = wide.dtype();
  KILN_TRY(scores, n.emit(Op::mul, {wide, e.scalar(t, scale != 0 ? scale : 1 / std::sqrt(double(*size)))}));
  if (masks.bias) {
    KILN_TRY(bias, convert(e, *masks.bias, t));
    KILN_TRY(sum, n.emit(Op::add, {scores, bias}));
    scores = sum;
  }
  if (masks.keys) {
    KILN_TRY(hidden, penalty(n, masks, scores));
    KILN_TRY(sum, n.emit(Op::add, {scores, hidden}));
    scores = sum;
  }
  if (masks.causal) {
    KILN_TRY(key, positions(n, {1, scores.dim(3)}, 1));
    KILN_TRY(row, positions(n, {scores.dim(2), 1}, 0));
    if (!masks.past.is_const(0)) {
      KILN_TRY(moved, n.emit(Op::add, {row, e.sizes(std::vector<Element>{{masks.past, 1}}, {})}));
      row = moved;
    }
    KILN_TRY(seen, n.emit(Op::le, {key, row}));
    KILN_TRY(kept, n.emit(Op::where, {seen, scores, e.scalar(t, -3.4028234663852886e38)}));
    scores = kept;
  }
  KILN_TRY(weights, n.emit(Op::softmax, {scores}, {{"axis", attr_int(3)}}));
  KILN_TRY(narrow, convert(e, weights, heads.v.dtype()));
  KILN_TRY(out, n.emit(Op::dot, {narrow, heads.v}));
  KILN_TRY(turned, permute(e, out, {0, 2, 1, 3}));
  return reshape(e, turned, {out.dim(0), out.dim(2), out.dim(1) * out.dim(3)});
}

// Part i of [B, L, H, count, E] as [B, L, H * E].
Result<Val> packed_part(OnnxNode &n, const Val &x, int64_t count, int64_t i) {
  auto heads = x.rank() == 5 ? x.dim(2).try_const() : std::nullopt, size = x.rank() == 5 ? x.dim(4).try_const() : std::nullopt;
  if (!heads || !size || !x.dim(3).is_const(count))
    return Error{fmt::format("{} is not [B, L, H, {}, E]", x.type.text(), count)};
  KILN_TRY(part, slice_axis(n.emitter(), x, 3, i, 1));
  return reshape(n.emitter(), part, {x.dim(0), x.dim(1), Dim(*heads * *size)});
}

// Queries, keys and values, which may be one operand, or two.
Result<std::vector<Val>> three_operands(OnnxNode &n) {
  std::vector<Val> out;
  if (!n.has(1)) {
    for (int64_t i = 0; i < 3; ++i) {
      KILN_TRY(part, packed_part(n, n.in(0), 3, i));
      out.push_back(part);
    }
    return out;
  }
  if (n.rank(0) != 3)
    return Error{fmt::format("its queries must be [B, L, H * E], not {}", n.in(0).type.text())};
  if (n.has(2))
    return std::vector<Val>{n.in(0), n.in(1), n.in(2)};
  out.push_back(n.in(0));
  for (int64_t i = 0; i < 2; ++i) {
    KILN_TRY(part, packed_part(n, n.in(1), 2, i));
    out.push_back(part);
  }
  return out;
}

} // namespace

Status import_contrib_attention(OnnxNode &n) {
  Emitter &e = n.emitter();
  int64_t heads = n.get_int("num_heads", 0);
  if (n.get_flag("do_rotary", false))
    return Error{"do_rotary is not supported"};
  n.ignore({"rotary_embedding_dim"});
  if (n.get_flag("past_present_share_buffer", false))
    return Error{"a cache that is written into (past_present_share_buffer) is not supported; export without it"};
  if (n.rank(0) != 3 || n.rank(1) != 2)
    return Error{"its operands must be [B, L, D] and [D, 3 * H * E]"};
  auto width = n.shape(1)[1].try_const();
  if (!width)
    return Error{"the sizes of its weights must be known"};
  auto sizes = n.get_ints("qkv_hidden_sizes");
  if (sizes.empty())
    sizes.assign(3, *width / 3);
  if (sizes.size() != 3 || sizes[0] + sizes[1] + sizes[2] != *width || sizes[0] < 1 || sizes[1] < 1 || sizes[2] < 1)
    return Error{fmt::format("its weights have {} columns, which are not those of queries, keys and values", *width)};
  std::vector<Val> operands = {n.in(0), n.in(1)};
  if (n.has(2))
    operands.push_back(n.in(2));
  KILN_TRY(all, n.emit(Op::dot, operands));
  Val parts[3];
  int64_t from = 0;
  for (size_t i = 0; i < 3; ++i) {
    KILN_TRY(part, slice_axis(e, all, 2, from, sizes[i]));
    KILN_TRY(split, split_heads(n, part, heads));
    parts[i] = split;
    from += sizes[i];
  }
  Masks masks;
  masks.past = 0;
  if (n.has(4)) { // [2, B, H, P, E]
    if (n.rank(4) != 5)
      return Error{"its past must be [2, B, H, P, E]"};
    masks.past = n.shape(4)[3];
    for (size_t i : {1, 2}) {
      KILN_TRY(slice, slice_axis(e, n.in(4), 0, int64_t(i) - 1, 1));
      KILN_TRY(past, reshape(e, slice, n.in(4).dims(1, 5)));
      KILN_TRY(both, n.emit(Op::concat, {past, parts[i]}, {{"axis", attr_int(2)}}));
      parts[i] = both;
    }
  }
  KILN_RETURN_IF_ERROR(read_masks(n, 3, masks));
  KILN_TRY(out, attend(n, {parts[0], parts[1], parts[2]}, n.get_float("scale", 0), masks));
  n.set(0, out);
  if (!n.wants(1))
    return Unit{};
  std::vector<Val> present;
  for (size_t i : {1, 2}) {
    Shape shape = parts[i].type.shape;
    shape.insert(shape.begin(), 1);
    KILN_TRY(one, reshape(e, parts[i], shape));
    present.push_back(one);
  }
  KILN_TRY(both, n.emit(Op::concat, present, {{"axis", attr_int(0)}}));
  n.set(1, both);
  return Unit{};
}

Status import_multi_head_attention(OnnxNode &n) {
  int64_t heads = n.get_int("num_heads", 0);
  if (n.has(8) || n.has(9))
    return Error{"a cache that is written into (past_sequence_length, cache_indirection) is not supported; export without it"};
  KILN_TRY(operands, three_operands(n));
  Val parts[3] = {operands[0], operands[1], operands[2]};
  if (n.has(3)) {
    int64_t from = 0;
    for (Val &part : parts) {
      auto width = part.rank() == 3 ? part.dim(2).try_const() : std::nullopt;
      if (!width)
        return Error{fmt::format("a bias cannot be added to {}", part.type.text())};
      KILN_TRY(sum, add_bias(n, part, n.in(3), from, *width));
      part = sum;
      from += *width;
    }
  }
  for (Val &part : parts) {
    KILN_TRY(split, split_heads(n, part, heads));
    part = split;
  }
  Masks masks;
  masks.past = 0;
  if (n.has(6) && n.has(7)) {
    if (n.rank(6) != 4 || n.rank(7) != 4)
      return Error{fmt::format("past_key and past_value are {} and {}, not [B, H, P, E]", n.in(6).type.text(), n.in(7).type.text())};
    masks.past = n.shape(6)[2];
    for (size_t i : {1, 2}) {
      KILN_TRY(both, n.emit(Op::concat, {n.in(5 + i), parts[i]}, {{"axis", attr_int(2)}}));
      parts[i] = both;
    }
  }
  KILN_RETURN_IF_ERROR(read_masks(n, 4, masks));
  KILN_TRY(out, attend(n, {parts[0], parts[1], parts[2]}, n.get_float("scale", 0), masks));
  n.set(0, out);
  if (n.wants(1))
    n.set(1, parts[1]);
  if (n.wants(2))
    n.set(2, parts[2]);
  return Unit{};
}

// The same of one query for each head: query (or all three side by side), key, value, mask, bias of the
// scores, pasts, what sharing a cache needs, and the bias of the operands.
Status import_decoder_masked_multi_head_attention(OnnxNode &n) {
  if (n.get_flag("past_present_share_buffer", false) || n.has(7) || n.has(9))
    return Error{"a cache that is written into (past_present_share_buffer, past_sequence_length, cache_indirection) is not "
                 "supported; export without it"};
  n.ignore({"output_qk"});
  auto given = [&](size_t i) { return n.has(i) ? n.in(i) : Val{}; };
  Val parts[3] = {n.in(0), given(1), given(2)};
  if (!n.has(1)) {
    auto width = n.rank(0) == 3 ? n.shape(0)[2].try_const() : std::nullopt;
    if (!width || *width % 3 != 0)
      return Error{fmt::format("{} is not queries, keys and values side by side", n.in(0).type.text())};
    for (int64_t i = 0; i < 3; ++i) {
      KILN_TRY(part, slice_axis(n.emitter(), n.in(0), 2, i * *width / 3, *width / 3));
      parts[i] = part;
    }
  }
  return import_as(n, {parts[0], parts[1], parts[2], given(10), given(3), given(4), given(5), given(6)}, import_multi_head_attention);
}

} // namespace kiln::onnx
