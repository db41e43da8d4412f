// What the runtime asks of a device's driver, as the fake one counts it: one graph launch for a run that it has seen
// before, weights sent once, everything given back, errors that leave nothing behind.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "tests/fake_driver/driver.h"

#include <algorithm>

using namespace kiln;

namespace {

const KilnOpenOptions kOnDevice{KILN_OPEN_DEVICE, 0, nullptr, "cuda:0"};

// A context of `f` on the device, with room for the eight floats that it takes and the eight that it gives.
struct EightFloats {
  KilnError error{};
  std::optional<runtime::Module> module;
  std::optional<runtime::Context> context;
  std::vector<float> x = std::vector<float>(8, 1.0f), y = std::vector<float>(8);
  int64_t dims[1] = {8};
  KilnTensor in{x.data(), 32, KILN_F32, 1, dims}, out{y.data(), 32, KILN_F32, 1, dims};

  explicit EightFloats(const Package &package) : module(runtime::Module::try_open(package.bytes, error, &kOnDevice)) {
    REQUIRE(module);
    context = module->try_context("f", {}, error);
    REQUIRE(context);
  }
  EightFloats(const EightFloats &) = delete;
};

constexpr const char *kRows = R"(
export func f(x: f32[N, 40], t: f32[10, 40], at: i64[3]) -> (y: f32[N, 40], rows: f32[3, 40]) {
  return softmax(x, axis=1), gather(t, at, axis=0)
}
)";

} // namespace

TEST_CASE("a run that was recorded is one launch, other sizes are recorded anew, and nothing stays behind") {
  Package package = compile(kRows);
  {
    KilnError error{};
    auto module = runtime::Module::try_open(package.bytes, error, &kOnDevice);
    INFO(error.message);
    REQUIRE(module);
    runtime::ContextOptions options;
    options.dims = {8};
    auto context = module->try_context("f", options, error);
    INFO(error.message);
    REQUIRE(context);
    std::vector<float> x(8 * 40, 0.5f), t(400), y(8 * 40), rows(120);
    for (size_t i = 0; i < t.size(); ++i)
      t[i] = float(i);
    std::vector<int64_t> at{2, 9, 0};
    auto run = [&](int64_t n) {
      int64_t x_dims[] = {n, 40}, t_dims[] = {10, 40}, at_dims[] = {3}, rows_dims[] = {3, 40};
      KilnTensor in{x.data(), uint64_t(n) * 160, KILN_F32, 2, x_dims}, table{t.data(), 1600, KILN_F32, 2, t_dims},
          index{at.data(), 24, KILN_I64, 1, at_dims}, out{y.data(), uint64_t(n) * 160, KILN_F32, 2, x_dims}, picked{rows.data(), 480, KILN_F32, 2, rows_dims};
      const KilnApi &api = runtime::api();
      KilnContext *c = context->handle();
      int32_t code = api.bind_input(c, 0, &in, &error);
      code = code ? code : api.bind_input(c, 1, &table, &error);
      code = code ? code : api.bind_input(c, 2, &index, &error);
      code = code ? code : api.bind_output(c, 0, &out, &error);
      code = code ? code : api.bind_output(c, 1, &picked, &error);
      return code ? code : api.run(c, &error);
    };
    int launched = calls("cuLaunchKernel"), graphs = calls("cuGraphLaunch");
    REQUIRE(run(3) == KILN_OK);
    CHECK(y[0] == Approx(1.0 / 40));
    CHECK(rows[40] == 9 * 40);
    int recorded = calls("cuLaunchKernel");
    CHECK(recorded > launched);
    REQUIRE(run(3) == KILN_OK);
    CHECK(calls("cuLaunchKernel") == recorded);
    CHECK(calls("cuGraphLaunch") == graphs + 2);
    REQUIRE(run(8) == KILN_OK);
    CHECK(calls("cuLaunchKernel") > recorded);
    CHECK(y[8 * 40 - 1] == Approx(1.0 / 40));

    // Dims that change from run to run are sent step by step, until they come twice in a row.
    int made = calls("cuGraphInstantiateWithFlags");
    for (int64_t n : {4, 5, 6, 7}) {
      REQUIRE(run(n) == KILN_OK);
      CHECK(y[size_t(n) * 40 - 1] == Approx(1.0 / 40));
    }
    CHECK(calls("cuGraphInstantiateWithFlags") == made);
    graphs = calls("cuGraphLaunch");
    REQUIRE(run(7) == KILN_OK);
    REQUIRE(run(7) == KILN_OK);
    CHECK(calls("cuGraphInstantiateWithFlags") == made + 1);
    CHECK(calls("cuGraphLaunch") == graphs + 2);
    REQUIRE(run(8) == KILN_OK);
    CHECK(calls("cuGraphInstantiateWithFlags") == made + 2);

    at[1] = 10; // an assert in a kernel, found after the run
    CHECK(run(8) == KILN_ERROR_TRAP);
    CHECK(std::string(error.message).find("an index was out of range") != std::string::npos);
    CHECK(std::string(error.location).find("net.kir:") == 0);
    at[1] = 1;
    CHECK(run(8) == KILN_OK);
    CHECK(left() > 0);
  }
  CHECK(left() == 0);
}

