// Entries that compute on the processor and on a device: the numbers of the processor alone, one graph launch for each
// part on the device, what crosses copied once, variables on both sides, errors that leave nothing behind.
#define CATCH_CONFIG_MAIN
#include "tests/fake_driver/driver.h"

#include <algorithm>

using namespace kiln;

namespace {

// Both sides, twice each, with a size that the caller chooses, and a value that stays on the device in between.
constexpr const char *kSplit = R"(
export func f(x: f32[N, 4]) -> (y: f32[N, 4], z: f32[N, 4], u: f32[N, 4]) {
  h = x + 1.0
  a = h.to(cuda) * 2.0
  b = a.to(cpu) - 3.0
  y = (b.to(cuda) * a).to(cpu)
  return y, exp(0.0 * h), y - x
}
)";

// A context of `f` with rows of four numbers, bound to `in` and `out`.
struct Rows {
  KilnError error{};
  std::optional<runtime::Module> module;
  std::optional<runtime::Context> context;
  std::vector<float> x;
  std::vector<std::vector<float>> out;

  Rows(const Package &package, int outputs, const KilnOpenOptions *options = nullptr, const KilnExecutor *executor = nullptr)
      : module(runtime::Module::try_open(package.bytes, error, options)), out(size_t(outputs)) {
    INFO(error.message);
    REQUIRE(module);
    runtime::ContextOptions how;
    how.dims = {16};
    how.executor = executor;
    context = module->try_context("f", how, error);
    INFO(error.message);
    REQUIRE(context);
  }
  Rows(const Rows &) = delete;

  int32_t bind(int64_t n) {
    x.resize(size_t(n) * 4);
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = float(i) * 0.5f;
    int64_t dims[] = {n, 4};
    KilnTensor in{x.data(), x.size() * 4, KILN_F32, 2, dims};
    int32_t code = runtime::api().bind_input(context->handle(), 0, &in, &error);
    for (size_t i = 0; i < out.size(); ++i) {
      out[i].assign(x.size(), -1.0f);
      KilnTensor to{out[i].data(), x.size() * 4, KILN_F32, 2, dims};
      code = code ? code : runtime::api().bind_output(context->handle(), uint32_t(i), &to, &error);
    }
    return code;
  }
  int32_t run(int64_t n) {
    int32_t code = bind(n);
    return code ? code : runtime::api().run(context->handle(), &error);
  }
};

const KilnOpenOptions kOnProcessor{KILN_OPEN_DEVICE, 0, nullptr, "cpu"};

} // namespace

