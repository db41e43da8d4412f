// Building a graph from C++: ordinary code over trace::Tensor, run once, leaves a Module behind.
//
//     Diagnostics diagnostics;
//     trace::Tracer tracer(diagnostics);
//     auto w = tracer.parameter("w", {DType::f32, {10, 784}});
//     tracer.function("predict", {{"x", {DType::f32, {Dim::symbol("N"), 784}}}}, [&](auto in) {
//       return std::vector{softmax(matmul(in[0], w.transpose(0, 1)), 1)};
//     });
//     Module module = tracer.take();
//
// Every call takes the place it is written at, and a mistake (shapes that do not fit, a wrong axis) becomes
// a diagnostic with the user's file and line; what is made of a failed tensor stays silent. A Tracer is used
// by one thread; its tensors must not outlive it or leave the function they were made in.
#pragma once

#include "ir/graph.h"
#include "ir/op_id.h"

#include <array>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <source_location>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kiln::trace {

class Tracer;
using Where = std::source_location;

// A value of the function being traced, a parameter, or (after a mistake) nothing.
class Tensor {
public:
  Tensor() = default;

  bool ok() const { return tracer_ != nullptr; }
  Tracer *tracer() const { return tracer_; } // null after a mistake
  // f32[] for a failed tensor.
  TensorType type() const;
  Shape shape() const { return type().shape; }
  DType dtype() const { return type().dtype; }
  int rank() const { return type().rank(); }
  // The name in dumps and reports.
  Tensor named(std::string name) const;

  Tensor reshape(std::vector<Dim> shape, Where where = Where::current()) const; // one size may be -1
  Tensor permute(std::vector<int> dims, Where where = Where::current()) const;
  Tensor transpose(int a, int b, Where where = Where::current()) const;
  Tensor flatten(int start = 0, int end = -1, Where where = Where::current()) const;
  Tensor unsqueeze(int axis, Where where = Where::current()) const;
  Tensor squeeze(int axis, Where where = Where::current()) const;
  Tensor broadcast_to(std::vector<Dim> shape, Where where = Where::current()) const;
  Tensor slice(int axis, Dim start, Dim end, int64_t step = 1, Where where = Where::current()) const;
  Tensor select(int axis, Dim index, Where where = Where::current()) const;
  Tensor to(DType dtype, Where where = Where::current()) const;
  // No axes: all of them.
  Tensor sum(std::vector<int> axes = {}, bool keepdims = false, Where where = Where::current()) const;
  Tensor mean(std::vector<int> axes = {}, bool keepdims = false, Where where = Where::current()) const;
  Tensor max(std::vector<int> axes = {}, bool keepdims = false, Where where = Where::current()) const;
  Tensor min(std::vector<int> axes = {}, bool keepdims = false, Where where = Where::current()) const;

private:
  friend class Tracer;
  Tensor(Tracer *tracer, ValueId id, VariableId variable = {}) : tracer_(tracer), id_(id), variable_(variable) {}
  Tracer *tracer_ = nullptr;
  ValueId id_;
  VariableId variable_; // read where it is used
};

// An operand of an operator or function: a tensor or a number, and where it was written. Numbers take the
// dtype of the tensor beside them.
struct Operand {
  Operand(Tensor t, Where w = Where::current()) : tensor(t), where(w) {}
  template <typename T>
    requires std::is_arithmetic_v<T>
  Operand(T n, Where w = Where::current()) : is_number(true), number(double(n)), where(w) {}

  Tensor tensor;
  bool is_number = false;
  double number = 0;
  Where where;
};

class Tracer {
public:
  explicit Tracer(Diagnostics &diagnostics);
  Tracer(const Tracer &) = delete;
  Tracer &operator=(const Tracer &) = delete;
  ~Tracer();

  struct Input {
    std::string name;
    TensorType type;
  };
  using Body = std::function<std::vector<Tensor>(std::span<const Tensor>)>;

  Tensor parameter(std::string name, TensorType type, Where where = Where::current());
  // A parameter with a value: it views or owns its bytes as kiln::Tensor does.
  Tensor weight(std::string name, kiln::Tensor value, Where where = Where::current());
  Tensor state(std::string name, TensorType type, Where where = Where::current());
  void assign(const Tensor &variable, const Tensor &value, Where where = Where::current());

  // Traces an exported function. Results are named output, output1, ... unless their tensors have names.
  void function(std::string name, std::vector<Input> inputs, const Body &body, Where where = Where::current());

  Tensor constant(kiln::Tensor value, Where where = Where::current());
  // Any op of ir/ops.def; attributes as its schema names them.
  Tensor call(Op op, std::vector<Operand> operands, Attrs attrs, Where where);
  std::vector<Tensor> call_many(Op op, std::vector<Operand> operands, Attrs attrs, Where where);
  Tensor fail(Where where, std::string message);

