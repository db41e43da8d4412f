// The forms of CUDA kernels at sizes that the op table does not reach: tiles that are full and tiles that are not, loops
// cut into vectors with and without a tail, for descriptions of a GPU that ask for small tiles and for large ones, against
// the processor's results.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "codegen/compile.h"
#include "codegen/cuda/cuda.h"
#include "codegen/cuda/warpgroup.h"
#include "tests/random.h"
#include "tests/targets/load.h"
#include "tests/targets/lowered.h"
#include "tests/targets/targets.h"
#include "tests/temp_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>

using namespace kiln;
using namespace kiln::test;

namespace {

// The greatest difference, beside the greatest value.
double difference(const Tensor &got, const Tensor &want) {
  if (got.type() != want.type())
    return INFINITY;
  double most = 1e-30, worst = 0;
  for (int64_t i = 0; i < want.count(); ++i) {
    most = std::max(most, std::abs(want.at_f64(i)));
    double d = std::abs(got.at_f64(i) - want.at_f64(i));
    worst = std::isnan(d) ? INFINITY : std::max(worst, d);
  }
  return worst / most;
}

GpuMachine gpu_of(int multiprocessors) {
  GpuMachine machine = *find_gpu("compute_80");
  machine.multiprocessors = multiprocessors;
  return machine;
}

// A GPU that would rather have four warps multiply together wherever they can; `copies`: tensors are copied by threads.
GpuMachine warpgroups_of(int multiprocessors, bool rounds_products = false, bool copies = false) {
  GpuMachine machine = *find_gpu(copies ? "sm_90a-copies" : "sm_90a"), described = gpu_of(multiprocessors);
  machine.name = described.name; // what the fake driver loads
  machine.is_ptx = described.is_ptx;
  machine.multiprocessors = multiprocessors;
  machine.tile_rate = 1;
  machine.rounds_products = rounds_products;
  return machine;
}

std::vector<Tensor> inputs_of(const Function &function, uint64_t seed, int64_t dim) {
  Random random(seed);
  std::vector<Tensor> inputs;
  for (ValueId v : function.body.args) {
    const TensorType &type = function.type(v);
    std::vector<int64_t> dims;
    for (const Dim &d : type.shape)
      dims.push_back(d.is_const() ? d.as_const() : dim);
    Tensor t(type.dtype, dims);
    for (int64_t i = 0; i < t.count(); ++i)
      t.set_f64(i, is_float(type.dtype) ? random.uniform(-1, 1) : double(int64_t(random.uniform(0, 200))) - (is_unsigned_int(type.dtype) ? 0 : 100));
    inputs.push_back(std::move(t));
  }
  return inputs;
}

// Every exported function, with numbers between -1 and 1, or small integers. `dim`: what symbols stand for.
void check(const std::string &text, double tolerance, const std::vector<GpuMachine> &machines, int64_t dim = 0) {
  Module module = load(text);
  auto native = std::move(native_targets().back());
  auto on_host = native->load(module);
  REQUIRE(on_host.ok());
  for (const GpuMachine &machine : machines) {
    auto on_device = cuda_target(machine)->load(module);
    INFO((on_device ? "" : on_device.error().message));
    REQUIRE(on_device.ok());
    for (size_t f = 0; f < module.functions.size(); ++f) {
      const Function &function = module.functions[f];
      if (!function.exported)
        continue;
      std::vector<Tensor> inputs = inputs_of(function, f + 1, dim);
      auto want = (*on_host)->run(f, inputs), got = (*on_device)->run(f, inputs);
      INFO(function.name << " on " << machine.multiprocessors << " multiprocessors" << (got ? "" : got.error().message));
      REQUIRE(want.ok());
      REQUIRE(got.ok());
      for (size_t i = 0; i < want->size(); ++i)
        CHECK(difference((*got)[i], (*want)[i]) <= tolerance);
    }
  }
}

// How the first blocks of all kernels of a module use memory (tests/cuda_shim/trace.h).
struct Accesses {
  double shared = 0, shared_fewest = 0, global = 0, global_fewest = 0;
  size_t races = 0;
};
Accesses accesses_of(const std::string &text, const GpuMachine &machine) {
  TempFolder folder;
  std::string file = folder / "trace.txt";
  setenv("KILN_SHIM_TRACE", file.c_str(), 1);
  Module module = load(text);
  auto loaded = cuda_target(machine)->load(module);
  REQUIRE(loaded.ok());
  for (size_t f = 0; f < module.functions.size(); ++f)
    REQUIRE((*loaded)->run(f, inputs_of(module.functions[f], f + 1, 0)).ok());
  unsetenv("KILN_SHIM_TRACE");
  Accesses out;
  std::ifstream lines(file);
  std::string name, word;
  double shared, shared_fewest, global, global_fewest;
  for (size_t races; lines >> name >> word >> shared >> shared_fewest >> word >> global >> global_fewest >> word >> races;) {
    out.shared += shared, out.shared_fewest += shared_fewest;
    out.global += global, out.global_fewest += global_fewest;
    out.races += races;
  }
  REQUIRE(out.global > 0);
  return out;
}

} // namespace

TEST_CASE("elementwise chains and rows, by vectors and one by one") {
  check(R"(
export func contiguous(x: f32[7, 11, 13], y: f32[7, 11, 13]) -> f32[7, 11, 13] { return relu(x + y) * x }
export func bias(x: bf16[33, 128], y: f32[128]) -> f32[33, 128] { return x.to(f32) * y }
export func widths(x: u8[33, 128], y: f16[128]) -> f16[33, 128] { return x.to(f16) * y }
export func odd(x: f32[33, 126], y: f32[126]) -> f32[33, 126] { return x - y }
export func turned(x: f32[48, 64]) -> f32[64, 48] { return transpose(x, 0, 1) + 1.0 }
export func soft(x: f32[9, 1000]) -> f32[9, 1000] { return softmax(x * 3.0, axis=1) }
export func soft_odd(x: f32[9, 1001]) -> f32[9, 1001] { return softmax(x, dim=1) }
export func total(x: f32[64, 130]) -> f32[] { return sum(x * x) }
)",
        0.01, {gpu_of(1), gpu_of(84)});
  check("export func any(x: f32[N], y: f32[N]) -> f32[N] { return x * y + 1.0 }", 1e-6, {gpu_of(84)}, 1003);
}