TEST_CASE("a run of a hundred kernels asks the driver for one launch and one wait, and copies one piece each way") {
  Package package = compile(R"(
param w: f32[8, 8] = 0.125
export func f(x: f32[8], y: f32[8]) -> (a: f32[8], b: f32[8]) {
  h = reshape(x, [1, 8])
  for i in range(100) { h = h @ w + y }
  return reshape(h, [8]), x + y
}
)", "", 0, true);
  {
    EightFloats eight(package);
    auto &[error, module, context, x, y, dims, in, out] = eight;
    const KilnApi &api = runtime::api();
    KilnContext *c = context->handle();
    std::vector<float> second(8, 0.0f), b(8);
    KilnTensor more{second.data(), 32, KILN_F32, 1, dims}, other{b.data(), 32, KILN_F32, 1, dims};
    auto all_calls = [] {
      int sum = 0;
#define KILN_DRIVER(name, parameters) sum += calls(#name);
#include "runtime/cuda/driver_functions.def"
#undef KILN_DRIVER
      return sum;
    };
    REQUIRE(api.bind_input(c, 0, &in, &error) == KILN_OK);
    REQUIRE(api.bind_input(c, 1, &more, &error) == KILN_OK);
    REQUIRE(api.bind_output(c, 0, &out, &error) == KILN_OK);
    REQUIRE(api.bind_output(c, 1, &other, &error) == KILN_OK);
    int launched = calls("cuLaunchKernel"), sent = calls("cuMemcpyHtoDAsync_v2"), fetched = calls("cuMemcpyDtoHAsync_v2");
    REQUIRE(api.run(c, &error) == KILN_OK);
    CHECK(calls("cuLaunchKernel") >= launched + 100);
    CHECK(calls("cuMemcpyHtoDAsync_v2") == sent + 1);
    CHECK(calls("cuMemcpyDtoHAsync_v2") == fetched + 1);
    int before = all_calls(), graphs = calls("cuGraphLaunch"), waits = calls("cuStreamSynchronize");
    std::fill(y.begin(), y.end(), 0.0f);
    REQUIRE(api.run(c, &error) == KILN_OK);
    CHECK(y[3] == 1.0f);
    CHECK(b[3] == 1.0f);
    CHECK(calls("cuGraphLaunch") == graphs + 1);
    CHECK(calls("cuStreamSynchronize") == waits + 1);
    CHECK(all_calls() == before + 6); // and the context made current and given back, for the start and for the end
  }
  CHECK(left() == 0);
}

