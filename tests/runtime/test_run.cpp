// Running entries: results, symbolic dims, variables, threads, traps, and what is refused.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>
#include <thread>

#include "runtime/thread_pool.h"
#include "tests/runtime/test_model.h"

using namespace kiln;
using namespace kiln::test;

namespace {

const std::string &package_path() {
  static const std::string kPath = [] {
    std::vector<uint8_t> image = read_file(image_path());
    std::string path = temporary("tested.kiln");
    std::string error = write_package(make_spec(image), path);
    INFO(error);
    REQUIRE(error.empty());
    return path;
  }();
  return kPath;
}

// A context in memory of its own.
struct Context {
  Context(KilnModule *module, const char *entry, const KilnContextOptions *options = nullptr)
      : block(size_of(module, entry, options)) {
    auto index = static_cast<uint32_t>(api().find_entry(module, entry));
    KilnError error;
    if (api().context_init(module, index, options, block.get(), block.size(), &context, &error))
      FAIL(error.message);
  }
  static size_t size_of(KilnModule *module, const char *entry, const KilnContextOptions *options) {
    KilnError error;
    size_t size = 0;
    auto index = static_cast<uint32_t>(api().find_entry(module, entry));
    if (api().context_size(module, index, options, &size, &error))
      FAIL(error.message);
    return size;
  }
  operator KilnContext *() const { return context; }
  Block block;
  KilnContext *context = nullptr;
};

std::string message_of(int32_t code, const KilnError &error) {
  return std::to_string(code) + ": " + error.message;
}

struct ScaleRun {
  explicit ScaleRun(int64_t n) : x(n * 4), y(n * 4), total(1), shape{n, 4} {
    std::iota(x.begin(), x.end(), 1.0f);
  }
  std::string run(KilnContext *context) {
    KilnError error{};
    KilnTensor x_tensor = tensor(x, KILN_F32, shape), y_tensor = tensor(y, KILN_F32, shape),
               total_tensor = tensor(total, KILN_F32, {});
    int32_t code = api().bind_input(context, 0, &x_tensor, &error);
    if (code == 0)
      code = api().bind_output(context, 0, &y_tensor, &error);
    if (code == 0)
      code = api().bind_output(context, 1, &total_tensor, &error);
    if (code == 0)
      code = api().run(context, &error);
    return code == 0 ? "" : message_of(code, error);
  }
  std::vector<float> x, y, total;
  std::vector<int64_t> shape;
};

} // namespace

TEST_CASE("describes what the package holds") {
  Opened module(package_path());
  INFO(module.error.message);
  REQUIRE(module.code == KILN_OK);
  KilnModuleInfo info;
  REQUIRE(api().module_info(module, &info) == KILN_OK);
  CHECK(info.name == std::string("tested"));
  CHECK(info.target == std::string(base_target()));
  CHECK(info.entry_count == 5);
  CHECK(info.variable_count == 2);
  CHECK(api().find_entry(module, "pick") == 2);
  CHECK(api().find_entry(module, "nothing") == -1);
  KilnValueInfo value;
  REQUIRE(api().output_info(module, 0, 0, &value) == KILN_OK);
  CHECK(value.rank == 2);
  CHECK(value.dims[0].symbol == 0);
  CHECK(value.dims[0].value == -1);
  CHECK(value.dims[0].text == std::string("N"));
  CHECK(value.dims[1].value == 4);
  CHECK(api().output_info(module, 0, 2, &value) == KILN_ERROR_USAGE);
  KilnKernelInfo kernel;
  REQUIRE(api().kernel_info(module, 0, 1, &kernel) == KILN_OK);
  CHECK(kernel.name == std::string("reduce_sum"));
  CHECK(kernel.file == std::string("tested.kir"));
  CHECK(kernel.line == 4);
  const char *key = nullptr, *text = nullptr;
  REQUIRE(api().metadata(module, 0, &key, &text) == KILN_OK);
  CHECK(text == std::string("tests"));
  CHECK(kiln_get_api(2) == nullptr);
}

TEST_CASE("runs with several dims, threads and executors") {
  Opened module(package_path());
  REQUIRE(module.code == KILN_OK);
  uint32_t threads = GENERATE(1u, 2u, 5u);
  KilnPool *pool = nullptr;
  REQUIRE(api().pool_create(threads, &pool, nullptr) == KILN_OK);
  KilnContextOptions options{nullptr, nullptr, api().pool_executor(pool)};
  int64_t most = 64;
  options.dims = &most;
  {
    Context context(module, "scale", &options);
    for (int64_t n : {1, 3, 64, 5, 0, 2}) {
      ScaleRun scale(n);
      REQUIRE(scale.run(context).empty());
      float total = 0;
      for (int64_t i = 0; i < n * 4; ++i) {
        REQUIRE(scale.y[i] == scale.x[i] * static_cast<float>(i % 4 + 1));
        total += scale.y[i];
      }
      CHECK(scale.total[0] == total);
    }
  }
  api().pool_destroy(pool);
}

