#include "frontend/onnx/text.h"

#include "frontend/onnx/importer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace kiln::onnx {
namespace {

constexpr int64_t kMaxTextBytes = int64_t(1) << 28; // of a constant, zeros included

Attrs last_axis(const Val &x) {
  return {{"axes", attr_ints(std::vector<int64_t>{x.rank() - 1})}, {"keepdims", false}};
}

// Ops whose result has the strings in the order of the operand.
bool keeps_order(std::string_view type) {
  constexpr std::string_view kNames[] = {"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"};
  return std::find(std::begin(kNames), std::end(kNames), type) != std::end(kNames);
}

} // namespace

Result<Tensor> make_text(std::span<const std::string_view> strings, std::vector<int64_t> shape, int64_t least) {
  int64_t width = least, count = 1;
  for (std::string_view s : strings)
    width = std::max(width, int64_t(s.size()));
  for (int64_t d : shape)
    if (d < 0 || __builtin_mul_overflow(count, d, &count))
      return Error{"its dims are negative or too large"};
  if (count != int64_t(strings.size()))
    return Error{fmt::format("it holds {} strings, but its shape needs {}", strings.size(), count)};
  int64_t bytes = 0;
  if (__builtin_mul_overflow(count, width, &bytes) || bytes > kMaxTextBytes)
    return Error{fmt::format("{} strings of which one has {} bytes take too much memory", count, width)};
  shape.push_back(width);
  Tensor out(DType::u8, std::move(shape));
  std::byte *at = out.mutable_bytes();
  for (std::string_view s : strings) {
    if (!s.empty())
      std::memcpy(at, s.data(), s.size());
    at += width;
  }
  return out;
}

Result<Tensor> make_text(const TensorView &view) {
  if (view.dims.size() >= size_t(kMaxRank))
    return Error{fmt::format("it has {} dims; at most {} are supported", view.dims.size(), kMaxRank - 1)};
  auto bytes = checked_bytes(DType::u8, view.dims);
  if (!bytes)
    return Error{"its dims are negative or too large"};
  KILN_TRY(strings, read_strings(view, *bytes));
  return make_text(strings, view.dims);
}

Result<Val> text_constant(Emitter &e, std::span<const std::string> strings, std::vector<int64_t> shape) {
  if (shape == std::vector<int64_t>{-1})
    shape = {int64_t(strings.size())};
  KILN_TRY(tensor, make_text(std::vector<std::string_view>(strings.begin(), strings.end()), std::move(shape)));
  return as_text(e.constant(std::move(tensor)));
}

std::vector<std::string> strings_of(const Tensor &text) {
  std::vector<std::string> out;
  int64_t width = text.dims().back(), count = width == 0 ? 0 : text.count() / width;
  const char *at = reinterpret_cast<const char *>(text.bytes().data());
  for (int64_t i = 0; i < count; ++i, at += width) {
    std::string_view row(at, size_t(width));
    out.emplace_back(row.substr(0, row.find_last_not_of('\0') + 1));
  }
  return out;
}

Val as_text(Val v) {
  v.text = true;
  return v;
}

Shape text_shape(const Val &text) { return text.dims(0, text.rank() - 1); }
const Dim &text_width(const Val &text) { return text.last_dim(); }

Result<Val> widen(Emitter &e, const Val &text, const Dim &width) {
  Dim more = width - text_width(text);
  if (more.is_const(0))
    return text;
  std::vector<Dim> lo(size_t(text.rank()), 0), hi = lo;
  hi.back() = more;
  KILN_TRY(wide, e.emit(Op::pad, {text}, {{"lo", lo}, {"hi", hi}}));
  return as_text(wide);
}

Status same_width(Emitter &e, std::vector<Val> &texts) {
  Dim width = text_width(texts.at(0));
  for (const Val &t : texts)
    width = max(width, text_width(t));
  for (Val &t : texts) {
    KILN_TRY(wide, widen(e, t, width));
    t = wide;
  }
  return Unit{};
}

