// Products of f32 as three of tf32 (codegen/cuda/split_product.h): which GPUs take them, how exact they are beside fused multiply-adds, and
// what becomes of numbers that have no parts. The shim's tensor cores cut sums off as real ones do (tests/cuda_shim/tensor_floats.h).
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "codegen/cuda/tile_shape.h"
#include "tests/random.h"
#include "tests/targets/load.h"
#include "tests/targets/targets.h"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace kiln;
using namespace kiln::test;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN(), kMost = std::numeric_limits<float>::max();

// The GPU's description under a name that the fake driver loads.
GpuMachine described(const char *name, int multiprocessors = 0) {
  GpuMachine machine = *find_gpu(name), loaded = *find_gpu("compute_80");
  machine.name = loaded.name;
  machine.is_ptx = loaded.is_ptx;
  machine.warpgroup_rate = 0;
  if (multiprocessors > 0)
    machine.multiprocessors = multiprocessors;
  return machine;
}

struct Matrices {
  int64_t m, n, k;
  std::vector<float> a, b; // [m, k] and [k, n]
};

Matrices random_matrices(int64_t m, int64_t n, int64_t k, double least, uint64_t seed) {
  Random random(seed);
  Matrices out{m, n, k, std::vector<float>(size_t(m * k)), std::vector<float>(size_t(k * n))};
  for (std::vector<float> *v : {&out.a, &out.b})
    for (float &x : *v)
      x = float(random.uniform(least, 1));
  return out;
}

Tensor tensor_of(const std::vector<float> &values, std::vector<int64_t> dims) {
  Tensor t(DType::f32, std::move(dims));
  for (int64_t i = 0; i < t.count(); ++i)
    t.set_f64(i, values[size_t(i)]);
  return t;
}

std::vector<float> multiply(const Matrices &p, const GpuMachine &machine) {
  std::string text = "export func f(a: f32[" + std::to_string(p.m) + ", " + std::to_string(p.k) + "], b: f32[" + std::to_string(p.k) + ", " + std::to_string(p.n) + "]) -> f32[" +
                     std::to_string(p.m) + ", " + std::to_string(p.n) + "] { return a @ b }";
  auto loaded = cuda_target(machine)->load(load(text));
  INFO((loaded ? "" : loaded.error().message));
  REQUIRE(loaded.ok());
  auto got = (*loaded)->run(0, {tensor_of(p.a, {p.m, p.k}), tensor_of(p.b, {p.k, p.n})});
  INFO((got ? "" : got.error().message));
  REQUIRE(got.ok());
  std::vector<float> out(size_t(p.m * p.n));
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = float((*got)[0].at_f64(int64_t(i)));
  return out;
}

std::vector<float> by_threads(const Matrices &p) {
  std::vector<float> out(size_t(p.m * p.n));
  for (int64_t i = 0; i < p.m; ++i)
    for (int64_t j = 0; j < p.n; ++j)
      for (int64_t k = 0; k < p.k; ++k)
        out[size_t(i * p.n + j)] = std::fmaf(p.a[size_t(i * p.k + k)], p.b[size_t(k * p.n + j)], out[size_t(i * p.n + j)]);
  return out;
}

// Of the results, beside the sum of the products' absolute values, in halves of f32's last place.
struct Inexact {
  double most = 0, rms = 0;
};
Inexact error_of(const Matrices &p, const std::vector<float> &got) {
  Inexact out;
  for (int64_t i = 0; i < p.m; ++i)
    for (int64_t j = 0; j < p.n; ++j) {
      double sum = 0, scale = 0;
      for (int64_t k = 0; k < p.k; ++k) {
        double term = double(p.a[size_t(i * p.k + k)]) * double(p.b[size_t(k * p.n + j)]);
        sum += term;
        scale += std::abs(term);
      }
      double error = std::abs(double(got[size_t(i * p.n + j)]) - sum) / scale * 0x1p24;
      out.most = std::isnan(error) ? INFINITY : std::max(out.most, error);
      out.rms += error * error / double(p.m * p.n);
    }
  out.rms = std::sqrt(out.rms);
  return out;
}

bool is_same(float a, float b) { return std::isnan(a) ? std::isnan(b) : a == b; }

cuda::TileUnit unit_on(const char *name, bool may_split = true) {
  cuda::TileProblem problem{1024, 1024, 1, 1024};
  problem.is_async = true;
  problem.may_split = may_split;
  return choose_tile(problem, *find_gpu(name)).unit;
}

} // namespace

TEST_CASE("f32 is split where tensor cores are three times as fast as threads") {
  for (const char *name : {"sm_80", "sm_90", "sm_90a", "sm_100"}) {
    CHECK(unit_on(name) == cuda::TileUnit::split);
    CHECK(unit_on(name, false) == cuda::TileUnit::scalar);
  }
  for (const char *name : {"sm_86", "sm_89", "compute_80"})
    CHECK(unit_on(name) == cuda::TileUnit::scalar);
}

TEST_CASE("split products are as exact as fused multiply-adds") {
  for (double least : {-1.0, 0.0})
    for (int64_t k : {64, 256, 1024, 2056}) {
      // Few multiprocessors keep the sum whole.
      Matrices p = random_matrices(64, 64, k, least, uint64_t(k));
      Inexact threads = error_of(p, by_threads(p)), split = error_of(p, multiply(p, described("sm_80", 1)));
      INFO("k " << k << " from " << least << ": " << split.most << " and " << split.rms << " beside " << threads.most << " and " << threads.rms);
      CHECK(split.rms <= threads.rms);
      CHECK(split.most <= threads.most);
    }
}

