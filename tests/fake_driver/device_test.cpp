// What the runtime asks of a device's driver, as the fake one counts it: one graph launch for a run that it has seen
// before, weights sent once, everything given back, errors that leave nothing behind.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "codegen/compile.h"
#include "frontend/kir/kir.h"
#include "ir/graph.h"

#include <kiln/kiln.hpp>

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

using namespace kiln;

namespace {

// The driver that the runtime has opened, or will open: the loader gives the same one.
template <typename F>
F from_driver(const char *name) {
  void *library = dlopen(std::getenv("KILN_CUDA_DRIVER"), RTLD_NOW);
  REQUIRE(library);
  return reinterpret_cast<F>(dlsym(library, name));
}
int calls(const char *name) { return from_driver<int (*)(const char *)>("kiln_fake_cuda_calls")(name); }
int left() { return from_driver<int (*)()>("kiln_fake_cuda_left")(); }

struct Package {
  std::unique_ptr<std::byte, void (*)(void *)> memory{nullptr, std::free};
  std::span<const std::byte> bytes;
};

Package compile(const std::string &text) {
  Module module;
  Diagnostics diagnostics;
  Compiled compiled;
  CompileOptions options;
  options.machines = {cpu_machines()[0]};
  options.gpus = {*find_gpu("sm_80")};
  bool fine = load_kir("net.kir", text, {}, module, diagnostics) && compile_module(module, options, compiled, diagnostics);
  INFO(diagnostics.render());
  REQUIRE(fine);
  std::vector<uint8_t> bytes;
  REQUIRE(build_package(package_spec(module, compiled), bytes) == "");
  Package out;
  out.memory.reset(static_cast<std::byte *>(std::aligned_alloc(4096, (bytes.size() + 4095) / 4096 * 4096)));
  std::memcpy(out.memory.get(), bytes.data(), bytes.size());
  out.bytes = {out.memory.get(), bytes.size()};
  return out;
}

const KilnOpenOptions kOnDevice{KILN_OPEN_DEVICE, 0, nullptr, "cuda:0"};

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
