#include "frontend/onnx/recurrent.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace kiln::onnx {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return char(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); });
  return text;
}

struct Named {
  std::string_view name;
  Op op;
  double alpha, beta; // defaults; NaN where it has none
};
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr Named kActivations[] = {{"tanh", Op::tanh, kNone, kNone},
                                  {"relu", Op::relu, kNone, kNone},
                                  {"sigmoid", Op::sigmoid, kNone, kNone},
                                  {"softsign", Op::softsign, kNone, kNone},
                                  {"softplus", Op::softplus, kNone, kNone},
                                  {"leakyrelu", Op::leaky_relu, 0.01, kNone},
                                  {"thresholdedrelu", Op::thresholded_relu, 1.0, kNone},
                                  {"elu", Op::elu, 1.0, kNone},
                                  {"hardsigmoid", Op::hard_sigmoid, 0.2, 0.5},
                                  {"scaledtanh", Op::tanh, 1.0, 1.0}, // alpha * tanh(beta * x)
                                  {"affine", Op::add, 1.0, 0.0}};     // alpha * x + beta

Result<Val> apply(Emitter &e, const Named &f, const Attrs &attrs, const Val &x) {
  auto number = [&](const char *name) { return e.scalar(x.dtype(), attrs.get_float(name)); };
  if (f.name == "affine") {
    KILN_TRY(scaled, e.emit(Op::mul, {x, number("alpha")}));
    return e.emit(f.op, {scaled, number("beta")});
  }
  if (f.name == "scaledtanh") {
    KILN_TRY(scaled, e.emit(Op::mul, {x, number("beta")}));
    KILN_TRY(high, e.emit(f.op, {scaled}));
    return e.emit(Op::mul, {high, number("alpha")});
  }
  return e.emit(f.op, {x}, attrs);
}

using Activation = std::function<Result<Val>(Val)>;

// The functions of all directions in the order of the attribute; alphas and betas are consumed by those
// that have them.
Result<std::vector<Activation>> activations_of(OnnxNode &n, const RecurrentKind &kind, size_t directions) {
  auto names = n.get_strings("activations");
  if (names.empty())
    for (size_t d = 0; d < directions; ++d)
      names.insert(names.end(), kind.activations.begin(), kind.activations.end());
  if (names.size() != directions * kind.activations.size())
    return Error{fmt::format("it has {} activations; {} are needed", names.size(),
                             directions * kind.activations.size())};
  auto alphas = n.get_floats("activation_alpha"), betas = n.get_floats("activation_beta");
  double clip = n.get_float("clip", 0);
  size_t a = 0, b = 0;
  Emitter &e = n.emitter();
  std::vector<Activation> out;
  for (const std::string &name : names) {
    const Named *found = nullptr;
    for (const Named &k : kActivations)
      if (k.name == lower(name))
        found = &k;
    if (!found)
      return Error{fmt::format("the activation {} is not supported", name)};
    Attrs attrs;
    if (found->alpha == found->alpha)
      attrs.set("alpha", a < alphas.size() ? alphas[a++] : found->alpha);
    if (found->beta == found->beta)
      attrs.set("beta", b < betas.size() ? betas[b++] : found->beta);
    out.push_back([&e, clip, found, attrs](Val x) -> Result<Val> {
      if (clip > 0) {
        KILN_TRY(limited, e.emit(Op::clamp, {x}, {{"min", -clip}, {"max", clip}}));
        x = limited;
      }
      return apply(e, *found, attrs, x);
    });
  }
  return out;
}

// One direction's slice of an operand, without the leading dim.
Result<Val> part(Emitter &e, const Val &v, int64_t direction) {
  KILN_TRY(one, slice_axis(e, v, 0, direction, 1));
  return reshape(e, one, one.dims(1, one.rank()));
}

struct Layer {
  OnnxNode &n;
  const RecurrentKind &kind;
  Val x; // [T, B, I]
  std::optional<Val> lengths; // i64[B, 1]
  Dim directions;
};

// X W^T + the bias of W, for all steps at once: [T, B, gates * H].
Result<Val> input_gates(Layer &l, int64_t direction, const Dim &width) {
  Emitter &e = l.n.emitter();
  KILN_TRY(w, part(e, l.n.in(1), direction));
  KILN_TRY(flat, reshape(e, l.x, {l.x.dim(0) * l.x.dim(1), l.x.dim(2)}));
  std::vector<Val> operands = {flat, w};
  if (l.n.has(3)) {
    KILN_TRY(both, part(e, l.n.in(3), direction));
    KILN_TRY(bias, slice_axis(e, both, 0, 0, width));
    operands.push_back(bias);
  }
  KILN_TRY(product, e.emit(Op::dot, operands, {{"transpose_b", true}}));
  return reshape(e, product, {l.x.dim(0), l.x.dim(1), width});
}

