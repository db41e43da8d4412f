// What the runtime does where the driver is not at its best: code that it cannot load, a GPU that is lost, a process that
// was forked, variables that are looked at while a run changes them; and that the fake driver keeps a driver's rules.
#define CATCH_CONFIG_MAIN
#include "tests/fake_driver/driver.h"

#include "runtime/cuda/device_format.h"

#include <sys/wait.h>
#include <unistd.h>

#include <thread>

using namespace kiln;

namespace {

const KilnOpenOptions kOnDevice{KILN_OPEN_DEVICE, 0, nullptr, "cuda:0"}, kOnSecond{KILN_OPEN_DEVICE, 0, nullptr, "cuda:1"};
constexpr const char *kDouble = "export func f(x: f32[8]) -> f32[8] { return x * 2.0 }";
constexpr const char *kCount = R"(
state total: f32[8]
export func f(x: f32[8]) -> f32[8] { total = total + x; return total }
export func look(x: f32[8]) -> f32[8] { return total - x }
)";

struct Setting {
  const char *name;
  Setting(const char *n, const std::string &value) : name(n) { setenv(n, value.c_str(), 1); }
  ~Setting() { unsetenv(name); }
};

// A context of an entry that takes and gives eight floats.
struct EightFloats {
  KilnError error{};
  std::optional<runtime::Context> context;
  std::vector<float> x = std::vector<float>(8, 1.0f), y = std::vector<float>(8);

  EightFloats(const runtime::Module &module, const char *entry, runtime::Variables *variables = nullptr) {
    runtime::ContextOptions options;
    options.variables = variables;
    context = module.try_context(entry, options, error);
    INFO(error.message);
    REQUIRE(context);
    int64_t dims[1] = {8};
    KilnTensor in{x.data(), 32, KILN_F32, 1, dims}, out{y.data(), 32, KILN_F32, 1, dims};
    REQUIRE(runtime::api().bind_input(context->handle(), 0, &in, &error) == KILN_OK);
    REQUIRE(runtime::api().bind_output(context->handle(), 0, &out, &error) == KILN_OK);
  }
  int32_t run() { return runtime::api().run(context->handle(), &error); }
  int32_t start() { return runtime::api().start(context->handle(), &error); }
  int32_t finish() { return runtime::api().finish(context->handle(), &error); }
  bool says(const char *text) const { return std::string(error.message).find(text) != std::string::npos; }
};

runtime::Module open(const Package &package, const KilnOpenOptions &options = kOnDevice) {
  KilnError error{};
  auto module = runtime::Module::try_open(package.bytes, error, &options);
  INFO(error.message);
  REQUIRE(module);
  return std::move(*module);
}

std::string refusal(const Package &package) {
  KilnError error{};
  CHECK(!runtime::Module::try_open(package.bytes, error, &kOnDevice));
  CHECK(left() == 0);
  return error.message;
}

