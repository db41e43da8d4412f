// Encoders of categories and labels: each element is compared with every key, and the first that is equal chooses
// the value. Keys and values are numbers or strings.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kiln::onnx {
namespace {

// A list of numbers or strings, as attributes give it.
struct Labels {
  bool text = false;
  std::vector<std::string> strings;
  Tensor numbers;
  size_t size() const { return text ? strings.size() : size_t(numbers.count()); }
};

Labels of_strings(std::vector<std::string> strings) { return {true, std::move(strings), {}}; }
Labels of_ints(const std::vector<int64_t> &ints) { return {false, {}, Tensor::from_i64(ints)}; }
Labels of_floats(const std::vector<double> &reals) {
  Tensor out(DType::f32, {int64_t(reals.size())});
  for (size_t i = 0; i < reals.size(); ++i)
    out.set_f64(int64_t(i), reals[i]);
  return {false, {}, std::move(out)};
}

Result<Labels> of_tensor(OnnxNode &n, std::string_view name) {
  const AttributeView *a = n.find(name);
  if (a && a->type == AttrType::tensor) {
    KILN_TRY(view, read_tensor(a->message, n.importer().budget()));
    if (view.data_type == kStringType) {
      KILN_TRY(text, make_text(view));
      return of_strings(strings_of(text));
    }
  }
  KILN_TRY(tensor, n.get_tensor(name));
  Tensor flat(tensor.dtype(), {tensor.count()});
  std::copy(tensor.bytes().begin(), tensor.bytes().end(), flat.mutable_bytes());
  return Labels{false, {}, std::move(flat)};
}

// `stem`_strings, _int64s, _floats or _tensor.
Result<Labels> encoder_list(OnnxNode &n, const std::string &stem) {
  if (n.has_attr(stem + "_strings"))
    return of_strings(n.get_strings(stem + "_strings"));
  if (n.has_attr(stem + "_int64s"))
    return of_ints(n.get_ints(stem + "_int64s"));
  if (n.has_attr(stem + "_floats"))
    return of_floats(n.get_floats(stem + "_floats"));
  if (n.has_attr(stem + "_tensor"))
    return of_tensor(n, stem + "_tensor");
  return Error{fmt::format("it has none of '{}_strings', '{}_int64s', '{}_floats', '{}_tensor'", stem, stem, stem, stem)};
}

// What an element that is no key becomes, as the encoder's attributes say.
Result<Labels> default_label(OnnxNode &n, const Labels &values) {
  std::string text = n.get_string("default_string", "_Unused");
  int64_t integer = n.get_int("default_int64", -1);
  double real = n.get_float("default_float", -0.0);
  if (n.has_attr("default_tensor")) {
    KILN_TRY(given, of_tensor(n, "default_tensor"));
    if (given.size() != 1 || given.text != values.text)
      return Error{fmt::format("'default_tensor' has {} elements{}", given.size(),
                               given.text != values.text ? " of another type than the values" : "; one is needed")};
    return given;
  }
  if (values.text)
    return of_strings({text});
  if (is_float(values.numbers.dtype()))
    return of_floats({real});
  return of_ints({integer});
}

// Whether each element is each key, bool[S, K].
Result<Val> matches(OnnxNode &n, const Labels &keys) {
  Emitter &e = n.emitter();
  const Val &x = n.in(0);
  if (x.text != keys.text)
    return Error{fmt::format("its input is {}, but its keys are {}", describe(x), keys.text ? "strings" : "numbers")};
  if (x.text)
    return text_matches(e, x, keys.strings);
  KILN_TRY(converted, convert(e, x, keys.numbers.dtype()));
  Shape shape = x.type.shape;
  shape.push_back(1);
  KILN_TRY(against, reshape(e, converted, std::move(shape)));
  Val list = e.constant(keys.numbers);
  KILN_TRY(is, e.emit(Op::eq, {against, list}));
  bool nan = false;
  for (int64_t i = 0; i < keys.numbers.count() && is_float(keys.numbers.dtype()); ++i)
    nan |= std::isnan(keys.numbers.at_f64(i));
  if (!nan)
    return is;
  KILN_TRY(x_nan, e.emit(Op::is_nan, {against}));
  KILN_TRY(key_nan, e.emit(Op::is_nan, {list}));
  KILN_TRY(both, e.emit(Op::logical_and, {x_nan, key_nan}));
  return e.emit(Op::logical_or, {is, both});
}

Status encode(OnnxNode &n, const Labels &keys, const Labels &values, const Labels &otherwise) {
  if (keys.size() != values.size() || keys.size() == 0)
    return Error{fmt::format("it has {} keys and {} values", keys.size(), values.size())};
  Emitter &e = n.emitter();
  KILN_TRY(is, matches(n, keys));
  Attrs last{{"axes", attr_ints(std::vector<int64_t>{is.rank() - 1})}, {"keepdims", false}};
  KILN_TRY(found, e.emit(Op::reduce_any, {is}, last));
  // The default stands behind the values.
  KILN_TRY(numbers, convert(e, is, DType::i32));
  KILN_TRY(first, e.emit(Op::argmax, {numbers}, {{"axis", attr_int(is.rank() - 1)}, {"keepdims", false}}));
  KILN_TRY(which, e.emit(Op::where, {found, first, e.scalar(DType::i64, double(keys.size()))}));
  if (values.text) {
    std::vector<std::string> table = values.strings;
    table.push_back(otherwise.strings.at(0));
    return n.finish(text_lookup(e, table, which));
  }
  Tensor table(values.numbers.dtype(), {int64_t(values.size()) + 1});
  for (int64_t i = 0; i < table.count(); ++i) {
    const Tensor &from = i + 1 < table.count() ? values.numbers : otherwise.numbers;
    int64_t at = i + 1 < table.count() ? i : 0;
    if (is_float(table.dtype()))
      table.set_f64(i, from.at_f64(at));
    else
      table.set_i64(i, from.at_i64(at));
  }
  return n.finish(Op::gather, {e.constant(std::move(table)), which}, {{"axis", attr_int(0)}});
}

} // namespace

