// Every function that expand_math replaces stays within the bound that math_bounds.def states.
//   kernel_math_test            a few thousand values a function, on the interpreter
//   kernel_math_test --report   the errors it found, and where
#include "ir/kernel/build.h"
#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"
#include "tests/kernel_passes/run.h"

#include "ir/kernel/interpret.h"

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>

using namespace kiln;

namespace {

long double exact(UnaryOp op, long double x) {
  switch (op) {
  case UnaryOp::exp:
    return std::exp(x);
  case UnaryOp::expm1:
    return std::expm1(x);
  case UnaryOp::log:
    return std::log(x);
  case UnaryOp::log1p:
    return std::log1p(x);
  case UnaryOp::sin:
    return std::sin(x);
  case UnaryOp::cos:
    return std::cos(x);
  case UnaryOp::tan:
    return std::tan(x);
  case UnaryOp::asin:
    return std::asin(x);
  case UnaryOp::acos:
    return std::acos(x);
  case UnaryOp::atan:
    return std::atan(x);
  case UnaryOp::sinh:
    return std::sinh(x);
  case UnaryOp::cosh:
    return std::cosh(x);
  case UnaryOp::tanh:
    return std::tanh(x);
  case UnaryOp::asinh:
    return std::asinh(x);
  case UnaryOp::acosh:
    return std::acosh(x);
  case UnaryOp::atanh:
    return std::atanh(x);
  case UnaryOp::erf:
    return std::erf(x);
  default:
    return 1 / (1 + std::exp(-x));
  }
}

// Units in the last place of T between got and the exact value.
template <typename T>
double ulps(T got, long double want) {
  T rounded = T(want);
  if (std::isnan(want) || std::isnan(got))
    return std::isnan(want) == std::isnan(got) ? 0 : 1e30;
  if (std::isinf(rounded) || std::isinf(got))
    return rounded == got                                                           ? 0
           : std::isinf(rounded) && std::fabs(got) == std::numeric_limits<T>::max() ? 1
                                                                                    : 1e30;
  T tiny = std::numeric_limits<T>::min();
  if (std::fabs(rounded) <= tiny && std::fabs(got) <= tiny)
    return 0;
  T a = std::fabs(rounded);
  long double unit =
      (long double)(std::nextafter(a, std::numeric_limits<T>::infinity())) - (long double)(a);
  return double(std::fabs((long double)(got)-want) / unit);
}

Kernel function_kernel(UnaryOp op, DType dtype, int64_t n) {
  Kernel k;
  k.name = unary_name(op);
  k.buffers = {{Symbol("x"), dtype, n, Access::in, false},
               {Symbol("y"), dtype, n, Access::out, false}};
  Dim i = Dim::symbol("i");
  k.body = {kb::loop(Symbol("i"), 0, n, LoopKind::parallel,
                     {kb::store(Symbol("y"), i, kb::unary(op, kb::load(Symbol("x"), dtype, i)))})};
  return k;
}

std::vector<float> inputs_of(float) {
  std::vector<float> out;
  for (uint64_t u = 0; u < (uint64_t(1) << 32); u += 300007)
    out.push_back(std::bit_cast<float>(uint32_t(u)));
  return out;
}
std::vector<double> inputs_of(double) {
  std::vector<double> out;
  std::mt19937_64 random(3);
  for (int i = 0; i < 6000; ++i)
    out.push_back(std::bit_cast<double>(random()));
  return out;
}

template <typename T>
bool measure(UnaryOp op, DType dtype, double bound, bool report) {
  std::vector<T> x = inputs_of(T());
  for (T v : {T(0), T(-0.0), T(1), T(-1), std::numeric_limits<T>::infinity(),
              -std::numeric_limits<T>::infinity(), std::numeric_limits<T>::quiet_NaN(),
              std::numeric_limits<T>::min(), std::numeric_limits<T>::denorm_min(),
              std::numeric_limits<T>::max(), T(88.5), T(-87.2), T(709.5), T(0.5), T(1e-8), T(11),
              T(1048576), T(2e6)})
    x.push_back(v);
  std::mt19937 random(5);
  std::uniform_real_distribution<double> near(-1.2, 1.2), wide(-100, 100);
  for (int i = 0; i < 4000; ++i)
    x.push_back(T(i % 2 ? near(random) : wide(random)));
  Kernel k = function_kernel(op, dtype, int64_t(x.size()));
  schedule(k, *find_machine("x86-64-v4"));
  bool clean = true;
  visit_exprs(k.body, [&](const Expr &e) {
    clean = clean && !(e.is(Expr::Kind::unary) && !is_primitive(e.unary));
  });
  std::vector<T> y(x.size());
  std::vector<std::span<std::byte>> views{std::as_writable_bytes(std::span(x)),
                                          std::as_writable_bytes(std::span(y))};
  auto status = interpret_kernel(k, views, {});
  if (!status.ok() || !clean) {
    std::printf("%s: %s\n", k.name.c_str(),
                status.ok() ? "not expanded" : status.error().message.c_str());
    return false;
  }
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < x.size(); ++i)
    if (double e = ulps(y[i], exact(op, x[i])); e > worst) {
      worst = e;
      at = i;
    }
  bool ok = worst <= bound;
  if (report || !ok)
    std::printf("%-8s %s  %8.3g ulp (bound %g) at x = %.17g: %.17g, exactly %.17Lg\n",
                k.name.c_str(), std::string(dtype_name(dtype)).c_str(), worst, bound, double(x[at]),
                double(y[at]), exact(op, x[at]));
  return ok;
}

