// How fast scheduled kernels run on one thread of this machine, beside the multiply-add peak
// measured in the same rounds.
//
//   bench_kernels [--machine x86-64-v3] [--asm | --text] [name ...]
#include "passes/kernel/schedule.h"
#include "tests/bench/kernels/compiled.h"
#include "tests/kernel_passes/naive.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

using namespace kiln;

namespace {

struct Case {
  const char *name;
  Kernel kernel;
  double flops = 0; // 0: count elements and bytes instead
  double elements = 0;
};

Kernel chain(UnaryOp op, int64_t n) {
  return naive::elementwise({n}, op);
}

std::vector<Case> cases() {
  std::vector<Case> out;
  auto gemm = [&](const char *name, int64_t m, int64_t n, int64_t k) {
    out.push_back({name, naive::matmul(m, n, k, true), 2.0 * double(m) * double(n) * double(k), 0});
  };
  auto conv = [&](const char *name, Kernel k) {
    double flops = double(*k.flops.try_const());
    out.push_back({name, std::move(k), flops, 0});
  };
  auto rows = [&](const char *name, Kernel k, double n) {
    out.push_back({name, std::move(k), 0, n});
  };
  gemm("mm_128x768x768", 128, 768, 768);
  gemm("mm_128x3072x768", 128, 3072, 768);
  gemm("mm_128x768x3072", 128, 768, 3072);
  gemm("mm_197x192x768", 197, 192, 768);
  gemm("mm_49x256x256", 49, 256, 256);
  gemm("mm_1x1000x2048", 1, 1000, 2048);
  gemm("mm_1x768x768", 1, 768, 768);
  {
    Kernel k = naive::matmul(128, 128, 64, false);
    out.push_back({"mm_act_128x128x64", k, 2.0 * 128 * 128 * 64, 0});
    Kernel t = naive::matmul_transposed(12, 128, 128, 64);
    out.push_back({"mm_bt_12x128x128x64", t, 2.0 * 12 * 128 * 128 * 64, 0});
  }
  conv("conv3_64_56", naive::conv({1, 64, 64, 56, 56, 3, 3, 1, 1, true, 1}));
  conv("conv3_128_28", naive::conv({1, 128, 128, 28, 28, 3, 3, 1, 1, true, 1}));
  conv("conv3_128_56", naive::conv({1, 128, 128, 56, 56, 3, 3, 1, 1, true, 0}));
  conv("conv3_64_128_112_s2", naive::conv({1, 64, 128, 112, 112, 3, 3, 2, 1, true, 0}));
  conv("conv3_256_14", naive::conv({1, 256, 256, 14, 14, 3, 3, 1, 1, true, 1}));
  conv("conv3_512_7", naive::conv({1, 512, 512, 7, 7, 3, 3, 1, 1, true, 1}));
  conv("conv3_64_56_clamped", naive::conv({1, 64, 64, 56, 56, 3, 3, 1, 1, false, 0}));
  conv("conv3_128_56_s2", naive::conv({1, 128, 128, 56, 56, 3, 3, 2, 1, true, 0}));
  conv("conv1_256_64_56", naive::conv({1, 256, 64, 56, 56, 1, 1, 1, 0, true, 0}));
  conv("conv1_64_256_56", naive::conv({1, 64, 256, 56, 56, 1, 1, 1, 0, true, 0}));
  conv("conv1_1024_256_14", naive::conv({1, 1024, 256, 14, 14, 1, 1, 1, 0, true, 0}));
  conv("conv1_2048_512_7", naive::conv({1, 2048, 512, 7, 7, 1, 1, 1, 0, true, 0}));
  conv("conv7_3_64_224", naive::first_conv({1, 3, 64, 224, 224, 7, 7, 2, 3, true, 0}));
  conv("planar9_32_3_224", naive::planar_conv({1, 32, 3, 224, 224, 9, 9, 1, 4, true, 0}));
  conv("planar3_64_56", naive::planar_conv({1, 64, 64, 56, 56, 3, 3, 1, 1, false, 0}));
  conv("planar1_64_56_s2", naive::planar_conv({1, 64, 64, 56, 56, 1, 1, 2, 0, true, 0}));
  conv("dw3_96_56", naive::depthwise({1, 96, 96, 56, 56, 3, 3, 1, 1, true, 0}));
  conv("dw3_96_112_s2", naive::depthwise({1, 96, 96, 112, 112, 3, 3, 2, 1, true, 0}));
  conv("dw3_384_14", naive::depthwise({1, 384, 384, 14, 14, 3, 3, 1, 1, true, 0}));
  rows("pool3_64_112", naive::max_pool({1, 64, 64, 112, 112, 3, 3, 2, 1, false, 0}), 64 * 56 * 56);
  rows("softmax_1536x128", naive::softmax(1536, 128), 1536 * 128);
  rows("layernorm_128x768", naive::layer_norm(128, 768), 128 * 768);
  rows("gelu_98304", naive::gelu(98304), 98304);
  for (UnaryOp op : {UnaryOp::exp, UnaryOp::tanh, UnaryOp::erf, UnaryOp::sigmoid, UnaryOp::log,
                     UnaryOp::sin, UnaryOp::sqrt, UnaryOp::neg})
    rows(std::string(unary_name(op)).data() ? unary_name(op).data() : "", chain(op, 4096), 4096);
  rows("row_sum_128x4096", naive::row_sum(128, 4096, DType::f32, BinaryOp::add), 128 * 4096);
  rows("column_sum_4096x128", naive::column_sum(1, 4096, 128), 128 * 4096);
  rows("transpose_512x512", naive::transpose(512, 512), 512 * 512);
  return out;
}

// As many independent multiply-adds as hide the latency, in registers.
Kernel peak_kernel(const MachineDesc &m, int64_t rounds) {
  int lanes = m.lanes(DType::f32), tiles = 14;
  Symbol acc("acc"), i("i"), u("u"), r("r");
  Kernel k;
  k.name = "peak";
  k.buffers = {{Symbol("x"), DType::f32, lanes, Access::in, false},
               {Symbol("y"), DType::f32, lanes * tiles, Access::out, false}};
  Expr x = kb::load(Symbol("x"), DType::f32, 0, lanes),
       a = kb::load(acc, DType::f32, Dim::symbol(u), lanes);
  k.body = {kb::alloc(acc, DType::f32, tiles, lanes, MemorySpace::reg),
            kb::loop(u, 0, tiles, LoopKind::unroll, {kb::store(acc, Dim::symbol(u), x)}),
            kb::let(Symbol("v"), x),
            kb::loop(r, 0, rounds, LoopKind::serial,
                     {kb::loop(u, 0, tiles, LoopKind::unroll,
                               {kb::store(acc, Dim::symbol(u),
                                          kb::fma(a, kb::var(Symbol("v"), DType::f32, lanes),
                                                  kb::var(Symbol("v"), DType::f32, lanes)))})}),
            kb::loop(u, 0, tiles, LoopKind::unroll,
                     {kb::store(Symbol("y"), Dim::symbol(u) * Dim(lanes), a)})};
  return k;
}

double seconds_of(const std::function<void()> &f) {
  auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

struct Memory {
  std::vector<void *> pointers;
  explicit Memory(const Kernel &k) {
    for (const KernelBuffer &b : k.buffers) {
      size_t bytes = size_t(b.size.as_const() * dtype_bytes(b.dtype) + 128 + 63) / 64 * 64;
      void *p = std::aligned_alloc(64, bytes);
      float *f = static_cast<float *>(p);
      for (size_t i = 0; i < bytes / 4; ++i)
        f[i] = b.dtype == DType::f32 ? float((i * 2654435761u >> 20) % 1000) * 0.002f - 1.0f : 0;
      pointers.push_back(p);
    }
  }
  ~Memory() {
    for (void *p : pointers)
      std::free(p);
  }
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
};

} // namespace

int main(int argc, char **argv) {
  MachineDesc machine = host_machine();
  bool as_assembly = false, as_text = false;
  std::vector<std::string> only;
  for (int i = 1; i < argc; ++i) {
    std::string a = argv[i];
    if (a == "--machine" && i + 1 < argc) {
      auto found = find_machine(argv[++i]);
      if (!found)
        return 2;
      machine = *found;
    } else if (a == "--asm") {
      as_assembly = true;
    } else if (a == "--text") {
      as_text = true;
    } else {
      only.push_back(a);
    }
  }
  constexpr int64_t kPeakRounds = 20000;
  Kernel peak = peak_kernel(machine, kPeakRounds);
  double peak_flops = double(kPeakRounds) * 14 * machine.lanes(DType::f32) * 2;
  auto peak_code = bench::Compiled::as_written(peak, machine);
  if (!peak_code.error().empty()) {
    std::printf("peak: %s\n", peak_code.error().c_str());
    return 1;
  }
  Memory peak_memory(peak);
  for (const Case &c : cases()) {
    if (!only.empty() && std::none_of(only.begin(), only.end(), [&](const std::string &s) {
          return std::string(c.name).find(s) != std::string::npos;
        }))
      continue;
    if (as_text) {
      Kernel k = c.kernel;
      schedule(k, machine);
      std::printf("%s\n", print_kernel(k).c_str());
      continue;
    }
    if (as_assembly) {
      std::printf("%s\n", bench::assembly(c.kernel, machine).c_str());
      continue;
    }
    bench::Compiled code(c.kernel, machine);
    if (!code.error().empty()) {
      std::printf("%-22s %s\n", c.name, code.error().c_str());
      continue;
    }
    Memory memory(c.kernel);
    code.run(memory.pointers);
    double once = seconds_of([&] { code.run(memory.pointers); });
    int repeats = std::clamp(int(0.01 / std::max(once, 1e-7)), 1, 20000);
    double best = 1e9, best_peak = 1e9, total = 0;
    constexpr int kRounds = 12;
    for (int round = 0; round < kRounds; ++round) {
      best_peak = std::min(best_peak, seconds_of([&] { peak_code.run(peak_memory.pointers); }));
      double t = seconds_of([&] {
                   for (int i = 0; i < repeats; ++i)
                     code.run(memory.pointers);
                 }) /
                 repeats;
      best = std::min(best, t);
      total += t;
    }
    double peak_rate = peak_flops / best_peak;
    if (c.flops > 0)
      std::printf("%-22s %9.1f us (mean %9.1f)  %6.1f GF  %5.1f %% of %.1f\n", c.name, best * 1e6,
                  total / kRounds * 1e6, c.flops / best * 1e-9, 100 * c.flops / best / peak_rate,
                  peak_rate * 1e-9);
    else
      std::printf("%-22s %9.2f us (mean %9.2f)  %6.3f ns an element\n", c.name, best * 1e6,
                  total / kRounds * 1e6, best * 1e9 / c.elements);
    std::fflush(stdout);
  }
  return 0;
}
