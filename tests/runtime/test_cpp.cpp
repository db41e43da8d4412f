// The C++ wrapper: owners, names, spans, and errors thrown or returned.
#include <catch2/catch.hpp>

#include "runtime/include/kiln/kiln.hpp"
#include "tests/runtime/test_model.h"

using namespace kiln::runtime;
namespace test = kiln::test;

namespace {

std::string make_package() {
  std::vector<uint8_t> image = test::read_file(test::image_path());
  std::string path = test::temporary("cpp.kiln");
  REQUIRE(kiln::write_package(test::make_spec(image), path).empty());
  return path;
}

} // namespace

TEST_CASE("C++: runs with names and containers") {
  Pool pool(2);
  Context scale = Module::open(make_package()).context("scale", {.executor = pool.executor()});
  std::vector<float> x{1, 1, 1, 1, 2, 2, 2, 2}, y(8);
  float total[1] = {};
  scale.input("x", x, {2, 4});
  CHECK(scale.output_dims("y") == std::vector<int64_t>{2, 4});
  scale.output("y", y);
  scale.output("total", total);
  scale.run();
  CHECK(y == std::vector<float>{1, 2, 3, 4, 2, 4, 6, 8});
  CHECK(total[0] == 30);
  scale.set_dims({1});
  const std::vector<float> one{1, 0, 0, 0};
  scale.input("x", one);
  scale.run();
  CHECK(total[0] == 1);
}

TEST_CASE("C++: errors are thrown") {
  Module module = Module::open(make_package());
  CHECK_THROWS_WITH(Module::open(std::string("/nothing")),
                    "cannot open '/nothing': no such file or folder");
  CHECK_THROWS_WITH(module.context("none"), "no entry 'none'");
  CHECK_THROWS_WITH(module.context("scale", {.dims = {1, 2}}),
                    "'scale' has 1 symbolic dims, not 2");
  Context pick = module.context("pick");
  std::vector<int64_t> at{9}, wrong(8);
  std::vector<float> table(8), value(1);
  CHECK_THROWS_WITH(pick.input("tables", table), "no input 'tables'");
  CHECK_THROWS_WITH(pick.input("table", wrong), "input 'table' wants f32, got i64");
  CHECK_THROWS_WITH(pick.input("at", at, {1}), "input 'at' wants shape [], got [1]");
  pick.input("table", table);
  pick.input("at", at, std::initializer_list<int64_t>{});
  pick.output("value", value);
  try {
    pick.run();
    FAIL("it did not throw");
  } catch (const Error &error) {
    CHECK(error.code() == KILN_ERROR_TRAP);
    CHECK(error.what() ==
          std::string("'pick' stopped: an index was out of range in 'Gather#2' at m.onnx"));
  }
}

TEST_CASE("C++: errors are returned") {
  KilnError error{};
  CHECK(!Module::try_open("/nothing", error));
  CHECK(error.code == KILN_ERROR_IO);
  std::optional<Module> module = Module::try_open(make_package(), error);
  REQUIRE(module);
  std::optional<Context> scale = module->try_context("scale", {}, error);
  REQUIRE(scale);
  CHECK(!scale->try_run(error));
  CHECK(error.code == KILN_ERROR_UNBOUND);
}

TEST_CASE("C++: variables are shared by contexts, saved and loaded") {
  Module module = Module::open(make_package());
  Variables variables = module.variables();
  Context first = module.context("step", {.variables = &variables});
  Context second = module.context("step", {.variables = &variables});
  std::vector<float> x(4, 1.0f), loss(1);
  for (Context *context : {&first, &second}) {
    context->input("x", x);
    context->output("loss", loss);
    context->run();
  }
  CHECK(loss[0] == 108);
  CHECK(variables.read<int64_t>("count")[0] == 2);
  CHECK_THROWS_WITH(variables.read<float>("count"), "the variable 'count' has another dtype");
  std::string state = test::temporary("cpp.state");
  variables.save(state, true);
  variables.write("moment", std::vector<float>(4));
  variables.load(state);
  CHECK(variables.read<float>("moment")[0] == 12);
}

TEST_CASE("C++: sizes that depend on the data") {
  Module module = Module::open(make_package());
  Variables variables = module.variables();
  Context positive = module.context("positive", {.dims = {32, -1}, .variables = &variables});
  std::vector<float> x{1, -1, 2, -2};
  positive.input("x", x, {4});
  positive.own_output("y");
  CHECK(positive.output_dims("y") == std::vector<int64_t>{2});
  positive.run();
  CHECK(positive.result_dims("y") == std::vector<int64_t>{2});
  CHECK(positive.result<float>("y")[1] == 2);
  CHECK_THROWS_WITH(positive.result<int64_t>("y"),
                    "the output 'y' is not the context's own, or has another dtype");
  // More than there is room for: the run is made again, and its first half did not count.
  x = {5, 6, 7, 8};
  positive.run();
  CHECK(positive.result_dims("y") == std::vector<int64_t>{4});
  CHECK(positive.result<float>("y")[3] == 8);
  CHECK(variables.read<int64_t>("count")[0] == 2);
  x = {-1, -1, -1, -1};
  positive.run();
  CHECK(positive.result_dims("y") == std::vector<int64_t>{0});
  std::vector<float> many(33, 1.0f);
  positive.input("x", many, {33});
  KilnError error{};
  CHECK(!positive.try_run(error));
}

TEST_CASE("sizes in C: capacities, errors that tell what is needed, dims of results") {
  Module module = Module::open(make_package());
  const KilnApi &kiln = api();
  auto entry = static_cast<uint32_t>(kiln.find_entry(module.handle(), "positive"));
  CHECK(kiln.capacity(module.handle(), entry, 0) == -1);
  CHECK(kiln.capacity(module.handle(), entry, 1) == 2);
  KilnEntryInfo info{};
  kiln.entry_info(module.handle(), entry, &info);
  CHECK(info.size_count == 1);
  Context positive = module.context("positive", {.dims = {8, 3}});
  std::vector<float> x(8, 1.0f), y(8);
  positive.input("x", x, {8});
  positive.output("y", y);
  KilnError error{};
  int64_t dims[2] = {};
  CHECK(kiln.result_dims(positive.handle(), 0, dims, &error) == KILN_ERROR_USAGE);
  CHECK(kiln.grown_dims(positive.handle(), dims, &error) == KILN_ERROR_USAGE);
  CHECK(kiln.run(positive.handle(), &error) == KILN_ERROR_CAPACITY);
  CHECK(std::string(error.message) == "'positive' stopped: the size 'K' is 8, and there is room for 3: make the "
                                      "context with 'C' = 8 at least");
  REQUIRE(kiln.grown_dims(positive.handle(), dims, &error) == KILN_OK);
  CHECK((dims[0] == 8 && dims[1] == 8));
}
