// Operators of strings whose results have sizes that are known before a run (ops_text_split.cpp has the others).
#include "frontend/onnx/importer.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/regex_dfa.h"
#include "frontend/onnx/text.h"

#include <fmt/format.h>

namespace kiln::onnx {

// The bytes of x, and behind them those of y.
Status import_string_concat(OnnxNode &n) {
  Emitter &e = n.emitter();
  Val x = n.in(0), y = n.in(1);
  if (!x.text || !y.text)
    return Error{fmt::format("it joins {} and {}, not strings", describe(x), describe(y))};
  Dim width = text_width(x) + text_width(y);
  KILN_TRY(length, text_length(e, x));
  Shape one = length.type.shape;
  one.push_back(1);
  KILN_TRY(end, reshape(e, length, std::move(one)));
  KILN_TRY(at, e.emit(Op::iota, {}, {{"shape", Shape{width}}, {"axis", Dim(0)}, {"dtype", DType::i64}}));
  KILN_TRY(wide, widen(e, x, width));
  // Byte i is x[i], or y[i - length of x]; one zero behind y serves the positions outside of it.
  KILN_TRY(behind, e.emit(Op::sub, {at, end}));
  KILN_TRY(inside, e.emit(Op::ge, {behind, e.scalar(DType::i64, 0)}));
  KILN_TRY(y_end, widen(e, y, text_width(y) + 1));
  Val last = e.sizes(std::vector<Dim>{text_width(y)});
  KILN_TRY(low, e.emit(Op::maximum, {behind, e.scalar(DType::i64, 0)}));
  KILN_TRY(index, e.emit(Op::minimum, {low, last}));
  // Both broadcast to the result's shape, for the gather.
  Shape y_shape = text_shape(y);
  y_shape.push_back(1);
  KILN_TRY(y_zero, broadcast_to(e, e.scalar(DType::i64, 0), y_shape));
  KILN_TRY(full_index, e.emit(Op::add, {index, y_zero}));
  Shape full = full_index.type.shape;
  full.back() = text_width(y) + 1;
  KILN_TRY(full_y, broadcast_to(e, y_end, full));
  KILN_TRY(tail, e.emit(Op::gather_elements, {full_y, full_index}, {{"axis", attr_int(full_y.rank() - 1)}}));
  KILN_TRY(out, e.emit(Op::where, {inside, tail, wide}));
  return n.finish(Result<Val>(as_text(out)));
}

// The automaton's state after each string: a scan over its bytes. The zeros behind a string leave the state as it is.
Status import_regex_full_match(OnnxNode &n) {
  Emitter &e = n.emitter();
  const Val &x = n.in(0);
  if (!x.text)
    return Error{fmt::format("its input is {}, not strings", describe(x))};
  std::string pattern = n.get_string("pattern", "");
  auto compiled = compile_regex(pattern);
  if (!compiled)
    return Error{fmt::format("the pattern '{}': {}", pattern, compiled.error().message)};
  const RegexDfa &dfa = *compiled;
  int64_t states = dfa.states(), columns = dfa.kinds + 1;
  Tensor kinds(DType::i32, {256}), next(DType::i32, {states * columns}), accepts(DType::bool_, {states});
  for (int64_t byte = 0; byte < 256; ++byte)
    kinds.set_i64(byte, byte == 0 ? dfa.kinds : dfa.kind[size_t(byte)]);
  for (int64_t s = 0; s < states; ++s) {
    for (int64_t k = 0; k < dfa.kinds; ++k)
      next.set_i64(s * columns + k, dfa.next[size_t(s * dfa.kinds + k)] * columns);
    next.set_i64(s * columns + dfa.kinds, s * columns);
    accepts.set_i64(s, dfa.accepts[size_t(s)]);
  }
  std::vector<int64_t> order = {x.rank() - 1};
  for (int64_t i = 0; i + 1 < x.rank(); ++i)
    order.push_back(i);
  KILN_TRY(bytes_first, permute(e, x, order));
  KILN_TRY(codes, convert(e, bytes_first, DType::i32));
  KILN_TRY(kind, e.emit(Op::gather, {e.constant(std::move(kinds)), codes}, {{"axis", attr_int(0)}}));
  Shape shape = text_shape(x);
  KILN_TRY(start, broadcast_to(e, e.scalar(DType::i32, 0), shape));
  Block body;
  Val state = e.argument(body, {DType::i32, shape}, "state"), byte = e.argument(body, {DType::i32, shape}, "byte");
  Val table = e.constant(std::move(next));
  {
    IntoBlock scope(e.builder(), body);
    KILN_TRY(at, e.emit(Op::add, {state, byte}));
    KILN_TRY(then, e.emit(Op::gather, {table, at}, {{"axis", attr_int(0)}}));
    KILN_TRY(id, e.materialize(then));
    body.results = {id};
  }
  std::vector<Block> regions;
  regions.push_back(std::move(body));
  std::vector<Val> operands = {start, kind};
  KILN_TRY(ends, e.emit_all(Op::scan, operands, {{"carried", attr_int(1)}}, std::move(regions)));
  KILN_TRY(number, e.emit(Op::div, {ends[0], e.scalar(DType::i32, double(columns))}));
  return n.finish(Op::gather, {e.constant(std::move(accepts)), number}, {{"axis", attr_int(0)}});
}

Status import_string_normalizer(OnnxNode &n) {
  n.ignore({"locale"});
  Val x = n.in(0);
  if (!n.in(0).text)
    return Error{fmt::format("its input is {}, not strings", describe(n.in(0)))};
  std::string action = n.get_string("case_change_action", "NONE");
  if (action != "NONE" && action != "LOWER" && action != "UPPER")
    return Error{fmt::format("'case_change_action' is '{}'; there are NONE, LOWER and UPPER", action)};
  bool case_matters = n.get_flag("is_case_sensitive", false);
  auto stop_words = n.get_strings("stopwords");
  if (!stop_words.empty()) {
    KILN_TRY(kept, without_stop_words(n.emitter(), x, stop_words, case_matters));
    x = kept;
  }
  if (action == "NONE")
    return n.finish(Result<Val>(x));
  return n.finish(change_case(n.emitter(), x, action == "UPPER"));
}

// Known by name only to say what to do instead.
Status import_image_decoder(OnnxNode &n) {
  n.ignore({"pixel_format"});
  return Error{"decoding image files in compiled code is not supported; decode the file before the model, and make the "
               "pixels, u8[height, width, channels], its input"};
}

} // namespace kiln::onnx
