// Chains of kernels computed block by block, on every target of this machine, against the interpreter:
// borders of blocks, strides, channels that fill no block, batches.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "codegen/compile.h"
#include "ir/interpret.h"
#include "passes/graph/chain.h"
#include "tests/targets/load.h"
#include "tests/targets/targets.h"

#include <cmath>
#include <map>

using namespace kiln;
using namespace kiln::test;

namespace {

constexpr const char *kModel = R"(
export func bottleneck(x: f32[1, 24, 12, 11], w0: f32[48, 24, 1, 1], w1: f32[48, 1, 3, 3], w2: f32[24, 48, 1, 1]) {
  e = relu(conv(x, w0, stride=[1, 1], pad=[0, 0, 0, 0], dilation=[1, 1]))
  d = relu(conv(e, w1, stride=[1, 1], pad=[1, 1, 1, 1], dilation=[1, 1], groups=48))
  return conv(d, w2, stride=[1, 1], pad=[0, 0, 0, 0], dilation=[1, 1]) + x
}
export func strided(x: f32[2, 16, 17, 20], w0: f32[40, 16, 1, 1], w1: f32[40, 1, 5, 5], w2: f32[12, 40, 1, 1]) {
  e = sigmoid(conv(x, w0, stride=[1, 1], pad=[0, 0, 0, 0], dilation=[1, 1]))
  d = conv(e, w1, stride=[2, 2], pad=[2, 2, 2, 2], dilation=[1, 1], groups=40)
  return conv(d, w2, stride=[1, 1], pad=[0, 0, 0, 0], dilation=[1, 1])
}
export func groups(x: f32[1, 16, 9, 9], w0: f32[96, 16, 1, 1], w1: f32[96, 1, 3, 3]) {
  e = relu(conv(x, w0, stride=[1, 1], pad=[0, 0, 0, 0], dilation=[1, 1]))
  return conv(e, w1, stride=[1, 1], pad=[1, 1, 1, 1], dilation=[1, 1], groups=96)
}
export func pooled(x: f32[1, 16, 30, 30], w0: f32[32, 16, 5, 5]) {
  e = relu(conv(x, w0, stride=[1, 1], pad=[2, 2, 2, 2], dilation=[1, 1]))
  return max_pool(e, kernel=[3, 3], stride=[2, 2], pad=[1, 1, 1, 1], dilation=[1, 1])
}
export func twice(x: f32[1, 16, 20, 16], w0: f32[16, 16, 5, 5], w1: f32[16, 16, 5, 5]) {
  e = relu(conv(x, w0, stride=[1, 1], pad=[2, 2, 2, 2], dilation=[1, 1]))
  return conv(e, w1, stride=[1, 1], pad=[2, 2, 2, 2], dilation=[1, 1])
}
)";

// Of images whose size a run tells: blocks are so many columns wide, and the last ones partly outside.
constexpr const char *kSymbolic = R"(
export func bottleneck(x: f32[N, 24, H, W], w0: f32[48, 24, 1, 1], w1: f32[48, 1, 3, 3], w2: f32[24, 48, 1, 1]) {
  e = relu(conv(x, w0, stride=[1, 1], pad=[0, 0, 0, 0], dilation=[1, 1]))
  d = relu(conv(e, w1, stride=[1, 1], pad=[1, 1, 1, 1], dilation=[1, 1], groups=48))
  return conv(d, w2, stride=[1, 1], pad=[0, 0, 0, 0], dilation=[1, 1]) + x
}
export func stem(x: f32[N, 3, H, W], w0: f32[16, 3, 3, 3], w1: f32[16, 16, 1, 1], w2: f32[16, 1, 5, 5]) {
  e = relu(conv(x, w0, stride=[2, 2], pad=[1, 1, 1, 1], dilation=[1, 1]))
  d = conv(e, w1, stride=[1, 1], pad=[0, 0, 0, 0], dilation=[1, 1])
  return conv(d, w2, stride=[1, 2], pad=[2, 2, 2, 2], dilation=[1, 1], groups=16)
}
export func pooled(x: f32[1, 16, H, W], w0: f32[32, 16, 5, 5]) {
  e = relu(conv(x, w0, stride=[1, 1], pad=[2, 2, 2, 2], dilation=[1, 1]))
  return max_pool(e, kernel=[3, 3], stride=[2, 2], pad=[1, 1, 1, 1], dilation=[1, 1])
}
export func wide(x: f32[1, 16, 9, W], w0: f32[16, 16, 5, 5], w1: f32[16, 16, 5, 5]) {
  e = relu(conv(x, w0, stride=[1, 1], pad=[2, 2, 2, 2], dilation=[1, 1]))
  return conv(e, w1, stride=[1, 1], pad=[2, 2, 2, 2], dilation=[1, 1])
}
export func high(x: f32[1, 16, H, 11], w0: f32[32, 16, 1, 1], w1: f32[32, 1, 3, 3]) {
  e = relu(conv(x, w0, stride=[1, 1], pad=[0, 0, 0, 0], dilation=[1, 1]))
  return conv(e, w1, stride=[1, 1], pad=[0, 1, 2, 1], dilation=[1, 1], groups=32)
}
)";

