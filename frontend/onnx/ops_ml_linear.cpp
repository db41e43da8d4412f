// Linear models and support vector machines: contractions with constant coefficients, a link function,
// and labels.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/ml_scores.h"
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::onnx {
namespace {

// x[N, F] times the rows of coefficients[C * F], plus intercepts (C, 1 or none): [N, C].
Result<Val> linear(OnnxNode &n, const Val &x, const std::vector<double> &coefficients, int64_t rows,
                   const std::vector<double> &intercepts) {
  auto features = x.dim(1).try_const();
  if (rows < 1 || coefficients.empty() || int64_t(coefficients.size()) % rows != 0)
    return Error{fmt::format("{} coefficients cannot be those of {} scores", coefficients.size(), rows)};
  int64_t each = int64_t(coefficients.size()) / rows;
  if (features && *features > each)
    return Error{fmt::format("it has {} coefficients for each score, and its input {} features", each, *features)};
  if (features && *features < each) { // the first ones are taken, row after row, as ONNX Runtime does
    n.importer().warn(fmt::format("{} has {} coefficients for each score, and its input {} features; the last {} coefficients are not used",
                                  n.type(), each, *features, int64_t(coefficients.size()) - rows * *features));
    each = *features;
  }
  KILN_TRY(scores, n.emit(Op::dot, {x, floats(n, coefficients, {rows, each}, x.dtype())}, {{"transpose_b", true}}));
  if (intercepts.empty())
    return scores;
  if (int64_t(intercepts.size()) != rows && intercepts.size() != 1)
    return Error{fmt::format("it has {} intercepts for {} scores", intercepts.size(), rows)};
  return n.emit(Op::add, {scores, floats(n, intercepts, {int64_t(intercepts.size())}, x.dtype())});
}

Result<Val> negative_and_positive(OnnxNode &n, const Val &score) {
  KILN_TRY(negative, n.emit(Op::neg, {score}));
  return n.emit(Op::concat, {negative, score}, {{"axis", attr_int(1)}});
}

// Whether a column [N, 1] is above the limit, as 0 or 1: [N].
Result<Val> above(OnnxNode &n, const Val &x, double limit) {
  KILN_TRY(is, n.emit(Op::gt, {x, n.emitter().scalar(x.dtype(), limit)}));
  KILN_TRY(flat, reshape(n.emitter(), is, {x.dim(0)}));
  return convert(n.emitter(), flat, DType::i64);
}

// -- support vector machines

struct Svm {
  std::string kernel;
  double gamma = 0, offset = 0, degree = 0;
  std::vector<double> coefficients, rho, vectors;
};

Result<Svm> read_svm(OnnxNode &n) {
  Svm svm;
  svm.kernel = n.get_string("kernel_type", "LINEAR");
  auto params = n.get_floats("kernel_params");
  if (!params.empty() && params.size() != 3)
    return Error{fmt::format("'kernel_params' has {} numbers; gamma, coef0 and degree are meant", params.size())};
  if (!params.empty()) {
    svm.gamma = params[0];
    svm.offset = params[1];
    svm.degree = params[2];
  }
  svm.coefficients = n.get_floats("coefficients");
  svm.rho = n.get_floats("rho");
  svm.vectors = n.get_floats("support_vectors");
  if (svm.coefficients.empty() || svm.rho.empty())
    return Error{"it has no 'coefficients' or no 'rho'"};
  return svm;
}

// kernel(x, v) for each row and each of `count` vectors: [N, count].
Result<Val> kernel_values(OnnxNode &n, const Svm &svm, const Val &x, const std::vector<double> &vectors, int64_t count) {
  Emitter &e = n.emitter();
  DType t = x.dtype();
  KILN_TRY(products, linear(n, x, vectors, count, {}));
  if (svm.kernel == "LINEAR")
    return products;
  if (svm.kernel == "POLY" || svm.kernel == "SIGMOID") {
    KILN_TRY(scaled, n.emit(Op::mul, {products, e.scalar(t, svm.gamma)}));
    KILN_TRY(moved, n.emit(Op::add, {scaled, e.scalar(t, svm.offset)}));
    return svm.kernel == "SIGMOID" ? n.emit(Op::tanh, {moved}) : n.emit(Op::pow, {moved, e.scalar(t, svm.degree)});
  }
  if (svm.kernel != "RBF")
    return Error{fmt::format("'kernel_type' is '{}'; there are LINEAR, POLY, RBF and SIGMOID", svm.kernel)};
  // |x - v|^2 element by element: the expanded square would cancel.
  int64_t each = int64_t(vectors.size()) / count;
  KILN_TRY(rows, reshape(e, x, {x.dim(0), 1, x.dim(1)}));
  KILN_TRY(difference, n.emit(Op::sub, {rows, floats(n, vectors, {1, count, each}, t)}));
  KILN_TRY(square, n.emit(Op::reduce_sum_square, {difference}, {{"axes", attr_ints(std::vector<int64_t>{2})}, {"keepdims", false}}));
  KILN_TRY(scaled, n.emit(Op::mul, {square, e.scalar(t, -svm.gamma)}));
  return n.emit(Op::exp, {scaled});
}

// One against one: scores[N, P] of the pairs of classes, and votes[N, C].
struct Pairs {
  Val scores, votes;
};

Result<Pairs> pair_scores(OnnxNode &n, const Svm &svm, const Val &kernels, const std::vector<int64_t> &sizes) {
  int64_t classes = int64_t(sizes.size()), pairs = classes * (classes - 1) / 2, vectors = 0;
  std::vector<int64_t> start;
  for (int64_t size : sizes) {
    start.push_back(vectors);
    vectors += size;
  }
  if (int64_t(svm.coefficients.size()) != (classes - 1) * vectors || int64_t(svm.rho.size()) != pairs)
    return Error{fmt::format("{} classes with {} vectors need {} coefficients and {} of 'rho', not {} and {}", classes,
                             vectors, (classes - 1) * vectors, pairs, svm.coefficients.size(), svm.rho.size())};
  std::vector<double> weights(size_t(vectors * pairs)), wins(size_t(pairs * classes)), losses(size_t(pairs * classes));
  int64_t pair = 0;
  for (int64_t i = 0; i < classes; ++i)
    for (int64_t j = i + 1; j < classes; ++j, ++pair) {
      for (auto [own, other] : {std::pair(i, j - 1), std::pair(j, i)})
        for (int64_t v = start[size_t(own)]; v < start[size_t(own)] + sizes[size_t(own)]; ++v)
          weights[size_t(v * pairs + pair)] = svm.coefficients[size_t(other * vectors + v)];
      wins[size_t(pair * classes + i)] = losses[size_t(pair * classes + j)] = 1;
    }
  DType t = kernels.dtype();
  KILN_TRY(sums, n.emit(Op::dot, {kernels, floats(n, weights, {vectors, pairs}, t)}));
  KILN_TRY(scores, n.emit(Op::add, {sums, floats(n, svm.rho, {pairs}, t)}));
  KILN_TRY(is_first, n.emit(Op::gt, {scores, n.emitter().scalar(t, 0)}));
  KILN_TRY(first, convert(n.emitter(), is_first, t));
  KILN_TRY(second, n.emit(Op::sub, {n.emitter().scalar(t, 1), first}));
  KILN_TRY(won, n.emit(Op::dot, {first, floats(n, wins, {pairs, classes}, t)}));
  KILN_TRY(lost, n.emit(Op::dot, {second, floats(n, losses, {pairs, classes}, t)}));
  KILN_TRY(votes, n.emit(Op::add, {won, lost}));
  return Pairs{scores, votes};
}

// Platt's probabilities of the classes from the scores[N, P] of their pairs.
Result<Val> probabilities(OnnxNode &n, const Val &scores, const std::vector<double> &a, const std::vector<double> &b,
                          int64_t classes) {
  DType t = scores.dtype();
  std::vector<double> slope, offset;
  for (size_t i = 0; i < a.size(); ++i) {
    slope.push_back(-a[i]);
    offset.push_back(-b[i]);
  }
  int64_t pairs = int64_t(a.size());
  KILN_TRY(scaled, n.emit(Op::mul, {scores, floats(n, slope, {pairs}, t)}));
  KILN_TRY(moved, n.emit(Op::add, {scaled, floats(n, offset, {pairs}, t)}));
  KILN_TRY(first, n.emit(Op::sigmoid, {moved}));
  KILN_TRY(inside, n.emit(Op::clamp, {first}, {{"min", 1e-7}, {"max", 1 - 1e-7}}));
  return couple_pairs(n, inside, classes);
}

Status finish_svm(OnnxNode &n, const Val &label, const Val &scores) {
  KILN_RETURN_IF_ERROR(set_label(n, label));
  KILN_TRY(out, convert(n.emitter(), scores, DType::f32));
  n.set(1, out);
  return Unit{};
}

} // namespace

Status import_linear_regressor(OnnxNode &n) {
  KILN_TRY(x, feature_rows(n));
  KILN_TRY(transform, post_transform(n));
  KILN_TRY(scores, linear(n, x, n.get_floats("coefficients"), n.get_int("targets", 1), n.get_floats("intercepts")));
  KILN_TRY(out, transform_scores(n, scores, transform));
  return n.finish(convert(n.emitter(), out, DType::f32));
}

Status import_linear_classifier(OnnxNode &n) {
  n.ignore({"multi_class"});
  KILN_TRY(x, feature_rows(n));
  KILN_TRY(labels, class_labels(n, "classlabels_ints"));
  KILN_TRY(transform, post_transform(n));
  auto coefficients = n.get_floats("coefficients"), intercepts = n.get_floats("intercepts");
  int64_t rows = int64_t(labels.size());
  // Two classes may share one score.
  if (auto features = x.dim(1).try_const(); rows == 2 && features && int64_t(coefficients.size()) == *features)
    rows = 1;
  KILN_TRY(scores, linear(n, x, coefficients, rows, intercepts));
  if (rows == 1 && labels.size() == 2) {
    KILN_TRY(both, negative_and_positive(n, scores));
    scores = both;
  }
  KILN_TRY(transformed, transform_scores(n, scores, transform));
  KILN_TRY(out, convert(n.emitter(), transformed, DType::f32));
  n.set(1, out);
  if (labels.size() > 1) {
    KILN_TRY(label, best_label(n, scores, labels));
    KILN_RETURN_IF_ERROR(set_label(n, label));
    return Unit{};
  }
  KILN_TRY(is, n.emit(Op::ge, {out, n.emitter().scalar(DType::f32, transform == PostTransform::none ? 0 : 0.5)}));
  KILN_TRY(flat, reshape(n.emitter(), is, {x.dim(0)}));
  KILN_TRY(label, n.emit(Op::where, {flat, n.emitter().scalar(DType::i64, double(labels[0])), n.emitter().scalar(DType::i64, 0)}));
  KILN_RETURN_IF_ERROR(set_label(n, label));
  return Unit{};
}

Status import_svm_regressor(OnnxNode &n) {
  KILN_TRY(x, feature_rows(n));
  KILN_TRY(transform, post_transform(n));
  n.get_int("n_targets", 1);
  KILN_TRY(svm, read_svm(n));
  int64_t supports = n.get_int("n_supports", 0);
  bool one_class = n.get_flag("one_class", false);
  std::vector<double> rho = {svm.rho[0]};
  Val kernels = x;
  if (supports > 0) {
    KILN_TRY(values, kernel_values(n, svm, x, svm.vectors, supports));
    kernels = values;
  }
  KILN_TRY(score, linear(n, kernels, svm.coefficients, 1, rho));
  KILN_TRY(out, transform_scores(n, score, transform));
  if (one_class) {
    KILN_TRY(inside, n.emit(Op::gt, {out, n.emitter().scalar(out.dtype(), 0)}));
    KILN_TRY(sign, n.emit(Op::where, {inside, n.emitter().scalar(out.dtype(), 1), n.emitter().scalar(out.dtype(), -1)}));
    out = sign;
  }
  return n.finish(convert(n.emitter(), out, DType::f32));
}

Status import_svm_classifier(OnnxNode &n) {
  KILN_TRY(x, feature_rows(n));
  KILN_TRY(labels, class_labels(n, "classlabels_ints"));
  KILN_TRY(transform, post_transform(n));
  KILN_TRY(svm, read_svm(n));
  auto sizes = n.get_ints("vectors_per_class");
  auto a = n.get_floats("prob_a"), b = n.get_floats("prob_b");
  int64_t classes = int64_t(labels.size()), vectors = 0;
  for (int64_t size : sizes) {
    if (size < 0 || size > (int64_t(1) << 32))
      return Error{"'vectors_per_class' has an impossible size"};
    vectors += size;
  }
  if (vectors == 0) { // one score for each class
    std::vector<double> rho = {svm.rho[0]};
    KILN_TRY(scores, linear(n, x, svm.coefficients, classes, rho));
    KILN_TRY(label, classes > 1 ? best_label(n, scores, labels) : above(n, scores, 0));
    KILN_TRY(out, transform_scores(n, scores, transform));
    return finish_svm(n, label, out);
  }
  if (int64_t(sizes.size()) != classes || classes < 2)
    return Error{fmt::format("'vectors_per_class' is for {} classes, and there are {} labels", sizes.size(), classes)};
  KILN_TRY(kernels, kernel_values(n, svm, x, svm.vectors, vectors));
  KILN_TRY(pairs, pair_scores(n, svm, kernels, sizes));
  KILN_TRY(label, best_label(n, pairs.votes, labels));
  if (!a.empty()) {
    if (a.size() != b.size() || a.size() != svm.rho.size())
      return Error{"'prob_a' and 'prob_b' need a number for each pair of classes"};
    if (classes > 64)
      return Error{fmt::format("probabilities of {} classes are not supported; 64 are the most", classes)};
    KILN_TRY(shares, probabilities(n, pairs.scores, a, b, classes));
    KILN_TRY(out, transform_scores(n, shares, transform));
    return finish_svm(n, label, out);
  }
  if (classes == 2) {
    KILN_TRY(both, negative_and_positive(n, pairs.scores));
    KILN_TRY(out, transform_scores(n, both, transform));
    return finish_svm(n, label, out);
  }
  KILN_TRY(out, transform_scores(n, pairs.scores, transform));
  return finish_svm(n, label, out);
}

} // namespace kiln::onnx