TEST_CASE("whatever call fails, it is named, and nothing stays behind") {
  Package package = compile("export func f(x: f32[4, 8]) -> f32[4, 8] { return softmax(x, axis=1) }");
  for (const char *name : {"cuModuleLoadData", "cuModuleGetFunction", "cuMemAlloc_v2", "cuMemcpyHtoD_v2", "cuStreamCreate", "cuMemAllocHost_v2",
                           "cuStreamBeginCapture_v2", "cuLaunchKernel", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphLaunch",
                           "cuStreamSynchronize"}) {
    setenv("KILN_FAKE_CUDA_FAIL", (std::string(name) + ":" + std::to_string(calls(name) + 1) + ":700").c_str(), 1);
    {
      KilnError error{};
      auto module = runtime::Module::try_open(package.bytes, error, &kOnDevice);
      auto context = module ? module->try_context("f", {}, error) : std::nullopt;
      if (context) {
        std::vector<float> x(32), y(32);
        int64_t dims[] = {4, 8};
        KilnTensor in{x.data(), 128, KILN_F32, 2, dims}, out{y.data(), 128, KILN_F32, 2, dims};
        runtime::api().bind_input(context->handle(), 0, &in, &error);
        runtime::api().bind_output(context->handle(), 0, &out, &error);
        CHECK(runtime::api().run(context->handle(), &error) == KILN_ERROR_DEVICE);
      }
      INFO(name << ": " << error.message);
      CHECK(error.code == KILN_ERROR_DEVICE);
      CHECK(std::string(error.message).find("CUDA_ERROR_ILLEGAL_ADDRESS") != std::string::npos);
    }
    unsetenv("KILN_FAKE_CUDA_FAIL");
    INFO(name);
    CHECK(left() == 0);
  }
}

TEST_CASE("the inputs of the next run are sent while a run computes") {
  Package package = compile("state total: f32[8]\nexport func f(x: f32[8]) -> f32[8] { total = total + x; return total }");
  {
    EightFloats eight(package);
    auto &[error, module, context, x, y, dims, in, out] = eight;
    const KilnApi &api = runtime::api();
    KilnContext *c = context->handle();
    auto bind = [&](float value) {
      std::fill(x.begin(), x.end(), value);
      return api.bind_input(c, 0, &in, &error);
    };
    REQUIRE(api.bind_output(c, 0, &out, &error) == KILN_OK);
    REQUIRE(bind(1) == KILN_OK);
    CHECK(api.finish(c, &error) == KILN_ERROR_USAGE);
    REQUIRE(api.start(c, &error) == KILN_OK);
    CHECK(api.start(c, &error) == KILN_ERROR_USAGE);
    CHECK(api.run(c, &error) == KILN_ERROR_USAGE);
    // The stream that computes, and the one made after it, which sends.
    std::string log = happened();
    size_t at = log.rfind("launch ");
    REQUIRE(at != std::string::npos);
    int number = std::atoi(log.c_str() + at + 7);
    std::string own = " " + std::to_string(number) + "\n", sending = " " + std::to_string(number + 1) + "\n";
    float total = 1;
    for (int step = 2; step < 7; ++step) {
      // The batch of this step is overwritten as soon as it was sent.
      REQUIRE(bind(float(step)) == KILN_OK);
      REQUIRE(api.send(c, &error) == KILN_OK);
      std::fill(x.begin(), x.end(), -100.0f);
      REQUIRE(api.finish(c, &error) == KILN_OK);
      CHECK(y[7] == total);
      total += float(step);
      REQUIRE(api.start(c, &error) == KILN_OK);
      // The copy was put into a stream of its own before the host waited for the step, and the next one waits for it.
      log = happened();
      size_t sent = log.find("send" + sending), waited = log.find("wait" + own), event = log.find("wait for event, in" + own),
             launched = log.rfind("launch" + own);
      INFO(log);
      CHECK(sent < waited);
      CHECK(waited < event);
      CHECK(event < launched);
      CHECK(launched != std::string::npos);
      CHECK(log.find("send" + own) == std::string::npos);
    }
    REQUIRE(api.finish(c, &error) == KILN_OK);
    CHECK(y[0] == total);
    // It happened when the step asked for it, and not before.
    log = happened();
    INFO(log);
    CHECK(log.find("sent" + sending) != std::string::npos);
    CHECK(log.find("sent" + sending) < log.find("run" + own));
    // What was sent and then bound anew is not used.
    REQUIRE(bind(50) == KILN_OK);
    REQUIRE(api.send(c, &error) == KILN_OK);
    REQUIRE(bind(1) == KILN_OK);
    REQUIRE(api.run(c, &error) == KILN_OK);
    CHECK(y[3] == total + 1);
    // Two graphs for each set at most, and none is recorded again.
    int graphs = calls("cuGraphInstantiateWithFlags");
    for (int step = 0; step < 4; ++step) {
      REQUIRE(bind(0) == KILN_OK);
      REQUIRE(api.send(c, &error) == KILN_OK);
      REQUIRE(api.run(c, &error) == KILN_OK);
    }
    CHECK(calls("cuGraphInstantiateWithFlags") <= graphs + 1);
    REQUIRE(api.start(c, &error) == KILN_OK); // a context may end with a run under way
  }
  CHECK(left() == 0);
}