TEST_CASE("what computes on both sides runs in parts, one graph launch each on the device, and copies what crosses") {
  Package package = compile(kSplit, "N", 16);
  std::vector<std::vector<float>> on_processor;
  {
    Rows rows(package, 3, &kOnProcessor);
    CHECK(std::string(runtime::api().entry_target(rows.module->handle(), 0)).find("cuda") == std::string::npos);
    REQUIRE(rows.run(5) == KILN_OK);
    on_processor = rows.out;
    CHECK(rows.out[0][3] == ((1.5f + 1) * 2 - 3) * (1.5f + 1) * 2);
    CHECK(rows.out[1][7] == 1.0f);
  }
  {
    Rows rows(package, 3);
    const KilnApi &api = runtime::api();
    KilnModule *module = rows.module->handle();
    CHECK(std::string(api.entry_target(module, 0)).find(" and cuda:0 sm_80") != std::string::npos);
    KilnEntryInfo info{};
    REQUIRE(api.entry_info(module, 0, &info) == KILN_OK);
    std::vector<std::string> targets;
    for (uint32_t k = 0; k < info.kernel_count; ++k) {
      KilnKernelInfo kernel{};
      CHECK(api.kernel_info(module, 0, k, &kernel) == KILN_OK);
      bool is_on_device = std::string(api.kernel_target(module, 0, k)) == "cuda:0 sm_80";
      if (targets.empty() || (targets.back() == "cuda") != is_on_device)
        targets.emplace_back(is_on_device ? "cuda" : "cpu");
    }
    CHECK(targets == std::vector<std::string>{"cpu", "cuda", "cpu", "cuda", "cpu"});
    CHECK(api.kernel_target(module, 0, info.kernel_count) == nullptr);

    REQUIRE(rows.run(5) == KILN_OK);
    CHECK(rows.out == on_processor);
    // Once recorded: h and b are sent, a and y fetched, and each part is a launch; a stays for the second part.
    int graphs = calls("cuGraphLaunch"), records = calls("cuGraphInstantiateWithFlags"), waits = calls("cuStreamSynchronize"),
        memory = calls("cuMemAlloc_v2") + calls("cuMemAllocHost_v2");
    int sent = calls("cuMemcpyHtoDAsync_v2"), fetched = calls("cuMemcpyDtoHAsync_v2");
    REQUIRE(rows.run(5) == KILN_OK);
    CHECK(rows.out == on_processor);
    CHECK(calls("cuGraphLaunch") == graphs + 2);
    CHECK(calls("cuStreamSynchronize") == waits + 2);
    CHECK(calls("cuGraphInstantiateWithFlags") == records);
    CHECK(calls("cuMemAlloc_v2") + calls("cuMemAllocHost_v2") == memory);
    CHECK(calls("cuMemcpyHtoDAsync_v2") == sent);
    CHECK(calls("cuMemcpyDtoHAsync_v2") == fetched);
    REQUIRE(rows.run(16) == KILN_OK); // other sizes are recorded anew
    CHECK(calls("cuGraphInstantiateWithFlags") == records + 2);
    CHECK(calls("cuMemcpyHtoDAsync_v2") == sent + 4);    // h, b, and zeros for the traps of both
    CHECK(calls("cuMemcpyDtoHAsync_v2") == fetched + 4); // a, y for the last part, traps, and traps with y for the caller
    CHECK(rows.out[2][63] == rows.out[0][63] - 31.5f);
    REQUIRE(rows.run(5) == KILN_OK);
    CHECK(rows.out == on_processor);

    // Who listens to kernels hears of all of them, in order.
    std::vector<uint32_t> heard;
    api.set_kernel_hook(rows.context->handle(), [](void *self, uint32_t, uint32_t kernel) { static_cast<std::vector<uint32_t> *>(self)->push_back(kernel); }, &heard);
    REQUIRE(rows.run(5) == KILN_OK);
    CHECK(rows.out == on_processor);
    CHECK(heard.size() == info.kernel_count);
    CHECK(std::is_sorted(heard.begin(), heard.end()));
    api.set_kernel_hook(rows.context->handle(), nullptr, nullptr);
    REQUIRE(rows.bind(4) == KILN_OK);
    REQUIRE(api.start(rows.context->handle(), &rows.error) == KILN_OK);
    REQUIRE(api.finish(rows.context->handle(), &rows.error) == KILN_OK);
    CHECK(rows.out[0][3] == on_processor[0][3]);
  }
  CHECK(left() == 0);
}

TEST_CASE("parts on the processor have its threads") {
  Package package = compile("export func f(x: f32[N, 4]) -> f32[N, 4] { return (exp(x * 0.01).to(cuda) * 2.0).to(cpu) + tanh(x) }", "N", 16);
  KilnError error{};
  KilnPool *pool = nullptr;
  REQUIRE(runtime::api().pool_create(2, &pool, &error) == KILN_OK);
  {
    Rows one(package, 1), two(package, 1, nullptr, runtime::api().pool_executor(pool));
    REQUIRE(one.run(16) == KILN_OK);
    REQUIRE(two.run(16) == KILN_OK);
    CHECK(one.out == two.out);
  }
  runtime::api().pool_destroy(pool);
  CHECK(left() == 0);
}