TEST_CASE("says exactly what is wrong with a tensor") {
  Opened module(package_path());
  int64_t most = 8;
  KilnContextOptions options{&most, nullptr, nullptr};
  Context context(module, "scale", &options);
  ScaleRun scale(3);
  KilnError error{};
  KilnTensor good = tensor(scale.x, KILN_F32, scale.shape);
  KilnTensor bad = good;

  CHECK(api().run(context, &error) == KILN_ERROR_UNBOUND);
  CHECK(error.message ==
        std::string("the dim 'N' of 'scale' has no value: bind an input with its shape, or call "
                    "set_dims"));
  bad.dtype = KILN_I64;
  CHECK(api().bind_input(context, 0, &bad, &error) == KILN_ERROR_DTYPE);
  CHECK(error.message == std::string("input 'x' wants f32, got i64"));
  bad = good, bad.rank = 1;
  CHECK(api().bind_input(context, 0, &bad, &error) == KILN_ERROR_SHAPE);
  CHECK(error.message == std::string("input 'x' wants shape [N, 4], got [3]"));
  std::vector<int64_t> shape{3, 5};
  bad = good, bad.dims = shape.data();
  CHECK(api().bind_input(context, 0, &bad, &error) == KILN_ERROR_SHAPE);
  CHECK(error.message == std::string("input 'x' wants shape [N, 4], got [3, 5]"));
  bad = good, bad.data = reinterpret_cast<uint8_t *>(good.data) + 1;
  CHECK(api().bind_input(context, 0, &bad, &error) == KILN_ERROR_USAGE);
  CHECK(api().bind_input(context, 1, &good, &error) == KILN_ERROR_USAGE);

  REQUIRE(api().bind_input(context, 0, &good, &error) == KILN_OK);
  CHECK(api().run(context, &error) == KILN_ERROR_UNBOUND);
  CHECK(error.message == std::string("output 'y' of 'scale' is not bound"));
  KilnTensor small = tensor(scale.y, KILN_F32, scale.shape);
  small.size = 44;
  REQUIRE(api().bind_output(context, 0, &small, &error) == KILN_OK);
  CHECK(api().run(context, &error) == KILN_ERROR_SHAPE);
  CHECK(error.message == std::string("output 'y' of shape [3, 4] needs 48 bytes, got 44"));
  REQUIRE(api().bind_output(context, 0, &good, &error) == KILN_OK);
  KilnTensor total = tensor(scale.total, KILN_F32, {});
  REQUIRE(api().bind_output(context, 1, &total, &error) == KILN_OK);
  CHECK(api().run(context, &error) == KILN_ERROR_USAGE);
  CHECK(error.message == std::string("output 'y' overlaps the input 'x' in memory"));

  int64_t other = 4;
  REQUIRE(api().set_dims(context, &other, 1, &error) == KILN_OK);
  CHECK(api().run(context, &error) == KILN_ERROR_SHAPE);
  CHECK(error.message == std::string("input 'x' has N = 3 (dim 0), where another input or set_dims "
                                     "says 4"));
}

TEST_CASE("refuses dims outside of bounds, constraints and memory") {
  Opened module(package_path());
  int64_t most = 8;
  KilnContextOptions options{&most, nullptr, nullptr};
  Context context(module, "scale", &options);
  CHECK(ScaleRun(65).run(context) == "9: the dim 'N' is 65, outside of 0..64");
  CHECK(ScaleRun(7).run(context) == "9: 'scale' cannot run with the dims [7]: N % 7 != 0");
  CHECK(ScaleRun(9).run(context) ==
        "9: the dims [9] need 36 bytes of arena, and the context was made with 32: make it for "
        "larger dims");
  CHECK(ScaleRun(8).run(context).empty());
  KilnError error{};
  size_t size = 0;
  CHECK(api().context_size(module, 3, nullptr, &size, &error) == KILN_ERROR_UNBOUND);
  CHECK(error.message == std::string("the dim 'N' of 'denormal' has no upper bound: give the "
                                     "largest dims in KilnContextOptions"));
}

TEST_CASE("output dims come before the run") {
  Opened module(package_path());
  Context context(module, "scale");
  int64_t n = 12, dims[2] = {};
  KilnError error{};
  REQUIRE(api().set_dims(context, &n, 1, &error) == KILN_OK);
  REQUIRE(api().output_dims(context, 0, dims, &error) == KILN_OK);
  CHECK(dims[0] == 12);
  CHECK(dims[1] == 4);
}