TEST_CASE("no number, infinities and numbers near the largest") {
  Matrices p = random_matrices(72, 80, 40, -1, 7);
  auto a = [&](int64_t i, int64_t k) -> float & { return p.a[size_t(i * p.k + k)]; };
  auto b = [&](int64_t k, int64_t j) -> float & { return p.b[size_t(k * p.n + j)]; };
  a(3, 5) = kInfinity;
  a(9, 0) = -kInfinity;
  a(9, 1) = kInfinity;
  a(20, 39) = kNan;
  a(21, 3) = kMost;                        // rounds to infinity, but its products are finite
  a(22, 3) = -kMost;
  b(3, 11) = 0;
  b(7, 64) = -kInfinity;
  b(5, 12) = 0;                            // times an infinity: no number
  b(30, 79) = kNan;
  for (int64_t k = 0; k < p.k; ++k)        // finite on the way, whatever the order of the parts
    a(50, k) = k % 2 == 0 ? kMost / 64 : -kMost / 64;
  a(71, 39) = kMost, b(39, 70) = kMost;    // a product that is infinite
  std::vector<float> want = by_threads(p);
  for (int multiprocessors : {1, 108}) {
    std::vector<float> got = multiply(p, described("sm_80", multiprocessors));
    int64_t odd = 0;
    for (int64_t i = 0; i < p.m; ++i)
      for (int64_t j = 0; j < p.n; ++j) {
        float w = want[size_t(i * p.n + j)], g = got[size_t(i * p.n + j)];
        INFO(i << ", " << j << ": " << g << " beside " << w);
        if (!std::isfinite(w) || i == 21 || i == 22) {
          CHECK(is_same(g, w));
          ++odd;
        } else if (i != 50) {
          CHECK(std::abs(g - w) <= 1e-5f);
        } else {
          CHECK(std::abs(g - w) <= 1e-5f * kMost);
        }
      }
    CHECK(odd > 4 * p.n);
  }
}

TEST_CASE("denormals and numbers whose small parts are lost") {
  // Of numbers above 2^-114 both parts are exact; of less the small one is cut off at 2^-136.
  for (double scale : {0x1p-110, 0x1p-126, 0x1p-130}) {
    Matrices p = random_matrices(64, 64, 64, -1, 11);
    for (float &x : p.a)
      x = float(x * scale);
    for (float &x : p.b)
      x = float(x * 0x1p20);
    std::vector<float> got = multiply(p, described("sm_80", 1)), want = by_threads(p);
    double bound = 64 * 0x1p-136 * 0x1p20 + 1e-5 * scale * 0x1p20;
    for (size_t i = 0; i < got.size(); ++i) {
      INFO(got[i] << " beside " << want[i]);
      CHECK(std::abs(double(got[i]) - double(want[i])) <= bound);
    }
  }
}

TEST_CASE("split products of every layout, cut into slices and not") {
  const std::string text = R"(
export func plain(a: f32[256, 96], b: f32[96, 256], c: f32[256]) -> f32[256, 256] { return relu(a @ b + c) }
export func right(a: f32[130, 72], b: f32[88, 72], c: f32[88]) -> f32[130, 88] { return a @ transpose(b, 0, 1) + c }
export func left(a: f32[80, 136], b: f32[80, 72]) -> f32[136, 72] { return transpose(a, 0, 1) @ b }
export func odd(a: f32[67, 35], b: f32[35, 71]) -> f32[67, 71] { return a @ b }
export func batch(a: f32[3, 40, 24], b: f32[3, 24, 48]) -> f32[3, 40, 48] { return a @ b }
export func maps(x: f32[2, 16, 12, 12], w: f32[32, 16, 3, 3]) -> f32[2, 32, 12, 12] { return relu(conv2d(x, w, padding=1)) }
export func computed(a: f32[96, 64], b: f32[64, 80]) -> f32[96, 80] { return (a * 2.0 - 1.0) @ b }
export func mixed(a: f32[96, 64], b: bf16[64, 80]) -> f32[96, 80] { return a @ b.to(f32) }
export func slices(a: f32[32, 2048], b: f32[2048, 64], c: f32[64]) -> f32[32, 64] { return relu(a @ b + c) }
)";
  Module module = load(text);
  auto on_host = native_targets().back()->load(module);
  REQUIRE(on_host.ok());
  for (const GpuMachine &machine : {described("sm_80", 1), described("sm_80"), described("sm_90")}) {
    auto on_device = cuda_target(machine)->load(module);
    INFO((on_device ? "" : on_device.error().message));
    REQUIRE(on_device.ok());
    for (size_t f = 0; f < module.functions.size(); ++f) {
      const Function &function = module.functions[f];
      Random random(f + 1);
      std::vector<Tensor> inputs;
      for (ValueId v : function.body.args) {
        const TensorType &type = function.type(v);
        std::vector<int64_t> dims;
        for (const Dim &d : type.shape)
          dims.push_back(d.as_const());
        Tensor t(type.dtype, dims);
        for (int64_t i = 0; i < t.count(); ++i)
          t.set_f64(i, random.uniform(-1, 1));
        inputs.push_back(std::move(t));
      }
      auto want = (*on_host)->run(f, inputs), got = (*on_device)->run(f, inputs);
      INFO(function.name << " on " << machine.multiprocessors << " multiprocessors" << (got ? "" : got.error().message));
      REQUIRE(want.ok());
      REQUIRE(got.ok());
      double most = 0, worst = 0;
      for (int64_t i = 0; i < (*want)[0].count(); ++i) {
        most = std::max(most, std::abs((*want)[0].at_f64(i)));
        double d = std::abs((*got)[0].at_f64(i) - (*want)[0].at_f64(i));
        worst = std::isnan(d) ? INFINITY : std::max(worst, d);
      }
      CHECK(worst <= 2e-6 * most);
    }
  }
}
