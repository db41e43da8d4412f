// Arithmetic on values, so that a handler that composes a formula reads as the formula:
//
//   Calc c(n.emitter());
//   Num x = c(n.in(0));
//   return n.finish(c.done(floor(x * 0.5 + 1.0)));
//
// Numbers take the dtype of the other operand. An op that cannot be built ends the handler with its error
// (Unmet), so that what follows sees the shapes that it counts on. Known operands are computed at once, as
// everywhere (emitter.h).
#pragma once

#include "frontend/onnx/node.h"

#include <functional>

namespace kiln::onnx {

class Calc;

struct Num {
  Calc *calc = nullptr;
  Val v;

  DType dtype() const { return v.dtype(); }
  int rank() const { return v.rank(); }
  Sizes shape() const { return Sizes(v); }
  Dim dim(int i) const { return v.dim(i); }
};

class Calc {
public:
  explicit Calc(Emitter &emitter) : emitter_(emitter) {}
  Calc(const Calc &) = delete;

  Num operator()(Val v) { return {this, std::move(v)}; }
  Num op(Op op, std::vector<Num> operands, Attrs attrs = {});
  Num number(DType dtype, double value) { return {this, emitter_.scalar(dtype, value)}; }
  // A size as a scalar.
  Num size(DType dtype, const Dim &d);
  // 0, 1, ... along the axis.
  Num iota(DType dtype, Shape shape, int axis = 0);
  Num concat(std::vector<Num> parts, int axis);
  [[noreturn]] void fail(std::string message) { throw Unmet{std::move(message)}; }
  Emitter &emitter() { return emitter_; }
  Result<Val> done(const Num &value) const { return value.v; }

private:
  Emitter &emitter_;
};

Num operator+(const Num &a, const Num &b);
Num operator-(const Num &a, const Num &b);
Num operator*(const Num &a, const Num &b);
Num operator/(const Num &a, const Num &b);
Num operator+(const Num &a, double b);
Num operator-(const Num &a, double b);
Num operator*(const Num &a, double b);
Num operator/(const Num &a, double b);
Num operator+(double a, const Num &b);
Num operator-(double a, const Num &b);
Num operator*(double a, const Num &b);
Num operator<(const Num &a, const Num &b);
Num operator<=(const Num &a, const Num &b);
Num operator>(const Num &a, const Num &b);
Num operator>=(const Num &a, const Num &b);
Num operator<(const Num &a, double b);
Num operator<=(const Num &a, double b);
Num operator>(const Num &a, double b);
Num operator>=(const Num &a, double b);
Num operator&&(const Num &a, const Num &b); // computes both, as every op does
Num operator||(const Num &a, const Num &b);
Num operator!(const Num &a);

Num equal(const Num &a, const Num &b);
Num equal(const Num &a, double b);
Num min(const Num &a, const Num &b);
Num max(const Num &a, const Num &b);
Num min(const Num &a, double b);
Num max(const Num &a, double b);
Num floor(const Num &x);
Num ceil(const Num &x);
Num abs(const Num &x);
Num where(const Num &condition, const Num &a, const Num &b);
Num where(const Num &condition, const Num &a, double b);
Num where(const Num &condition, double a, const Num &b);

Num convert(const Num &x, DType dtype);
Num reshape(const Num &x, Shape shape);
Num permute(const Num &x, const std::vector<int64_t> &order);
Num broadcast_to(const Num &x, const Shape &shape);
Num slice(const Num &x, int axis, const Dim &start, const Dim &size);
// The elements start, start + step, ..., `count` of them.
Num slice(const Num &x, int axis, const Dim &start, const Dim &count, int64_t step);
// The one position of the axis, which goes.
Num at(const Num &x, int axis, const Dim &position);
Num pad(const Num &x, std::vector<Dim> lo, std::vector<Dim> hi, double value = 0);
Num gather(const Num &x, const Num &indices, int axis);
Num gather_elements(const Num &x, const Num &indices, int axis);
Num sum(const Num &x, std::vector<int> axes, bool keepdims = false);
Num largest(const Num &x, std::vector<int> axes, bool keepdims = false);

// carried = body(k, carried) for k = 0, 1, ... below `count`, an i64 scalar.
std::vector<Num> repeat(const Num &count, const std::vector<Num> &initial,
                        const std::function<std::vector<Num>(const Num &k, const std::vector<Num> &carried)> &body);

} // namespace kiln::onnx