// Y [T, B, H], then the last states [B, H].
Result<std::vector<Val>> run_direction(Layer &l, int64_t direction, bool reverse,
                                       std::vector<Activation> activations) {
  Emitter &e = l.n.emitter();
  Cell cell{e, l.x.dim(1), l.n.in(2).dim(2), {}, {}, {}, std::move(activations)};
  Dim width = Dim(l.kind.gates) * cell.hidden;
  KILN_TRY(gates, input_gates(l, direction, width));
  KILN_TRY(recurrent, part(e, l.n.in(2), direction));
  cell.recurrent = recurrent;
  if (l.n.has(3)) {
    KILN_TRY(both, part(e, l.n.in(3), direction));
    KILN_TRY(bias, slice_axis(e, both, 0, width, width));
    cell.bias = bias;
  }
  if (l.kind.peephole_input && l.n.has(l.kind.peephole_input)) {
    KILN_TRY(peephole, part(e, l.n.in(l.kind.peephole_input), direction));
    cell.peephole = peephole;
  }
  TensorType state_type{l.x.dtype(), {cell.batch, cell.hidden}};
  std::vector<Val> operands;
  for (size_t i = 0; i < l.kind.states; ++i) {
    Val initial;
    if (l.n.has(5 + i)) {
      KILN_TRY(ordered, moved_batch(l.n, l.n.in(5 + i)));
      initial = ordered;
    }
    KILN_TRY(state, l.n.has(5 + i) ? part(e, initial, direction)
                                   : broadcast_to(e, e.scalar(state_type.dtype, 0), state_type.shape));
    operands.push_back(state);
  }
  operands.push_back(gates);
  Block body;
  std::vector<Val> states;
  for (size_t i = 0; i < l.kind.states; ++i)
    states.push_back(e.argument(body, state_type, i == 0 ? "h" : "c"));
  Val step_gates = e.argument(body, {state_type.dtype, {cell.batch, width}}, "gates");
  std::optional<Val> step;
  if (l.lengths) {
    KILN_TRY(steps, e.emit(Op::iota, {}, {{"shape", Shape{l.x.dim(0)}}, {"axis", Dim(0)}, {"dtype", DType::i64}}));
    operands.push_back(steps);
    step = e.argument(body, {DType::i64, {}}, "step");
  }
  {
    IntoBlock scope(e.builder(), body);
    KILN_TRY(next, l.kind.step(cell, states, step_gates));
    Val y = next.at(0);
    if (step) { // past the end of a sequence its states stay and its results are zero
      KILN_TRY(runs, e.emit(Op::lt, {*step, *l.lengths}));
      for (size_t i = 0; i < next.size(); ++i) {
        KILN_TRY(kept, e.emit(Op::where, {runs, next[i], states[i]}));
        next[i] = kept;
      }
      KILN_TRY(shown, e.emit(Op::where, {runs, y, e.scalar(state_type.dtype, 0)}));
      y = shown;
    }
    next.push_back(y);
    for (const Val &v : next) {
      KILN_TRY(id, e.materialize(v));
      body.results.push_back(id);
    }
  }
  std::vector<Block> regions;
  regions.push_back(std::move(body));
  KILN_TRY(results, e.emit_all(Op::scan, operands,
                               {{"carried", attr_int(int64_t(l.kind.states))}, {"reverse", reverse}},
                               std::move(regions)));
  std::rotate(results.begin(), results.end() - 1, results.end());
  return results;
}

// [T, B, H] of each direction to [T, D, B, H] (axis 1), or [B, H] to [D, B, H] (axis 0).
Result<Val> joined(Emitter &e, const std::vector<Val> &parts, int axis) {
  std::vector<Val> pieces;
  for (const Val &v : parts) {
    Shape shape = v.type.shape;
    shape.insert(shape.begin() + axis, 1);
    KILN_TRY(piece, reshape(e, v, shape));
    pieces.push_back(piece);
  }
  return pieces.size() == 1 ? Result<Val>(pieces[0]) : e.emit(Op::concat, pieces, {{"axis", attr_int(axis)}});
}