bool holds(const std::string &text, const char *part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("a driver that is too old for the model's code is told from others") {
  Package package = compile(kDouble);
  Setting version("KILN_FAKE_CUDA_VERSION", "12020");
  for (const char *code : {"222", "209", "200", "218"}) {
    Setting refuses("KILN_FAKE_CUDA_REFUSES", code);
    std::string message = refusal(package);
    INFO(message);
    CHECK(holds(message, "cuModuleLoadData failed"));
    CHECK(holds(message, "the driver is for CUDA 12.2: install a newer one, or compile the model with the NVRTC of that CUDA"));
  }
  for (const char *code : {"221", "223"}) {
    Setting refuses("KILN_FAKE_CUDA_REFUSES", code);
    CHECK(holds(refusal(package), "compile the model for this GPU instead of as PTX"));
  }
}

TEST_CASE("code that wants more shared memory than the device has gives way to PTX") {
  auto change = [](PackageSpec &spec) {
    uint8_t *bytes = const_cast<uint8_t *>(spec.devices[0].image.data());
    package::DeviceHeader header;
    std::memcpy(&header, bytes, sizeof header);
    for (uint32_t i = 0; i < header.functions.count; ++i) {
      auto *f = reinterpret_cast<package::DeviceFunctionRecord *>(bytes + header.functions.offset) + i;
      f->shared_bytes = 120 << 10;
    }
  };
  Package both = compile(kDouble, "", 0, false, change, {"sm_80", "ptx"}), one = compile(kDouble, "", 0, false, change);
  CHECK(std::string(open(both).info().target) == "cuda:0 sm_80");
  Setting arch("KILN_FAKE_CUDA_ARCH", "86");
  CHECK(std::string(open(both).info().target) == "cuda:0 compute_80");
  CHECK(holds(refusal(one), "built for sm_80, and the device is sm_86"));
}

TEST_CASE("systems on a chip take no other GPU's code") {
  Package both = compile(kDouble, "", 0, false, {}, {"sm_80", "ptx"});
  Setting arch("KILN_FAKE_CUDA_ARCH", "87");
  CHECK(std::string(open(both).info().target) == "cuda:0 compute_80");
}

TEST_CASE("a section with images that a driver would read past is refused") {
  auto spoil = [](PackageSpec &spec) {
    uint8_t *bytes = const_cast<uint8_t *>(spec.devices[0].image.data());
    package::DeviceHeader header;
    std::memcpy(&header, bytes, sizeof header);
    package::DeviceImageRecord image;
    std::memcpy(&image, bytes + header.images.offset, sizeof image);
    bytes[size_t(image.offset)] = 'x';
    bytes[size_t(image.offset + image.size - 1)] = 'x';
  };
  CHECK(holds(refusal(compile(kDouble, "", 0, false, spoil, {"sm_80"})), "neither PTX nor a cubin"));
  CHECK(holds(refusal(compile(kDouble, "", 0, false, spoil, {"ptx"})), "neither PTX nor a cubin"));
}

TEST_CASE("a GPU that is lost says so, everything is given back, and another GPU goes on") {
  Package package = compile(kDouble);
  Setting devices("KILN_FAKE_CUDA_DEVICES", "2");
  {
    runtime::Module first = open(package), second = open(package, kOnSecond);
    EightFloats a(first, "f"), b(second, "f");
    REQUIRE(a.run() == KILN_OK);
    {
      Setting fails("KILN_FAKE_CUDA_FAIL", "cuStreamSynchronize:" + std::to_string(calls("cuStreamSynchronize") + 1) + ":700!");
      CHECK(a.run() == KILN_ERROR_DEVICE);
    }
    CHECK(a.says("start it again"));
    CHECK(a.run() == KILN_ERROR_DEVICE);
    CHECK(a.says("start it again"));
    KilnError error{};
    CHECK(!first.try_context("f", {}, error));
    CHECK(b.run() == KILN_OK);
    CHECK(b.y[7] == 2.0f);
  }
  CHECK(left() == 0);
}

TEST_CASE("a process that was forked is told that it has no GPU, and its parent keeps it") {
  Package package = compile(kDouble);
  {
    runtime::Module module = open(package);
    EightFloats eight(module, "f");
    REQUIRE(eight.run() == KILN_OK);
    pid_t child = fork();
    if (child == 0) {
      KilnError error{};
      bool fine = eight.run() == KILN_ERROR_DEVICE && eight.says("before fork()");
      fine = fine && !runtime::Module::try_open(package.bytes, error, &kOnDevice) && holds(error.message, "before fork()");
      eight.context.reset(); // asks for nothing that was the parent's
      _exit(fine ? 0 : 1);
    }
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    CHECK(eight.run() == KILN_OK);
    CHECK(eight.y[0] == 2.0f);
  }
  CHECK(left() == 0);
}

TEST_CASE("variables are those after the runs that were started before") {
  Package package = compile(kCount);
  {
    runtime::Module module = open(package);
    const KilnApi &api = runtime::api();
    runtime::Variables variables = module.variables();
    void *block = variables.data();
    EightFloats one(module, "f", &variables), two(module, "f", &variables), look(module, "look", &variables);
    float total[8];
    // Read while the run is under way, and not forgotten when it ends.
    REQUIRE(one.start() == KILN_OK);
    REQUIRE(api.variable_read(module.handle(), block, 0, total, 32, nullptr) == KILN_OK);
    CHECK(total[3] == 1.0f);
    REQUIRE(one.finish() == KILN_OK);
    CHECK(one.y[3] == 1.0f);
    REQUIRE(api.variable_read(module.handle(), block, 0, total, 32, nullptr) == KILN_OK);
    CHECK(total[3] == 1.0f);
    // Another context's run is behind it, in whatever stream.
    REQUIRE(one.start() == KILN_OK);
    REQUIRE(two.start() == KILN_OK);
    REQUIRE(look.start() == KILN_OK);
    REQUIRE(look.finish() == KILN_OK);
    CHECK(look.y[0] == 2.0f);
    REQUIRE(two.finish() == KILN_OK);
    CHECK(two.y[0] == 3.0f);
    REQUIRE(one.finish() == KILN_OK);
    CHECK(one.y[0] == 2.0f);
    // What is written waits for who still reads.
    REQUIRE(look.start() == KILN_OK);
    for (float &value : total)
      value = 100.0f;
    REQUIRE(api.variable_write(module.handle(), block, 0, total, 32, nullptr) == KILN_OK);
    REQUIRE(one.run() == KILN_OK);
    CHECK(one.y[0] == 101.0f);
    REQUIRE(look.finish() == KILN_OK);
    CHECK(look.y[0] == 2.0f);
  }
  CHECK(left() == 0);
}

TEST_CASE("what a context holds on the device goes with it, its variables too") {
  Package package = compile(kCount);
  runtime::Module module = open(package);
  int before = left();
  for (int i = 0; i < 3; ++i) {
    {
      EightFloats eight(module, "f"), other(module, "look");
      REQUIRE(eight.run() == KILN_OK);
      CHECK(eight.y[0] == 1.0f);
      CHECK(left() > before);
    }
    CHECK(left() == before);
  }
}

TEST_CASE("the fake driver keeps a driver's rules") {
  Package package = compile(kDouble);
  runtime::Module module = open(package); // has the driver initialised
  auto call = [](const char *name, auto... arguments) { return from_driver<int (*)(decltype(arguments)...)>(name)(arguments...); };
  void *context = nullptr, *stream = nullptr, *graph = nullptr, *popped = nullptr;
  uint64_t memory = 0;
  CHECK(call("cuMemAlloc_v2", &memory, size_t{64}) == 201); // no context is current
  REQUIRE(call("cuDevicePrimaryCtxRetain", &context, 0) == 0);
  REQUIRE(call("cuCtxPushCurrent_v2", context) == 0);
  CHECK(call("cuStreamCreate", &stream, 0u) != 0); // one that waits for the legacy stream
  REQUIRE(call("cuStreamCreate", &stream, 1u) == 0);
  REQUIRE(call("cuMemAlloc_v2", &memory, size_t{64}) == 0);
  auto capture = [&](auto then) {
    REQUIRE(call("cuStreamBeginCapture_v2", stream, 1) == 0);
    int answer = then();
    int ended = call("cuStreamEndCapture", stream, &graph);
    CHECK((ended == 901) == (answer != 0));
    CHECK((graph == nullptr) == (ended != 0));
    if (graph != nullptr)
      CHECK(call("cuGraphDestroy", graph) == 0);
    return answer;
  };
  uint64_t more = 0;
  void *pinned = nullptr;
  char bytes[64] = {};
  CHECK(capture([&] { return 0; }) == 0);
  CHECK(capture([&] { return call("cuMemAlloc_v2", &more, size_t{64}); }) == 900);
  CHECK(capture([&] { return call("cuMemAllocHost_v2", &pinned, size_t{64}); }) == 900);
  CHECK(capture([&] { return call("cuMemFree_v2", memory); }) == 900);
  CHECK(capture([&] { return call("cuMemcpyHtoD_v2", memory, static_cast<const void *>(bytes), size_t{64}); }) == 900);
  CHECK(capture([&] { return call("cuMemcpyDtoH_v2", static_cast<void *>(bytes), memory, size_t{64}); }) == 900);
  CHECK(capture([&] { return call("cuStreamSynchronize", stream); }) == 900);
  CHECK(capture([&] { return call("cuStreamSynchronize", static_cast<void *>(nullptr)); }) == 900);
  REQUIRE(call("cuStreamBeginCapture_v2", stream, 1) == 0);
  int elsewhere = 0;
  std::thread([&] { elsewhere = call("cuStreamEndCapture", stream, &graph); }).join();
  CHECK(elsewhere == 908);
  REQUIRE(call("cuStreamEndCapture", stream, &graph) == 0);
  CHECK(call("cuGraphDestroy", graph) == 0);
  CHECK(call("cuMemFree_v2", memory) == 0);
  CHECK(call("cuStreamDestroy_v2", stream) == 0);
  REQUIRE(call("cuCtxPopCurrent_v2", &popped) == 0);
  CHECK(popped == context);
  CHECK(call("cuCtxPopCurrent_v2", &popped) == 201);
  CHECK(call("cuDevicePrimaryCtxRelease_v2", 0) == 0);
}
