// What a hostile package can say of launches that several kernels share: which functions take all pointers as one argument, and
// which kernels nothing is left of behind a launch. What no check can see still reads no memory that is not the runtime's.
#define CATCH_CONFIG_MAIN
#include "tests/fake_driver/driver.h"

#include "runtime/cuda/device_format.h"

#include <algorithm>

using namespace kiln;
using namespace kiln::package;

namespace {

const KilnOpenOptions kOnDevice{KILN_OPEN_DEVICE, 0, nullptr, "cuda:0"};

// Two nests that are one launch, one that stands alone, and a loop around one that has memory of its own.
constexpr const char *kText = R"(
export func f(x: f32[8], y: f32[20]) -> (a: f32[8], b: f32[20], c: f32[8], d: f32[4]) {
  h = x
  while sum(h) > 3.0 { h = h * 0.5 }
  return x * 2.0, y + 1.0, softmax(h, axis=0), expand(sum(y), [4])
}
)";

struct Section {
  std::vector<uint8_t> bytes;

  DeviceHeader &header() { return *reinterpret_cast<DeviceHeader *>(bytes.data()); }
  template <typename T>
  T *table(Table t) { return reinterpret_cast<T *>(bytes.data() + t.offset); }
  DeviceFunctionRecord &function(const DeviceStepRecord &step) { return table<DeviceFunctionRecord>(header().functions)[step.function]; }
  uint32_t *lists() { return table<uint32_t>(header().lists); }

  // The first step that it holds for.
  DeviceStepRecord &find(const std::function<bool(const DeviceStepRecord &)> &holds) {
    auto *steps = table<DeviceStepRecord>(header().steps), *end = steps + header().steps.count;
    auto *found = std::find_if(steps, end, holds);
    REQUIRE(found != end);
    return *found;
  }
  DeviceStepRecord &launch(bool is_joined) {
    return find([&](const DeviceStepRecord &s) { return s.kind == DeviceStepKind::Launch && (function(s).is_joined != 0) == is_joined; });
  }
  DeviceStepRecord &repeated() {
    return find([](const DeviceStepRecord &s) { return s.kind == DeviceStepKind::While || s.kind == DeviceStepKind::Loop; });
  }
};

Package spoilt(const std::function<void(Section &)> &spoil) {
  Section section;
  return compile(kText, "", 0, false, [&](PackageSpec &spec) {
    REQUIRE(spec.devices.size() == 1);
    section.bytes.assign(spec.devices[0].image.begin(), spec.devices[0].image.end());
    spec.devices[0].image = section.bytes;
    spoil(section);
  });
}

// Runs step by step, with a hook; how often it is called with each kernel, or the error.
struct Run {
  KilnError error{};
  std::vector<int> calls;
  std::vector<float> x = std::vector<float>(8, 1.0f), y = std::vector<float>(20, 2.0f), out = std::vector<float>(40);

  int32_t run(const Package &package) {
    auto module = runtime::Module::try_open(package.bytes, error, &kOnDevice);
    INFO(error.message);
    REQUIRE(module);
    auto context = module->try_context("f", {}, error);
    REQUIRE(context);
    const KilnApi &api = runtime::api();
    KilnContext *c = context->handle();
    auto bind = [&](auto &&f, uint32_t index, float *data, int64_t size) {
      KilnTensor tensor{data, uint64_t(size) * 4, KILN_F32, 1, &size};
      REQUIRE(f(c, index, &tensor, &error) == KILN_OK);
    };
    bind(api.bind_input, 0, x.data(), 8);
    bind(api.bind_input, 1, y.data(), 20);
    for (auto [index, at, size] : {std::tuple(0, 0, 8), std::tuple(1, 8, 20), std::tuple(2, 28, 8), std::tuple(3, 36, 4)})
      bind(api.bind_output, uint32_t(index), out.data() + at, size);
    auto hook = [](void *self, uint32_t, uint32_t kernel) {
      auto &counts = static_cast<Run *>(self)->calls;
      counts.resize(std::max<size_t>(counts.size(), kernel + 1));
      ++counts[kernel];
    };
    REQUIRE(api.set_kernel_hook(c, hook, this) == KILN_OK);
    return api.run(c, &error);
  }
  bool is_right() const {
    auto all = [&](int from, int to, float value) { return std::all_of(out.begin() + from, out.begin() + to, [&](float v) { return v == value; }); };
    return all(0, 8, 2) && all(8, 28, 3) && all(28, 36, 0.125f) && all(36, 40, 40);
  }
};

} // namespace

TEST_CASE("as it is, the section is right") {
  Package package = spoilt([](Section &s) {
    CHECK(s.launch(true).completed.count >= 2);
    CHECK(s.function(s.launch(true)).buffers >= 4);
    CHECK(s.launch(false).completed.count == 1);
  });
  Run run;
  CHECK(run.run(package) == KILN_OK);
  CHECK(run.is_right());
}

