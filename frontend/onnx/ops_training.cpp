// The optimizers of ai.onnx.preview.training. Operands are the learning rate, the number of updates so
// far, and then lists of equal length: values, gradients, and the optimizer's state.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

// The operands of one value.
struct Update {
  OnnxNode &n;
  std::vector<Val> of; // value, gradient, state...

  Result<Val> op(Op op, const Val &a, const Val &b) { return n.emit(op, {a, b}); }
  Result<Val> times(const Val &a, double b) { return n.emit(Op::mul, {a, n.emitter().scalar(a.dtype(), b)}); }
  Result<Val> plus(const Val &a, double b) { return n.emit(Op::add, {a, n.emitter().scalar(a.dtype(), b)}); }
  // gradient + norm * value
  Result<Val> regularized(double norm) {
    KILN_TRY(decay, times(of[0], norm));
    return op(Op::add, decay, of[1]);
  }
};

Result<std::vector<Update>> updates(OnnxNode &n, size_t lists) {
  size_t count = n.input_count() < 2 ? 0 : n.input_count() - 2;
  if (count == 0 || count % lists != 0)
    return Error{fmt::format("it has {} operands after the first two, which is no multiple of {}", count, lists)};
  size_t values = count / lists;
  std::vector<Update> out;
  for (size_t i = 0; i < values; ++i) {
    Update update{n, {}};
    for (size_t list = 0; list < lists; ++list)
      update.of.push_back(n.in(2 + list * values + i));
    out.push_back(std::move(update));
  }
  return out;
}

// Results are lists as well: all new values, then all new states.
void set_results(OnnxNode &n, const std::vector<std::vector<Val>> &results) {
  for (size_t i = 0; i < results.size(); ++i)
    for (size_t list = 0; list < results[i].size(); ++list)
      if (size_t at = list * results.size() + i; at < n.output_count())
        n.set(at, results[i][list]);
}

Result<Val> as(OnnxNode &n, size_t i, DType dtype) {
  KILN_TRY(scalar, reshape(n.emitter(), n.in(i), {}));
  return convert(n.emitter(), scalar, dtype);
}

// 1 - base^t where t > 0, else 1
Result<Val> correction(OnnxNode &n, const Val &t, double base) {
  Emitter &e = n.emitter();
  KILN_TRY(power, n.emit(Op::pow, {e.scalar(t.dtype(), base), t}));
  KILN_TRY(rest, n.emit(Op::sub, {e.scalar(t.dtype(), 1), power}));
  KILN_TRY(started, n.emit(Op::gt, {t, e.scalar(t.dtype(), 0)}));
  return n.emit(Op::where, {started, rest, e.scalar(t.dtype(), 1)});
}

} // namespace

Status import_adagrad(OnnxNode &n) {
  double decay = n.get_float("decay_factor", 0), epsilon = n.get_float("epsilon", 1e-6), norm = n.get_float("norm_coefficient", 0);
  KILN_TRY(all, updates(n, 3));
  std::vector<std::vector<Val>> results;
  for (Update &u : all) {
    KILN_TRY(rate, as(n, 0, u.of[0].dtype()));
    KILN_TRY(t, as(n, 1, u.of[0].dtype()));
    KILN_TRY(slowed, u.times(t, decay));
    KILN_TRY(divisor, u.plus(slowed, 1));
    KILN_TRY(r, u.op(Op::div, rate, divisor));
    KILN_TRY(g, u.regularized(norm));
    KILN_TRY(square, u.op(Op::mul, g, g));
    KILN_TRY(h, u.op(Op::add, u.of[2], square));
    KILN_TRY(root, n.emit(Op::sqrt, {h}));
    KILN_TRY(safe, u.plus(root, epsilon));
    KILN_TRY(step, u.op(Op::mul, r, g));
    KILN_TRY(scaled, u.op(Op::div, step, safe));
    KILN_TRY(x, u.op(Op::sub, u.of[0], scaled));
    results.push_back({x, h});
  }
  set_results(n, results);
  return Unit{};
}