TEST_CASE("a call that fails while inputs are sent is named, and nothing stays behind") {
  Package package = compile("export func f(x: f32[8]) -> f32[8] { return x * 2.0 }");
  for (const char *name : {"cuStreamCreate", "cuEventCreate", "cuMemAlloc_v2", "cuMemAllocHost_v2", "cuMemcpyHtoDAsync_v2", "cuEventRecord",
                           "cuStreamWaitEvent", "cuGraphLaunch"}) {
    INFO(name);
    {
      EightFloats eight(package);
      auto &[error, module, context, x, y, dims, in, out] = eight;
      const KilnApi &api = runtime::api();
      KilnContext *c = context->handle();
      REQUIRE(api.bind_input(c, 0, &in, &error) == KILN_OK);
      REQUIRE(api.bind_output(c, 0, &out, &error) == KILN_OK);
      REQUIRE(api.run(c, &error) == KILN_OK);
      setenv("KILN_FAKE_CUDA_FAIL", (std::string(name) + ":" + std::to_string(calls(name) + 1) + ":700").c_str(), 1);
      int32_t code = api.send(c, &error);
      code = code ? code : api.run(c, &error);
      CHECK(code == KILN_ERROR_DEVICE);
      CHECK(std::string(error.message).find(std::string(name).substr(0, 12)) != std::string::npos);
      unsetenv("KILN_FAKE_CUDA_FAIL");
      CHECK(api.run(c, &error) == KILN_OK); // and the next run is fine
      CHECK(y[1] == 2.0f);
    }
    CHECK(left() == 0);
  }
}

namespace {

Compiled compile_for(const std::string &text, bool for_gpu, Module &module) {
  Diagnostics diagnostics;
  Compiled compiled;
  CompileOptions options;
  options.machines = {*find_machine("x86-64-v3")};
  if (for_gpu)
    options.gpus = {*find_gpu("sm_80"), *find_gpu("sm_90")};
  bool fine = load_kir("net.kir", text, {}, module, diagnostics) && compile_module(module, options, compiled, diagnostics);
  INFO(diagnostics.render());
  REQUIRE(fine);
  return compiled;
}

std::vector<std::string> kernel_names(const PackageEntry &entry) {
  std::vector<std::string> out;
  for (const PackageKernel &kernel : entry.kernels)
    out.push_back(kernel.name);
  return out;
}

} // namespace

TEST_CASE("code for GPUs leaves that for processors as it is, and weights lie in the package once") {
  const std::string convolutions = R"(
import nn
c = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1, groups=64))
export func f(x: f32[1, 32, 56, 56]) { return c(x) }
)";
  Module plain_module, module;
  Compiled plain = compile_for(convolutions, false, plain_module), both = compile_for(convolutions, true, module);
  PackageSpec plain_spec = package_spec(plain_module, plain), spec = package_spec(module, both);
  REQUIRE(spec.entries.size() == 4); // with init
  CHECK(!spec.entries[0].is_twin);
  CHECK(spec.entries[2].is_twin);
  CHECK(spec.entries[2].name == "f");
  CHECK(kernel_names(spec.entries[0]) == kernel_names(plain_spec.entries[0]));
  CHECK(kernel_names(spec.entries[0]) != kernel_names(spec.entries[2]));
  CHECK(spec.entries[0].scratch_size == plain_spec.entries[0].scratch_size);
  CHECK(spec.entries[0].arena_size == plain_spec.entries[0].arena_size);
  CHECK(spec.devices.size() == 2);

  const std::string layers = R"(