TEST_CASE("hostile joined functions are refused when the package is opened") {
  struct Case {
    const char *what;
    std::function<void(Section &)> spoil;
  };
  // Of both, so that it is no matter of arguments that differ.
  auto joined = [](auto &&change) {
    return [=](Section &s) { change(s.launch(true), s.function(s.launch(true)), s); };
  };
  for (const Case &c : std::vector<Case>{
           {"neither yes nor no", joined([](auto &, auto &f, auto &) { f.is_joined = 2; })},
           {"all bits", joined([](auto &, auto &f, auto &) { f.is_joined = 0xffffffff; })},
           {"of nothing", joined([](auto &step, auto &f, auto &) { f.buffers = step.buffers.count = 0; })},
           {"one buffer fewer than the launch", joined([](auto &, auto &f, auto &) { f.buffers -= 1; })},
           {"one buffer more than the launch", joined([](auto &, auto &f, auto &) { f.buffers += 1; })},
           {"buffers past the table", joined([](auto &step, auto &f, auto &s) { f.buffers = step.buffers.count = s.header().buffers.count - step.buffers.first + 1; })},
           {"more pointers than an argument holds", joined([](auto &step, auto &f, auto &) { f.buffers = step.buffers.count = 481; })},
           {"with dims", joined([](auto &step, auto &f, auto &) { f.dims = step.dims.count = 1; })},
           {"with scratch memory", joined([](auto &, auto &f, auto &) { f.scratch_bytes = 64, f.scratch_blocks = 1; })},
           {"with maps", joined([](auto &, auto &f, auto &) { f.maps = 1; })},
           {"of another function's arguments", [](Section &s) {
              DeviceStepRecord &alone = s.launch(false);
              s.launch(true).function = alone.function;
            }},
           {"a function that there is not", joined([](auto &step, auto &, auto &s) { step.function = s.header().functions.count; })},
       }) {
    INFO(c.what);
    KilnError error{};
    Package package = spoilt(c.spoil);
    CHECK_FALSE(runtime::Module::try_open(package.bytes, error, &kOnDevice));
    INFO(error.message);
    CHECK(error.code == KILN_ERROR_FORMAT);
  }
  CHECK(left() == 0);
}

TEST_CASE("hostile lists of completed kernels are refused when the package is opened") {
  struct Case {
    const char *what;
    std::function<void(Section &, DeviceStepRecord &)> spoil; // of the joined launch
  };
  for (const Case &c : std::vector<Case>{
           {"a kernel that there is not", [](Section &s, auto &step) { s.lists()[step.completed.first] = 1000; }},
           {"a kernel behind all", [](Section &s, auto &step) { s.lists()[step.completed.first + step.completed.count - 1] = 0xffffffff; }},
           {"a kernel twice", [](Section &s, auto &step) { s.lists()[step.completed.first + 1] = s.lists()[step.completed.first]; }},
           {"kernels the other way around", [](Section &s, auto &step) { std::swap(s.lists()[step.completed.first], s.lists()[step.completed.first + 1]); }},
           {"a list behind the table", [](Section &s, auto &step) { step.completed.first = s.header().lists.count; }},
           {"a list past the table", [](Section &s, auto &step) { step.completed.count = s.header().lists.count - step.completed.first + 1; }},
           {"a list whose end overflows", [](Section &, auto &step) { step.completed = {0xfffffffe, 4}; }},
           {"a list that overflows", [](Section &, auto &step) { step.completed.count = 0xffffffff; }},
           {"of a step that launches nothing", [](Section &s, auto &step) { s.repeated().completed = step.completed; }},
           {"a launch of no kernel", [](Section &, auto &step) { step.position = -1; }},
       }) {
    INFO(c.what);
    KilnError error{};
    Package package = spoilt([&](Section &s) { c.spoil(s, s.launch(true)); });
    CHECK_FALSE(runtime::Module::try_open(package.bytes, error, &kOnDevice));
    INFO(error.message);
    CHECK(error.code == KILN_ERROR_FORMAT);
  }
  CHECK(left() == 0);
}

// Whether a function is joined is in its code too, where nobody looks: what is told wrong of it gets arguments all the same.
TEST_CASE("functions that are said to be joined, or not to be, read arguments that there are") {
  for (bool was_joined : {false, true}) {
    INFO(was_joined);
    Package package = spoilt([&](Section &s) { s.function(s.launch(was_joined)).is_joined = !was_joined; });
    Run run;
    CHECK(run.run(package) == KILN_OK);
    CHECK(run.is_right());
  }
  CHECK(left() == 0);
}

TEST_CASE("kernels that are completed by several launches, or by none, are told so often") {
  for (bool by_none : {false, true}) {
    INFO(by_none);
    Package package = spoilt([&](Section &s) {
      Range list = s.launch(true).completed;
      s.launch(by_none).completed = by_none ? Range{list.first, 0} : list;
    });
    Run run;
    CHECK(run.run(package) == KILN_OK);
    CHECK(run.is_right());
    CHECK(!run.calls.empty());
  }
  CHECK(left() == 0);
}