TEST_CASE("products of f32 by tiles") {
  check(R"(
export func plain(a: f32[256, 64], b: f32[64, 256]) -> f32[256, 256] { return a @ b }
export func right(a: f32[130, 36], b: f32[72, 36], c: f32[72]) -> f32[130, 72] { return relu(a @ transpose(b, 0, 1) + c) }
export func left(a: f32[40, 132], b: f32[40, 68]) -> f32[132, 68] { return transpose(a, 0, 1) @ b }
export func odd(a: f32[67, 35], b: f32[35, 71]) -> f32[67, 71] { return a @ b }
export func batch(a: f32[3, 40, 24], b: f32[3, 24, 48]) -> f32[3, 40, 48] { return a @ b }
export func maps(x: f32[2, 16, 12, 12], w: f32[32, 16, 3, 3]) -> f32[2, 32, 12, 12] { return relu(conv2d(x, w, padding=1)) }
export func doubles(a: f64[70, 40], b: f64[40, 66]) -> f64[70, 66] { return a @ b }
export func right_doubles(a: f64[70, 40], b: f64[66, 40]) -> f64[70, 66] { return a @ transpose(b, 0, 1) }
export func whole(a: i32[70, 40], b: i32[40, 66]) -> i32[70, 66] { return a @ b }
)",
        1e-5, {gpu_of(1), gpu_of(84)});
  check("export func any(a: f32[N, 64], b: f32[64, 96]) -> f32[N, 96] { return a @ b }", 1e-5, {gpu_of(1), gpu_of(84)}, 77);
}

TEST_CASE("products of half floats on tensor cores") {
  check(R"(
export func plain(a: bf16[256, 96], b: bf16[96, 256]) -> f32[256, 256] { return a.to(f32) @ b.to(f32) }
export func right(a: f16[130, 72], b: f16[88, 72], c: f16[88]) -> f16[130, 88] { return relu(a @ transpose(b, 0, 1) + c) }
export func left(a: bf16[80, 136], b: bf16[80, 72]) -> bf16[136, 72] { return transpose(a, 0, 1) @ b }
export func odd(a: f16[67, 35], b: f16[35, 71]) -> f16[67, 71] { return a @ b }
export func few(a: bf16[8, 512], b: bf16[512, 96]) -> bf16[8, 96] { return a @ b }
export func pairs(a: f16[67, 38], b: f16[38, 70]) -> f16[67, 70] { return a @ b }
export func batch(a: bf16[3, 40, 24], b: bf16[3, 24, 48]) -> bf16[3, 40, 48] { return a @ b }
export func maps(x: bf16[1, 16, 12, 12], w: bf16[32, 16, 3, 3]) -> bf16[1, 32, 12, 12] { return conv2d(x, w, padding=1) }
export func wide_maps(x: f16[1, 16, 12, 12], w: f16[32, 16, 3, 3]) -> f32[1, 32, 12, 12] { return conv2d(x.to(f32), w.to(f32), padding=1) }
)",
        0.01, {gpu_of(1), gpu_of(84)});
}

TEST_CASE("products of f32 with halves and bytes, widened on the way") {
  GpuMachine rounding = gpu_of(1);
  rounding.rounds_products = true;
  const std::string text = R"(
export func plain(a: f32[256, 64], b: bf16[64, 256]) -> f32[256, 256] { return a @ b.to(f32) }
export func right(a: f16[136, 72], b: f32[88, 72]) -> f32[136, 88] { return a.to(f32) @ transpose(b, 0, 1) }
export func rows(a: f32[136, 72], b: bf16[96, 72]) -> f32[136, 96] { return a @ transpose(b.to(f32), 0, 1) }
export func left(a: f16[72, 136], b: bf16[72, 80]) -> f32[136, 80] { return transpose(a.to(f32), 0, 1) @ b.to(f32) }
export func odd(a: f16[67, 35], b: f32[35, 71]) -> f32[67, 71] { return a.to(f32) @ b }
export func whole(a: i32[136, 40], b: i8[40, 64]) -> i32[136, 64] { return a @ b.to(i32) }
export func halves(a: f16[136, 72], b: bf16[72, 64]) -> f32[136, 64] { return a.to(f32) @ b.to(f32) }
)";
  check(text, 1e-5, {gpu_of(1), gpu_of(84), warpgroups_of(1)});
  check(text, 2e-3, {rounding, warpgroups_of(1, true)});
}

TEST_CASE("products of bytes on tensor cores") {
  check(R"(
export func right(a: u8[130, 96], b: i8[72, 96], c: i32[72]) -> i32[130, 72] { return dot(a, b, c, transpose_b=true) }
export func plain(a: u8[256, 128], b: i8[128, 256], c: i32[256]) -> i32[256, 256] { return dot(a, b, c) }
export func words(a: u8[67, 35], b: i8[35, 76], c: i32[76]) -> i32[67, 76] { return dot(a, b, c) }
export func odd(a: u8[67, 35], b: i8[35, 71], c: i32[71]) -> i32[67, 71] { return dot(a, b, c) }
export func wide(a: i8[67, 64], b: i8[64, 72]) -> i32[67, 72] { return a.to(i32) @ b.to(i32) }
export func mixed(a: i8[67, 64], b: u8[72, 64]) -> i32[67, 72] { return a.to(i32) @ transpose(b.to(i32), 0, 1) }
export func maps(x: u8[1, 16, 12, 12], w: u8[32, 16, 3, 3]) -> i32[1, 32, 12, 12] { return conv2d(x.to(i32), w.to(i32), padding=1) }
)",
        0, {gpu_of(1), gpu_of(84)});
}

constexpr const char *kRoundedProducts = R"(
export func plain(a: f32[256, 96], b: f32[96, 256]) -> f32[256, 256] { return a @ b }
export func right(a: f32[130, 72], b: f32[88, 72]) -> f32[130, 88] { return a @ transpose(b, 0, 1) }
export func left(a: f32[80, 136], b: f32[80, 72]) -> f32[136, 72] { return transpose(a, 0, 1) @ b }
export func odd(a: f32[67, 35], b: f32[35, 71]) -> f32[67, 71] { return a @ b }
)";

TEST_CASE("products of f32 that may be rounded") {
  GpuMachine few = gpu_of(1), many = gpu_of(84);
  few.rounds_products = many.rounds_products = true;
  check(kRoundedProducts, 2e-3, {few, many});
}

TEST_CASE("products by warpgroups, from descriptors") {
  std::vector<GpuMachine> machines{warpgroups_of(1), warpgroups_of(132), warpgroups_of(1, false, true), warpgroups_of(132, false, true)};
  check(R"(
export func plain(a: bf16[256, 192], b: bf16[192, 256]) -> f32[256, 256] { return a.to(f32) @ b.to(f32) }
export func right(a: f16[130, 328], b: f16[200, 328], c: f16[200]) -> f16[130, 200] { return relu(a @ transpose(b, 0, 1) + c) }
export func left(a: bf16[400, 136], b: bf16[400, 264]) -> bf16[136, 264] { return transpose(a, 0, 1) @ b }
export func across(a: f16[200, 136], b: f16[72, 200]) -> f16[136, 72] { return transpose(a, 0, 1) @ transpose(b, 0, 1) }
export func odd(a: f16[67, 135], b: f16[135, 71]) -> f16[67, 71] { return a @ b }
export func batch(a: bf16[3, 64, 96], b: bf16[3, 96, 64]) -> bf16[3, 64, 64] { return a @ b }
export func maps(x: bf16[2, 16, 12, 12], w: bf16[64, 16, 3, 3]) -> bf16[2, 64, 12, 12] { return conv2d(x, w, padding=1) }
export func computed(a: bf16[128, 320], b: bf16[320, 128]) -> bf16[128, 128] { return (a * 2.0) @ b }
)",
        0.01, machines);
  check("export func any(a: bf16[N, 512], b: bf16[512, 256]) -> bf16[N, 256] { return a @ b }", 0.01, machines, 77);
  check(R"(
export func right(a: u8[130, 384], b: i8[72, 384], c: i32[72]) -> i32[130, 72] { return dot(a, b, c, transpose_b=true) }
export func plain(a: u8[256, 256], b: i8[256, 256], c: i32[256]) -> i32[256, 256] { return dot(a, b, c) }
export func odd(a: u8[67, 235], b: i8[235, 71], c: i32[71]) -> i32[67, 71] { return dot(a, b, c) }
)",
        0, machines);
  check(kRoundedProducts, 2e-3, {warpgroups_of(1, true), warpgroups_of(132, true, true)});
}

