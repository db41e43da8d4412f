// Rotary positions: RotaryEmbedding of the default domain and of com.microsoft, and what attentions that
// turn their queries and keys share with them.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

// Every second element of the last dim, from `first` on.
Result<Val> every_second(OnnxNode &n, const Val &x, int64_t first) {
  int last = x.rank() - 1;
  return n.emit(Op::slice, {x}, {{"axes", attr_ints(std::vector<int>{last})},
                                 {"starts", attr_ints(std::vector<int64_t>{first})},
                                 {"ends", std::vector<Dim>{x.dim(last)}},
                                 {"steps", attr_ints(std::vector<int64_t>{2})}});
}

// [B, H, L, E] or [B, L, H * E] as [B, L, H, E].
Result<Val> heads_last(OnnxNode &n, const Val &x, int64_t heads) {
  if (x.rank() == 4)
    return permute(n.emitter(), x, {0, 2, 1, 3});
  auto width = x.rank() == 3 ? x.dim(2).try_const() : std::nullopt;
  if (x.rank() != 3)
    return Error{fmt::format("its input must be [B, H, L, E] or [B, L, H * E], not {}", x.type.text())};
  if (heads < 1 || !width || *width % heads != 0)
    return Error{fmt::format("'num_heads' is {}, which does not divide {}", heads, x.dim(2).text())};
  return reshape(n.emitter(), x, {x.dim(0), x.dim(1), Dim(heads), Dim(*width / heads)});
}

Status finish_like_input(OnnxNode &n, const Val &turned) {
  return n.finish(n.rank(0) == 3 ? reshape(n.emitter(), turned, n.shape()) : permute(n.emitter(), turned, {0, 2, 1, 3}));
}

} // namespace

Result<Val> rotate_pairs(OnnxNode &n, const Val &x, const Val &cosines, const Val &sines, bool interleaved) {
  Emitter &e = n.emitter();
  auto size = x.dim(3).try_const(), angles = cosines.last_dim().try_const();
  if (!size || !angles || *angles < 1 || 2 * *angles > *size || sines.last_dim() != cosines.last_dim())
    return Error{fmt::format("{} angles do not turn heads of {} elements in pairs", cosines.last_dim().text(), x.dim(3).text())};
  int64_t rotated = 2 * *angles;
  KILN_TRY(turning, slice_axis(e, x, 3, 0, rotated));
  KILN_TRY(a, interleaved ? every_second(n, turning, 0) : slice_axis(e, turning, 3, 0, rotated / 2));
  KILN_TRY(b, interleaved ? every_second(n, turning, 1) : slice_axis(e, turning, 3, rotated / 2, rotated / 2));
  KILN_TRY(a_cos, n.emit(Op::mul, {a, cosines}));
  KILN_TRY(b_sin, n.emit(Op::mul, {b, sines}));
  KILN_TRY(a_sin, n.emit(Op::mul, {a, sines}));
  KILN_TRY(b_cos, n.emit(Op::mul, {b, cosines}));
  KILN_TRY(real, n.emit(Op::sub, {a_cos, b_sin}));
  KILN_TRY(imaginary, n.emit(Op::add, {a_sin, b_cos}));
  std::vector<Val> parts = {real, imaginary};
  if (interleaved) {
    Shape column = real.type.shape;
    column.push_back(1);
    for (Val &part : parts) {
      KILN_TRY(one, reshape(e, part, column));
      part = one;
    }
    KILN_TRY(pairs, n.emit(Op::concat, parts, {{"axis", attr_int(4)}}));
    KILN_TRY(merged, reshape(e, pairs, turning.type.shape));
    parts = {merged};
  }
  if (rotated < *size) {
    KILN_TRY(rest, slice_axis(e, x, 3, rotated, *size - rotated));
    parts.push_back(rest);
  }
  if (parts.size() == 1)
    return parts[0];
  return n.emit(Op::concat, parts, {{"axis", attr_int(3)}});
}

