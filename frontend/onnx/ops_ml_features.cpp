// What stands before a classic model: scaling, imputing, encoding of features.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/ml_scores.h"
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <cmath>
#include <set>

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
  std::vector<double> values = n.get_floats(name);
  if (values.empty())
    return x;
  KILN_RETURN_IF_ERROR(check_features(x, values.size(), name));
  return n.emit(op, {x, floats(n, values, {int64_t(values.size())}, x.dtype())});
}

// x with a last dim of 1, which broadcasts against a list.
Result<Val> against_list(OnnxNode &n, const Val &x) {
  Shape shape = x.type.shape;
  shape.push_back(1);
  return reshape(n.emitter(), x, shape);
}

// Keys or values of an encoder; nothing where the node has none of that type.
struct Numbers {
  DType dtype;
  std::vector<double> reals;
  std::vector<int64_t> ints;
  size_t size() const { return dtype == DType::i64 ? ints.size() : reals.size(); }
};
Result<Numbers> encoder_list(OnnxNode &n, std::string_view stem) {
  std::string prefix(stem);
  if (n.has_attr(prefix + "_strings"))
    return Error{fmt::format("'{}_strings': strings are not supported", stem)};
  if (n.has_attr(prefix + "_tensor"))
    return Error{fmt::format("'{}_tensor' is not supported; give '{}_int64s' or '{}_floats'", stem, stem, stem)};
  if (n.has_attr(prefix + "_int64s"))
    return Numbers{DType::i64, {}, n.get_ints(prefix + "_int64s")};
  if (n.has_attr(prefix + "_floats"))
    return Numbers{DType::f32, n.get_floats(prefix + "_floats"), {}};
  return Error{fmt::format("it has neither '{}_int64s' nor '{}_floats'", stem, stem)};
}

Val list(OnnxNode &n, const Numbers &numbers, const std::vector<size_t> &which, DType dtype) {
  Tensor tensor(dtype, {int64_t(which.size())});
  for (size_t i = 0; i < which.size(); ++i) {
    if (numbers.dtype == DType::i64)
      tensor.set_i64(int64_t(i), numbers.ints[which[i]]);
    else
      tensor.set_f64(int64_t(i), numbers.reals[which[i]]);
  }
  return n.emitter().constant(std::move(tensor));
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
    std::vector<double> imputed = n.get_floats("imputed_value_floats");
    double missing = n.get_float("replaced_value_float", 0);
    if (imputed.empty())
      return Error{"it has no 'imputed_value_floats'"};
    KILN_RETURN_IF_ERROR(check_features(x, imputed.size(), "imputed_value_floats"));
    values = floats(n, imputed, {int64_t(imputed.size())}, x.dtype());
    KILN_TRY(is, std::isnan(missing) ? n.emit(Op::is_nan, {x}) : n.emit(Op::eq, {x, n.emitter().scalar(x.dtype(), missing)}));
    is_missing = is;
  } else {
    std::vector<int64_t> imputed = n.get_ints("imputed_value_int64s");
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
  std::vector<int64_t> sizes = n.get_ints("inputdimensions");
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

Status import_ml_one_hot_encoder(OnnxNode &n) {
  n.get_flag("zeros", true); // an unknown category is all zeros; an error cannot be raised for one
  if (n.has_attr("cats_strings"))
    return Error{"'cats_strings': strings are not supported"};
  std::vector<int64_t> categories = n.get_ints("cats_int64s");
  if (categories.empty())
    return Error{"it has no 'cats_int64s'"};
  KILN_TRY(whole, convert(n.emitter(), n.in(0), DType::i64));
  KILN_TRY(x, against_list(n, whole));
  KILN_TRY(is, n.emit(Op::eq, {x, n.emitter().ints(categories)}));
  return n.finish(convert(n.emitter(), is, DType::f32));
}

Status import_label_encoder(OnnxNode &n) {
  for (const char *text : {"classes_strings", "default_string"})
    if (n.has_attr(text) && std::string_view(text) == "classes_strings")
      return Error{"'classes_strings': strings are not supported"};
  n.ignore({"default_string"});
  KILN_TRY(keys, encoder_list(n, "keys"));
  KILN_TRY(values, encoder_list(n, "values"));
  if (keys.size() != values.size() || keys.size() == 0)
    return Error{fmt::format("it has {} keys and {} values", keys.size(), values.size())};
  int64_t default_int = n.get_int("default_int64", -1);
  double default_float = n.get_float("default_float", -0.0);
  // The first of equal keys counts.
  std::vector<size_t> which;
  std::set<int64_t> ints;
  std::set<double> reals;
  bool nan = false;
  for (size_t i = 0; i < keys.size(); ++i) {
    bool fresh = keys.dtype == DType::i64                ? ints.insert(keys.ints[i]).second
                 : std::isnan(keys.reals[i]) ? !std::exchange(nan, true)
                                                         : reals.insert(keys.reals[i]).second;
    if (fresh)
      which.push_back(i);
  }
  Emitter &e = n.emitter();
  KILN_TRY(converted, convert(e, n.in(0), keys.dtype));
  KILN_TRY(x, against_list(n, converted));
  Val key_list = list(n, keys, which, keys.dtype);
  KILN_TRY(is, n.emit(Op::eq, {x, key_list}));
  if (nan) {
    KILN_TRY(x_nan, n.emit(Op::is_nan, {x}));
    KILN_TRY(key_nan, n.emit(Op::is_nan, {key_list}));
    KILN_TRY(both, n.emit(Op::logical_and, {x_nan, key_nan}));
    KILN_TRY(either, n.emit(Op::logical_or, {is, both}));
    is = either;
  }
  Val value_list = list(n, values, which, values.dtype);
  KILN_TRY(chosen, n.emit(Op::where, {is, value_list, e.scalar(values.dtype, 0)}));
  Attrs last{{"axes", attr_ints(std::vector<int64_t>{x.rank() - 1})}, {"keepdims", false}};
  KILN_TRY(sum, n.emit(Op::reduce_sum, {chosen}, last));
  KILN_TRY(found, n.emit(Op::reduce_any, {is}, last));
  Val otherwise = values.dtype == DType::i64 ? e.ints({default_int}) : e.scalar(DType::f32, default_float);
  return n.finish(Op::where, {found, sum, otherwise});
}

// A list of maps from classes to scores has no form without strings and maps at run time; the scores
// themselves do, in the order of the classes.
Status import_zip_map(OnnxNode &n) {
  std::vector<int64_t> ints = n.get_ints("classlabels_int64s");
  std::vector<std::string> strings = n.get_strings("classlabels_strings");
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