// By hand from PTX ISA 9.7.15.5, tables "Matrix descriptor layout", "Leading dimension byte offset" and "Stride dimension byte
// offset", in the canonical layouts of 16-byte units there: lines of eight units whose order is exchanged by the line's number.
TEST_CASE("descriptors of operands of warpgroups") {
  struct Row {
    bool across;
    unsigned address, leading, stride, base_offset, swizzle; // as the fields hold them
  };
  for (const Row &r : {
           // ((8, m), (T, 2)) : ((8T, stride), (1, T)): eight rows of 128 bytes, then the next eight; leading is 1 where it is not used.
           Row{false, 0, 1, 1024 >> 4, 0, 1},
           // ((T, 8, m), (8, k)) : ((1, T, leading), (8T, stride)): 64 halves a line, eight steps; the next 64 behind 64 steps.
           Row{true, 0, 64 * 128 >> 4, 1024 >> 4, 0, 1},
       }) {
    uint64_t bits = cuda::warpgroup_descriptor(r.across);
    CHECK((bits & 0x3fff) == r.address);
    CHECK((bits >> 16 & 0x3fff) == r.leading);
    CHECK((bits >> 32 & 0x3fff) == r.stride);
    CHECK((bits >> 49 & 7) == r.base_offset);
    CHECK(bits >> 62 == r.swizzle);
    CHECK((bits & 0x3ff1c000c000c000) == 0); // what no field has
  }
  CHECK(cuda::warpgroup_descriptor(false) == 0x4000004000010000);
  CHECK(cuda::warpgroup_descriptor(true) == 0x4000004002000000);
  // Behind the descriptors: the signs of both operands but for bytes, and, of 16 bits alone, whether they lie across the sum.
  CHECK(cuda::warpgroup_text(cuda::WarpgroupProduct{DType::bf16, DType::bf16, 128, true, false}.name()).find(", p, 1, 1, 1, 0;") != std::string::npos);
  CHECK(cuda::warpgroup_text(cuda::WarpgroupProduct{DType::f32, DType::f32, 128, false, false}.name()).find(", p, 1, 1;") != std::string::npos);
  CHECK(cuda::warpgroup_text(cuda::WarpgroupProduct{DType::u8, DType::i8, 128, false, false}.name()).find(", p;}") != std::string::npos);
}

TEST_CASE("nothing that threads still decide by is written before a barrier") {
  auto kernels = parse_kernels(R"(kernel k(x: f32[64] in, y: f32[64] out) dims() {
  alloc some: f32[64] stack
  for i in 0..64 parallel {
    some[i] = x[i]
  }
  if lt(f32(0), some[0]) {
    some[0] = f32(-1)
  }
  for i in 0..64 parallel {
    y[i] = some[i]
  }
}
)");
  INFO((kernels ? "" : kernels.error().message));
  REQUIRE(kernels.ok());
  cuda::CudaKernel emitted = cuda::emit_cuda((*kernels)[0], gpu_of(84));
  REQUIRE(emitted.launches.size() == 1);
  const std::string &text = emitted.launches[0].function.text;
  INFO(text);
  size_t decided = text.find("if (("), barrier = text.find("__syncthreads();", decided), written = text.find("[0] = ", decided);
  REQUIRE(written != std::string::npos);
  CHECK(barrier < written);
}

TEST_CASE("attention") {
  const std::string text = R"(
export func whole(q: f32[1, 2, 64, 32], k: f32[1, 2, 48, 32], v: f32[1, 2, 48, 24]) -> f32[1, 2, 64, 24] { return scaled_dot_product_attention(q, k, v) }
export func spans(q: f32[1, 2, 70, 32], k: f32[1, 2, 160, 32], v: f32[1, 2, 160, 32]) -> f32[1, 2, 70, 32] { return scaled_dot_product_attention(q, k, v) }
export func causal(q: f32[1, 2, 100, 32], k: f32[1, 2, 100, 32], v: f32[1, 2, 100, 32]) -> f32[1, 2, 100, 32] { return scaled_dot_product_attention(q, k, v, is_causal=true) }
export func halves(q: bf16[1, 2, 128, 32], k: bf16[1, 2, 128, 32], v: bf16[1, 2, 128, 32]) -> bf16[1, 2, 128, 32] { return scaled_dot_product_attention(q, k, v) }
export func causal_halves(q: f16[1, 2, 128, 32], k: f16[1, 2, 128, 32], v: f16[1, 2, 128, 32]) -> f16[1, 2, 128, 32] { return scaled_dot_product_attention(q, k, v, is_causal=true) }
)";
  GpuMachine rounding = gpu_of(84);
  rounding.rounds_products = true;
  check(text, 0.01, {gpu_of(84), rounding});
}

