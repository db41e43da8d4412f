#include "frontend/onnx/calc.h"

#include <algorithm>

namespace kiln::onnx {

Num Calc::op(Op op, std::vector<Num> operands, Attrs attrs) {
  std::vector<Val> values;
  for (Num &n : operands)
    values.push_back(std::move(n.v));
  auto result = emitter_.emit(op, std::move(values), std::move(attrs));
  if (!result)
    fail(result.error().message);
  return {this, *std::move(result)};
}

Num Calc::size(DType dtype, const Dim &d) {
  return convert(Num{this, emitter_.sizes({Element{d}}, {})}, dtype);
}

Num Calc::iota(DType dtype, Shape shape, int axis) {
  return op(Op::iota, {}, {{"shape", std::move(shape)}, {"axis", attr_int(axis)}, {"dtype", dtype}});
}

Num Calc::concat(std::vector<Num> parts, int axis) {
  return parts.size() == 1 ? parts[0] : op(Op::concat, std::move(parts), {{"axis", attr_int(axis)}});
}

namespace {

Num binary(Op op, const Num &a, const Num &b) { return a.calc->op(op, {a, b}); }
Num binary(Op op, const Num &a, double b) { return a.calc->op(op, {a, a.calc->number(a.dtype(), b)}); }
Num binary(Op op, double a, const Num &b) { return b.calc->op(op, {b.calc->number(b.dtype(), a), b}); }

} // namespace

Num operator+(const Num &a, const Num &b) { return binary(Op::add, a, b); }
Num operator-(const Num &a, const Num &b) { return binary(Op::sub, a, b); }
Num operator*(const Num &a, const Num &b) { return binary(Op::mul, a, b); }
Num operator/(const Num &a, const Num &b) { return binary(Op::div, a, b); }
Num operator+(const Num &a, double b) { return binary(Op::add, a, b); }
Num operator-(const Num &a, double b) { return binary(Op::sub, a, b); }
Num operator*(const Num &a, double b) { return binary(Op::mul, a, b); }
Num operator/(const Num &a, double b) { return binary(Op::div, a, b); }
Num operator+(double a, const Num &b) { return binary(Op::add, a, b); }
Num operator-(double a, const Num &b) { return binary(Op::sub, a, b); }
Num operator*(double a, const Num &b) { return binary(Op::mul, a, b); }
Num operator<(const Num &a, const Num &b) { return binary(Op::lt, a, b); }
Num operator<=(const Num &a, const Num &b) { return binary(Op::le, a, b); }
Num operator>(const Num &a, const Num &b) { return binary(Op::gt, a, b); }
Num operator>=(const Num &a, const Num &b) { return binary(Op::ge, a, b); }
Num operator<(const Num &a, double b) { return binary(Op::lt, a, b); }
Num operator<=(const Num &a, double b) { return binary(Op::le, a, b); }
Num operator>(const Num &a, double b) { return binary(Op::gt, a, b); }
Num operator>=(const Num &a, double b) { return binary(Op::ge, a, b); }
Num operator&&(const Num &a, const Num &b) { return binary(Op::logical_and, a, b); }
Num operator||(const Num &a, const Num &b) { return binary(Op::logical_or, a, b); }
Num operator!(const Num &a) { return a.calc->op(Op::logical_not, {a}); }

Num equal(const Num &a, const Num &b) { return binary(Op::eq, a, b); }
Num equal(const Num &a, double b) { return binary(Op::eq, a, b); }
Num min(const Num &a, const Num &b) { return binary(Op::minimum, a, b); }
Num max(const Num &a, const Num &b) { return binary(Op::maximum, a, b); }
Num min(const Num &a, double b) { return binary(Op::minimum, a, b); }
Num max(const Num &a, double b) { return binary(Op::maximum, a, b); }
Num floor(const Num &x) { return x.calc->op(Op::floor, {x}); }
Num ceil(const Num &x) { return x.calc->op(Op::ceil, {x}); }
Num abs(const Num &x) { return x.calc->op(Op::abs, {x}); }

Num where(const Num &condition, const Num &a, const Num &b) {
  return a.calc->op(Op::where, {condition, a, b});
}
Num where(const Num &condition, const Num &a, double b) { return where(condition, a, a.calc->number(a.dtype(), b)); }
Num where(const Num &condition, double a, const Num &b) { return where(condition, b.calc->number(b.dtype(), a), b); }

Num convert(const Num &x, DType dtype) {
  return x.dtype() == dtype ? x : x.calc->op(Op::convert, {x}, {{"dtype", dtype}});
}

Num reshape(const Num &x, Shape shape) {
  return x.shape() == shape ? x : x.calc->op(Op::reshape, {x}, {{"shape", std::move(shape)}});
}

Num permute(const Num &x, const std::vector<int64_t> &order) {
  if (std::is_sorted(order.begin(), order.end()))
    return x;
  return x.calc->op(Op::permute, {x}, {{"dims", attr_ints(order)}});
}

Num broadcast_to(const Num &x, const Shape &shape) {
  return x.shape() == shape ? x : x.calc->op(Op::broadcast_to, {x}, {{"shape", shape}});
}

Num slice(const Num &x, int axis, const Dim &start, const Dim &size) {
  return start.is_const(0) && size == x.dim(axis) ? x : slice(x, axis, start, size, 1);
}

Num slice(const Num &x, int axis, const Dim &start, const Dim &count, int64_t step) {
  return x.calc->op(Op::slice, {x},
                    {{"axes", attr_ints(std::vector<int>{axis})},
                     {"starts", std::vector<Dim>{start}},
                     {"ends", std::vector<Dim>{start + (count - Dim(1)) * Dim(step) + Dim(1)}},
                     {"steps", std::vector<Dim>{step}}});
}

Num at(const Num &x, int axis, const Dim &position) {
  Shape shape = x.shape();
  if (axis < int(shape.size()))
    shape.erase(shape.begin() + axis);
  return reshape(slice(x, axis, position, 1), shape);
}

Num pad(const Num &x, std::vector<Dim> lo, std::vector<Dim> hi, double value) {
  bool nothing = true;
  for (const auto *list : {&lo, &hi})
    for (const Dim &d : *list)
      nothing &= d.is_const(0);
  if (nothing)
    return x;
  return x.calc->op(Op::pad, {x},
                    {{"lo", std::move(lo)}, {"hi", std::move(hi)}, {"mode", std::string("constant")}, {"value", value}});
}

Num gather(const Num &x, const Num &indices, int axis) {
  return x.calc->op(Op::gather, {x, indices}, {{"axis", attr_int(axis)}});
}

Num gather_elements(const Num &x, const Num &indices, int axis) {
  return x.calc->op(Op::gather_elements, {x, indices}, {{"axis", attr_int(axis)}});
}

Num sum(const Num &x, std::vector<int> axes, bool keepdims) {
  return axes.empty() ? x : x.calc->op(Op::reduce_sum, {x}, {{"axes", attr_ints(axes)}, {"keepdims", keepdims}});
}

Num largest(const Num &x, std::vector<int> axes, bool keepdims) {
  return axes.empty() ? x : x.calc->op(Op::reduce_max, {x}, {{"axes", attr_ints(axes)}, {"keepdims", keepdims}});
}

std::vector<Num> repeat(const Num &count, const std::vector<Num> &initial,
                        const std::function<std::vector<Num>(const Num &, const std::vector<Num> &)> &body) {
  Calc &c = *count.calc;
  Emitter &e = c.emitter();
  std::vector<Num> start = {c(e.constant(Tensor::scalar_i64(DType::i64, 0)))};
  start.insert(start.end(), initial.begin(), initial.end());
  std::vector<Block> regions(2);
  std::vector<Num> inner[2];
  for (size_t i = 0; i < 2; ++i)
    for (const Num &v : start)
      inner[i].push_back(c(e.argument(regions[i], v.v.type, "")));
  auto leave = [&](Block &block, const std::vector<Num> &values) {
    for (const Num &v : values) {
      auto id = e.materialize(v.v);
      if (!id)
        c.fail(id.error().message);
      block.results.push_back(*id);
    }
  };
  {
    IntoBlock scope(e.builder(), regions[0]);
    Num more = inner[0][0] < count;
    leave(regions[0], {more});
  }
  {
    IntoBlock scope(e.builder(), regions[1]);
    std::vector<Num> next = body(inner[1][0], {inner[1].begin() + 1, inner[1].end()});
    next.insert(next.begin(), inner[1][0] + 1.0);
    leave(regions[1], next);
  }
  std::vector<Val> operands;
  for (const Num &v : start)
    operands.push_back(v.v);
  auto results = e.emit_all(Op::while_, operands, {}, std::move(regions));
  if (!results)
    c.fail(results.error().message);
  std::vector<Num> out;
  for (size_t i = 1; i < results->size(); ++i)
    out.push_back(c((*results)[i]));
  return out;
}

} // namespace kiln::onnx
