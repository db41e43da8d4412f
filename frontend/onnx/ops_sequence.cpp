// Sequences and optionals: lists of values that are known while a model is imported (see lists.h). A position
// may be computed at run time where the tensors it chooses from are of one type.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/lists.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/text.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

constexpr int64_t kMaxLength = 1 << 16;

Result<const std::vector<Val> *> list_of(OnnxNode &n, size_t i) {
  if (n.in(i).list)
    return n.in(i).list;
  return Error{fmt::format("its input {} is {}, not a sequence", i, describe(n.in(i)))};
}

Result<Val> tensor_of(OnnxNode &n, size_t i) {
  if (n.in(i).is_tensor())
    return n.in(i);
  return Error{fmt::format("its input {} is {}, not a tensor", i, describe(n.in(i)))};
}

// A position counted from the end where it is negative; nothing where it is computed at run time.
Result<std::optional<int64_t>> known_position(OnnxNode &n, size_t i, int64_t length, int64_t count) {
  using Out = std::optional<int64_t>;
  KILN_TRY(position, tensor_of(n, i));
  if (!is_integer(position.dtype()) || !element_count(position.type.shape).is_const(1))
    return Error{fmt::format("its position is {}, not one integer", position.type.text())};
  auto list = n.emitter().dims(position);
  if (!list || !(*list)[0].is_const())
    return Out();
  int64_t at = (*list)[0].as_const();
  if (at < -length || at >= count)
    return Error{fmt::format("its position {} is outside of a sequence of {}", at, length)};
  return Out(at < 0 ? at + length : at);
}

// The same as a scalar of the graph.
Result<Val> run_time_position(OnnxNode &n, size_t i, int64_t length) {
  Emitter &e = n.emitter();
  KILN_TRY(whole, convert(e, n.in(i), DType::i64));
  KILN_TRY(given, reshape(e, whole, {}));
  KILN_TRY(negative, e.emit(Op::lt, {given, e.scalar(DType::i64, 0)}));
  KILN_TRY(from_end, e.emit(Op::add, {given, e.scalar(DType::i64, double(length))}));
  return e.emit(Op::where, {negative, from_end, given});
}

Status same_types(const std::vector<Val> &list, const Val *more) {
  for (const Val &v : list) {
    const Val &first = more ? *more : list[0];
    if (v.type != first.type)
      return Error{fmt::format("its position must be known at compile time, or all tensors be of one type, but there "
                               "are {} and {}",
                               first.type.text(), v.type.text())};
  }
  return Unit{};
}

// a where the position is below i, else b.
Result<Val> before(Emitter &e, const Val &position, size_t i, const Val &a, const Val &b) {
  KILN_TRY(below, e.emit(Op::lt, {position, e.scalar(DType::i64, double(i))}));
  KILN_TRY(out, e.emit(Op::where, {below, a, b}));
  out.text = a.text;
  return out;
}

Status finish_list(OnnxNode &n, std::vector<Val> items, DType dtype) {
  if (int64_t(items.size()) > kMaxLength)
    return Error{fmt::format("the sequence has {} tensors; at most {} are supported", items.size(), kMaxLength)};
  for (const Val &v : items)
    if (v.dtype() != items[0].dtype() || v.text != items[0].text)
      return Error{fmt::format("a sequence holds tensors of one element type, not {} and {}", describe(items[0]),
                               describe(v))};
  n.set(0, n.emitter().list(std::move(items), dtype));
  return Unit{};
}

} // namespace

Status import_sequence_construct(OnnxNode &n) {
  for (size_t i = 0; i < n.input_count(); ++i)
    KILN_RETURN_IF_ERROR(tensor_of(n, i));
  return finish_list(n, n.inputs(), n.dtype());
}

Status import_sequence_empty(OnnxNode &n) {
  int64_t code = n.get_int("dtype", 1);
  auto dtype = code == kStringType ? DType::u8 : dtype_from_onnx(code);
  if (!dtype)
    return Error{fmt::format("elements of {} are not supported", onnx_type_name(code))};
  return finish_list(n, {}, *dtype);
}