TEST_CASE("attention keeps rows in registers, whatever its sizes, masks and heads") {
  const std::string text = R"(
export func one_query(q: f32[1, 3, 1, 64], k: f32[1, 3, 700, 64], v: f32[1, 3, 700, 64]) -> f32[1, 3, 1, 64] { return scaled_dot_product_attention(q, k, v) }
export func one_query_halves(q: bf16[2, 2, 1, 64], k: bf16[2, 2, 1000, 64], v: bf16[2, 2, 1000, 128]) -> bf16[2, 2, 1, 128] { return scaled_dot_product_attention(q, k, v) }
export func one_head(q: f32[1, 1, 5, 16], k: f32[1, 1, 600, 16], v: f32[1, 1, 600, 8]) -> f32[1, 1, 5, 8] { return scaled_dot_product_attention(q, k, v) }
export func added(q: f32[2, 3, 37, 24], k: f32[2, 3, 77, 24], v: f32[2, 3, 77, 20], m: f32[2, 1, 1, 77]) -> f32[2, 3, 37, 20] { return scaled_dot_product_attention(q, k, v, attn_mask=m) }
export func hidden(q: f16[2, 2, 33, 40], k: f16[2, 2, 66, 40], v: f16[2, 2, 66, 40], m: bool[33, 66]) -> f16[2, 2, 33, 40] { return scaled_dot_product_attention(q, k, v, attn_mask=m) }
export func many(q: bf16[8, 20, 70, 80], k: bf16[8, 20, 70, 80], v: bf16[8, 20, 70, 80]) -> bf16[8, 20, 70, 80] { return scaled_dot_product_attention(q, k, v, is_causal=true) }
export func many_floats(q: f32[8, 20, 70, 100], k: f32[8, 20, 90, 100], v: f32[8, 20, 90, 100]) -> f32[8, 20, 70, 100] { return scaled_dot_product_attention(q, k, v) }
export func odd(q: f32[1, 2, 19, 9], k: f32[1, 2, 67, 9], v: f32[1, 2, 67, 11]) -> f32[1, 2, 19, 11] { return scaled_dot_product_attention(q, k, v) }
export func odd_halves(q: f16[1, 2, 19, 9], k: f16[1, 2, 67, 9], v: f16[1, 2, 67, 11]) -> f16[1, 2, 19, 11] { return scaled_dot_product_attention(q, k, v) }
export func grouped(q: f32[1, 8, 20, 32], k: f32[1, 2, 1, 100, 32], v: f32[1, 2, 1, 100, 32]) -> f32[1, 8, 20, 32] {
  keys = reshape(expand(k, [1, 2, 4, 100, 32]), [1, 8, 100, 32])
  values = reshape(expand(v, [1, 2, 4, 100, 32]), [1, 8, 100, 32])
  return scaled_dot_product_attention(q, keys, values)
}
export func interleaved(q: bf16[1, 40, 4, 32], k: bf16[1, 90, 4, 32], v: bf16[1, 90, 4, 32]) -> bf16[1, 40, 128] {
  return reshape(transpose(scaled_dot_product_attention(transpose(q, 1, 2), transpose(k, 1, 2), transpose(v, 1, 2)), 1, 2), [1, 40, 128])
}
export func turned_keys(q: f32[1, 2, 33, 32], k: f32[1, 2, 32, 80], v: f32[1, 2, 80, 32]) -> f32[1, 2, 33, 32] { return softmax(q @ k * 0.2, axis=3) @ v }
)";
  check(text, 0.012, {gpu_of(84)});
  // Lengths that only a run tells: few queries and many, one span and several, parts that are not all used.
  const std::string symbolic = R"(
dim Q = 1..4096
dim K = 1..4096
export func floats(q: f32[1, 2, Q, 32], k: f32[1, 2, K, 32], v: f32[1, 2, K, 32]) -> f32[1, 2, Q, 32] { return scaled_dot_product_attention(q, k, v) }
export func halves(q: f16[1, 2, Q, 32], k: f16[1, 2, K, 32], v: f16[1, 2, K, 32]) -> f16[1, 2, Q, 32] { return scaled_dot_product_attention(q, k, v, is_causal=true) }
export func one(q: f32[1, 4, 1, 32], k: f32[1, 4, K, 32], v: f32[1, 4, K, 32]) -> f32[1, 4, 1, 32] { return scaled_dot_product_attention(q, k, v) }
export func batch(q: bf16[Q, 2, 1, 64], k: bf16[Q, 2, K, 64], v: bf16[Q, 2, K, 64]) -> bf16[Q, 2, 1, 64] { return scaled_dot_product_attention(q, k, v) }
)";
  for (int64_t dim : {3, 650})
    check(symbolic, 0.012, {gpu_of(84)}, dim);
  // As exact as products of f32 are, not as their halves.
  check("export func f(q: f32[1, 2, 70, 64], k: f32[1, 2, 130, 64], v: f32[1, 2, 130, 64]) -> f32[1, 2, 70, 64] { return scaled_dot_product_attention(q * 3.0, k, v) }", 3e-6, {gpu_of(84)});
}

TEST_CASE("query heads that share keys and values are rows of one block") {
  const std::string text = R"(
func repeated(x) { return reshape(expand(reshape(x, [1, 2, 1, 100, 32]), [1, 2, 4, 100, 32]), [1, 8, 100, 32]) }
export func one(q: f32[1, 8, 1, 32], k: f32[1, 2, 100, 32], v: f32[1, 2, 100, 32]) -> f32[1, 8, 1, 32] { return scaled_dot_product_attention(q, repeated(k), repeated(v)) }
export func few(q: bf16[1, 8, 3, 32], k: bf16[1, 2, 100, 32], v: bf16[1, 2, 100, 32]) -> bf16[1, 8, 3, 32] { return scaled_dot_product_attention(q, repeated(k), repeated(v), is_causal=true) }
export func apart(q: f16[2, 2, 8, 5, 64], k: f16[2, 2, 1, 700, 64], v: f16[2, 2, 1, 700, 64]) -> f16[2, 2, 8, 5, 64] { return scaled_dot_product_attention(q, k, v) }
export func biased(q: f32[1, 8, 7, 32], k: f32[1, 2, 100, 32], v: f32[1, 2, 100, 32], m: f32[1, 8, 7, 100]) -> f32[1, 8, 7, 32] { return scaled_dot_product_attention(q, repeated(k), repeated(v), attn_mask=m) }
export func own_values(q: f32[1, 8, 3, 32], k: f32[1, 2, 100, 32], v: f32[1, 8, 100, 32]) -> f32[1, 8, 3, 32] { return scaled_dot_product_attention(q, repeated(k), v) }
)";
  check(text, 0.012, {gpu_of(84)});
  const std::string symbolic = R"(
dim Q = 1..4096
dim K = 1..4096
export func causal(q: bf16[1, 2, 4, Q, 64], k: bf16[1, 2, 1, K, 64], v: bf16[1, 2, 1, K, 64]) -> bf16[1, 2, 4, Q, 64] { return scaled_dot_product_attention(q, k, v, is_causal=true) }
export func all(q: f32[1, 2, 3, Q, 32], k: f32[1, 2, 1, K, 32], v: f32[1, 2, 1, K, 32]) -> f32[1, 2, 3, Q, 32] { return scaled_dot_product_attention(q, k, v) }
)";
  for (int64_t dim : {1, 3, 170})
    check(symbolic, 0.012, {gpu_of(84)}, dim);
  // A block for each group of heads, which are a dim of their own, and keys that come by copies, whether one span of them or several.
  for (auto [heads, keys] : {std::pair(1, 100), std::pair(8, 100), std::pair(8, 49)}) {
    const std::string q = "bf16[4, 60, " + std::to_string(heads) + ", 1, 64]", k = "bf16[4, 60, 1, " + std::to_string(keys) + ", 64]";
    Module module = load("export func f(q: " + q + ", k: " + k + ", v: " + k + ") -> " + q + " { return scaled_dot_product_attention(q, k, v) }");
    CompileOptions options;
    options.gpus = {gpu_of(84)};
    Program program = lowered(module, options);
    auto emitted = cuda::emit_cuda(program.kernels.back(), gpu_of(84));
    CHECK(emitted.launches[0].blocks == Dim(240));
    CHECK(emitted.launches[0].function.text.find("kiln_copy_wait") != std::string::npos);
  }
}

