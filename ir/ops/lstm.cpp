// lstm: the input's part of all gates of all steps is one large dot; only the recurrent part runs in a
// scan over time.
#include "ir/ops/composite.h"

#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_lstm(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_float(context, 0));
  KILN_RETURN_IF_ERROR(same_dtype(context));
  KILN_TRY(direction, choice_attr(context.attrs, "direction", {"forward", "reverse", "bidirectional"}));
  for (int i = 0; i < 3; ++i)
    KILN_RETURN_IF_ERROR(check_rank(context, i, 3));
  auto shape = [&](size_t i) -> const Shape & { return context.operands[i].shape; };
  Dim directions = direction == "bidirectional" ? 2 : 1;
  Dim steps = shape(0)[0], batch = shape(0)[1], inputs = shape(0)[2], hidden = shape(2)[2];
  KILN_RETURN_IF_ERROR(equal_shapes(context, shape(1), {directions, Dim(4) * hidden, inputs},
                                    "the shape of w against [directions, 4 H, I]"));
  KILN_RETURN_IF_ERROR(equal_shapes(context, shape(2), {directions, Dim(4) * hidden, hidden},
                                    "the shape of r against [directions, 4 H, H]"));
  if (context.operands.size() > 3)
    KILN_RETURN_IF_ERROR(equal_shapes(context, shape(3), {directions, Dim(8) * hidden},
                                      "the shape of the bias against [directions, 8 H]"));
  for (size_t i = 4; i < context.operands.size(); ++i)
    KILN_RETURN_IF_ERROR(equal_shapes(context, shape(i), {directions, batch, hidden},
                                      "the shape of an initial state against [directions, B, H]"));
  DType dtype = context.operands[0].dtype;
  TensorType last{dtype, {directions, batch, hidden}};
  return Types{{dtype, {steps, directions, batch, hidden}}, last, last};
}

struct Direction {
  ValueId y, h, c; // [T, B, H], [B, H], [B, H]
};

// One direction's slice of an operand, without the leading dim.
ValueId part(GraphBuilder &b, ValueId v, int64_t direction) {
  Shape shape = b.type(v).shape;
  if (!shape[0].is_const(1))
    v = slice_axis(b, v, 0, direction, direction + 1);
  return reshape_to(b, v, Shape(shape.begin() + 1, shape.end()));
}

// i o f c from the columns of gates[B, 4 H]; c' = f c + i g, h' = o tanh(c').
Block step_body(GraphBuilder &outer, ValueId r, const TensorType &state, const Dim &hidden) {
  Block body;
  Function &function = outer.function();
  ValueId h = function.add_argument(body, state, "h"), c = function.add_argument(body, state, "c");
  ValueId input =
      function.add_argument(body, {state.dtype, {state.shape[0], Dim(4) * hidden}}, "input_gates");
  GraphBuilder b(outer.module(), function, body);
  b.set_location(outer.location());
  ValueId gates = b(Op::add, {input, b(Op::dot, {h, r}, {{"transpose_b", true}})});
  auto gate = [&](int64_t i) { return slice_axis(b, gates, 1, hidden * Dim(i), hidden * Dim(i + 1)); };
  ValueId in = b(Op::sigmoid, {gate(0)}), out = b(Op::sigmoid, {gate(1)}), forget = b(Op::sigmoid, {gate(2)});
  ValueId cell = b(Op::tanh, {gate(3)});
  ValueId next_c = b(Op::add, {b(Op::mul, {forget, c}), b(Op::mul, {in, cell})});
  ValueId next_h = b(Op::mul, {out, b(Op::tanh, {next_c})});
  body.results = {next_h, next_c, next_h};
  return body;
}