Status import_sequence_length(OnnxNode &n) {
  KILN_TRY(list, list_of(n, 0));
  n.set(0, n.emitter().constant(Tensor::scalar_i64(DType::i64, int64_t(list->size()))));
  return Unit{};
}

Status import_sequence_at(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(list, list_of(n, 0));
  if (list->empty())
    return Error{"the sequence is empty"};
  KILN_TRY(position, known_position(n, 1, int64_t(list->size()), int64_t(list->size())));
  if (position)
    return n.finish(Result<Val>((*list)[size_t(*position)]));
  KILN_RETURN_IF_ERROR(same_types(*list, nullptr));
  KILN_TRY(joined, stack(e, *list, 0));
  KILN_TRY(index, reshape(e, n.in(1), {}));
  KILN_TRY(out, n.emit(Op::gather, {joined, index}, {{"axis", attr_int(0)}}));
  out.text = joined.text;
  return n.finish(Result<Val>(out));
}

Status import_sequence_insert(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(list, list_of(n, 0));
  KILN_TRY(x, tensor_of(n, 1));
  std::vector<Val> out = *list;
  int64_t length = int64_t(out.size());
  std::optional<int64_t> at = length;
  if (n.has(2)) {
    KILN_TRY(position, known_position(n, 2, length, length + 1));
    at = position;
  }
  if (at) {
    out.insert(out.begin() + *at, x);
    return finish_list(n, std::move(out), x.dtype());
  }
  KILN_RETURN_IF_ERROR(same_types(out, &x));
  KILN_TRY(position, run_time_position(n, 2, length));
  // out[i] is the new one where i is the position, the old one before it, the old one's predecessor after it.
  out.push_back(x);
  for (size_t i = out.size(); i-- > 0;) {
    Val otherwise = i + 1 < out.size() ? (*list)[i] : x;
    KILN_TRY(here, before(e, position, i + 1, x, otherwise));
    out[i] = here;
    if (i > 0) {
      KILN_TRY(moved, before(e, position, i, (*list)[i - 1], here));
      out[i] = moved;
    }
  }
  return finish_list(n, std::move(out), x.dtype());
}

Status import_sequence_erase(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(list, list_of(n, 0));
  if (list->empty())
    return Error{"the sequence is empty"};
  std::vector<Val> out = *list;
  int64_t length = int64_t(out.size());
  std::optional<int64_t> at = length - 1;
  if (n.has(1)) {
    KILN_TRY(position, known_position(n, 1, length, length));
    at = position;
  }
  if (at) {
    out.erase(out.begin() + *at);
    return finish_list(n, std::move(out), (*list)[0].dtype());
  }
  KILN_RETURN_IF_ERROR(same_types(out, nullptr));
  KILN_TRY(position, run_time_position(n, 1, length));
  out.pop_back();
  for (size_t i = 0; i < out.size(); ++i) {
    KILN_TRY(kept, before(e, position, i + 1, (*list)[i + 1], (*list)[i]));
    out[i] = kept;
  }
  return finish_list(n, std::move(out), (*list)[0].dtype());
}