std::vector<Tensor> inputs_of(const Function &function, const std::map<std::string, int64_t> &sizes = {}) {
  std::vector<Tensor> out;
  uint32_t state = 12345;
  for (ValueId arg : function.body.args) {
    const TensorType &type = function.type(arg);
    std::vector<int64_t> dims;
    for (const Dim &d : type.shape)
      dims.push_back(d.is_const() ? d.as_const() : sizes.at(std::string(d.try_symbol()->text())));
    Tensor t(type.dtype, dims);
    for (int64_t i = 0; i < t.count(); ++i) {
      state = state * 1664525u + 1013904223u;
      t.set_f64(i, double(state >> 8) / double(1 << 23) - 1);
    }
    out.push_back(std::move(t));
  }
  return out;
}

double difference(const Tensor &got, const Tensor &want) {
  double scale = 1e-12, worst = 0;
  for (int64_t i = 0; i < want.count(); ++i)
    scale = std::max(scale, std::abs(want.at_f64(i)));
  for (int64_t i = 0; i < want.count(); ++i) {
    double d = std::abs(got.at_f64(i) - want.at_f64(i));
    worst = std::isfinite(d) ? std::max(worst, d) : INFINITY;
  }
  return worst / scale;
}

} // namespace

TEST_CASE("chains are made of these") {
  for (const char *model : {kModel, kSymbolic}) {
    Module module = load(model);
    Diagnostics diagnostics;
    CompileOptions options;
    options.machines = {host_machine()};
    REQUIRE(optimise_module(module, options, diagnostics));
    for (const Function &f : module.functions) {
      size_t chains = 0;
      for (NodeId id : f.body.nodes)
        chains += is_chain(f.node(id));
      INFO(f.name << "\n" << print_function(module, f));
      CHECK(chains > 0);
    }
  }
}

void check_all(const char *model, const std::map<std::string, int64_t> &sizes) {
  Module reference = load(model);
  for (auto &target : native_targets()) {
    auto loaded = target->load(load(model));
    INFO(target->name() << (loaded ? "" : loaded.error().message));
    REQUIRE(loaded.ok());
    for (size_t f = 0; f < reference.functions.size(); ++f) {
      const Function &function = reference.functions[f];
      std::vector<Tensor> inputs = inputs_of(function, sizes);
      VariableValues variables;
      auto want = interpret(reference, function, inputs, variables);
      auto got = (*loaded)->run(f, inputs);
      INFO(function.name << (want ? "" : want.error().message) << (got ? "" : got.error().message));
      REQUIRE(want.ok());
      REQUIRE(got.ok());
      CHECK(difference((*got)[0], (*want)[0]) < 1e-5);
    }
  }
}

TEST_CASE("chains compute what their stages do") { check_all(kModel, {}); }

TEST_CASE("chains of images whose size a run tells") {
  check_all(kSymbolic, {{"N", 2}, {"H", 67}, {"W", 85}});
  check_all(kSymbolic, {{"N", 1}, {"H", 5}, {"W", 4}});
  check_all(kSymbolic, {{"N", 3}, {"H", 17}, {"W", 16}});
  check_all(kSymbolic, {{"N", 1}, {"H", 3}, {"W", 330}});
}
