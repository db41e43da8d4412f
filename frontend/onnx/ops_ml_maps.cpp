// Operators of maps. A map is two rows, its keys and its values, of a length that only a run tells; what is made of it has a
// fixed place for each key, or the values in the order of the keys.
#include "frontend/onnx/calc.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/text_numbers.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

constexpr int64_t kMostPlaces = 1 << 20;

struct Map {
  Val keys, values;
};

Result<Map> map_of(OnnxNode &n) {
  const Val &x = n.in(0);
  if (!x.map)
    return Error{fmt::format("its operand is {}, not a map", describe(x))};
  return Map{(*x.list)[0], (*x.list)[1]};
}

// values[places], where a place may be one past the last: a zero, or an empty string.
Result<Val> picked(Emitter &e, const Val &values, const Val &places) {
  std::vector<Dim> lo(size_t(values.rank()), 0), hi = lo;
  hi[0] = 1;
  KILN_TRY(padded, e.emit(Op::pad, {values}, {{"lo", lo}, {"hi", hi}}));
  KILN_TRY(out, e.emit(Op::gather, {padded, places}, {{"axis", attr_int(0)}}));
  out.text = values.text;
  return out;
}

// As a row [1, C].
Result<Val> as_row(Emitter &e, const Val &x) {
  Shape shape = x.type.shape;
  shape.insert(shape.begin(), 1);
  KILN_TRY(out, reshape(e, x, std::move(shape)));
  out.text = x.text;
  return out;
}

// For each column of matches[N, C] the row that holds; N where none does.
Result<Val> matching_rows(Emitter &e, const Val &matches) {
  Calc c(e);
  Num is = c(matches);
  Dim count = matches.dim(0);
  Num behind = c.iota(DType::i64, {count, 1}) - c.size(DType::i64, count);
  return c.done(sum(where(is, behind, 0), {0}) + c.size(DType::i64, count));
}

Result<Val> key_matches(Emitter &e, const Val &keys, const std::vector<int64_t> &wanted) {
  KILN_TRY(column, reshape(e, keys, {keys.dim(0), 1}));
  return e.emit(Op::eq, {column, e.ints(wanted)});
}

} // namespace

Status import_dict_vectorizer(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(map, map_of(n));
  auto words = n.get_strings("string_vocabulary");
  auto numbers = n.get_ints("int64_vocabulary");
  if (words.empty() == numbers.empty())
    return Error{"it must have one of the attributes string_vocabulary and int64_vocabulary"};
  if (map.keys.text != !words.empty() || (!map.keys.text && map.keys.dtype() != DType::i64))
    return Error{fmt::format("its vocabulary is of {}, and its operand {}", words.empty() ? "integers" : "strings", describe(n.in(0)))};
  KILN_TRY(matches, words.empty() ? key_matches(e, map.keys, numbers) : text_matches(e, map.keys, words));
  KILN_TRY(rows, matching_rows(e, matches));
  KILN_TRY(out, picked(e, map.values, rows));
  return n.finish(as_row(e, out));
}

Status import_cast_map(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(map, map_of(n));
  if (map.keys.dtype() != DType::i64 || map.keys.text)
    return Error{fmt::format("its operand is {}; the keys must be i64", describe(n.in(0)))};
  std::string to = n.get_string("cast_to", "TO_FLOAT"), form = n.get_string("map_form", "DENSE");
  int64_t length = n.get_int("max_map", 1);
  Val rows;
  if (form == "SPARSE") {
    if (length < 1 || length > kMostPlaces)
      return Error{fmt::format("'max_map' is {}; it must be from 1 to {}", length, kMostPlaces)};
    std::vector<int64_t> places;
    for (int64_t i = 0; i < length; ++i)
      places.push_back(i);
    KILN_TRY(matches, key_matches(e, map.keys, places));
    KILN_TRY(found, matching_rows(e, matches));
    rows = found;
  } else if (form == "DENSE") {
    std::vector<Val> keys = {map.keys};
    KILN_TRY(sorted, e.emit_all(Op::sort, keys, {{"axis", attr_int(0)}}));
    rows = sorted.at(1);
  } else {
    return Error{fmt::format("'map_form' is '{}'; there are DENSE and SPARSE", form)};
  }
  KILN_TRY(values, picked(e, map.values, rows));
  DType dtype = to == "TO_INT64" ? DType::i64 : DType::f32;
  Result<Val> out = values;
  if (to == "TO_STRING")
    out = values.text ? Result<Val>(values) : number_to_text(e, values);
  else if (to == "TO_FLOAT" || to == "TO_INT64")
    out = values.text ? text_to_number(e, values, dtype, {}) : convert(e, values, dtype);
  else
    return Error{fmt::format("'cast_to' is '{}'; there are TO_FLOAT, TO_STRING and TO_INT64", to)};
  if (!out)
    return out.error();
  // Where a place has no value the number is 0, whatever an empty string says.
  if (form == "SPARSE" && values.text && to != "TO_STRING") {
    Calc c(e);
    Num given = c(rows) < c.size(DType::i64, map.keys.dim(0));
    out = c.done(where(given, c(*out), 0));
    if (!out)
      return out.error();
  }
  return n.finish(as_row(e, *out));
}

} // namespace kiln::onnx