TEST_CASE("whatever call fails between parts is named, and the next run is fine") {
  Package package = compile(kSplit, "N", 16);
  for (const char *name : {"cuStreamCreate", "cuMemAlloc_v2", "cuMemAllocHost_v2", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuLaunchKernel",
                           "cuGraphInstantiateWithFlags", "cuGraphLaunch", "cuStreamSynchronize"})
    for (int which : {1, 2, 3}) {
      INFO(name << " " << which);
      setenv("KILN_FAKE_CUDA_FAIL", (std::string(name) + ":" + std::to_string(calls(name) + which) + ":700").c_str(), 1);
      {
        KilnError error{};
        auto module = runtime::Module::try_open(package.bytes, error);
        REQUIRE(module);
        runtime::ContextOptions how;
        how.dims = {16};
        auto context = module->try_context("f", how, error);
        if (!context) {
          CHECK(error.code == KILN_ERROR_DEVICE);
        } else {
          std::vector<float> x(16, 1.0f), y(16), z(16), u(16);
          int64_t dims[] = {4, 4};
          KilnTensor in{x.data(), 64, KILN_F32, 2, dims}, a{y.data(), 64, KILN_F32, 2, dims}, b{z.data(), 64, KILN_F32, 2, dims}, c{u.data(), 64, KILN_F32, 2, dims};
          const KilnApi &api = runtime::api();
          api.bind_input(context->handle(), 0, &in, &error);
          api.bind_output(context->handle(), 0, &a, &error);
          api.bind_output(context->handle(), 1, &b, &error);
          api.bind_output(context->handle(), 2, &c, &error);
          int32_t code = api.run(context->handle(), &error);
          bool is_hit = code != KILN_OK;
          CHECK((code == KILN_OK || code == KILN_ERROR_DEVICE));
          if (is_hit)
            CHECK(std::string(error.message).find("CUDA_ERROR_ILLEGAL_ADDRESS") != std::string::npos);
          unsetenv("KILN_FAKE_CUDA_FAIL");
          CHECK(api.run(context->handle(), &error) == KILN_OK);
          CHECK(y[0] == 4.0f);
        }
      }
      unsetenv("KILN_FAKE_CUDA_FAIL");
      CHECK(left() == 0);
    }
}

TEST_CASE("what stops a part is said of the entry, and the next run is fine") {
  Package package = compile(R"(
export func f(x: f32[N, 4]) -> f32[N, 4] {
  at = (x[:, 0].to(cuda) * 2.0).to(i64)
  rows = gather((x * 2.0).to(cuda), at, axis=0)
  return rows.to(cpu) + 1.0
}
)", "N", 16);
  {
    Rows rows(package, 1);
    REQUIRE(rows.bind(4) == KILN_OK);
    for (size_t i = 0; i < 4; ++i)
      rows.x[i * 4] = i == 2 ? 7.0f : 1.0f;
    const KilnApi &api = runtime::api();
    CHECK(api.run(rows.context->handle(), &rows.error) == KILN_ERROR_TRAP);
    CHECK(std::string(rows.error.message).find("'f' stopped: an index was out of range") != std::string::npos);
    CHECK(std::string(rows.error.location).find("net.kir:4") == 0);
    rows.x[8] = 0.5f;
    CHECK(api.run(rows.context->handle(), &rows.error) == KILN_OK);
    CHECK(rows.out[0][1] == rows.x[9] * 2 + 1);
  }
  CHECK(left() == 0);
}