Result<Val> angles_at(OnnxNode &n, const Val &table, const Val &positions) {
  if (table.rank() != 2)
    return Error{fmt::format("a table of angles is {}, not [positions, angles]", table.type.text())};
  if (positions.rank() != 2)
    return Error{fmt::format("its 'position_ids' are {}, not [batch, length]", positions.type.text())};
  KILN_TRY(rows, n.emit(Op::gather, {table, positions}, {{"axis", attr_int(0)}}));
  return reshape(n.emitter(), rows, {rows.dim(0), rows.dim(1), 1, rows.dim(2)});
}

// The first D elements of each head are turned in pairs by the angles of their position, whose cosines and
// sines are [P, D / 2] with positions, else [B, L, D / 2].
Status import_rotary_embedding(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(x, heads_last(n, n.in(0), n.get_int("num_heads", 0)));
  auto size = x.dim(3).try_const();
  int64_t rotated = n.get_int("rotary_embedding_dim", 0);
  if (rotated == 0 && size)
    rotated = *size;
  if (!size || rotated < 2 || rotated > *size || rotated % 2 != 0)
    return Error{fmt::format("{} of {} elements of a head cannot be turned in pairs", rotated, x.dim(3).text())};
  Val tables[2] = {n.in(1), n.in(2)};
  for (Val &table : tables) {
    if (n.has(3)) {
      KILN_TRY(rows, angles_at(n, table, n.in(3)));
      table = rows;
    } else if (table.rank() == 3) {
      KILN_TRY(spread, reshape(e, table, {table.dim(0), table.dim(1), 1, table.dim(2)}));
      table = spread;
    }
    if (table.rank() != 4 || !table.dim(3).is_const(rotated / 2))
      return Error{fmt::format("a table {} does not have {} angles for each position", table.type.text(), rotated / 2)};
  }
  KILN_TRY(turned, rotate_pairs(n, x, tables[0], tables[1], n.get_flag("interleaved", false)));
  return finish_like_input(n, turned);
}

// input, positions ([1]: of the first element; or [B, L]), cosines, sines. Heads are as large as the tables
// say where the attributes do not.
Status import_contrib_rotary_embedding(OnnxNode &n) {
  Emitter &e = n.emitter();
  if (n.get_flag("is_packed_batching", false))
    return Error{"packed batches (is_packed_batching) are not supported"};
  if (double scale = n.get_float("scale", 1); scale != 1)
    return Error{fmt::format("a 'scale' of {} is not supported", scale)};
  auto angles = n.rank(2) == 2 ? n.shape(2)[1].try_const() : std::nullopt;
  if (!angles || *angles < 1)
    return Error{fmt::format("its cosines are {}, not [positions, angles]", n.in(2).type.text())};
  int64_t heads = n.get_int("num_heads", 0), rotated = n.get_int("rotary_embedding_dim", 0);
  if (rotated != 0 && rotated != 2 * *angles)
    return Error{fmt::format("'rotary_embedding_dim' is {}, but there are {} angles", rotated, *angles)};
  auto width = n.rank(0) == 3 ? n.shape(0)[2].try_const() : std::nullopt;
  if (heads == 0 && width)
    heads = *width / (2 * *angles);
  KILN_TRY(x, heads_last(n, n.in(0), heads));
  bool from_first = n.rank(1) == 1 && n.shape(1)[0].try_const().value_or(1) == 1;
  if (!from_first && n.rank(1) != 2)
    return Error{fmt::format("its 'position_ids' are {}, not [1] or [batch, length]", n.in(1).type.text())};
  KILN_TRY(positions, convert(e, n.in(1), DType::i64));
  if (from_first) {
    KILN_TRY(steps, n.emit(Op::iota, {}, {{"shape", Shape{1, x.dim(1)}}, {"axis", attr_int(1)}, {"dtype", DType::i64}}));
    KILN_TRY(first, reshape(e, positions, {1, 1}));
    KILN_TRY(all, n.emit(Op::add, {steps, first}));
    positions = all;
  }
  KILN_TRY(cosines, angles_at(n, n.in(2), positions));
  KILN_TRY(sines, angles_at(n, n.in(3), positions));
  KILN_TRY(turned, rotate_pairs(n, x, cosines, sines, n.get_flag("interleaved", false)));
  return finish_like_input(n, turned);
}

} // namespace kiln::onnx
