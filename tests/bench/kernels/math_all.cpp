// The errors of the f32 functions over every float, or over one of `stride`, in units in the last place:
//
//   math_all [--stride N] [function ...]
//
// It takes minutes a function; kernel_math_test measures a sample of the same. Status 1 where a bound
// of math_bounds.def does not hold.
#include "ir/kernel/build.h"
#include "tests/bench/kernels/compiled.h"

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>

using namespace kiln;

namespace {

struct Function {
  UnaryOp op;
  double (*exact)(double);
  double bound;
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double bound_of(UnaryOp op) {
#define KILN_MATH(name, f32_bound, f64_bound)                                                      \
  if (op == UnaryOp::name)                                                                         \
    return f32_bound;
#include "passes/kernel/math_bounds.def"
  return 0;
}

double ulps(float got, double want) {
  constexpr float kTiny = std::numeric_limits<float>::min();
  float rounded = float(want);
  if (std::isnan(want) || std::isnan(got))
    return std::isnan(want) == std::isnan(got) ? 0 : 1e30;
  if (std::isinf(rounded) || std::isinf(got))
    return rounded == got ? 0 : 1e30;
  if (std::fabs(rounded) <= kTiny && std::fabs(got) <= kTiny)
    return 0;
  float a = std::fabs(rounded);
  double unit = double(std::nextafter(a, std::numeric_limits<float>::infinity())) - double(a);
  return std::fabs(double(got) - want) / unit;
}

bool measure(const Function &f, uint64_t stride) {
  constexpr int64_t kChunk = 1 << 16;
  Kernel k;
  k.name = unary_name(f.op);
  Dim i = Dim::symbol("i");
  k.buffers = {{Symbol("x"), DType::f32, kChunk, Access::in, false},
               {Symbol("y"), DType::f32, kChunk, Access::out, false}};
  k.body = {kb::loop(
      Symbol("i"), 0, kChunk, LoopKind::parallel,
      {kb::store(Symbol("y"), i, kb::unary(f.op, kb::load(Symbol("x"), DType::f32, i)))})};
  bench::Compiled code(k, host_machine());
  if (!code.error().empty()) {
    std::printf("%s: %s\n", k.name.c_str(), code.error().c_str());
    return false;
  }
  struct alignas(64) Chunk {
    float values[kChunk];
  };
  auto x = std::make_unique<Chunk>(), y = std::make_unique<Chunk>();
  double worst = 0;
  float at = 0, got = 0;
  uint64_t next = 0;
  while (next < (uint64_t(1) << 32)) {
    int64_t n = 0;
    for (; n < kChunk && next < (uint64_t(1) << 32); ++n, next += stride)
      x->values[n] = std::bit_cast<float>(uint32_t(next));
    code.run({x->values, y->values});
    for (int64_t j = 0; j < n; ++j) {
      float v = x->values[j];
      if (std::fpclassify(v) == FP_SUBNORMAL)
        continue; // counts as zero
      if (double e = ulps(y->values[j], f.exact(v)); e > worst) {
        worst = e;
        at = v;
        got = y->values[j];
      }
    }
  }
  std::printf("%-8s %8.3g ulp (bound %g) at %.9g: %.9g, exactly %.17g\n", k.name.c_str(), worst,
              f.bound, double(at), double(got), f.exact(at));
  return worst <= f.bound;
}

} // namespace

int main(int argc, char **argv) {
  const Function functions[] = {
      {UnaryOp::exp, std::exp, 0},     {UnaryOp::expm1, std::expm1, 0}, {UnaryOp::log, std::log, 0},
      {UnaryOp::tanh, std::tanh, 0},   {UnaryOp::erf, std::erf, 0},     {UnaryOp::sigmoid, sigmoid, 0},
      {UnaryOp::sin, std::sin, 0},     {UnaryOp::cos, std::cos, 0},     {UnaryOp::log1p, std::log1p, 0},
      {UnaryOp::atan, std::atan, 0},   {UnaryOp::sinh, std::sinh, 0},   {UnaryOp::tan, std::tan, 0},
  };
  uint64_t stride = 1;
  std::string_view only;
  for (int i = 1; i < argc; ++i) {
    std::string_view a = argv[i];
    if (a == "--stride" && i + 1 < argc)
      stride = std::max<uint64_t>(1, std::strtoull(argv[++i], nullptr, 10));
    else
      only = a;
  }
  bool ok = true;
  for (Function f : functions) {
    f.bound = bound_of(f.op);
    if (only.empty() || only == unary_name(f.op))
      ok &= measure(f, stride);
  }
  return ok ? 0 : 1;
}