import nn
m = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256), nn.LayerNorm(256))
export func f(x: f32[4, 256]) { return m(x) }
)";
  Module plain_layers_module, layers_module;
  Compiled plain_layers = compile_for(layers, false, plain_layers_module), layers_of_both = compile_for(layers, true, layers_module);
  CHECK(layers_of_both.program.weights_size == plain_layers.program.weights_size);
}

TEST_CASE("weights that a package without code for GPUs transforms and stores are there once in one with it, as they are") {
  const std::string text = R"(
param c: f32[32, 32, 3, 3] = 0.01
param l: f32[32, 8192] = 0.02
export func f(x: f32[1, 32, 56, 56]) { return mean(relu(conv2d(x, c, padding=1)), dim=[2, 3]) @ l }
)";
  constexpr int64_t kConvolution = 32 * 32 * 9 * 4, kProduct = 32 * 8192 * 4;
  Module plain_module, module;
  Compiled plain = compile_for(text, false, plain_module), both = compile_for(text, true, module);
  // The params' initial values, and what the code reads: with tiles of 4x4, 36 points for 9.
  constexpr int64_t kInitial = kProduct + kConvolution;
  CHECK(plain.program.weights_size > kInitial + kProduct + 3 * kConvolution);
  CHECK(both.program.weights_size >= kInitial + kProduct + kConvolution);
  CHECK(both.program.weights_size < kInitial + kProduct + kConvolution + 1024);
}

TEST_CASE("two devices, each with a context, weights and variables of its own") {
  Package package = compile("import nn\nlayer = nn.Linear(8, 8)\nstate total: f32[4, 8]\n"
                            "export func f(x: f32[4, 8]) -> f32[4, 8] { total = total + layer(x); return total }");
  setenv("KILN_FAKE_CUDA_DEVICES", "2", 1);
  {
    KilnError error{};
    std::vector<runtime::Module> modules;
    std::vector<runtime::Context> contexts;
    for (const char *device : {"cuda:0", "cuda:1"}) {
      KilnOpenOptions options{KILN_OPEN_DEVICE, 0, nullptr, device};
      auto module = runtime::Module::try_open(package.bytes, error, &options);
      INFO(error.message);
      REQUIRE(module);
      CHECK(std::string(module->info().target) == std::string(device) + " sm_80");
      modules.push_back(std::move(*module));
      auto context = modules.back().try_context("f", {}, error);
      INFO(error.message);
      REQUIRE(context);
      contexts.push_back(std::move(*context));
    }
    std::vector<float> x(32, 1.0f), y[2] = {std::vector<float>(32), std::vector<float>(32)};
    int64_t dims[] = {4, 8};
    // In turns, and both under way at a time.
    for (int round = 0; round < 3; ++round) {
      for (size_t d = 0; d < 2; ++d) {
        KilnTensor in{x.data(), 128, KILN_F32, 2, dims}, out{y[d].data(), 128, KILN_F32, 2, dims};
        REQUIRE(runtime::api().bind_input(contexts[d].handle(), 0, &in, &error) == KILN_OK);
        REQUIRE(runtime::api().bind_output(contexts[d].handle(), 0, &out, &error) == KILN_OK);
        REQUIRE(runtime::api().start(contexts[d].handle(), &error) == KILN_OK);
      }
      for (size_t d = 2; d-- > 0;)
        REQUIRE(runtime::api().finish(contexts[d].handle(), &error) == KILN_OK);
      CHECK(y[0] == y[1]);
    }
  }
  unsetenv("KILN_FAKE_CUDA_DEVICES");
  CHECK(left() == 0);
}
