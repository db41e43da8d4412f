// NonMaxSuppression: the best box of every batch and class at once, then all that overlap it too much are
// out, until nothing is left or enough were taken: as many turns as boxes are kept, each over all boxes in
// vectors. What was taken lies at (batch, class, turn), which is the order of the result.
#include "frontend/onnx/ops.h"
#include "frontend/onnx/selection.h"

#include <fmt/format.h>

#include <limits>

namespace kiln::onnx {
namespace {

constexpr double kGone = -std::numeric_limits<double>::infinity();

// Edges of boxes, low <= high, and what they enclose.
struct Boxes {
  Val y1, x1, y2, x2, area;
};

Result<Val> clipped_difference(Emitter &e, const Val &high, const Val &low) {
  KILN_TRY(difference, e.emit(Op::sub, {high, low}));
  return e.emit(Op::maximum, {difference, e.scalar(high.dtype(), 0)});
}

Result<Val> coordinate(Emitter &e, const Val &boxes, int64_t k) {
  KILN_TRY(one, slice_axis(e, boxes, 2, k, 1));
  return reshape(e, one, {boxes.dim(0), boxes.dim(1)});
}

// Each [batches, boxes].
Result<Boxes> edges(Emitter &e, const Val &boxes, bool center) {
  Boxes out;
  KILN_TRY(a, coordinate(e, boxes, 0));
  KILN_TRY(b, coordinate(e, boxes, 1));
  KILN_TRY(c, coordinate(e, boxes, 2));
  KILN_TRY(d, coordinate(e, boxes, 3));
  if (center) { // x, y, width, height
    Val half = e.scalar(boxes.dtype(), 0.5);
    KILN_TRY(width, e.emit(Op::mul, {c, half}));
    KILN_TRY(height, e.emit(Op::mul, {d, half}));
    KILN_TRY(x1, e.emit(Op::sub, {a, width}));
    KILN_TRY(x2, e.emit(Op::add, {a, width}));
    KILN_TRY(y1, e.emit(Op::sub, {b, height}));
    KILN_TRY(y2, e.emit(Op::add, {b, height}));
    out = {y1, x1, y2, x2, {}};
  } else { // two corners, in any order
    KILN_TRY(y1, e.emit(Op::minimum, {a, c}));
    KILN_TRY(y2, e.emit(Op::maximum, {a, c}));
    KILN_TRY(x1, e.emit(Op::minimum, {b, d}));
    KILN_TRY(x2, e.emit(Op::maximum, {b, d}));
    out = {y1, x1, y2, x2, {}};
  }
  KILN_TRY(height, e.emit(Op::sub, {out.y2, out.y1}));
  KILN_TRY(width, e.emit(Op::sub, {out.x2, out.x1}));
  KILN_TRY(area, e.emit(Op::mul, {height, width}));
  out.area = area;
  return out;
}

// What is taken in one turn: of each class in each batch its own, [batches, classes, 1].
Result<Val> pick(Emitter &e, const Val &edge, const Val &best) {
  KILN_TRY(one, e.emit(Op::gather_elements, {edge, best}, {{"axis", Dim(1)}}));
  return unsqueezed(e, one, 2);
}

// Where the boxes overlap those that were taken by more than the threshold: bool[batches, classes, boxes].
Result<Val> overlapping(Emitter &e, const Boxes &all, const Val &best, const Val &threshold) {
  Boxes one, each;
  Val Boxes::*members[] = {&Boxes::y1, &Boxes::x1, &Boxes::y2, &Boxes::x2, &Boxes::area};
  for (Val Boxes::*m : members) {
    KILN_TRY(taken, pick(e, all.*m, best));
    KILN_TRY(wide, unsqueezed(e, all.*m, 1));
    one.*m = taken;
    each.*m = wide;
  }
  KILN_TRY(bottom, e.emit(Op::minimum, {one.y2, each.y2}));
  KILN_TRY(top, e.emit(Op::maximum, {one.y1, each.y1}));
  KILN_TRY(right, e.emit(Op::minimum, {one.x2, each.x2}));
  KILN_TRY(left, e.emit(Op::maximum, {one.x1, each.x1}));
  KILN_TRY(height, clipped_difference(e, bottom, top));
  KILN_TRY(width, clipped_difference(e, right, left));
  KILN_TRY(shared, e.emit(Op::mul, {height, width}));
  KILN_TRY(both, e.emit(Op::add, {one.area, each.area}));
  KILN_TRY(joined, e.emit(Op::sub, {both, shared}));
  KILN_TRY(ratio, e.emit(Op::div, {shared, joined}));
  KILN_TRY(much, e.emit(Op::gt, {ratio, threshold}));
  KILN_TRY(some, e.emit(Op::gt, {shared, e.scalar(shared.dtype(), 0)})); // so that no area is 0
  return e.emit(Op::logical_and, {much, some});
}

Result<Val> number_or(OnnxNode &n, size_t i, DType dtype, double otherwise) {
  if (!n.has(i))
    return n.emitter().scalar(dtype, otherwise);
  if (!element_count(n.shape(i)).is_const(1) || n.dtype(i) != dtype)
    return Error{fmt::format("its input {} must be one {}, not {}", i, dtype_name(dtype), n.in(i).type.text())};
  return reshape(n.emitter(), n.in(i), {});
}

// What the turns carry.
enum Carried : size_t { kTurn, kGoesOn, kScores, kTaken };

Result<std::vector<Val>> one_turn(Emitter &e, const std::vector<Val> &carried, const Boxes &boxes,
                                  const Val &threshold) {
  const Val &scores = carried[kScores], &taken = carried[kTaken];
  Attrs along{{"axis", Dim(2)}, {"keepdims", false}};
  KILN_TRY(best, e.emit(Op::argmax, {scores}, along));
  KILN_TRY(score, e.emit(Op::reduce_max, {scores}, {{"axes", std::vector<Dim>{2}}, {"keepdims", false}}));
  KILN_TRY(valid, e.emit(Op::gt, {score, e.scalar(scores.dtype(), kGone)}));
  KILN_TRY(goes_on, e.emit(Op::reduce_any, {valid}, {{"axes", std::vector<Dim>{0, 1}}, {"keepdims", false}}));
  KILN_TRY(best_wide, unsqueezed(e, best, 2));
  KILN_TRY(valid_wide, unsqueezed(e, valid, 2));
  KILN_TRY(turns, counted(e, taken.dim(2)));
  KILN_TRY(now, e.emit(Op::eq, {turns, carried[kTurn]}));
  KILN_TRY(here, e.emit(Op::logical_and, {now, valid_wide}));
  KILN_TRY(next_taken, e.emit(Op::where, {here, best_wide, taken}));
  KILN_TRY(close, overlapping(e, boxes, best, threshold));
  KILN_TRY(places, counted(e, scores.dim(2)));
  KILN_TRY(itself, e.emit(Op::eq, {places, best_wide}));
  KILN_TRY(out, e.emit(Op::logical_or, {close, itself}));
  KILN_TRY(next_scores, e.emit(Op::where, {out, e.scalar(scores.dtype(), kGone), scores}));
  KILN_TRY(next, e.emit(Op::add, {carried[kTurn], number(e, 1)}));
  return std::vector<Val>{next, goes_on, next_scores, next_taken};
}

Result<Val> take_boxes(Emitter &e, const Boxes &boxes, const Val &scores, const Val &limit, const Dim &most,
                       const Val &threshold) {
  KILN_TRY(nothing, broadcast_to(e, number(e, -1), {scores.dim(0), scores.dim(1), most}));
  std::vector<Val> operands = {number(e, 0), e.scalar(DType::bool_, 1), scores, nothing};
  std::vector<Block> regions(2);
  std::vector<Val> inner[2];
  for (size_t i = 0; i < 2; ++i)
    for (const Val &v : operands)
      inner[i].push_back(e.argument(regions[i], v.type, ""));
  {
    IntoBlock scope(e.builder(), regions[0]);
    KILN_TRY(more, e.emit(Op::lt, {inner[0][kTurn], limit}));
    KILN_TRY(both, e.emit(Op::logical_and, {more, inner[0][kGoesOn]}));
    KILN_TRY(id, e.materialize(both));
    regions[0].results = {id};
  }
  {
    IntoBlock scope(e.builder(), regions[1]);
    KILN_TRY(results, one_turn(e, inner[1], boxes, threshold));
    for (const Val &v : results) {
      KILN_TRY(id, e.materialize(v));
      regions[1].results.push_back(id);
    }
  }
  KILN_TRY(results, e.emit_all(Op::while_, operands, {}, std::move(regions)));
  return results.at(kTaken);
}

} // namespace

Status import_non_max_suppression(OnnxNode &n) {
  Emitter &e = n.emitter();
  Val boxes = n.in(0), scores = n.in(1);
  if (boxes.rank() != 3 || !boxes.dim(2).is_const(4) || scores.rank() != 3)
    return Error{fmt::format("its boxes and scores must be [batches, boxes, 4] and [batches, classes, boxes], not {} and {}",
                             boxes.type.text(), scores.type.text())};
  if (!is_float(boxes.dtype()) || boxes.dtype() != scores.dtype())
    return Error{fmt::format("its boxes and scores are {} and {}", boxes.type.text(), scores.type.text())};
  const Dim batches = boxes.dim(0), count = boxes.dim(1), classes = scores.dim(1);
  if (!e.require_equal(batches, scores.dim(0), "NonMaxSuppression") ||
      !e.require_equal(count, scores.dim(2), "NonMaxSuppression"))
    return Error{fmt::format("its boxes {} and scores {} do not belong together", boxes.type.text(), scores.type.text())};
  int64_t center = n.get_int("center_point_box", 0);
  if (center != 0 && center != 1)
    return Error{fmt::format("center_point_box is {}; it must be 0 or 1", center)};
  KILN_TRY(wanted, number_or(n, 2, DType::i64, 0));
  KILN_TRY(threshold, number_or(n, 3, DType::f32, 0));
  KILN_TRY(overlap, convert(e, threshold, boxes.dtype()));
  Dim most = count;
  if (auto known = e.dims(wanted))
    if (auto value = (*known)[0].try_const())
      most = min(count, std::max<int64_t>(*value, 0));
  KILN_TRY(few, e.emit(Op::minimum, {wanted, number(e, count)}));
  KILN_TRY(limit, e.emit(Op::maximum, {few, number(e, 0)}));
  if (most.is_const(0) || element_count(scores.type.shape).is_const(0))
    return n.finish(Result<Val>(e.constant(Tensor(DType::i64, {0, 3}))));
  if (n.has(4)) {
    KILN_TRY(least, number_or(n, 4, DType::f32, 0));
    KILN_TRY(bound, convert(e, least, scores.dtype()));
    KILN_TRY(good, e.emit(Op::gt, {scores, bound}));
    KILN_TRY(kept, e.emit(Op::where, {good, scores, e.scalar(scores.dtype(), kGone)}));
    scores = kept;
  }
  KILN_TRY(all, edges(e, boxes, center == 1));
  for (Val Boxes::*m : {&Boxes::y1, &Boxes::x1, &Boxes::y2, &Boxes::x2, &Boxes::area})
    KILN_RETURN_IF_ERROR(e.materialize(all.*m));
  KILN_TRY(taken, take_boxes(e, all, scores, limit, most, overlap));
  Dim size = batches * classes * most;
  KILN_TRY(flat, reshape(e, taken, {size}));
  KILN_TRY(is_taken, e.emit(Op::ge, {flat, number(e, 0)}));
  KILN_TRY(found, select_true(e, is_taken, "selected"));
  KILN_TRY(turn_row, e.emit(Op::div, {found.positions, number(e, most)}));
  KILN_TRY(batch, e.emit(Op::div, {turn_row, number(e, classes)}));
  KILN_TRY(category, e.emit(Op::remainder, {turn_row, number(e, classes)}));
  KILN_TRY(box, e.emit(Op::gather, {flat, found.positions}, {{"axis", Dim(0)}}));
  std::vector<Val> columns;
  for (const Val &v : {batch, category, box}) {
    KILN_TRY(column, unsqueezed(e, v, 1));
    columns.push_back(column);
  }
  return n.finish(Op::concat, columns, {{"axis", Dim(1)}});
}

} // namespace kiln::onnx
