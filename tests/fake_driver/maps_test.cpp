// Tensor maps that the runtime has the driver make: one for each operand and launch, of the sizes of the run, named where the
// driver refuses; and what a hostile package can say of them.
#define CATCH_CONFIG_MAIN
#include "tests/fake_driver/driver.h"

#include "runtime/cuda/device_format.h"

#include <algorithm>

using namespace kiln;
using namespace kiln::package;

namespace {

const KilnOpenOptions kOnDevice{KILN_OPEN_DEVICE, 0, nullptr, "cuda:0"};
constexpr const char *kProduct = "export func f(a: bf16[N, 64], b: bf16[64, 4096]) -> f32[N, 4096] { return a.to(f32) @ b.to(f32) }";

Package compile_maps(const std::function<void(PackageSpec &)> &change = {}) {
  setenv("KILN_FAKE_CUDA_ARCH", "90", 1);
  return compile(kProduct, "N", 512, false, change, {"sm_90a"});
}

// Halves and ones, and their product: 32 everywhere.
struct Run {
  KilnError error{};
  std::optional<runtime::Module> module;
  std::optional<runtime::Context> context;
  std::vector<uint16_t> a, b = std::vector<uint16_t>(64 * 4096, 0x3f80);
  std::vector<float> y;

  explicit Run(const Package &package) : module(runtime::Module::try_open(package.bytes, error, &kOnDevice)) {
    INFO(error.message);
    REQUIRE(module);
    context = module->try_context("f", {}, error);
    INFO(error.message);
    REQUIRE(context);
  }
  int32_t run(int64_t rows) {
    a.assign(size_t(rows) * 64, 0x3f00);
    y.assign(size_t(rows) * 4096, 0.0f);
    int64_t a_dims[] = {rows, 64}, b_dims[] = {64, 4096}, y_dims[] = {rows, 4096};
    KilnTensor in{a.data(), a.size() * 2, KILN_BF16, 2, a_dims}, other{b.data(), b.size() * 2, KILN_BF16, 2, b_dims},
        out{y.data(), y.size() * 4, KILN_F32, 2, y_dims};
    const KilnApi &api = runtime::api();
    KilnContext *c = context->handle();
    REQUIRE(api.bind_input(c, 0, &in, &error) == KILN_OK);
    REQUIRE(api.bind_input(c, 1, &other, &error) == KILN_OK);
    REQUIRE(api.bind_output(c, 0, &out, &error) == KILN_OK);
    return api.run(c, &error);
  }
  bool is_right() const { return std::all_of(y.begin(), y.end(), [](float v) { return v == 32.0f; }); }
};

} // namespace

TEST_CASE("maps are made where a run is recorded, of its sizes") {
  Package package = compile_maps();
  {
    Run f(package);
    for (int64_t rows : {130, 67, 300}) {
      int made = calls("cuTensorMapEncodeTiled");
      INFO(rows);
      REQUIRE(f.run(rows) == KILN_OK);
      CHECK(f.is_right());
      CHECK(calls("cuTensorMapEncodeTiled") == made + 2);
    }
    int made = calls("cuTensorMapEncodeTiled");
    for (int i = 0; i < 4; ++i)
      REQUIRE(f.run(300) == KILN_OK);
    CHECK(f.is_right());
    CHECK(calls("cuTensorMapEncodeTiled") <= made + 2); // not in every run
  }
  CHECK(left() == 0);
}

TEST_CASE("a map that the driver refuses is named, and the next run is fine") {
  Package package = compile_maps();
  {
    Run f(package);
    setenv("KILN_FAKE_CUDA_FAIL", ("cuTensorMapEncodeTiled:" + std::to_string(calls("cuTensorMapEncodeTiled") + 2) + ":1").c_str(), 1);
    CHECK(f.run(130) == KILN_ERROR_DEVICE);
    unsetenv("KILN_FAKE_CUDA_FAIL");
    CHECK(std::string(f.error.message).find("cuTensorMapEncodeTiled failed") == 0);
    CHECK(std::string(f.error.location).find("net.kir:") == 0);
    CHECK(f.run(130) == KILN_OK);
    CHECK(f.is_right());
  }
  CHECK(left() == 0);
}

TEST_CASE("hostile maps are refused when the package is opened") {
  struct Case {
    const char *what;
    std::function<void(DeviceMapRecord &, DeviceFunctionRecord &, DeviceStepRecord &)> spoil;
  };
  for (const Case &c : std::vector<Case>{
           {"another buffer", [](auto &m, auto &, auto &) { m.buffer = 3; }},
           {"no such element", [](auto &m, auto &, auto &) { m.element = 3; }},
           {"no element", [](auto &m, auto &, auto &) { m.element = 0; }},
           {"one axis", [](auto &m, auto &, auto &) { m.rank = 1; }},
           {"six axes", [](auto &m, auto &, auto &) { m.rank = 6; }},
           {"an offset that is none", [](auto &m, auto &, auto &) { m.offset = 0x7fffffff; }},
           {"a size that is none", [](auto &m, auto &, auto &) { m.sizes[1] = 0xffffffff; }},
           {"a stride that is none", [](auto &m, auto &, auto &) { m.strides[0] = 0xffffffff; }},
           {"an empty box", [](auto &m, auto &, auto &) { m.box[1] = 0; }},
           {"a box too large", [](auto &m, auto &, auto &) { m.box[1] = 257; }},
           {"a line too long", [](auto &m, auto &, auto &) { m.box[0] = 65; }},
           {"maps behind the table", [](auto &, auto &, auto &s) { s.maps = 0xfffffffe; }},
           {"too many maps", [](auto &, auto &f, auto &) { f.maps = 5; }},
           {"too many blocks", [](auto &, auto &f, auto &) { f.resident = 65; }},
       }) {
    INFO(c.what);
    std::vector<uint8_t> section;
    Package package = compile_maps([&](PackageSpec &spec) {
      REQUIRE(spec.devices.size() == 1);
      section.assign(spec.devices[0].image.begin(), spec.devices[0].image.end());
      spec.devices[0].image = section;
      auto &header = *reinterpret_cast<DeviceHeader *>(section.data());
      auto *functions = reinterpret_cast<DeviceFunctionRecord *>(section.data() + header.functions.offset);
      auto *steps = reinterpret_cast<DeviceStepRecord *>(section.data() + header.steps.offset);
      int spoilt = 0;
      for (uint32_t s = 0; s < header.steps.count && spoilt == 0; ++s)
        if (steps[s].kind == DeviceStepKind::Launch && functions[steps[s].function].maps == 2) {
          c.spoil(reinterpret_cast<DeviceMapRecord *>(section.data() + header.maps.offset)[steps[s].maps], functions[steps[s].function], steps[s]);
          ++spoilt;
        }
      REQUIRE(spoilt == 1);
    });
    KilnError error{};
    CHECK_FALSE(runtime::Module::try_open(package.bytes, error, &kOnDevice));
    INFO(error.message);
    CHECK(error.code == KILN_ERROR_FORMAT);
  }
  CHECK(left() == 0);
}