Status import_split_to_sequence(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(x, tensor_of(n, 0));
  KILN_TRY(axis, n.axis(n.get_int("axis", 0), model_rank(x)));
  bool keep = n.get_flag("keepdims", true);
  const Dim &size = x.dim(axis);
  std::vector<Dim> sizes;
  if (n.has(1) && n.rank(1) > 0) {
    KILN_TRY(list, n.dims_of(1, "sizes"));
    sizes = list;
    keep = true;
    Dim total = 0;
    for (const Dim &d : sizes) {
      if (d.is_const() && d.as_const() < 0)
        return Error{fmt::format("the size {} is negative", d.text())};
      total += d;
    }
    if (!e.require_equal(total, size, "SplitToSequence"))
      return Error{fmt::format("its sizes add up to {}, not to the {} of axis {}", total.text(), size.text(), axis)};
  } else {
    int64_t part = 1;
    if (n.has(1)) {
      KILN_TRY(given, n.int_of(1, "size"));
      part = given;
      keep = true;
    }
    if (part <= 0)
      return Error{fmt::format("the size {} is not positive", part)};
    if (!size.is_const())
      return Error{fmt::format("the number of its parts follows from {}, which is not known; fix it with --dim", size.text())};
    if ((size.as_const() - 1) / part >= kMaxLength)
      return Error{fmt::format("it splits {} into parts of {}; at most {} parts are supported", size.text(), part, kMaxLength)};
    for (int64_t at = 0; at < size.as_const(); at += part)
      sizes.push_back(std::min(part, size.as_const() - at));
  }
  std::vector<Val> out;
  Dim start = 0;
  for (const Dim &length : sizes) {
    KILN_TRY(part, slice_axis(e, x, axis, start, length));
    if (!keep) {
      Shape shape = part.type.shape;
      shape.erase(shape.begin() + axis);
      KILN_TRY(less, reshape(e, part, std::move(shape)));
      part = less;
    }
    out.push_back(part);
    out.back().text = x.text;
    start += length;
  }
  return finish_list(n, std::move(out), x.dtype());
}

Status import_concat_from_sequence(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(list, list_of(n, 0));
  if (list->empty())
    return Error{"the sequence is empty"};
  if (!n.has_attr("axis"))
    return Error{"the attribute 'axis' is missing"};
  bool fresh = n.get_flag("new_axis", false);
  KILN_TRY(axis, n.axis(n.get_int("axis", 0), model_rank((*list)[0]) + fresh));
  if (fresh)
    return n.finish(stack(e, *list, axis));
  if (list->size() == 1)
    return n.finish(Result<Val>((*list)[0]));
  std::vector<Val> parts = *list;
  if (parts[0].text)
    KILN_RETURN_IF_ERROR(same_width(e, parts));
  KILN_TRY(out, n.emit(Op::concat, parts, {{"axis", attr_int(axis)}}));
  out.text = parts[0].text;
  return n.finish(Result<Val>(out));
}

Status import_sequence_map(OnnxNode &n) {
  KILN_TRY(graph, n.get_graph("body"));
  KILN_TRY(first, list_of(n, 0));
  for (size_t i = 1; i < n.input_count(); ++i)
    if (n.in(i).list && n.in(i).list->size() != first->size())
      return Error{fmt::format("its sequences have {} and {} tensors", first->size(), n.in(i).list->size())};
  if (graph.outputs.size() != n.output_count())
    return Error{fmt::format("its body has {} outputs, the node {}", graph.outputs.size(), n.output_count())};
  std::vector<std::vector<Val>> out(n.output_count());
  for (size_t step = 0; step < first->size(); ++step) {
    std::vector<Val> inputs;
    for (const Val &v : n.inputs())
      inputs.push_back(v.list ? (*v.list)[step] : v);
    KILN_TRY(results, n.importer().import_subgraph(graph, inputs));
    for (size_t i = 0; i < out.size(); ++i) {
      if (!results[i].is_tensor())
        return Error{fmt::format("output {} of its body is {}, not a tensor", i, describe(results[i]))};
      out[i].push_back(results[i]);
    }
  }
  for (size_t i = 0; i < out.size(); ++i) {
    auto dtype = dtype_from_onnx(graph.outputs[i].elem_type);
    n.set(i, n.emitter().list(std::move(out[i]), dtype.value_or(DType::f32)));
  }
  return Unit{};
}

Status import_optional(OnnxNode &n) {
  n.ignore({"type"});
  n.set(0, n.has(0) ? n.in(0) : n.emitter().absent());
  return Unit{};
}

Status import_optional_has_element(OnnxNode &n) {
  n.set(0, n.emitter().scalar(DType::bool_, n.has(0) && !n.in(0).absent));
  return Unit{};
}

Status import_optional_get_element(OnnxNode &n) {
  if (n.in(0).absent)
    return Error{"the optional holds nothing; give the model's optional input, or ask OptionalHasElement first"};
  n.set(0, n.in(0));
  return Unit{};
}

} // namespace kiln::onnx