Status import_label_encoder(OnnxNode &n) {
  // The first form numbers its classes.
  if (n.has_attr("classes_strings")) {
    Labels names = of_strings(n.get_strings("classes_strings"));
    std::vector<int64_t> numbers(names.size());
    for (size_t i = 0; i < numbers.size(); ++i)
      numbers[i] = int64_t(i);
    Labels codes = of_ints(numbers);
    const Labels &keys = n.in(0).text ? names : codes, &values = n.in(0).text ? codes : names;
    KILN_TRY(otherwise, default_label(n, values));
    return encode(n, keys, values, otherwise);
  }
  KILN_TRY(keys, encoder_list(n, "keys"));
  KILN_TRY(values, encoder_list(n, "values"));
  KILN_TRY(otherwise, default_label(n, values));
  return encode(n, keys, values, otherwise);
}

Status import_category_mapper(OnnxNode &n) {
  Labels names = of_strings(n.get_strings("cats_strings")), codes = of_ints(n.get_ints("cats_int64s"));
  const Labels &keys = n.in(0).text ? names : codes, &values = n.in(0).text ? codes : names;
  KILN_TRY(otherwise, default_label(n, values));
  return encode(n, keys, values, otherwise);
}

Status import_ml_one_hot_encoder(OnnxNode &n) {
  n.get_flag("zeros", true); // an unknown category is all zeros; an error cannot be raised for one
  Labels keys = n.has_attr("cats_strings") ? of_strings(n.get_strings("cats_strings")) : of_ints(n.get_ints("cats_int64s"));
  if (keys.size() == 0)
    return Error{"it has neither 'cats_int64s' nor 'cats_strings'"};
  KILN_TRY(is, matches(n, keys));
  return n.finish(convert(n.emitter(), is, DType::f32));
}

} // namespace kiln::onnx