Direction run_direction(GraphBuilder &b, const std::vector<ValueId> &in, int64_t direction, bool reverse) {
  Shape x_shape = b.type(in[0]).shape;
  Dim steps = x_shape[0], batch = x_shape[1], hidden = b.type(in[2]).shape[2];
  TensorType state{b.type(in[0]).dtype, {batch, hidden}};
  ValueId w = part(b, in[1], direction), r = part(b, in[2], direction);
  std::vector<ValueId> operands = {reshape_to(b, in[0], {steps * batch, x_shape[2]}), w};
  if (in.size() > 3) {
    ValueId bias = part(b, in[3], direction);
    operands.push_back(b(Op::add, {slice_axis(b, bias, 0, 0, Dim(4) * hidden),
                                   slice_axis(b, bias, 0, Dim(4) * hidden, Dim(8) * hidden)}));
  }
  ValueId gates = b(Op::dot, std::move(operands), {{"transpose_b", true}});
  gates = reshape_to(b, gates, {steps, batch, Dim(4) * hidden});
  auto initial = [&](size_t operand) {
    return in.size() > operand ? part(b, in[operand], direction)
                               : broadcast(b, b.scalar(state.dtype, 0), state.shape);
  };
  ValueId h0 = initial(4), c0 = initial(5);
  std::vector<Block> regions;
  regions.push_back(step_body(b, r, state, hidden));
  auto scan = b.emit(Op::scan, {h0, c0, gates}, {{"carried", Dim(2)}, {"reverse", reverse}},
                     std::move(regions));
  KILN_CHECK(scan.ok(), scan.ok() ? "" : scan.error().message);
  const auto &results = b.function().node(*scan).results;
  return {results[2], results[0], results[1]};
}

std::vector<ValueId> decompose_lstm(GraphBuilder &b, const Node &node) {
  DType dtype = b.type(node.operands[0]).dtype;
  std::vector<ValueId> in;
  for (ValueId operand : node.operands)
    in.push_back(widen(b, operand));
  const std::string &name = node.attrs.get_string("direction");
  std::vector<Direction> directions = {run_direction(b, in, 0, name == "reverse")};
  if (name == "bidirectional")
    directions.push_back(run_direction(b, in, 1, true));
  auto joined = [&](ValueId Direction::*member, size_t axis) {
    std::vector<ValueId> pieces;
    for (const Direction &d : directions) {
      Shape shape = b.type(d.*member).shape;
      shape.insert(shape.begin() + std::ptrdiff_t(axis), 1);
      pieces.push_back(reshape_to(b, d.*member, shape));
    }
    ValueId out = pieces.size() == 1 ? pieces[0] : b(Op::concat, pieces, {{"axis", Dim(int64_t(axis))}});
    return narrow(b, out, dtype);
  };
  ValueId y = joined(&Direction::y, 1), h = joined(&Direction::h, 0), c = joined(&Direction::c, 0);
  return {y, h, c};
}

OpSample sample(std::vector<Shape> shapes, std::string direction) {
  OpSample out{{}, {{"direction", std::move(direction)}}, -1, 1};
  for (Shape &shape : shapes)
    out.operands.push_back({DType::f32, std::move(shape)});
  return out;
}

} // namespace

const OpDef op_lstm{
    .name = "lstm",
    .doc = "A long short-term memory layer over x[T, B, I] with w[D, 4H, I], r[D, 4H, H], bias[D, 8H] (of w, "
           "then of r) and the initial states h0[D, B, H] and c0[D, B, H]; operands may be left out from the "
           "end. Gates in the order i o f c. Results y[T, D, B, H] and the last h and c [D, B, H].",
    .min_operands = 3,
    .max_operands = 6,
    .attrs = {{"direction", AttrKind::string, Attr(std::string("forward"))}},
    .infer = infer_lstm,
    .ref = [](const RefContext &c) { return ref_by_decomposition(Op::lstm, c); },
    .decompose = decompose_lstm,
    .traits = kExpensive,
    .samples = {sample({{5, 2, 3}, {1, 16, 3}, {1, 16, 4}, {1, 32}}, "forward"),
                sample({{4, 1, 3}, {2, 8, 3}, {2, 8, 2}, {2, 16}, {2, 1, 2}, {2, 1, 2}}, "bidirectional"),
                sample({{3, 2, 2}, {1, 12, 2}, {1, 12, 3}}, "reverse")},
    .tolerance = 1e-4,
};

} // namespace kiln