TEST_CASE("what parts on the GPU take of the next run's inputs is sent while a run computes") {
  Package package = compile(R"(
export func f(x: f32[N, 4]) -> f32[N, 4] {
  a = x.to(cuda) * 2.0
  b = a.to(cpu) + x
  return (b.to(cuda) * x.to(cuda)).to(cpu)
}
)", "N", 16);
  {
    Rows rows(package, 1);
    const KilnApi &api = runtime::api();
    KilnContext *c = rows.context->handle();
    auto expect = [&](int64_t n, float at) {
      for (size_t i = 0; i < size_t(n) * 4; ++i) {
        float x = at + float(i);
        CHECK(rows.out[0][i] == 3 * x * x);
      }
    };
    // Each run has its inputs in memory of its own, which is spoilt as soon as the run has begun.
    std::vector<float> x;
    auto bind = [&](int64_t n, float at) {
      x.resize(size_t(n) * 4);
      for (size_t i = 0; i < x.size(); ++i)
        x[i] = at + float(i);
      int64_t dims[] = {n, 4};
      KilnTensor in{x.data(), x.size() * 4, KILN_F32, 2, dims};
      return api.bind_input(c, 0, &in, &rows.error);
    };
    REQUIRE(rows.run(5) == KILN_OK);
    REQUIRE(bind(5, 1) == KILN_OK);
    REQUIRE(api.start(c, &rows.error) == KILN_OK);
    std::string log = happened();
    for (int step = 2; step < 6; ++step) {
      REQUIRE(bind(5, float(step)) == KILN_OK);
      REQUIRE(api.send(c, &rows.error) == KILN_OK);
      log = happened();
      INFO(log);
      CHECK(std::count(log.begin(), log.end(), '\n') >= 2); // two parts take x
      CHECK(log.find("send ") == 0);
      CHECK(log.find("launch") == std::string::npos);
      REQUIRE(api.finish(c, &rows.error) == KILN_OK);
      expect(5, float(step - 1));
      REQUIRE(api.start(c, &rows.error) == KILN_OK);
      log = happened();
      CHECK(log.find("wait for event") != std::string::npos);
    }
    // Other sizes, and what was sent and then bound anew.
    int64_t dims[] = {3, 4};
    KilnTensor out{rows.out[0].data(), 48, KILN_F32, 2, dims};
    REQUIRE(api.finish(c, &rows.error) == KILN_OK);
    expect(5, 5);
    REQUIRE(bind(3, 7) == KILN_OK);
    REQUIRE(api.bind_output(c, 0, &out, &rows.error) == KILN_OK);
    REQUIRE(api.send(c, &rows.error) == KILN_OK);
    REQUIRE(bind(3, 9) == KILN_OK);
    REQUIRE(api.run(c, &rows.error) == KILN_OK);
    expect(3, 9);
    // A send that fails costs the next run nothing.
    REQUIRE(bind(3, 11) == KILN_OK);
    setenv("KILN_FAKE_CUDA_FAIL", ("cuEventRecord:" + std::to_string(calls("cuEventRecord") + 2) + ":700").c_str(), 1);
    CHECK(api.send(c, &rows.error) == KILN_ERROR_DEVICE);
    unsetenv("KILN_FAKE_CUDA_FAIL");
    REQUIRE(api.run(c, &rows.error) == KILN_OK);
    expect(3, 11);
  }
  CHECK(left() == 0);
}

TEST_CASE("a training step across the border writes variables on both sides") {
  const std::string text = R"(
param w: f32[4, 4] = 0.5
param v: f32[4, 4] = 0.25
state steps: f32[] = 0.0
export func f(x: f32[N, 4]) -> (y: f32[N, 4]) {
  h = tanh(x @ w)
  out = tanh(h.to(cuda) @ v)
  l = sum(out * out)
  dw, dv = grad(l, [w, v])
  w = w - 0.1 * dw
  v = v - 0.1 * dv
  steps = steps + 1.0
  return out.to(cpu) + steps
}
)";
  std::string plain = text;
  plain.replace(plain.find(".to(cuda)"), 9, "");
  plain.replace(plain.find(".to(cpu)"), 8, "");
  Package package = compile(text, "N", 16, true), other = compile(plain, "N", 16, true);
  {
    Rows split(package, 1), whole(other, 1), all_on_processor(package, 1, &kOnProcessor);
    for (int step = 0; step < 4; ++step) {
      INFO(step);
      REQUIRE(split.run(3) == KILN_OK);
      REQUIRE(whole.run(3) == KILN_OK);
      REQUIRE(all_on_processor.run(3) == KILN_OK);
      for (size_t i = 0; i < 12; ++i) {
        CHECK(split.out[0][i] == Approx(whole.out[0][i]).epsilon(1e-5));
        CHECK(all_on_processor.out[0][i] == Approx(whole.out[0][i]).epsilon(1e-5));
      }
    }
    // Variables of one side stay there: a step copies none of w, v and steps, but for what is asked for in the end.
    int sent = calls("cuMemcpyHtoD_v2"), fetched = calls("cuMemcpyDtoH_v2");
    for (int step = 0; step < 2; ++step)
      for (Rows *rows : {&split, &whole, &all_on_processor})
        REQUIRE(rows->run(3) == KILN_OK);
    CHECK(calls("cuMemcpyHtoD_v2") == sent);
    CHECK(calls("cuMemcpyDtoH_v2") == fetched);
    auto *a = static_cast<const float *>(runtime::api().context_variables(split.context->handle()));
    auto *b = static_cast<const float *>(runtime::api().context_variables(whole.context->handle()));
    REQUIRE(a);
    for (uint32_t i = 0; i < 3; ++i) {
      std::vector<float> one(16), two(16);
      uint64_t bytes = i < 2 ? 64 : 4;
      REQUIRE(runtime::api().variable_read(split.module->handle(), a, i, one.data(), bytes, nullptr) == KILN_OK);
      REQUIRE(runtime::api().variable_read(whole.module->handle(), b, i, two.data(), bytes, nullptr) == KILN_OK);
      CHECK(one[0] == Approx(two[0]).epsilon(1e-5));
      CHECK(one[0] != (i == 0 ? 0.5f : i == 1 ? 0.25f : 0.0f));
    }
  }
  CHECK(left() == 0);
}

