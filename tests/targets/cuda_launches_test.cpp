// What GPUs launch: nests that wait for nothing of each other together, and updates at places that data tell by many blocks.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "codegen/compile.h"
#include "codegen/cuda/device_writer.h"
#include "codegen/cuda/launch_list.h"
#include "passes/lower/lower.h"
#include "tests/random.h"
#include "tests/targets/load.h"
#include "tests/targets/lowered.h"
#include "tests/targets/targets.h"

#include <algorithm>

using namespace kiln;
using namespace kiln::test;

namespace {

std::vector<cuda::LaunchList> launches_of(const std::string &text) {
  Module module = load(text);
  CompileOptions options;
  options.gpus = {*find_gpu("sm_90")};
  options.keep_params = true;
  Program program = lowered(module, options);
  return cuda::list_launches(program, cuda::emit_kernels(program, options.gpus[0]), options.gpus[0]);
}

Tensor floats(std::vector<int64_t> dims, Random &random) {
  Tensor out(DType::f32, dims);
  for (int64_t i = 0; i < out.count(); ++i)
    out.set_f64(i, random.uniform(-1, 1));
  return out;
}

Tensor indices(std::vector<int64_t> dims, int64_t end, Random &random) {
  Tensor out(DType::i64, dims);
  for (int64_t i = 0; i < out.count(); ++i)
    out.set_f64(i, double(int64_t(random.uniform(0, double(end)))));
  return out;
}

bool has_same_bits(const Tensor &a, const Tensor &b) {
  return a.type() == b.type() && std::ranges::equal(a.bytes(), b.bytes());
}

GpuMachine gpu() { return *find_gpu("compute_80"); }

using Results = std::vector<Tensor>;
Results run(Target &target, const Module &module, size_t function, const std::vector<Tensor> &inputs) {
  auto loaded = target.load(module);
  INFO((loaded ? "" : loaded.error().message));
  REQUIRE(loaded.ok());
  auto out = (*loaded)->run(function, inputs);
  INFO((out ? "" : out.error().message));
  REQUIRE(out.ok());
  return std::move(*out);
}

// An update of a param as an optimizer makes it, of any shape.
std::string update_of(const std::string &p, const std::string &g) { return p + " - " + g + " * 0.01 / (sqrt(" + g + " * " + g + ") + 1e-8)"; }

} // namespace

TEST_CASE("a step of an optimizer updates all params in one launch") {
  auto lists = launches_of(R"(
import nn, optim, loss
model Net() {
  a = nn.Linear(32, 64)
  b = nn.Linear(64, 64)
  c = nn.Linear(64, 10)
  func forward(x: f32[16, 32]) { return c(relu(b(relu(a(x))))) }
}
net = Net()
opt = optim.Adam(net, lr=1e-3)
export func train_step(x: f32[16, 32], y: i64[16]) -> (l: f32[]) {
  l = loss.cross_entropy(net(x), y)
  opt.step(grad(l, net))
  return l
}
)");
  size_t most = 0, together = 0, copies = 0;
  for (const cuda::LaunchList &list : lists)
    if (list.entry.starts_with("train_step"))
      for (const cuda::ListedLaunch &l : list.launches) {
        most = std::max(most, l.joined);
        together += l.joined > 1;
        copies += l.name.starts_with("copy");
      }
  CHECK(most >= 6); // of six params
  CHECK(together <= 3);
  CHECK(copies == 0); // params and moments are replaced where they lie
}

TEST_CASE("what is joined has the bits that it has alone") {
  std::vector<std::vector<int64_t>> shapes{{64, 33}, {1000}, {7}, {64, 33}, {4096}, {3, 5, 7}, {1}, {64, 128}};
  std::string all_in, all_results, all_values, alone;
  for (size_t i = 0; i < shapes.size(); ++i) {
    std::string dims, p = "p" + std::to_string(i), g = "g" + std::to_string(i);
    for (int64_t d : shapes[i])
      dims += (dims.empty() ? "" : ", ") + std::to_string(d);
    std::string in = p + ": f32[" + dims + "], " + g + ": f32[" + dims + "]";
    all_in += (i ? ", " : "") + in;
    all_results += std::string(i ? ", " : "") + "f32[" + dims + "]";
    all_values += (i ? ", " : "") + update_of(p, g);
    alone += "export func f" + std::to_string(i) + "(" + in + ") -> f32[" + dims + "] { return " + update_of(p, g) + " }\n";
  }
  std::string together = "export func all(" + all_in + ") -> (" + all_results + ") { return " + all_values + " }\n";
  auto lists = launches_of(together);
  REQUIRE(lists.size() == 1);
  CHECK(lists[0].count == 1);
  Random random(1);
  std::vector<Tensor> inputs;
  for (const auto &shape : shapes)
    for (int i = 0; i < 2; ++i)
      inputs.push_back(floats(shape, random));
  auto target = cuda_target(gpu());
  Results joined = run(*target, load(together), 0, inputs);
  Module apart = load(alone);
  for (size_t i = 0; i < shapes.size(); ++i)
    CHECK(has_same_bits(joined[i], run(*target, apart, i, {inputs[2 * i], inputs[2 * i + 1]})[0]));
}

