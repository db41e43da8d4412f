// Variables: initial values, sharing between contexts, reading, writing, saving and loading.
#include <catch2/catch.hpp>

#include "tests/runtime/test_model.h"

using namespace kiln;
using namespace kiln::test;

namespace {

std::string make_package() {
  std::vector<uint8_t> image = read_file(image_path());
  std::string path = temporary("variables.kiln");
  REQUIRE(write_package(make_spec(image), path).empty());
  return path;
}

size_t variables_size(KilnModule *module) {
  KilnModuleInfo info{};
  api().module_info(module, &info);
  return info.variables_size;
}

// One step on a block of variables; returns the loss.
float step(KilnModule *module, void *variables, float by) {
  KilnContextOptions options{nullptr, variables, nullptr};
  size_t size = 0;
  REQUIRE(api().context_size(module, 1, &options, &size, nullptr) == KILN_OK);
  Block block(size);
  KilnContext *context = nullptr;
  REQUIRE(api().context_init(module, 1, &options, block.get(), size, &context, nullptr) == KILN_OK);
  CHECK(api().context_variables(context) == variables);
  std::vector<float> x(4, by), loss(1);
  KilnTensor x_tensor{x.data(), 16, KILN_F32, 0, nullptr};
  KilnTensor loss_tensor{loss.data(), 4, KILN_F32, 0, nullptr};
  REQUIRE(api().bind_input(context, 0, &x_tensor, nullptr) == KILN_OK);
  REQUIRE(api().bind_output(context, 0, &loss_tensor, nullptr) == KILN_OK);
  REQUIRE(api().run(context, nullptr) == KILN_OK);
  return loss[0];
}

int64_t count_of(KilnModule *module, const void *block) {
  int64_t count = -1;
  REQUIRE(api().variable_read(module, block, 1, &count, sizeof count, nullptr) == KILN_OK);
  return count;
}

} // namespace

TEST_CASE("variables start at their initial values and persist between contexts") {
  Opened module(make_package());
  Block block(variables_size(module));
  REQUIRE(api().variables_init(module, block.get(), nullptr) == KILN_OK);
  CHECK(step(module, block.get(), 1) == 104);
  CHECK(step(module, block.get(), 1) == 108);
  CHECK(count_of(module, block.get()) == 2);
  KilnVariableInfo info;
  REQUIRE(api().variable_info(module, 0, &info) == KILN_OK);
  CHECK(info.name == std::string("moment"));
  CHECK(info.size == 16);
  CHECK(info.is_param == 1);
  float zeros[4] = {};
  REQUIRE(api().variable_write(module, block.get(), 0, zeros, 16, nullptr) == KILN_OK);
  CHECK(step(module, block.get(), 1) == 4);
  KilnError error{};
  CHECK(api().variable_write(module, block.get(), 0, zeros, 8, &error) == KILN_ERROR_SHAPE);
  CHECK(error.message == std::string("variable_write: variable 'moment' has 16 bytes, got 8"));
}

TEST_CASE("a context without shared variables has its own") {
  Opened module(make_package());
  size_t size = 0;
  REQUIRE(api().context_size(module, 1, nullptr, &size, nullptr) == KILN_OK);
  Block block(size);
  KilnContext *context = nullptr;
  REQUIRE(api().context_init(module, 1, nullptr, block.get(), size, &context, nullptr) == KILN_OK);
  float moment[4] = {};
  REQUIRE(api().variable_read(module, api().context_variables(context), 0, moment, 16, nullptr) ==
          KILN_OK);
  CHECK(moment[3] == 40);
}

TEST_CASE("a saved package opens with the saved values, and saves again") {
  std::string saved = temporary("saved.kiln"), again = temporary("again.kiln");
  {
    Opened module(make_package());
    Block block(variables_size(module));
    REQUIRE(api().variables_init(module, block.get(), nullptr) == KILN_OK);
    step(module, block.get(), 2);
    KilnError error{};
    int32_t code = api().save(module, block.get(), saved.c_str(), 0, &error);
    INFO(error.message);
    REQUIRE(code == KILN_OK);
  }
  Opened module(saved);
  INFO(module.error.message);
  REQUIRE(module.code == KILN_OK);
  Block block(variables_size(module));
  REQUIRE(api().variables_init(module, block.get(), nullptr) == KILN_OK);
  CHECK(count_of(module, block.get()) == 1);
  CHECK(step(module, block.get(), 2) == 116);
  REQUIRE(api().save(module, block.get(), again.c_str(), 0, nullptr) == KILN_OK);
  Opened second(again);
  REQUIRE(second.code == KILN_OK);
  CHECK(read_file(again).size() == read_file(saved).size());
}

TEST_CASE("state files go into a model with the same variables, and into no other") {
  std::string state = temporary("state.kiln");
  Opened module(make_package());
  Block block(variables_size(module)), other(variables_size(module));
  REQUIRE(api().variables_init(module, block.get(), nullptr) == KILN_OK);
  REQUIRE(api().variables_init(module, other.get(), nullptr) == KILN_OK);
  step(module, block.get(), 3);
  REQUIRE(api().save(module, block.get(), state.c_str(), KILN_SAVE_STATE_ONLY, nullptr) == KILN_OK);
  KilnError error{};
  int32_t code = api().load(module, other.get(), state.c_str(), &error);
  INFO(error.message);
  REQUIRE(code == KILN_OK);
  CHECK(count_of(module, other.get()) == 1);

  Opened as_model(state);
  CHECK(as_model.code == KILN_ERROR_FORMAT);
  CHECK(as_model.error.message == state + ": holds only saved variables; open their model and load "
                                          "them into it");

  std::vector<uint8_t> image = read_file(image_path());
  PackageSpec spec = make_spec(image);
  spec.variables[0].dims = {2, 2};
  std::string path = temporary("reshaped.kiln");
  REQUIRE(write_package(spec, path).empty());
  Opened reshaped(path);
  REQUIRE(reshaped.code == KILN_OK);
  CHECK(api().load(reshaped, other.get(), state.c_str(), &error) == KILN_ERROR_SHAPE);
  CHECK(error.message == state + ": the variable 'moment' has shape [4], the model's has [2, 2]");
  spec.variables[0].name = "momentum";
  REQUIRE(write_package(spec, path).empty());
  Opened renamed(path);
  CHECK(api().load(renamed, other.get(), state.c_str(), &error) == KILN_ERROR_NOT_FOUND);
  CHECK(api().load(module, other.get(), make_package().c_str(), &error) == KILN_ERROR_FORMAT);
}

TEST_CASE("save leaves nothing behind where it fails") {
  Opened module(make_package());
  Block block(variables_size(module));
  REQUIRE(api().variables_init(module, block.get(), nullptr) == KILN_OK);
  KilnError error{};
  std::string path = temporary("no/such/folder.kiln");
  CHECK(api().save(module, block.get(), path.c_str(), 0, &error) == KILN_ERROR_IO);
  CHECK(error.message == "cannot create '" + path + "': no such file or folder");
}