TEST_CASE("causal masks of sizes that a run tells are compared, not read") {
  const std::string text = R"(
dim Q = 1..4096
dim K = 1..4096
export func f(q: bf16[1, 2, Q, 64], k: bf16[1, 2, K, 64], v: bf16[1, 2, K, 64]) -> bf16[1, 2, Q, 64] {
  h = scaled_dot_product_attention(q, k, v, is_causal=true)
  return scaled_dot_product_attention(h, k, v, is_causal=true)
}
)";
  for (int64_t dim : {3, 170})
    check(text, 0.012, {gpu_of(84)}, dim);
  Module module = load(text);
  CompileOptions options;
  options.gpus = {gpu_of(84)};
  Program program = lowered(module, options);
  for (const Kernel &kernel : program.kernels) {
    std::string launched = cuda::emit_cuda(kernel, gpu_of(84)).launches[0].function.text;
    CHECK(launched.find("kiln_sees_all") != std::string::npos);
    CHECK(launched.find("kiln_sees_some") != std::string::npos);
  }
}

TEST_CASE("attention with heads of more than 128 elements") {
  const std::string text = R"(
export func large(q: bf16[1, 2, 70, 256], k: bf16[1, 2, 90, 256], v: bf16[1, 2, 90, 256]) -> bf16[1, 2, 70, 256] { return scaled_dot_product_attention(q, k, v, is_causal=true) }
export func uneven(q: f16[1, 16, 64, 192], k: f16[1, 16, 200, 192], v: f16[1, 16, 200, 128]) -> f16[1, 16, 64, 128] { return scaled_dot_product_attention(q, k, v) }
export func one(q: bf16[2, 8, 1, 256], k: bf16[2, 8, 700, 256], v: bf16[2, 8, 700, 256]) -> bf16[2, 8, 1, 256] { return scaled_dot_product_attention(q, k, v) }
export func odd(q: f16[1, 2, 19, 150], k: f16[1, 2, 67, 150], v: f16[1, 2, 67, 171]) -> f16[1, 2, 19, 171] { return scaled_dot_product_attention(q, k, v) }
)";
  check(text, 0.012, {gpu_of(84), gpu_of(1)});
  const std::string symbolic = R"(
dim Q = 1..4096
dim K = 1..4096
export func floats(q: f32[1, 2, Q, 136], k: f32[1, 2, K, 136], v: f32[1, 2, K, 136]) -> f32[1, 2, Q, 136] { return scaled_dot_product_attention(q, k, v, is_causal=true) }
)";
  for (int64_t dim : {3, 70})
    check(symbolic, 1e-5, {gpu_of(84)}, dim);
}

TEST_CASE("long sums with few results are cut into parts") {
  check(R"(
export func product(a: f32[32, 2048], b: f32[2048, 64], c: f32[64]) -> f32[32, 64] { return relu(a @ b + c) }
export func halves(a: bf16[16, 4096], b: bf16[4096, 48]) -> bf16[16, 48] { return a @ b }
export func one_row(a: f32[1, 1024], b: f32[1024, 100]) -> f32[1, 100] { return a @ b }
export func one_row_turned(a: f32[1, 1024], b: f32[100, 1024]) -> f32[1, 100] { return a @ transpose(b, 0, 1) }
export func total(x: f32[600, 1001]) -> f32[] { return sum(x * x) / 2.0 }
export func greatest(x: f32[2, 300000]) -> f32[2] { return max(x, dim=1) }
export func columns(x: f32[20000, 24]) -> f32[24] { return sum(x, dim=0) }
)",
        0.01, {gpu_of(84), gpu_of(132)});
}

struct TracedTile {
  const char *text;
  GpuMachine machine;
};

void check_accesses(const std::vector<TracedTile> &tiles) {
  for (const TracedTile &c : tiles) {
    INFO(c.text << " " << c.machine.multiprocessors);
    Accesses a = accesses_of(c.text, c.machine);
    CHECK(a.shared == a.shared_fewest);
    CHECK(a.global <= 1.3 * a.global_fewest);
    CHECK(a.races == 0);
  }
}

TEST_CASE("tiles are free of bank conflicts and races, and read global memory in whole sectors") {
  GpuMachine few = gpu_of(1), rounding = gpu_of(1), splitting = gpu_of(1);
  rounding.rounds_products = true;
  splitting.fma_rate = 1; // so that tensor cores are faster
  check_accesses({
      {"export func f(a: f32[256, 64], b: f32[64, 256]) -> f32[256, 256] { return a @ b }", few},
      {"export func f(a: f32[256, 64], b: f32[256, 64]) -> f32[256, 256] { return a @ transpose(b, 0, 1) }", few},
      {"export func f(a: f32[64, 256], b: f32[64, 256]) -> f32[256, 256] { return transpose(a, 0, 1) @ b }", few},
      {"export func f(a: bf16[256, 64], b: bf16[64, 256]) -> bf16[256, 256] { return a @ b }", few},
      {"export func f(a: bf16[256, 64], b: bf16[256, 64]) -> bf16[256, 256] { return a @ transpose(b, 0, 1) }", few},
      {"export func f(a: bf16[64, 256], b: bf16[64, 256]) -> bf16[256, 256] { return transpose(a, 0, 1) @ b }", few},
      {"export func f(a: f32[256, 64], b: f32[64, 256]) -> f32[256, 256] { return a @ b }", rounding},
      {"export func f(a: f32[256, 64], b: f32[256, 64]) -> f32[256, 256] { return a @ transpose(b, 0, 1) }", rounding},
      {"export func f(a: f32[256, 64], b: f32[64, 256]) -> f32[256, 256] { return a @ b }", splitting},
      {"export func f(a: f32[256, 64], b: f32[256, 64]) -> f32[256, 256] { return a @ transpose(b, 0, 1) }", splitting},
      {"export func f(a: f32[64, 256], b: f32[64, 256]) -> f32[256, 256] { return transpose(a, 0, 1) @ b }", splitting},
      {"export func f(a: f32[64, 64], b: f32[64, 64]) -> f32[64, 64] { return a @ b }", gpu_of(84)},
      {"export func f(a: u8[256, 128], b: i8[256, 128], c: i32[256]) -> i32[256, 256] { return dot(a, b, c, transpose_b=true) }", few},
      {"export func f(a: u8[256, 128], b: i8[128, 256], c: i32[256]) -> i32[256, 256] { return dot(a, b, c) }", few},
      {"export func f(a: u8[256, 128], b: i8[128, 256], c: i32[256]) -> i32[256, 256] { return dot(a, b, c) }", gpu_of(84)},
      {"export func f(a: u8[256, 256], b: i8[256, 256], c: i32[256]) -> i32[256, 256] { return dot(a, b, c) }", warpgroups_of(1)},
      {"export func f(x: bf16[1, 64, 28, 28], w: bf16[64, 64, 3, 3]) -> bf16[1, 64, 28, 28] { return conv2d(x, w, padding=1) }", gpu_of(84)},
      {"export func f(x: bf16[1, 64, 28, 28], w: bf16[64, 64, 3, 3]) -> bf16[1, 64, 28, 28] { return conv2d(x, w, padding=1) }", warpgroups_of(84)},
      {"export func f(a: bf16[64, 64], b: bf16[64, 64]) -> bf16[64, 64] { return a @ b }", gpu_of(84)},
      {"export func f(a: bf16[256, 256], b: bf16[256, 256]) -> bf16[256, 256] { return a @ b }", warpgroups_of(1)},
      {"export func f(a: bf16[256, 256], b: bf16[256, 256]) -> bf16[256, 256] { return a @ transpose(b, 0, 1) }", warpgroups_of(1)},
      {"export func f(a: bf16[256, 256], b: bf16[256, 256]) -> bf16[256, 256] { return transpose(a, 0, 1) @ b }", warpgroups_of(84)},
      {"export func f(a: f32[256, 128], b: f32[128, 256]) -> f32[256, 256] { return a @ b }", warpgroups_of(1, true)},
      {"export func f(a: u8[256, 256], b: i8[256, 256], c: i32[256]) -> i32[256, 256] { return dot(a, b, c, transpose_b=true) }", warpgroups_of(1)},
  });
}