TEST_CASE("no launch moves past one that touches the same memory") {
  // Variables that are read, written, and read again, beside what could be joined with any of it.
  Module module = load(R"(
state a: f32[300] = 0.0
state b: f32[40, 8] = 1.0
state c: f32[300] = 0.5
state d: f32[8, 8] = 0.25
export func f(x: f32[300], y: f32[40, 8]) -> (f32[300], f32[40, 8], f32[8], f32[300], f32[40, 8], f32[300], f32[300], f32[8, 8]) {
  old = c
  c = c * 3.0 + x
  d = transpose(d, 0, 1) + d + y[0:8]
  u = x * 2.0
  s = sum(y, 0)
  a = a + u
  v = y * (s + 1.0)
  b = b * v
  w = a * x
  a = w + a
  z = b + y
  return w, z, sum(z, 0), a * 3.0, exp(v), old * x, c * x, d * 2.0
}
)");
  Random random(2);
  std::vector<Tensor> inputs{floats({300}, random), floats({40, 8}, random)};
  auto native = std::move(native_targets().back());
  Results want = run(*native, module, 0, inputs), got = run(*cuda_target(gpu()), module, 0, inputs);
  REQUIRE(want.size() == 8);
  for (size_t i = 0; i < want.size(); ++i)
    for (int64_t k = 0; k < want[i].count(); ++k)
      CHECK(got[i].at_f64(k) == Approx(want[i].at_f64(k)).epsilon(1e-5));
}

TEST_CASE("a copy of products comes behind them, also where it could be joined with an earlier one") {
  std::string text = R"(
export func f(x: f32[64, 64], w: f32[64, 64], v: f32[64, 64]) -> (f32[64, 128], f32[64, 128]) {
  return concat([x, w], 1), concat([x @ w, x @ v], 1)
}
)";
  Module module = load(text);
  Random random(4);
  std::vector<Tensor> inputs{floats({64, 64}, random), floats({64, 64}, random), floats({64, 64}, random)};
  auto native = std::move(native_targets().back());
  Results want = run(*native, module, 0, inputs), got = run(*cuda_target(gpu()), module, 0, inputs);
  for (size_t i = 0; i < want.size(); ++i)
    for (int64_t k = 0; k < want[i].count(); ++k)
      REQUIRE(got[i].at_f64(k) == Approx(want[i].at_f64(k)).margin(1e-4));
}

TEST_CASE("updates at places that data tell: many blocks, in the order of the steps") {
  std::string text = R"(
export func rows(x: f32[65, 128], at: i64[8, 50, 1], v: f32[8, 50, 128]) -> f32[65, 128] { return scatter_nd(x, at, v, reduction="add") }
export func narrow_rows(x: f32[40, 3], at: i64[500, 1], v: f32[500, 3]) -> f32[40, 3] { return scatter_nd(x, at, v, reduction="add") }
export func wide_rows(x: f32[9, 300], at: i64[33, 1], v: f32[33, 300]) -> f32[9, 300] { return scatter_nd(x, at, v, reduction="mul") }
export func elements(x: f32[9, 11], at: i64[700, 2], v: f32[700]) -> f32[9, 11] { return scatter_nd(x, at, v, reduction="add") }
export func last(x: f32[9, 11], at: i64[700, 2], v: f32[700]) -> f32[9, 11] { return scatter_nd(x, at, v) }
export func many(x: f32[5000, 16], at: i64[300, 1], v: f32[300, 16]) -> f32[5000, 16] { return scatter_nd(x, at, v * 0.5, reduction="add") }
export func greatest(x: i32[30, 2], at: i64[200, 1], v: i32[200, 2]) -> i32[30, 2] { return scatter_nd(x, at, v, reduction="max") }
)";
  for (const cuda::LaunchList &list : launches_of(text)) {
    INFO(list.entry);
    CHECK(list.launches.back().launch.blocks.as_const() > 1);
  }
  Module module = load(text);
  auto native = std::move(native_targets().back());
  for (int multiprocessors : {1, 108}) {
    GpuMachine machine = gpu();
    machine.multiprocessors = multiprocessors;
    auto target = cuda_target(machine);
    for (size_t f = 0; f < module.functions.size(); ++f) {
      Random random(f + 1);
      std::vector<Tensor> inputs;
      for (ValueId v : module.functions[f].body.args) {
        const TensorType &type = module.functions[f].type(v);
        std::vector<int64_t> dims;
        for (const Dim &d : type.shape)
          dims.push_back(d.as_const());
        inputs.push_back(type.dtype == DType::i64 ? indices(dims, 9, random) : floats(dims, random));
        if (type.dtype == DType::i32)
          inputs.back() = Tensor(DType::i32, dims);
        for (int64_t i = 0; type.dtype == DType::i32 && i < inputs.back().count(); ++i)
          inputs.back().set_f64(i, double(int64_t(random.uniform(-99, 99))));
      }
      INFO(module.functions[f].name << " on " << multiprocessors);
      CHECK(has_same_bits(run(*target, module, f, inputs)[0], run(*native, module, f, inputs)[0]));
    }
  }
}

TEST_CASE("an index outside ends the run") {
  Module module = load("export func f(x: f32[65, 128], at: i64[90, 1], v: f32[90, 128]) -> f32[65, 128] { return scatter_nd(x, at, v, reduction=\"add\") }");
  Random random(3);
  for (double bad : {65.0, -66.0}) {
    std::vector<Tensor> inputs{floats({65, 128}, random), indices({90, 1}, 65, random), floats({90, 128}, random)};
    inputs[1].set_f64(70, bad);
    auto loaded = cuda_target(gpu())->load(module);
    REQUIRE(loaded.ok());
    CHECK(!(*loaded)->run(0, inputs).ok());
  }
}