TEST_CASE("of the variables, those that changed sides are copied") {
  const std::string text = R"(
state back: f32[4] = 1.0
state here: f32[64] = 1.0
state there: f32[64] = 1.0
state forth: f32[4] = 1.0
export func f(x: f32[3, 4]) -> f32[3, 4] device cuda {
  back = back + sum(x)
  there = there + sum(forth)
  return x * forth + sum(there)
}
export func g(x: f32[3, 4]) -> f32[3, 4] device cpu {
  forth = forth + sum(x)
  here = here + sum(back)
  return x * back + sum(here)
}
)";
  Package package = compile(text);
  KilnError error{};
  auto outcome = [&](const KilnOpenOptions *options, int *copies) {
    auto module = runtime::Module::try_open(package.bytes, error, options);
    REQUIRE(module);
    runtime::Variables variables = module->variables();
    runtime::ContextOptions how;
    how.variables = &variables;
    auto f = module->try_context("f", how, error), g = module->try_context("g", how, error);
    REQUIRE(f);
    REQUIRE(g);
    std::vector<float> x(12, 0.5f), y(12), all;
    int64_t dims[] = {3, 4};
    KilnTensor in{x.data(), 48, KILN_F32, 2, dims}, out{y.data(), 48, KILN_F32, 2, dims};
    for (int step = 0; step < 4; ++step)
      for (runtime::Context *c : {&*f, &*g}) {
        *copies = calls("cuMemcpyHtoD_v2") * 1000 + calls("cuMemcpyDtoH_v2");
        REQUIRE(runtime::api().bind_input(c->handle(), 0, &in, &error) == KILN_OK);
        REQUIRE(runtime::api().bind_output(c->handle(), 0, &out, &error) == KILN_OK);
        REQUIRE(runtime::api().run(c->handle(), &error) == KILN_OK);
        *copies = calls("cuMemcpyHtoD_v2") * 1000 + calls("cuMemcpyDtoH_v2") - *copies;
        if (step > 0) // before, everything is sent that f uses
          CHECK(*copies == (options != nullptr ? 0 : c == &*g ? 1 : 1000)); // back to the one, forth to the other
        all.insert(all.end(), y.begin(), y.end());
      }
    for (uint32_t i = 0; i < 4; ++i) {
      std::vector<float> values(i == 1 || i == 2 ? 64 : 4);
      REQUIRE(runtime::api().variable_read(module->handle(), variables.data(), i, values.data(), values.size() * 4, nullptr) == KILN_OK);
      CHECK(values.back() != 1.0f);
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  };
  int copies = 0;
  std::vector<float> both = outcome(nullptr, &copies), processor = outcome(&kOnProcessor, &copies);
  REQUIRE(both.size() == processor.size());
  for (size_t i = 0; i < both.size(); ++i)
    CHECK(both[i] == Approx(processor[i]).epsilon(1e-5));
  CHECK(left() == 0);
}