TEST_CASE("an input's dims may be computed from symbolic ones") {
  std::vector<uint8_t> image = read_file(image_path());
  PackageSpec spec = make_spec(image);
  std::string path = temporary("computed.kiln");
  struct Case {
    const char *text;
    int64_t at_5; // -1: none
  };
  for (Case c : {Case{"N + 1", 6}, Case{"2*N - 3", 7}, Case{"(N + 2) / 2", 3},
                 Case{"-N / 2 + 9", 6}, Case{"-N % 3", 1}, Case{"min(N, 3)*max(N, 7)", 21},
                 Case{"N - 6", -1}, Case{"N / (N - 5)", -1}, Case{"M", -1}, Case{"N +", -1},
                 Case{"((N)", -1}, Case{"N*9223372036854775807", -1}, Case{"", -1}}) {
    spec.entries[3].inputs[0].dims[0] = dim_planned(c.text[0] != 0 ? c.text : " ");
    REQUIRE(write_package(spec, path).empty());
    Opened module(path);
    REQUIRE(module.code == KILN_OK);
    int64_t n = 5;
    KilnContextOptions options{&n, nullptr, nullptr};
    Context context(module, "denormal", &options);
    std::vector<float> x(32), y(5);
    KilnError error{};
    REQUIRE(api().set_dims(context, &n, 1, &error) == KILN_OK);
    KilnTensor y_tensor = tensor(y, KILN_F32, {5});
    y_tensor.dims = nullptr;
    REQUIRE(api().bind_output(context, 0, &y_tensor, &error) == KILN_OK);
    for (int64_t size = 0; size < 32; ++size) {
      KilnTensor x_tensor{x.data(), static_cast<uint64_t>(size) * 4, KILN_F32, 1, &size};
      REQUIRE(api().bind_input(context, 0, &x_tensor, &error) == KILN_OK);
      int32_t code = api().run(context, &error);
      INFO(c.text << " with " << size << ": " << error.message);
      CHECK(code == (size == c.at_5 ? KILN_OK : KILN_ERROR_SHAPE));
    }
  }
}

TEST_CASE("a trap names its kernel and place") {
  Opened module(package_path());
  Context context(module, "pick");
  std::vector<float> table(8), value(1);
  std::vector<int64_t> at{8};
  table[5] = 2.5f;
  KilnError error{};
  KilnTensor table_tensor = tensor(table, KILN_F32, {8}), at_tensor = tensor(at, KILN_I64, {}),
             value_tensor = tensor(value, KILN_F32, {});
  table_tensor.dims = nullptr;
  REQUIRE(api().bind_input(context, 0, &table_tensor, &error) == KILN_OK);
  REQUIRE(api().bind_input(context, 1, &at_tensor, &error) == KILN_OK);
  REQUIRE(api().bind_output(context, 0, &value_tensor, &error) == KILN_OK);
  CHECK(api().run(context, &error) == KILN_ERROR_TRAP);
  CHECK(error.message == std::string("'pick' stopped: an index was out of range"));
  CHECK(error.node == std::string("Gather#2"));
  CHECK(error.location == std::string("m.onnx"));
  at[0] = 5;
  REQUIRE(api().run(context, &error) == KILN_OK);
  CHECK(value[0] == 2.5f);
}

TEST_CASE("the hook sees every kernel in order") {
  Opened module(package_path());
  Context context(module, "scale");
  std::vector<uint32_t> seen;
  auto hook = [](void *self, uint32_t entry, uint32_t kernel) {
    static_cast<std::vector<uint32_t> *>(self)->push_back(entry * 100 + kernel);
  };
  REQUIRE(api().set_kernel_hook(context, hook, &seen) == KILN_OK);
  REQUIRE(ScaleRun(4).run(context).empty());
  CHECK(seen == std::vector<uint32_t>{0, 1});
  REQUIRE(api().set_kernel_hook(context, nullptr, nullptr) == KILN_OK);
  REQUIRE(ScaleRun(4).run(context).empty());
  CHECK(seen.size() == 2);
}

