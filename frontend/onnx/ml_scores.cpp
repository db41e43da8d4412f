#include "frontend/onnx/ml_scores.h"

#include "frontend/onnx/text.h"

#include <fmt/format.h>

#include <numeric>

namespace kiln::onnx {
namespace {

Result<Val> logistic(OnnxNode &n, const Val &x) { return n.emit(Op::sigmoid, {x}); }

// Zeros have no say in the largest or the sum, and stay small.
Result<Val> softmax_zero(OnnxNode &n, const Val &x) {
  Emitter &e = n.emitter();
  Attrs rows{{"axes", attr_ints(std::vector<int64_t>{1})}, {"keepdims", true}};
  KILN_TRY(most, n.emit(Op::reduce_max, {x}, rows));
  KILN_TRY(shifted, n.emit(Op::sub, {x, most}));
  KILN_TRY(power, n.emit(Op::exp, {shifted}));
  KILN_TRY(negative, n.emit(Op::neg, {most}));
  KILN_TRY(factor, n.emit(Op::exp, {negative}));
  KILN_TRY(scaled, n.emit(Op::mul, {x, factor}));
  KILN_TRY(size, n.emit(Op::abs, {x}));
  KILN_TRY(counts, n.emit(Op::gt, {size, e.scalar(x.dtype(), 1e-7)}));
  KILN_TRY(values, n.emit(Op::where, {counts, power, scaled}));
  KILN_TRY(sum, n.emit(Op::reduce_sum, {values}, rows));
  KILN_TRY(empty, n.emit(Op::eq, {sum, e.scalar(x.dtype(), 0)}));
  KILN_TRY(safe, n.emit(Op::where, {empty, e.scalar(x.dtype(), 1), sum}));
  KILN_TRY(shares, n.emit(Op::div, {values, safe}));
  return n.emit(Op::where, {empty, e.scalar(x.dtype(), 0.5), shares});
}

// sqrt(2) * erf_inv(2 x - 1), the inverse by Winitzki's approximation (2008) with a = 0.147.
Result<Val> probit(OnnxNode &n, const Val &x) {
  Emitter &e = n.emitter();
  DType t = x.dtype();
  constexpr double kA = 0.147, kPi = 3.14159265358979323846;
  KILN_TRY(twice, n.emit(Op::mul, {x, e.scalar(t, 2)}));
  KILN_TRY(y, n.emit(Op::sub, {twice, e.scalar(t, 1)}));
  KILN_TRY(square, n.emit(Op::mul, {y, y}));
  KILN_TRY(rest, n.emit(Op::sub, {e.scalar(t, 1), square}));
  KILN_TRY(log, n.emit(Op::log, {rest}));
  KILN_TRY(half, n.emit(Op::mul, {log, e.scalar(t, 0.5)}));
  KILN_TRY(v, n.emit(Op::add, {half, e.scalar(t, 2 / (kPi * kA))}));
  KILN_TRY(v_square, n.emit(Op::mul, {v, v}));
  KILN_TRY(scaled, n.emit(Op::mul, {log, e.scalar(t, 1 / kA)}));
  KILN_TRY(inside, n.emit(Op::sub, {v_square, scaled}));
  KILN_TRY(root, n.emit(Op::sqrt, {inside}));
  KILN_TRY(difference, n.emit(Op::sub, {root, v}));
  KILN_TRY(size, n.emit(Op::sqrt, {difference}));
  KILN_TRY(sign, n.emit(Op::sign, {y}));
  KILN_TRY(inverse, n.emit(Op::mul, {size, sign}));
  return n.emit(Op::mul, {inverse, e.scalar(t, 1.41421356)});
}

} // namespace

Result<PostTransform> post_transform(OnnxNode &n) {
  std::string name = n.get_string("post_transform", "NONE");
  constexpr std::string_view kNames[] = {"NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"};
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i])
      return PostTransform(i);
  return Error{fmt::format("'post_transform' is '{}'; there are NONE, LOGISTIC, SOFTMAX, SOFTMAX_ZERO and PROBIT", name)};
}

Result<Val> transform_scores(OnnxNode &n, const Val &scores, PostTransform transform) {
  switch (transform) {
  case PostTransform::none:
    return scores;
  case PostTransform::logistic:
    return logistic(n, scores);
  case PostTransform::softmax:
    return n.emit(Op::softmax, {scores}, {{"axis", attr_int(1)}});
  case PostTransform::softmax_zero:
    return softmax_zero(n, scores);
  case PostTransform::probit:
    return probit(n, scores);
  }
  return scores;
}

Result<std::vector<int64_t>> class_labels(OnnxNode &n, std::string_view attribute) {
  if (auto names = n.get_strings("classlabels_strings"); !names.empty()) {
    if (names.size() < 2)
      return Error{"it has one class label; two are the least where they are strings"};
    n.ignore({attribute});
    std::vector<int64_t> numbers(names.size());
    std::iota(numbers.begin(), numbers.end(), int64_t(0));
    return numbers;
  }
  auto labels = n.get_ints(attribute);
  if (labels.empty())
    return Error{fmt::format("it has no '{}'", attribute)};
  return labels;
}

Result<Val> pick_labels(OnnxNode &n, const Val &which, const std::vector<int64_t> &labels) {
  bool in_order = true;
  for (size_t i = 0; i < labels.size(); ++i)
    in_order = in_order && labels[i] == int64_t(i);
  if (in_order)
    return which;
  return n.emit(Op::gather, {n.emitter().ints(labels), which}, {{"axis", attr_int(0)}});
}

Result<Val> best_label(OnnxNode &n, const Val &scores, const std::vector<int64_t> &labels) {
  KILN_TRY(which, n.emit(Op::argmax, {scores}, {{"axis", attr_int(1)}, {"keepdims", false}}));
  return pick_labels(n, which, labels);
}

Status set_label(OnnxNode &n, const Val &label) {
  auto names = n.get_strings("classlabels_strings");
  if (names.empty()) {
    n.set(0, label);
    return Unit{};
  }
  return n.finish(text_lookup(n.emitter(), names, label));
}

Result<Val> feature_rows(OnnxNode &n) {
  Val x = n.in(0);
  if (x.rank() == 1) {
    KILN_TRY(row, reshape(n.emitter(), x, {1, x.dim(0)}));
    x = row;
  }
  if (x.rank() != 2)
    return Error{fmt::format("its input must be rows of features, not {}", x.type.text())};
  return convert(n.emitter(), x, x.dtype() == DType::f64 ? DType::f64 : DType::f32);
}

Val floats(OnnxNode &n, std::span<const double> values, std::vector<int64_t> shape, DType dtype) {
  Tensor tensor(dtype, std::move(shape));
  for (int64_t i = 0; i < tensor.count(); ++i)
    tensor.set_f64(i, values[size_t(i)]);
  return n.emitter().constant(std::move(tensor));
}

} // namespace kiln::onnx