  // Within a function: the gradient of one number with respect to each of `wrt`, of its type; tensors and parameters.
  std::vector<Tensor> grad(Tensor loss, std::vector<Tensor> wrt, Where where = Where::current());
  // The products of the Jacobian of `outputs` with cotangents (one for each output) and tangents (one for each of wrt).
  std::vector<Tensor> vjp(std::vector<Tensor> outputs, std::vector<Tensor> wrt, std::vector<Tensor> cotangents, Where where = Where::current());
  std::vector<Tensor> jvp(std::vector<Tensor> outputs, std::vector<Tensor> wrt, std::vector<Tensor> tangents, Where where = Where::current());

  // The module so far; the tracer is empty after.
  Module take();

private:
  friend class Tensor;
  // The values behind tensors; empty after a mistake, which has been reported.
  std::optional<std::vector<ValueId>> ids_of(const std::vector<Tensor> &tensors, std::string_view name, Where where);
  std::vector<Tensor> product(bool reverse, std::vector<Tensor> outputs, std::vector<Tensor> wrt, std::vector<Tensor> seeds, Where where);
  struct State;
  std::unique_ptr<State> state_;
};

// Elementwise, one operand: exp(x).
#define KILN_TRACE_UNARY(X)                                                                                \
  X(neg) X(abs) X(sign) X(ceil) X(floor) X(round) X(trunc) X(sqrt) X(rsqrt) X(reciprocal) X(square) X(exp)   \
  X(expm1) X(log) X(log1p) X(sin) X(cos) X(tan) X(asin) X(acos) X(atan) X(sinh) X(cosh) X(tanh) X(asinh)     \
  X(acosh) X(atanh) X(erf) X(sigmoid) X(relu) X(silu) X(mish) X(softplus) X(softsign) X(selu) X(hard_swish)  \
  X(logical_not) X(bitwise_not) X(is_nan)
#define X(name) Tensor name(Operand x);
KILN_TRACE_UNARY(X)
#undef X

// Elementwise, two operands, broadcast: maximum(x, 0).
#define KILN_TRACE_BINARY(X)                                                                                \
  X(add) X(sub) X(mul) X(div) X(remainder) X(fmod) X(pow) X(minimum) X(maximum) X(atan2) X(logical_and)       \
  X(logical_or) X(logical_xor) X(eq) X(ne) X(lt) X(le) X(gt) X(ge)
#define X(name) Tensor name(Operand a, Operand b);
KILN_TRACE_BINARY(X)
#undef X

inline Tensor operator+(Operand a, Operand b) { return add(a, b); }
inline Tensor operator-(Operand a, Operand b) { return sub(a, b); }
inline Tensor operator*(Operand a, Operand b) { return mul(a, b); }
inline Tensor operator/(Operand a, Operand b) { return div(a, b); }
inline Tensor operator-(Operand a) { return neg(a); }
inline Tensor operator<(Operand a, Operand b) { return lt(a, b); }
inline Tensor operator<=(Operand a, Operand b) { return le(a, b); }
inline Tensor operator>(Operand a, Operand b) { return gt(a, b); }
inline Tensor operator>=(Operand a, Operand b) { return ge(a, b); }

Tensor where(Tensor condition, Operand a, Operand b);
Tensor gelu(Operand x, bool tanh_approximation = false);
Tensor leaky_relu(Operand x, double alpha = 0.01);
Tensor clamp(Operand x, double min, double max);
Tensor softmax(Operand x, int axis = -1);
Tensor log_softmax(Operand x, int axis = -1);
Tensor concat(std::vector<Tensor> xs, int axis, Where where = Where::current());
Tensor gather(Operand x, Tensor indices, int axis = 0);
// As numpy, for rank >= 2; linear's weight is [out, in].
Tensor matmul(Operand a, Operand b);
Tensor linear(Operand x, Tensor weight, Tensor bias = {});

struct Window2d { // each for height and width
  std::array<int64_t, 2> stride = {1, 1};
  std::array<int64_t, 2> padding = {0, 0};
  std::array<int64_t, 2> dilation = {1, 1};
  int64_t groups = 1;
};
Tensor conv2d(Operand x, Tensor weight, Tensor bias = {}, Window2d window = {});
Tensor max_pool2d(Operand x, std::array<int64_t, 2> kernel, Window2d window = {});
Tensor avg_pool2d(Operand x, std::array<int64_t, 2> kernel, Window2d window = {});

Tensor layer_norm(Operand x, Tensor scale, Tensor bias, int axis = -1, double epsilon = 1e-5);
Tensor rms_norm(Operand x, Tensor scale, int axis = -1, double epsilon = 1e-6);
Tensor batch_norm(Operand x, Tensor scale, Tensor bias, Tensor mean, Tensor var, double epsilon = 1e-5);
Tensor attention(Operand q, Tensor k, Tensor v, Tensor mask = {}, bool causal = false); // scale 1 / sqrt(E)

} // namespace kiln::trace
