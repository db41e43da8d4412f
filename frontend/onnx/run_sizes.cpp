#include "frontend/onnx/run_sizes.h"

#include "frontend/onnx/selection.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

namespace kiln::onnx {

Result<std::vector<RunInt>> run_ints(OnnxNode &n, size_t i, std::string_view what) {
  Emitter &e = n.emitter();
  const Val &list = n.in(i);
  if (!is_integer(list.dtype()))
    return Error{fmt::format("its {} must be integers, not {}", what, list.type.text())};
  std::vector<RunInt> out;
  if (auto dims = e.dims(list)) {
    for (const Dim &d : *dims)
      out.push_back({d, number(e, d)});
    return out;
  }
  auto count = element_count(list.type.shape).try_const();
  if (!count || list.rank() > 1)
    return Error{fmt::format("its {} ('{}') are {}: how many dims the result has must be known at compile time", what,
                             list.name, list.type.text())};
  if (*count > kMaxRank)
    return Error{fmt::format("its {} are {} numbers; at most {} dims are supported", what, *count, kMaxRank)};
  KILN_TRY(id, e.materialize(list));
  auto pieces = e.known_pieces(id);
  KILN_TRY(row, reshape(e, list, {*count}));
  for (int64_t k = 0; k < *count; ++k) {
    if (size_t(k) < pieces.size() && pieces[size_t(k)]) {
      out.push_back({*pieces[size_t(k)], number(e, *pieces[size_t(k)])});
      continue;
    }
    KILN_TRY(one, slice_axis(e, row, 0, k, 1));
    KILN_TRY(scalar, reshape(e, one, {}));
    KILN_TRY(value, convert(e, scalar, DType::i64));
    out.push_back({std::nullopt, value});
  }
  return out;
}

bool all_known(std::span<const RunInt> list) {
  return std::all_of(list.begin(), list.end(), [](const RunInt &r) { return r.known.has_value(); });
}

std::vector<Dim> known_dims(std::span<const RunInt> list) {
  std::vector<Dim> out;
  for (const RunInt &r : list)
    out.push_back(*r.known);
  return out;
}

Result<std::vector<Dim>> bind_free(OnnxNode &n, std::span<const RunInt> list, std::string_view stem) {
  constexpr int64_t kRoom[] = {0, 64, 32, 16, 8};
  size_t open = size_t(std::count_if(list.begin(), list.end(), [](const RunInt &r) { return !r.known; }));
  std::vector<Dim> out;
  for (const RunInt &r : list) {
    if (r.known) {
      out.push_back(*r.known);
      continue;
    }
    KILN_TRY(size, n.emitter().bind_free_size(r.value, kRoom[std::min(open, std::size(kRoom) - 1)], stem));
    out.push_back(size);
  }
  return out;
}

Result<Val> choose(Emitter &e, const Val &condition, const Val &a, const Val &b) {
  return e.emit(Op::where, {condition, a, b});
}

Result<Val> ceil_quotient(Emitter &e, const Val &a, const Val &b) {
  KILN_TRY(rest, e.emit(Op::fmod, {a, b})); // has the sign of a
  KILN_TRY(whole, e.emit(Op::sub, {a, rest}));
  KILN_TRY(quotient, e.emit(Op::div, {whole, b}));
  KILN_TRY(direction, e.emit(Op::sign, {b}));
  KILN_TRY(product, e.emit(Op::mul, {rest, direction}));
  KILN_TRY(above, e.emit(Op::gt, {product, number(e, 0)}));
  KILN_TRY(one, convert(e, above, DType::i64));
  return e.emit(Op::add, {quotient, one});
}

std::optional<int64_t> constant_difference(const Emitter &e, const Val &end, const Val &start) {
  const Function &f = e.function();
  auto origin = [&](ValueId id) {
    for (const Node *def = f.def(id); def && def->op == Op::reshape; def = f.def(id))
      id = def->operands[0];
    return id;
  };
  auto is_one = [](const Val &v) { return v.id.valid() && element_count(v.type.shape).is_const(1); };
  if (!is_one(end) || !is_one(start))
    return std::nullopt;
  const Node *sum = f.def(origin(end.id));
  if (!sum || sum->op != Op::add)
    return std::nullopt;
  for (size_t i : {size_t(0), size_t(1)})
    if (origin(sum->operands[i]) == origin(start.id)) {
      auto by = e.known_pieces(sum->operands[1 - i]);
      return by.size() == 1 && by[0] ? by[0]->try_const() : std::nullopt;
    }
  return std::nullopt;
}

// As numpy does it: bounds below 0 count from the end, and are then kept within the axis. From i to i + 1 is
// one element, always: an i outside of the axis is an error of the run.
Result<Val> slice_found(OnnxNode &n, const Val &x, int axis, const RunInt &start, const RunInt &end, const RunInt &step,
                        std::optional<int64_t> length) {
  Emitter &e = n.emitter();
  if (length == 1 && step.known && step.known->is_const(1)) {
    KILN_TRY(before, e.emit(Op::lt, {start.value, number(e, 0)}));
    KILN_TRY(place, choose(e, before, number(e, x.dim(axis)), start.value));
    KILN_TRY(index, reshape(e, place, {1}));
    return e.emit(Op::gather, {x, index}, {{"axis", attr_int(axis)}});
  }
  Val size = number(e, x.dim(axis)), zero = number(e, 0);
  KILN_TRY(last, e.emit(Op::sub, {size, number(e, 1)}));
  KILN_TRY(forward, e.emit(Op::gt, {step.value, zero}));
  KILN_TRY(low, choose(e, forward, zero, number(e, -1)));
  KILN_TRY(high, choose(e, forward, size, last));
  auto within = [&](const Val &bound) -> Result<Val> {
    KILN_TRY(negative, e.emit(Op::lt, {bound, zero}));
    KILN_TRY(from_end, e.emit(Op::add, {bound, size}));
    KILN_TRY(place, choose(e, negative, from_end, bound));
    KILN_TRY(above, e.emit(Op::maximum, {place, low}));
    return e.emit(Op::minimum, {above, high});
  };
  KILN_TRY(first, within(start.value));
  KILN_TRY(past, within(end.value));
  KILN_TRY(span, e.emit(Op::sub, {past, first}));
  KILN_TRY(steps, ceil_quotient(e, span, step.value));
  KILN_TRY(count, e.emit(Op::maximum, {steps, zero}));
  Dim bound = x.dim(axis);
  if (step.known)
    if (auto by = step.known->try_const(); by && *by != 0)
      bound = ceildiv(bound, std::abs(*by));
  if (length && *length >= 0 && step.known && step.known->is_const(1))
    bound = min(bound, *length);
  KILN_TRY(taken, e.bind_size(count, bound, "slice"));
  KILN_TRY(index, counted(e, taken));
  KILN_TRY(strides, e.emit(Op::mul, {index, step.value}));
  KILN_TRY(places, e.emit(Op::add, {strides, first}));
  return e.emit(Op::gather, {x, places}, {{"axis", attr_int(axis)}});
}

} // namespace kiln::onnx
