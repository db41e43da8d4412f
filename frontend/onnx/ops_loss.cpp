// Losses: the negative logarithm of the probability that the scores give to the target class.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

struct Losses {
  Val each, weight; // of every element, of the target's shape; ignored ones are 0
};

// log_probabilities[N, C, d...], target[N, d...], weights[C] or none.
Result<Losses> losses(OnnxNode &n, const Val &log_probabilities, const Val &target, const Val *weights) {
  Emitter &e = n.emitter();
  DType t = log_probabilities.dtype();
  if (log_probabilities.rank() < 2 || target.rank() + 1 != log_probabilities.rank())
    return Error{fmt::format("scores {} and targets {}: the targets have the scores' shape without the classes, which are dim 1",
                             log_probabilities.type.text(), target.type.text())};
  KILN_TRY(classes, convert(e, target, DType::i64));
  std::optional<Val> counts;
  if (n.has_attr("ignore_index")) {
    Val ignored = e.constant(Tensor::scalar_i64(DType::i64, n.get_int("ignore_index", 0)));
    KILN_TRY(is_counted, n.emit(Op::ne, {classes, ignored}));
    KILN_TRY(safe, n.emit(Op::where, {is_counted, classes, e.constant(Tensor::scalar_i64(DType::i64, 0))}));
    classes = safe;
    counts = is_counted;
  }
  Shape column = classes.type.shape;
  column.insert(column.begin() + 1, 1);
  KILN_TRY(index, reshape(e, classes, column));
  KILN_TRY(taken, n.emit(Op::gather_elements, {log_probabilities, index}, {{"axis", attr_int(1)}}));
  KILN_TRY(chosen, reshape(e, taken, classes.type.shape));
  Val weight;
  if (weights) {
    KILN_TRY(own, n.emit(Op::gather, {*weights, classes}, {{"axis", attr_int(0)}}));
    weight = own;
  } else {
    KILN_TRY(ones, broadcast_to(e, e.scalar(t, 1), classes.type.shape));
    weight = ones;
  }
  if (counts) {
    KILN_TRY(masked, n.emit(Op::where, {*counts, weight, e.scalar(t, 0)}));
    weight = masked;
  }
  KILN_TRY(weighted, n.emit(Op::mul, {chosen, weight}));
  KILN_TRY(each, n.emit(Op::neg, {weighted}));
  if (counts) { // 0 times infinity
    KILN_TRY(clean, n.emit(Op::where, {*counts, each, e.scalar(t, 0)}));
    each = clean;
  }
  return Losses{each, weight};
}

Result<Val> total(OnnxNode &n, const Val &x) {
  std::vector<int64_t> axes;
  for (int d = 0; d < x.rank(); ++d)
    axes.push_back(d);
  return n.emit(Op::reduce_sum, {x}, {{"axes", attr_ints(axes)}, {"keepdims", false}});
}

Result<Val> reduced(OnnxNode &n, const Losses &losses) {
  std::string reduction = n.get_string("reduction", "mean");
  if (reduction == "none")
    return losses.each;
  KILN_TRY(sum, total(n, losses.each));
  if (reduction == "sum")
    return sum;
  if (reduction != "mean")
    return Error{fmt::format("'reduction' is '{}'; there are none, sum and mean", reduction)};
  KILN_TRY(weight, total(n, losses.weight));
  return n.emit(Op::div, {sum, weight});
}

} // namespace

Status import_negative_log_likelihood_loss(OnnxNode &n) {
  KILN_TRY(all, losses(n, n.in(0), n.in(1), n.has(2) ? &n.in(2) : nullptr));
  return n.finish(reduced(n, all));
}

Status import_softmax_cross_entropy_loss(OnnxNode &n) {
  KILN_TRY(log_probabilities, n.emit(Op::log_softmax, {n.in(0)}, {{"axis", attr_int(1)}}));
  KILN_TRY(all, losses(n, log_probabilities, n.in(1), n.has(2) ? &n.in(2) : nullptr));
  KILN_TRY(loss, reduced(n, all));
  n.set(0, loss);
  if (n.wants(1))
    n.set(1, log_probabilities);
  return Unit{};
}

} // namespace kiln::onnx