TEST_CASE("a module says of each entry where it computes") {
  Package package = compile(R"(
export func f(x: f32[8]) -> f32[8] device cuda { return x * 2.0 }
export func g(x: f32[8]) -> f32[8] device cpu { return x * 2.0 }
export func h(x: f32[8]) -> f32[8] { return x * 2.0 }
export func k(x: f32[8]) -> f32[8] { return relu(x.to(cuda)).to(cpu) * 2.0 }
)");
  const KilnApi &api = runtime::api();
  const std::string host = cpu_machines()[0].name, device = "cuda:0 sm_80";
  const KilnOpenOptions on_device{KILN_OPEN_DEVICE, 0, nullptr, "cuda:0"};
  struct Expected {
    const KilnOpenOptions *options;
    std::string module, f, g, h, k;
  };
  for (const Expected &e : {Expected{nullptr, host + " and " + device, device, host, host, host + " and " + device},
                            Expected{&on_device, host + " and " + device, device, host, device, host + " and " + device},
                            Expected{&kOnProcessor, host, host, host, host, host}}) {
    KilnError error{};
    auto module = runtime::Module::try_open(package.bytes, error, e.options);
    REQUIRE(module);
    auto target = [&](const char *entry) { return std::string(api.entry_target(module->handle(), uint32_t(api.find_entry(module->handle(), entry)))); };
    CHECK(std::string(module->info().target) == e.module);
    CHECK(target("f") == e.f);
    CHECK(target("g") == e.g);
    CHECK(target("h") == e.h);
    CHECK(target("k") == e.k);
    CHECK(std::string(api.kernel_target(module->handle(), 1, 0)) == host);
    CHECK(api.entry_target(module->handle(), 4) == nullptr);
  }
  CHECK(left() == 0);
}

TEST_CASE("parts that do not fit together are refused") {
  using Kind = package::PartArgumentKind;
  using Change = std::function<void(PackageSpec &)>;
  auto parts = [](PackageSpec &spec) -> std::vector<PackagePart> & { return spec.entries[0].parts; };
  const std::pair<const char *, Change> changes[] = {
      {"a border that nobody makes", [&](PackageSpec &spec) { parts(spec)[1].arguments[0].index = 99; }},
      {"a border that is made twice", [&](PackageSpec &spec) { parts(spec)[1].arguments.back().index = 0; }},
      {"a border that is made later", [&](PackageSpec &spec) { std::swap(parts(spec)[1], parts(spec)[2]); }},
      {"an input among the outputs", [&](PackageSpec &spec) { parts(spec)[0].arguments.back().kind = Kind::Input; }},
      {"an output among the inputs", [&](PackageSpec &spec) { parts(spec)[0].arguments[0].kind = Kind::Output; }},
      {"an input that the entry has not", [&](PackageSpec &spec) { parts(spec)[0].arguments[0].index = 1; }},
      {"a kind that there is not", [&](PackageSpec &spec) { parts(spec)[0].arguments[0].kind = Kind(7); }},
      {"too few arguments", [&](PackageSpec &spec) { parts(spec)[0].arguments.pop_back(); }},
      {"an entry that is called by name", [&](PackageSpec &spec) { parts(spec)[0].entry = 0; }},
      {"nothing on the device", [&](PackageSpec &spec) { for (PackagePart &part : parts(spec)) part.is_on_device = false; }},
      {"another dtype", [&](PackageSpec &spec) { spec.entries[parts(spec)[0].entry].inputs[0].dtype = KILN_I32; }},
      {"another symbol", [&](PackageSpec &spec) { spec.entries[parts(spec)[0].entry].symbols[0].name = "M"; }},
  };
  for (const auto &[what, change] : changes) {
    INFO(what);
    Package package = compile(kSplit, "N", 16, false, change);
    KilnError error{};
    auto module = runtime::Module::try_open(package.bytes, error);
    CHECK(!module);
    CHECK(error.code == KILN_ERROR_FORMAT);
    CHECK(std::string(error.message).find("an entry with parts that are wrong") != std::string::npos);
  }
  // A border that is smaller than a part that reads it thinks.
  Package package = compile(kSplit, "N", 16, false, [&](PackageSpec &spec) { spec.entries[parts(spec)[1].entry].inputs[0].dims[1] = dim_const(400); });
  {
    Rows rows(package, 3);
    CHECK(rows.run(5) == KILN_ERROR_SHAPE);
  }
  CHECK(left() == 0);
}