TEST_CASE("so are tiles whose operands are turned around or widened on the way") {
  GpuMachine few = gpu_of(1), rounding = gpu_of(1);
  rounding.rounds_products = true;
  check_accesses({
      {"export func f(a: f32[256, 64], b: bf16[64, 256]) -> f32[256, 256] { return a @ b.to(f32) }", few},
      {"export func f(a: f32[256, 64], b: bf16[256, 64]) -> f32[256, 256] { return a @ transpose(b.to(f32), 0, 1) }", rounding},
      {"export func f(a: f32[64, 64], b: bf16[64, 64]) -> f32[64, 64] { return a @ b.to(f32) }", gpu_of(84)},
      {"export func f(a: f16[256, 64], b: bf16[64, 256]) -> f32[256, 256] { return a.to(f32) @ b.to(f32) }", few},
      {"export func f(a: f16[256, 64], b: bf16[256, 64]) -> f32[256, 256] { return a.to(f32) @ transpose(b.to(f32), 0, 1) }", warpgroups_of(1)},
      {"export func f(a: f32[128, 64], b: f32[64, 128]) -> f32[128, 128] { return a @ b }", gpu_of(2)},
      {"export func f(a: f64[128, 64], b: f64[128, 64]) -> f64[128, 128] { return a @ transpose(b, 0, 1) }", few},
  });
}

TEST_CASE("elementwise chains and rows touch no more of memory than they need") {
  for (const char *text : {
           "export func f(x: f32[64, 128], y: f32[128]) -> f32[64, 128] { return relu(x + y) * x }",
           "export func f(x: bf16[64, 128]) -> f32[64, 128] { return x.to(f32) * 2.0 }",
           "export func f(x: f32[512, 1000]) -> f32[512, 1000] { return softmax(x * 3.0, axis=1) }",
           "export func f(x: f32[8, 8192]) -> f32[8, 8192] { return softmax(x, dim=1) }",
           "export func f(x: f32[600, 1024]) -> f32[] { return sum(x * x) }",
           "export func f(q: bf16[1, 2, 128, 64], k: bf16[1, 2, 128, 64], v: bf16[1, 2, 128, 64]) -> bf16[1, 2, 128, 64] { return "
           "scaled_dot_product_attention(q, k, v) }",
           "export func f(q: f32[1, 2, 128, 64], k: f32[1, 2, 128, 64], v: f32[1, 2, 128, 64]) -> f32[1, 2, 128, 64] { return "
           "scaled_dot_product_attention(q, k, v) }",
           "export func f(q: bf16[1, 2, 64, 256], k: bf16[1, 2, 128, 256], v: bf16[1, 2, 128, 256]) -> bf16[1, 2, 64, 256] { return scaled_dot_product_attention(q, k, v) }",
           "export func f(q: bf16[1, 2, 8, 1, 64], k: bf16[1, 2, 1, 128, 64], v: bf16[1, 2, 1, 128, 64]) -> bf16[1, 2, 8, 1, 64] { return scaled_dot_product_attention(q, k, v) }",
           "export func f(x: f32[20000, 24]) -> f32[24] { return sum(x, dim=0) }",
           "export func f(a: f32[1, 1024], b: f32[1024, 128]) -> f32[1, 128] { return a @ b }",
       }) {
    INFO(text);
    Accesses a = accesses_of(text, gpu_of(84));
    CHECK(a.shared <= 1.05 * a.shared_fewest);
    CHECK(a.global <= 1.1 * a.global_fewest);
    CHECK(a.races == 0);
  }
}

// A block of 227 KiB, for rows that no registers have room for.
GpuMachine gpu_with_memory(int multiprocessors) {
  GpuMachine machine = gpu_of(multiprocessors);
  machine.block_shared_bytes = 227 << 10;
  return machine;
}

TEST_CASE("rows of all lengths that threads keep") {
  std::string text;
  for (int n : {8, 16, 17, 20, 48, 64, 100, 768, 1000, 1001, 5000, 8192, 20000})
    text += fmt::format(R"(
export func soft{0}(x: f32[37, {0}]) -> f32[37, {0}] {{ return softmax(x * 3.0, axis=1) }}
export func logs{0}(x: bf16[37, {0}]) -> bf16[37, {0}] {{ return log_softmax(x * 3.0, axis=1) }}
export func norm{0}(x: f32[37, {0}], y: f16[37, {0}], g: f32[{0}], b: f32[{0}]) -> f32[37, {0}] {{ return layer_norm(x + y.to(f32), g, b, axis=1, epsilon=1e-5) }}
export func root{0}(x: f16[37, {0}], g: f16[{0}]) -> f16[37, {0}] {{ return rms_norm(x, g, axis=1, epsilon=1e-5) }}
)",
                        n);
  check(text, 0.01, {gpu_of(1), gpu_of(84)});
  check(R"(
export func long(x: f32[3, 50000]) -> f32[3, 50000] { return softmax(x * 3.0, axis=1) }
export func odd(x: f32[3, 50257]) -> f32[3, 50257] { return log_softmax(x * 3.0, axis=1) }
export func one(x: f32[1, 40000], g: f32[40000], b: f32[40000]) -> f32[1, 40000] { return layer_norm(x, g, b, axis=1, epsilon=1e-5) }
export func longer(x: f32[2, 70000]) -> f32[2, 70000] { return softmax(x * 3.0, axis=1) }
)",
        1e-5, {gpu_of(84), gpu_with_memory(84)});
  check(R"(
export func soft(x: f32[37, 96], w: f32[37, 96]) -> f32[37, 96] { return grad(sum(softmax(x, axis=1) * w), [x]) }
export func logs(x: f32[37, 1000], w: f32[37, 1000]) -> f32[37, 1000] { return grad(sum(log_softmax(x, axis=1) * w), [x]) }
export func norm(x: f32[37, 96], g: f32[96], b: f32[96], w: f32[37, 96]) {
  dx, dg, db = grad(sum(layer_norm(x, g, b, axis=1, epsilon=1e-5) * w), [x, g, b])
  return dx, dg, db
}
export func groups(x: f32[5, 12, 7, 8], g: f32[12], b: f32[12]) -> f32[5, 12, 7, 8] { return group_norm(x, g, b, groups=3, epsilon=1e-5) }
)",
        1e-5, {gpu_of(1), gpu_of(84)});
}