// pow and atan2 at the corners where IEEE 754 says what they are, and between.
template <typename T>
bool measure_binary(BinaryOp op, DType dtype, double bound, bool report) {
  constexpr T kInf = std::numeric_limits<T>::infinity();
  std::vector<T> corners{0,       T(-0.0), 1,       -1,    2,
                         -2,      T(0.5),  T(-0.5), 3,     -3,
                         T(1.5),  T(-2.5), kInf,    -kInf, std::numeric_limits<T>::quiet_NaN(),
                         T(1e-3), 100};
  std::vector<T> a, b;
  for (T p : corners)
    for (T q : corners) {
      a.push_back(p);
      b.push_back(q);
    }
  std::mt19937 random(9);
  std::uniform_real_distribution<double> base(0, 20), exponent(-20, 20);
  for (int i = 0; i < 3000; ++i) {
    a.push_back(T(base(random)));
    b.push_back(T(exponent(random)));
  }
  // Powers of any size: an error of the logarithm counts most where they are near the limits.
  double limit = std::log(double(std::numeric_limits<T>::max()));
  std::uniform_real_distribution<double> log_base(-30, 30), log_power(-limit, limit);
  for (int i = 0; op == BinaryOp::pow && i < 3000; ++i) {
    a.push_back(T(std::exp(log_base(random))));
    b.push_back(T(log_power(random) / std::log(double(a.back()))));
  }
  for (T big : {T(1e30), T(3e38), T(12345678), std::numeric_limits<T>::max()})
    for (T small : {T(3), T(0.1), T(1e-30), T(7.25), std::numeric_limits<T>::min()}) {
      a.push_back(op == BinaryOp::rem ? big : T(1.25));
      b.push_back(small);
    }
  Kernel k;
  int64_t n = int64_t(a.size());
  k.name = binary_name(op);
  k.buffers = {{Symbol("a"), dtype, n, Access::in, false},
               {Symbol("b"), dtype, n, Access::in, false},
               {Symbol("y"), dtype, n, Access::out, false}};
  Dim i = Dim::symbol("i");
  k.body = {kb::loop(Symbol("i"), 0, n, LoopKind::parallel,
                     {kb::store(Symbol("y"), i,
                                kb::binary(op, kb::load(Symbol("a"), dtype, i),
                                           kb::load(Symbol("b"), dtype, i)))})};
  schedule(k, *find_machine("x86-64-v4"));
  std::vector<T> y(a.size());
  std::vector<std::span<std::byte>> views{std::as_writable_bytes(std::span(a)),
                                          std::as_writable_bytes(std::span(b)),
                                          std::as_writable_bytes(std::span(y))};
  auto status = interpret_kernel(k, views, {});
  if (!status.ok())
    return false;
  double worst = 0;
  size_t at = 0;
  auto want = [&](size_t j) {
    long double p = a[j], q = b[j];
    return op == BinaryOp::pow   ? std::pow(p, q)
           : op == BinaryOp::rem ? std::fmod(p, q)
                                 : std::atan2(p, q);
  };
  for (size_t j = 0; j < a.size(); ++j)
    if (double e = ulps(y[j], want(j)); e > worst) {
      worst = e;
      at = j;
    }
  bool ok = worst <= bound;
  if (report || !ok)
    std::printf("%-8s %s  %8.3g ulp (bound %g) at %.17g, %.17g: %.17g, exactly %.17Lg\n",
                k.name.c_str(), std::string(dtype_name(dtype)).c_str(), worst, bound, double(a[at]),
                double(b[at]), double(y[at]), want(at));
  return ok;
}