Result<Val> text_equal(Emitter &e, const Val &a, const Val &b) {
  if (!a.text || !b.text)
    return Error{fmt::format("it compares {} with {}", describe(a), describe(b))};
  std::vector<Val> both = {a, b};
  KILN_RETURN_IF_ERROR(same_width(e, both));
  KILN_TRY(same, e.emit(Op::eq, both));
  return e.emit(Op::reduce_all, {same}, last_axis(same));
}

Result<Val> text_length(Emitter &e, const Val &text) {
  const Dim &width = text_width(text);
  KILN_TRY(ends, e.emit(Op::iota, {}, {{"shape", Shape{width}}, {"axis", Dim(0)}, {"dtype", DType::i64}}));
  KILN_TRY(counted, e.emit(Op::add, {ends, e.scalar(DType::i64, 1)}));
  KILN_TRY(is_byte, e.emit(Op::ne, {text, e.scalar(DType::u8, 0)}));
  KILN_TRY(here, e.emit(Op::where, {is_byte, counted, e.scalar(DType::i64, 0)}));
  return e.emit(Op::reduce_max, {here}, last_axis(here));
}

Result<Val> text_matches(Emitter &e, const Val &text, std::span<const std::string> keys) {
  KILN_TRY(list, text_constant(e, keys));
  Shape shape = text.type.shape;
  shape.insert(shape.end() - 1, 1);
  KILN_TRY(against, reshape(e, text, std::move(shape)));
  return text_equal(e, as_text(against), list);
}

Result<Val> text_lookup(Emitter &e, std::span<const std::string> table, const Val &which) {
  KILN_TRY(list, text_constant(e, table));
  KILN_TRY(out, e.emit(Op::gather, {list, which}, {{"axis", attr_int(0)}}));
  return as_text(out);
}

Status move_text(OnnxNode &n, Handler handler) {
  Emitter &e = n.emitter();
  std::vector<Val> inputs = n.inputs(), pool;
  for (const Val &v : inputs)
    if (v.text)
      pool.push_back(v);
  KILN_RETURN_IF_ERROR(same_width(e, pool));
  Dim width = text_width(pool[0]), first = 0;
  std::vector<Val> rows;
  for (Val &v : inputs) {
    if (!v.text)
      continue;
    Shape shape = text_shape(v);
    Dim count = element_count(shape);
    KILN_TRY(numbers, e.emit(Op::iota, {}, {{"shape", Shape{count}}, {"axis", Dim(0)}, {"dtype", DType::i64}}));
    if (!first.is_const(0)) {
      KILN_TRY(moved, e.emit(Op::add, {numbers, e.sizes(std::vector<Dim>{first})}));
      numbers = moved;
    }
    KILN_TRY(row_list, reshape(e, pool[rows.size()], {count, width}));
    rows.push_back(row_list);
    KILN_TRY(shaped, reshape(e, numbers, std::move(shape)));
    std::string_view name = v.name;
    v = shaped;
    v.name = name;
    first += count;
  }
  OnnxNode inner(n.importer(), n.view(), n.opset(), inputs);
  KILN_RETURN_IF_ERROR(handler(inner));
  if (inner.attribute_error())
    return Error{*inner.attribute_error()};
  for (const AttributeView &a : n.view().attributes) // what the handler has not read is reported as usual
    if (auto unread = inner.unread_attributes(); std::find(unread.begin(), unread.end(), a.name) == unread.end())
      n.ignore({a.name});
  Val all = rows[0];
  if (rows.size() > 1) {
    KILN_TRY(joined, e.emit(Op::concat, rows, {{"axis", attr_int(0)}}));
    all = joined;
  }
  for (size_t i = 0; i < inner.outputs().size(); ++i) {
    if (!inner.outputs()[i])
      continue;
    const Val &which = *inner.outputs()[i];
    Shape shape = which.type.shape;
    shape.push_back(width);
    Result<Val> out = keeps_order(n.type()) ? reshape(e, all, std::move(shape))
                                            : e.emit(Op::gather, {all, which}, {{"axis", attr_int(0)}});
    if (!out)
      return out.error();
    n.set(i, as_text(*out));
  }
  return Unit{};
}

} // namespace kiln::onnx