// What the first block reads and writes of global memory fills the sectors of its rows once.
TEST_CASE("rows are read once") {
  struct Case {
    const char *text;
    int64_t rows, bytes; // of the first block; of a row, read and written
    GpuMachine machine;
  };
  for (const Case &c : std::vector<Case>{
           {"export func f(x: f32[4096, 16]) -> f32[4096, 16] { return softmax(x, axis=1) }", 64, 2 * 64, gpu_of(1)},
           {"export func f(x: f32[4096, 64]) -> f32[4096, 64] { return softmax(x, axis=1) }", 32, 2 * 256, gpu_of(1)},
           {"export func f(x: f32[4096, 768]) -> f32[4096, 768] { return softmax(x, axis=1) }", 4, 2 * 3072, gpu_of(1)},
           {"export func f(x: f32[4096, 768]) -> f32[4096, 768] { return log_softmax(x, axis=1) }", 4, 2 * 3072, gpu_of(1)},
           {"export func f(x: f16[4096, 1024]) -> f16[4096, 1024] { return softmax(x, axis=1) }", 1, 2 * 2048, gpu_of(1)},
           {"export func f(x: f32[8, 8192]) -> f32[8, 8192] { return softmax(x, axis=1) }", 1, 2 * 32768, gpu_of(84)},
           {"export func f(x: f32[8, 50000]) -> f32[8, 50000] { return softmax(x, axis=1) }", 1, 2 * 200000, gpu_with_memory(84)},
           {"export func f(x: f32[4096, 768], g: f32[768], b: f32[768]) -> f32[4096, 768] { return layer_norm(x, g, b, axis=1, epsilon=1e-5) }", 4, 4 * 3072, gpu_of(1)},
           {"export func f(x: f32[4096, 768], w: f32[4096, 768]) -> f32[4096, 768] { return grad(sum(softmax(x, axis=1) * w), [x]) }", 1, 3 * 3072, gpu_of(1)},
       }) {
    INFO(c.text);
    Accesses a = accesses_of(c.text, c.machine);
    CHECK(a.shared == a.shared_fewest);
    CHECK(a.global_fewest == double(c.rows * c.bytes / 32));
    CHECK(a.global <= 1.15 * a.global_fewest);
    CHECK(a.races == 0);
  }
}

// Windows are cut off at edges, and the last block of an axis is not whole: tiles take both as rectangles with guards.
constexpr const char *kEdges = R"(
export func same(x: f32[2, 32, 9, 7], w: f32[48, 32, 3, 3]) -> f32[2, 48, 9, 7] { return relu(conv2d(x, w, padding=1)) }
export func strided(x: f32[1, 16, 15, 14], w: f32[32, 16, 3, 3]) -> f32[1, 32, 8, 7] { return conv2d(x, w, stride=2, padding=1) }
export func dilated(x: f32[1, 16, 12, 12], w: f32[32, 16, 3, 3]) -> f32[1, 32, 12, 12] { return conv2d(x, w, padding=2, dilation=2) }
export func wide(x: f32[1, 3, 20, 20], w: f32[16, 3, 7, 7]) -> f32[1, 16, 10, 10] { return conv2d(x, w, stride=2, padding=3) }
export func planar(x: f32[3, 5, 11, 13], w: f32[9, 5, 3, 3]) -> f32[3, 9, 11, 13] { return conv2d(x, w, padding=1) }
export func narrow(x: f32[1, 32, 9, 9], w: f32[32, 1, 3, 3]) -> f32[1, 32, 9, 9] { return relu(conv2d(x, w, padding=1, groups=32)) }
export func last(x: f32[40, 64]) -> f32[40, 65] { return relu(dot(x, sin(arange(64 * 65).to(f32) * 0.37).reshape([64, 65]))) }
export func long(x: f32[9, 512]) -> f32[9, 37] { return relu(dot(x, sin(arange(512 * 37).to(f32) * 0.37).reshape([512, 37]))) }
export func one(x: f32[1, 64]) -> f32[1, 65] { return relu(dot(x, sin(arange(64 * 65).to(f32) * 0.37).reshape([64, 65]))) }
export func backwards(x: f32[2, 16, 9, 7], w: f32[32, 16, 3, 3]) {
  dx, dw = grad(sum(sin(conv2d(x, w, padding=1))), [x, w])
  return dx, dw
}
)";

TEST_CASE("windows at edges and axes whose last block is not whole") {
  check(kEdges, 1e-5, {gpu_of(1), gpu_of(108)});
  GpuMachine rounding = gpu_of(8);
  rounding.rounds_products = true;
  check(kEdges, 2e-2, {rounding, warpgroups_of(8, true)});
  check(R"(
export func same(x: bf16[2, 32, 9, 7], w: bf16[48, 32, 3, 3]) -> bf16[2, 48, 9, 7] { return relu(conv2d(x, w, padding=1)) }
export func strided(x: f16[1, 16, 15, 14], w: f16[32, 16, 3, 3]) -> f16[1, 32, 8, 7] { return conv2d(x, w, stride=2, padding=1) }
export func last(x: bf16[40, 64]) -> bf16[40, 65] { return dot(x, sin(arange(64 * 65).to(f32) * 0.37).reshape([64, 65]).to(bf16)) }
)",
        2e-2, {gpu_of(1), gpu_of(108), warpgroups_of(1), warpgroups_of(108)});
}

// Windows that neighbouring results share: lanes over channels in blocks, over pixels in rows, few channels of a long sum in slices.
constexpr const char *kWindows = R"(
export func narrow(x: f32[2, 32, 14, 15], w: f32[32, 1, 3, 3]) -> f32[2, 32, 14, 15] { return relu(conv2d(x, w, padding=1, groups=32)) }
export func ragged(x: f32[1, 20, 9, 11], w: f32[20, 1, 5, 5]) -> f32[1, 20, 5, 6] { return conv2d(x, w, padding=2, stride=2, groups=20) }
export func odd(x: f32[1, 19, 9, 11], w: f32[19, 1, 3, 3]) -> f32[1, 19, 9, 11] { return conv2d(x, w, padding=1, groups=19) }
export func dilated(x: f32[1, 16, 13, 12], w: f32[16, 1, 3, 3], y: f32[1, 16, 13, 12]) -> f32[1, 16, 13, 12] { return conv2d(x, w, padding=2, dilation=2, groups=16) + y }
export func inside(x: f32[1, 32, 40, 37], w: f32[32, 1, 7, 7]) -> f32[1, 32, 34, 31] { return conv2d(x, w, groups=32) }
export func few(x: f32[1, 32, 30, 33], w: f32[3, 32, 9, 9], b: f32[3]) -> f32[1, 3, 30, 33] { return relu(conv2d(x, w, b, padding=4)) }
export func one(x: f32[2, 48, 17, 12], w: f32[1, 48, 3, 3]) -> f32[2, 1, 17, 12] { return conv2d(x, w, padding=1) }
export func greatest(x: f32[1, 32, 15, 15]) -> f32[1, 32, 8, 8] { return max_pool2d(x, 3, stride=2, padding=1) }
export func greatest_rows(x: f32[3, 5, 16, 16]) -> f32[3, 5, 8, 8] { return max_pool2d(x, 3, stride=2, padding=1) }
export func mean(x: f32[1, 16, 12, 12]) -> f32[1, 16, 12, 12] { return avg_pool2d(x, 3, stride=1, padding=1) }
)";

