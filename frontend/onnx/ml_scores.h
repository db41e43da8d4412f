// What the classifiers and regressors of ai.onnx.ml end with: scores through a link function, and the
// label of the best. Formulas are those of the operators' specification; where it is silent (two classes
// from one score) those of ONNX Runtime, which trained models are converted against.
#pragma once

#include "frontend/onnx/node.h"

namespace kiln::onnx {

enum class PostTransform { none, logistic, softmax, softmax_zero, probit };
Result<PostTransform> post_transform(OnnxNode &n);

// scores[N, C], transformed.
Result<Val> transform_scores(OnnxNode &n, const Val &scores, PostTransform transform);

// The integers that the classes are called: `attribute`; where they are strings, their numbers.
Result<std::vector<int64_t>> class_labels(OnnxNode &n, std::string_view attribute);
// labels[which[N]]
Result<Val> pick_labels(OnnxNode &n, const Val &which, const std::vector<int64_t> &labels);
// The label of the largest of scores[N, C].
Result<Val> best_label(OnnxNode &n, const Val &scores, const std::vector<int64_t> &labels);

// Output 0: the label, by name where the classes are strings.
Status set_label(OnnxNode &n, const Val &label);

// Probabilities [N, C] of classes from those of the first class of each pair, [N, C (C - 1) / 2], in the
// order 0 and 1, 0 and 2, ..., 1 and 2, ... (ml_coupling.cpp).
Result<Val> couple_pairs(OnnxNode &n, const Val &pairs, int64_t classes);

// x[N, C] as floats that the operators compute in: f64 stays, everything else becomes f32. A vector is
// one row.
Result<Val> feature_rows(OnnxNode &n);
// A constant of x's dtype.
Val floats(OnnxNode &n, std::span<const double> values, std::vector<int64_t> shape, DType dtype);

} // namespace kiln::onnx