// pow(2, min(x, 0) * log2(e)), the weights of a softmax, beside exp.
bool measure_weights(bool report) {
  constexpr double kLog2e = 1.4426950408889634;
  std::vector<float> x{0, -0.0f, 1, INFINITY, -INFINITY, NAN, std::bit_cast<float>(0xffc00001u), -87.3f, -88, -1e4f, -3e38f};
  for (int i = 0; i < 40000; ++i)
    x.push_back(-float(i) * 0.00219f);
  int64_t n = int64_t(x.size());
  Kernel k;
  k.name = "weights";
  k.buffers = {{Symbol("x"), DType::f32, n, Access::in, false}, {Symbol("y"), DType::f32, n, Access::out, false}};
  Dim i = Dim::symbol("i");
  Expr exponent = kb::mul(kb::min(kb::load(Symbol("x"), DType::f32, i), kb::number(DType::f32, 0)),
                          kb::number(DType::f32, kLog2e));
  Expr power = kb::binary(BinaryOp::pow, kb::number(DType::f32, 2), std::move(exponent));
  k.body = {kb::loop(Symbol("i"), 0, n, LoopKind::parallel, {kb::store(Symbol("y"), i, std::move(power))})};
  schedule(k, *find_machine("x86-64-v4"));
  bool narrow = true;
  visit_exprs(k.body, [&](const Expr &e) { narrow = narrow && e.dtype != DType::f64; });
  std::vector<float> y(x.size());
  std::vector<std::span<std::byte>> views{std::as_writable_bytes(std::span(x)), std::as_writable_bytes(std::span(y))};
  if (!interpret_kernel(k, views, {}).ok() || !narrow)
    return false;
  bool ok = true;
  double most = 0;
  for (size_t j = 0; j < x.size(); ++j) {
    long double want = std::exp((long double)(std::min(x[j], 0.0f)));
    if (std::isnan(x[j]) || std::isnan(y[j])) {
      ok = ok && std::isnan(x[j]) && std::isnan(y[j]);
      continue;
    }
    double bound = double(want) * (1.8e-7 - 4e-8 * kLog2e * std::clamp(double(x[j]), -90.0, 0.0)), off = std::fabs(double(y[j] - want));
    most = std::max(most, off);
    if (off > bound && want > 0x1p-126L) {
      std::printf("weights: %.9g at %.9g, exactly %.9Lg\n", double(y[j]), double(x[j]), want);
      ok = false;
    }
  }
  if (report)
    std::printf("weights  f32  %8.3g\n", most);
  return ok;
}

} // namespace

int main(int argc, char **argv) {
  bool report = argc > 1 && std::strcmp(argv[1], "--report") == 0;
  bool ok = true;
#define KILN_MATH(name, f32_bound, f64_bound)                                                      \
  ok &= measure<float>(UnaryOp::name, DType::f32, f32_bound, report);                              \
  ok &= measure<double>(UnaryOp::name, DType::f64, f64_bound, report);
#define KILN_MATH_BINARY(name, f32_bound, f64_bound)                                               \
  ok &= measure_binary<float>(BinaryOp::name, DType::f32, f32_bound, report);                      \
  ok &= measure_binary<double>(BinaryOp::name, DType::f64, f64_bound, report);
#include "passes/kernel/math_bounds.def"
  ok &= measure_weights(report);
  return ok ? 0 : 1;
}