Status import_adam(OnnxNode &n) {
  double alpha = n.get_float("alpha", 0.9), beta = n.get_float("beta", 0.999), epsilon = n.get_float("epsilon", 1e-6);
  double norm = n.get_float("norm_coefficient", 0), norm_post = n.get_float("norm_coefficient_post", 0);
  KILN_TRY(all, updates(n, 4));
  std::vector<std::vector<Val>> results;
  for (Update &u : all) {
    DType dtype = u.of[0].dtype();
    KILN_TRY(rate, as(n, 0, dtype));
    KILN_TRY(t, as(n, 1, dtype));
    KILN_TRY(g, u.regularized(norm));
    KILN_TRY(old_v, u.times(u.of[2], alpha));
    KILN_TRY(new_v, u.times(g, 1 - alpha));
    KILN_TRY(v, u.op(Op::add, old_v, new_v));
    KILN_TRY(square, u.op(Op::mul, g, g));
    KILN_TRY(old_h, u.times(u.of[3], beta));
    KILN_TRY(new_h, u.times(square, 1 - beta));
    KILN_TRY(h, u.op(Op::add, old_h, new_h));
    KILN_TRY(root, n.emit(Op::sqrt, {h}));
    KILN_TRY(safe, u.plus(root, epsilon));
    KILN_TRY(first, correction(n, t, alpha));
    KILN_TRY(second, correction(n, t, beta));
    KILN_TRY(second_root, n.emit(Op::sqrt, {second}));
    KILN_TRY(raised, u.op(Op::mul, rate, second_root));
    KILN_TRY(r, u.op(Op::div, raised, first));
    KILN_TRY(ratio, u.op(Op::div, v, safe));
    KILN_TRY(step, u.op(Op::mul, r, ratio));
    KILN_TRY(moved, u.op(Op::sub, u.of[0], step));
    KILN_TRY(x, u.times(moved, 1 - norm_post));
    results.push_back({x, v, h});
  }
  set_results(n, results);
  return Unit{};
}

Status import_momentum(OnnxNode &n) {
  double alpha = n.get_float("alpha", 0.9), beta = n.get_float("beta", 1), norm = n.get_float("norm_coefficient", 0);
  std::string mode = n.get_string("mode", "standard");
  if (mode != "standard" && mode != "nesterov")
    return Error{fmt::format("'mode' is '{}'; there are standard and nesterov", mode)};
  KILN_TRY(all, updates(n, 3));
  std::vector<std::vector<Val>> results;
  for (Update &u : all) {
    DType dtype = u.of[0].dtype();
    Emitter &e = n.emitter();
    KILN_TRY(rate, as(n, 0, dtype));
    KILN_TRY(t, as(n, 1, DType::i64));
    KILN_TRY(g, u.regularized(norm));
    KILN_TRY(started, n.emit(Op::gt, {t, e.constant(Tensor::scalar_i64(DType::i64, 0))}));
    KILN_TRY(weight, n.emit(Op::where, {started, e.scalar(dtype, beta), e.scalar(dtype, 1)}));
    KILN_TRY(new_v, u.op(Op::mul, g, weight));
    KILN_TRY(old_v, u.times(u.of[2], alpha));
    KILN_TRY(v, u.op(Op::add, old_v, new_v));
    Val direction = v;
    if (mode == "nesterov") {
      KILN_TRY(ahead, u.times(v, alpha));
      KILN_TRY(sum, u.op(Op::add, g, ahead));
      direction = sum;
    }
    KILN_TRY(step, u.op(Op::mul, rate, direction));
    KILN_TRY(x, u.op(Op::sub, u.of[0], step));
    results.push_back({x, v});
  }
  set_results(n, results);
  return Unit{};
}

} // namespace kiln::onnx