TEST_CASE("windows that neighbouring results share") {
  check(kWindows, 1e-5, {gpu_of(1), gpu_of(108)});
  check(R"(
export func halves(x: bf16[1, 32, 12, 12], w: bf16[32, 1, 3, 3]) -> bf16[1, 32, 12, 12] { return conv2d(x, w, padding=1, groups=32) }
export func few_halves(x: f16[1, 32, 20, 20], w: f16[2, 32, 5, 5]) -> f16[1, 2, 20, 20] { return conv2d(x, w, padding=2) }
export func greatest(x: bf16[1, 16, 14, 14]) -> bf16[1, 16, 7, 7] { return max_pool2d(x - 2.0, 3, stride=2, padding=1) }
)",
        1e-2, {gpu_of(1), gpu_of(108)});
  check("export func whole(x: i8[1, 16, 20, 20], w: i8[3, 16, 3, 3]) -> i32[1, 3, 20, 20] { return conv2d(x.to(i32), w.to(i32), padding=1) }", 0, {gpu_of(1), gpu_of(108)});
  check("export func any(x: f32[N, 32, 12, 12], w: f32[32, 1, 3, 3]) -> f32[N, 32, 12, 12] { return conv2d(x, w, padding=1, groups=32) }", 1e-5, {gpu_of(1), gpu_of(108)}, 3);
}

// A row of 16 channels, 7 results along x: 3 * (9 + 3) loads of 4 channels for 7 * 4 results, where each would have 18 of one.
TEST_CASE("a thread loads what its window's neighbours share once") {
  auto kernels = parse_kernels(R"(kernel k(x: f32[401408] in, w: f32[288] in, y: f32[401408] out) dims() {
  for c in 0..2 parallel {
    for i in 0..112 parallel {
      for j in 0..112 parallel {
        for l in 0..16 parallel {
          alloc a: f32[1] reg
          a[0] = f32(0)
          for s in max(0, -i + 1)..min(3, -i + 113) reduce {
            for t in max(0, -j + 1)..min(3, -j + 113) reduce {
              a[0] = add(a[0], mul(x[200704*c + 1792*i + 16*j + l + 1792*s + 16*t - 1808], w[144*c + l + 48*s + 16*t]))
            }
          }
          y[200704*c + 1792*i + 16*j + l] = a[0]
        }
      }
    }
  }
}
)");
  INFO((kernels ? "" : kernels.error().message));
  REQUIRE(kernels.ok());
  cuda::CudaKernel emitted = cuda::emit_cuda((*kernels)[0], gpu_of(4));
  REQUIRE(emitted.launches.size() == 1);
  const std::string &text = emitted.launches[0].function.text;
  INFO(text);
  CHECK(emitted.launches[0].work.form == cuda::LaunchForm::window);
  auto count = [&](std::string_view what) {
    size_t out = 0;
    for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
      ++out;
    return out;
  };
  CHECK(count("kiln_load_if<4>") == 10);
  CHECK(count("kiln_load<4>") == 3);
  CHECK(count("kiln_store(") == 8);
}

TEST_CASE("values that are turned around") {
  check(R"(
export func plain(x: f32[300, 130]) -> f32[130, 300] { return transpose(x, 0, 1) + 1.0 }
export func inner(x: f32[5, 80, 97], y: f32[5, 97, 80]) -> f32[5, 97, 80] { return transpose(x, 1, 2) * y + transpose(x, 1, 2) }
export func both(x: f32[170, 200], y: bf16[170, 200]) -> f32[200, 170] { return transpose(x, 0, 1) * transpose(y, 0, 1).to(f32) }
export func halves(x: f16[200, 196]) -> f16[196, 200] { return transpose(x, 0, 1) }
export func bytes(x: u8[300, 170]) -> u8[170, 300] { return transpose(x, 0, 1) }
export func doubles(x: f64[165, 200]) -> f64[200, 165] { return transpose(x, 0, 1) }
export func short(x: f32[12, 2900]) -> f32[2900, 12] { return transpose(x, 0, 1) }
export func long(x: f32[2900, 12]) -> f32[12, 2900] { return transpose(x, 0, 1) }
export func heads(x: f32[2, 30, 8, 72]) -> f32[2, 8, 72, 30] { return transpose(transpose(x, 1, 2), 2, 3) }
export func blocks(x: f32[2, 32, 25, 25], w: f32[32, 1, 3, 3]) -> f32[2, 32, 25, 25] { return conv2d(x, w, padding=1, groups=32) }
)",
        1e-5, {gpu_of(84)});
  check("export func any(x: f32[N, 96]) -> f32[96, N] { return transpose(x, 0, 1) }", 0, {gpu_of(84)}, 77);
}

TEST_CASE("windows and what is turned around touch no more of memory than they need") {
  struct Case {
    const char *text;
    double most; // windows in rows begin between sectors
  };
  for (const Case &c : std::vector<Case>{
           {"export func f(x: f32[256, 256]) -> f32[256, 256] { return transpose(x, 0, 1) }", 1},
           {"export func f(x: bf16[256, 256]) -> bf16[256, 256] { return transpose(x, 0, 1) }", 1},
           {"export func f(x: u8[256, 256]) -> u8[256, 256] { return transpose(x, 0, 1) }", 1},
           {"export func f(x: f64[256, 256]) -> f64[256, 256] { return transpose(x, 0, 1) }", 1},
           {"export func f(x: f32[1, 32, 36, 36]) -> f32[1, 32, 36, 36] { return conv2d(x, sin(arange(288).to(f32)).reshape([32, 1, 3, 3]), padding=1, groups=32) }", 1.05},
           {"export func f(x: f32[1, 32, 64, 64], w: f32[3, 32, 9, 9]) -> f32[1, 3, 64, 64] { return conv2d(x, w, padding=4) }", 1.35},
       }) {
    INFO(c.text);
    Accesses a = accesses_of(c.text, gpu_of(4));
    CHECK(a.shared == a.shared_fewest);
    CHECK(a.global <= c.most * a.global_fewest);
    CHECK(a.races == 0);
  }
}