TEST_CASE("denormals are zero on every thread, and the caller's mode comes back") {
  Opened module(package_path());
  KilnPool *pool = nullptr;
  REQUIRE(api().pool_create(3, &pool, nullptr) == KILN_OK);
  int64_t n = 999;
  KilnContextOptions options{&n, nullptr, api().pool_executor(pool)};
  {
    Context context(module, "denormal", &options);
    float tiny = std::numeric_limits<float>::min();
    std::vector<float> x(999, tiny), y(999, 1.0f);
    KilnTensor x_tensor = tensor(x, KILN_F32, {999}), y_tensor = tensor(y, KILN_F32, {999});
    std::vector<int64_t> shape{n};
    x_tensor.dims = y_tensor.dims = shape.data();
    KilnError error{};
    REQUIRE(api().bind_input(context, 0, &x_tensor, &error) == KILN_OK);
    REQUIRE(api().bind_output(context, 0, &y_tensor, &error) == KILN_OK);
    for (int round = 0; round < 100; ++round) {
      std::fill(y.begin(), y.end(), 1.0f);
      REQUIRE(api().run(context, &error) == KILN_OK);
      REQUIRE(std::count(y.begin(), y.end(), 0.0f) == n);
    }
    volatile float half = tiny;
    CHECK(half * 0.5f > 0.0f);
  }
  api().pool_destroy(pool);
}

TEST_CASE("an executor without threads is refused") {
  Opened module(package_path());
  KilnExecutor nobody{};
  int64_t most = 4;
  KilnContextOptions options{&most, nullptr, &nobody};
  size_t size = 0;
  KilnError error{};
  CHECK(api().context_size(module, 0, &options, &size, &error) == KILN_ERROR_USAGE);
  CHECK(std::string(error.message) ==
        "context_size: the executor says that it has no thread; 1 is the least");
}

TEST_CASE("one module runs in many threads that share a pool") {
  Opened module(package_path());
  KilnPool *pool = nullptr;
  REQUIRE(api().pool_create(3, &pool, nullptr) == KILN_OK);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      KilnContextOptions options{nullptr, nullptr, api().pool_executor(pool)};
      int64_t most = 64;
      options.dims = &most;
      size_t size = 0;
      api().context_size(module, 0, &options, &size, nullptr);
      Block block(size);
      KilnContext *context = nullptr;
      api().context_init(module, 0, &options, block.get(), size, &context, nullptr);
      for (int round = 0; round < 500; ++round) {
        ScaleRun scale(1 + (round + t) % 6);
        if (!scale.run(context).empty() || scale.y[3] != 16.0f)
          ++wrong;
      }
    });
  for (std::thread &thread : threads)
    thread.join();
  CHECK(wrong == 0);
  api().pool_destroy(pool);
}

TEST_CASE("code knows what its executor says of a hand-over") {
  Opened module(package_path());
  for (uint32_t hand_over : {0u, 9000u, 11000u, 0xffffffffu}) {
    int calls = 0;
    KilnExecutor executor{2, hand_over, &calls, [](void *self, int64_t n, void (*body)(void *, int64_t, int64_t), void *closure) {
                            ++*static_cast<int *>(self);
                            body(closure, 0, n);
                          }};
    int64_t most = 4;
    KilnContextOptions options{&most, nullptr, &executor};
    Context context(module, "scale", &options);
    REQUIRE(ScaleRun(4).run(context).empty());
    CHECK(calls == (hand_over < 10000 ? 1 : 0));
  }
}

TEST_CASE("a pool measures its hand-over before its first loop") {
  KilnPool *pool = nullptr;
  REQUIRE(api().pool_create(2, &pool, nullptr) == KILN_OK);
  const KilnExecutor *executor = api().pool_executor(pool);
  CHECK(rt::hand_over(*executor) == 0);
  auto nothing = [](void *, int64_t, int64_t) {};
  for (int i = 0; i < 8; ++i) // the first ones may meet a worker on its way up
    executor->parallel_for(executor->self, 2, nothing, nullptr);
  CHECK(rt::hand_over(*executor) > 0);
  CHECK(rt::hand_over(*executor) <= 20000);
  api().pool_destroy(pool);
}

TEST_CASE("the pool does every part exactly once") {
  KilnPool *pool = nullptr;
  KilnError error{};
  CHECK(api().pool_create(0, &pool, &error) == KILN_ERROR_USAGE);
  REQUIRE(api().pool_create(7, &pool, &error) == KILN_OK);
  const KilnExecutor *executor = api().pool_executor(pool);
  for (int64_t n = 0; n < 3000; n += 1 + n / 50) {
    std::vector<std::atomic<int>> touched(static_cast<size_t>(n));
    executor->parallel_for(
        executor->self, n,
        [](void *closure, int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i)
            ++(*static_cast<std::vector<std::atomic<int>> *>(closure))[static_cast<size_t>(i)];
        },
        &touched);
    REQUIRE(std::all_of(touched.begin(), touched.end(), [](auto &count) { return count == 1; }));
    if (n % 16 == 0)
      std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  api().pool_destroy(pool);
}
