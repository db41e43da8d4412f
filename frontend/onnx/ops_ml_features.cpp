// What stands before a classic model: scaling, imputing, encoding of features.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/ml_scores.h"
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <cmath>

namespace kiln::onnx {
namespace {

Result<Val> as_float(OnnxNode &n, size_t i = 0) {
  const Val &x = n.in(i);
  return convert(n.emitter(), x, x.dtype() == DType::f64 ? DType::f64 : DType::f32);
}

// One number for all features, or one for each.
Status check_features(const Val &x, size_t count, std::string_view name) {
  auto features = x.rank() > 0 ? x.dim(x.rank() - 1).try_const() : std::optional<int64_t>(1);
  if (count == 1 || !features || int64_t(count) == *features)
    return Unit{};
  return Error{fmt::format("'{}' has {} numbers for {} features", name, count, *features)};
}

Result<Val> operand(OnnxNode &n, Op op, const Val &x, std::string_view name) {
  auto values = n.get_floats(name);
  if (values.empty())
    return x;
  KILN_RETURN_IF_ERROR(check_features(x, values.size(), name));
  return n.emit(op, {x, floats(n, values, {int64_t(values.size())}, x.dtype())});
}

} // namespace

// (x - offset) * scale
Status import_scaler(OnnxNode &n) {
  KILN_TRY(x, as_float(n));
  KILN_TRY(moved, operand(n, Op::sub, x, "offset"));
  KILN_TRY(scaled, operand(n, Op::mul, moved, "scale"));
  return n.finish(convert(n.emitter(), scaled, DType::f32));
}

// x over the norm of its row.
Status import_normalizer(OnnxNode &n) {
  KILN_TRY(x, as_float(n));
  if (x.rank() < 1 || x.rank() > 2)
    return Error{fmt::format("its input must be rows of features, not {}", x.type.text())};
  std::string norm = n.get_string("norm", "MAX");
  Attrs rows{{"axes", attr_ints(std::vector<int64_t>{x.rank() - 1})}, {"keepdims", true}};
  if (norm != "MAX" && norm != "L1" && norm != "L2")
    return Error{fmt::format("'norm' is '{}'; there are MAX, L1 and L2", norm)};
  Val source = x;
  if (norm == "MAX") {
    KILN_TRY(size, n.emit(Op::abs, {x}));
    source = size;
  }
  KILN_TRY(length, n.emit(norm == "MAX" ? Op::reduce_max : norm == "L1" ? Op::reduce_l1 : Op::reduce_l2, {source}, rows));
  KILN_TRY(zero, n.emit(Op::eq, {length, n.emitter().scalar(x.dtype(), 0)}));
  KILN_TRY(safe, n.emit(Op::where, {zero, n.emitter().scalar(x.dtype(), 1), length}));
  KILN_TRY(out, n.emit(Op::div, {x, safe}));
  return n.finish(convert(n.emitter(), out, DType::f32));
}

Status import_binarizer(OnnxNode &n) {
  DType dtype = n.dtype();
  KILN_TRY(is, n.emit(Op::gt, {n.in(0), n.emitter().scalar(dtype, n.get_float("threshold", 0))}));
  return n.finish(convert(n.emitter(), is, dtype));
}

Status import_imputer(OnnxNode &n) {
  const Val &x = n.in(0);
  bool real = is_float(x.dtype());
  if (!real && x.dtype() != DType::i64)
    return Error{fmt::format("its input must be of floats or i64, not {}", x.type.text())};
  Val values, is_missing;
  if (real) {
    auto imputed = n.get_floats("imputed_value_floats");
    double missing = n.get_float("replaced_value_float", 0);
    if (imputed.empty())
      return Error{"it has no 'imputed_value_floats'"};
    KILN_RETURN_IF_ERROR(check_features(x, imputed.size(), "imputed_value_floats"));
    values = floats(n, imputed, {int64_t(imputed.size())}, x.dtype());
    KILN_TRY(is, std::isnan(missing) ? n.emit(Op::is_nan, {x}) : n.emit(Op::eq, {x, n.emitter().scalar(x.dtype(), missing)}));
    is_missing = is;
  } else {
    auto imputed = n.get_ints("imputed_value_int64s");
    if (imputed.empty())
      return Error{"it has no 'imputed_value_int64s'"};
    KILN_RETURN_IF_ERROR(check_features(x, imputed.size(), "imputed_value_int64s"));
    values = n.emitter().ints(imputed);
    KILN_TRY(is, n.emit(Op::eq, {x, n.emitter().ints({n.get_int("replaced_value_int64", 0)})}));
    is_missing = is;
  }
  return n.finish(Op::where, {is_missing, values, x});
}

Status import_feature_vectorizer(OnnxNode &n) {
  auto sizes = n.get_ints("inputdimensions");
  std::vector<Val> parts;
  for (size_t i = 0; i < n.input_count(); ++i) {
    KILN_TRY(part, convert(n.emitter(), n.in(i), DType::f32));
    if (part.rank() == 1) {
      KILN_TRY(row, reshape(n.emitter(), part, {1, part.dim(0)}));
      part = row;
    }
    if (part.rank() != 2)
      return Error{fmt::format("its input {} must be rows of features, not {}", i, part.type.text())};
    if (i < sizes.size() && part.dim(1).is_const() && part.dim(1).as_const() != sizes[i])
      return Error{fmt::format("'inputdimensions' gives input {} {} features; it has {}", i, sizes[i], part.dim(1).text())};
    parts.push_back(part);
  }
  return n.finish(Op::concat, parts, {{"axis", attr_int(1)}});
}

Status import_array_feature_extractor(OnnxNode &n) {
  KILN_TRY(indices, reshape(n.emitter(), n.in(1), {element_count(n.shape(1))}));
  Val x = n.in(0);
  if (x.rank() == 1) {
    KILN_TRY(row, reshape(n.emitter(), x, {1, x.dim(0)}));
    x = row;
  }
  return n.finish(Op::gather, {x, indices}, {{"axis", attr_int(x.rank() - 1)}});
}

// A list of maps from classes to scores has no form without strings and maps at run time; the scores
// themselves do, in the order of the classes.
Status import_zip_map(OnnxNode &n) {
  auto ints = n.get_ints("classlabels_int64s");
  auto strings = n.get_strings("classlabels_strings");
  std::string keys;
  for (int64_t label : ints)
    keys += (keys.empty() ? "" : ", ") + std::to_string(label);
  for (const std::string &label : strings)
    keys += (keys.empty() ? "" : ", ") + label;
  if (keys.empty())
    return Error{"it has neither 'classlabels_int64s' nor 'classlabels_strings'"};
  n.importer().warn(fmt::format("ZipMap: the output is the tensor of scores; its columns are the classes {}", keys));
  return n.finish(Result<Val>(n.in(0)));
}

} // namespace kiln::onnx