Status check_shapes(OnnxNode &n, const RecurrentKind &kind, int64_t directions) {
  if (n.rank(0) != 3 || n.rank(1) != 3 || n.rank(2) != 3)
    return Error{"its operands X, W and R must have three dims"};
  Dim hidden = n.in(2).dim(2), width = Dim(kind.gates) * hidden;
  auto expect = [&](size_t i, Shape shape) -> Status {
    bool ok = n.rank(i) == int(shape.size());
    for (size_t d = 0; ok && d < shape.size(); ++d)
      ok = n.emitter().require_equal(n.shape(i)[d], shape[d], std::string(n.type()));
    if (!ok)
      return Error{fmt::format("its input {} is {}, but must be {}", i, n.in(i).type.text(), shape_text(shape))};
    return Unit{};
  };
  KILN_RETURN_IF_ERROR(expect(1, {directions, width, n.in(1).dim(2)}));
  KILN_RETURN_IF_ERROR(expect(2, {directions, width, hidden}));
  if (n.has(3))
    KILN_RETURN_IF_ERROR(expect(3, {directions, Dim(2) * width}));
  if (kind.peephole_input && n.has(kind.peephole_input))
    KILN_RETURN_IF_ERROR(expect(kind.peephole_input, {directions, Dim(3) * hidden}));
  for (size_t i = 5; i < 5 + kind.states; ++i)
    if (n.has(i) && n.rank(i) != 3)
      return Error{fmt::format("its input {} is {}, but must have three dims", i, n.in(i).type.text())};
  return Unit{};
}

} // namespace

Result<Val> Cell::gate(const Val &gates, int64_t i) const {
  return slice_axis(e, gates, gates.rank() - 1, hidden * Dim(i), hidden);
}

Status check_hidden_size(OnnxNode &n) {
  if (n.rank(2) != 3 || !n.has_attr("hidden_size"))
    return Unit{};
  int64_t size = n.get_int("hidden_size", 0);
  if (auto width = n.in(2).dim(2).try_const(); width && *width != size)
    return Error{fmt::format("'hidden_size' is {}, but R, {}, is for {}", size, n.in(2).type.text(), *width)};
  return Unit{};
}

Result<Val> moved_batch(OnnxNode &n, const Val &x) {
  size_t rank = x.type.rank();
  if (!n.get_flag("layout", false) || (rank != 3 && rank != 4))
    return x;
  return permute(n.emitter(), x, rank == 4 ? std::vector<int64_t>{2, 0, 1, 3} : std::vector<int64_t>{1, 0, 2});
}

Status import_recurrent(OnnxNode &n, const RecurrentKind &kind) {
  Emitter &e = n.emitter();
  n.ignore({"output_sequence"});
  KILN_RETURN_IF_ERROR(check_hidden_size(n));
  std::string direction = lower(n.get_string("direction", "forward"));
  if (direction != "forward" && direction != "reverse" && direction != "bidirectional")
    return Error{fmt::format("the direction is '{}'", direction)};
  int64_t directions = direction == "bidirectional" ? 2 : 1;
  KILN_RETURN_IF_ERROR(check_shapes(n, kind, directions));
  KILN_TRY(activations, activations_of(n, kind, size_t(directions)));
  KILN_TRY(x, moved_batch(n, n.in(0)));
  Layer layer{n, kind, x, std::nullopt, directions};
  if (n.has(4)) {
    // Sequences that all take every step need no mask.
    auto known = e.dims(n.in(4));
    bool full = known.has_value();
    for (size_t i = 0; full && i < known->size(); ++i)
      full = (*known)[i] == x.dim(0);
    if (!full) {
      KILN_TRY(column, reshape(e, n.in(4), {x.dim(1), 1}));
      KILN_TRY(lengths, convert(e, column, DType::i64));
      layer.lengths = lengths;
    }
  }
  std::vector<std::vector<Val>> all(1 + kind.states);
  size_t each = kind.activations.size();
  for (int64_t d = 0; d < directions; ++d) {
    auto first = activations.begin() + std::ptrdiff_t(size_t(d) * each);
    KILN_TRY(results, run_direction(layer, d, d == 1 || direction == "reverse",
                                    {first, first + std::ptrdiff_t(each)}));
    for (size_t i = 0; i < all.size(); ++i)
      all[i].push_back(results.at(i));
  }
  for (size_t i = 0; i < all.size(); ++i) {
    KILN_TRY(out, joined(e, all[i], i == 0 ? 1 : 0));
    KILN_TRY(moved, moved_batch(n, out));
    n.set(i, moved);
  }
  return Unit{};
}

} // namespace kiln::onnx
