// The writer: the same bytes for the same spec, whole files or none, and bad specs named.
#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <sys/stat.h>
#include <thread>

#include "tests/runtime/test_model.h"

using namespace kiln;
using namespace kiln::test;

TEST_CASE("the same spec gives the same bytes, in memory and in a file") {
  std::vector<uint8_t> image = read_file(image_path()), first, second;
  REQUIRE(build_package(make_spec(image), first).empty());
  REQUIRE(build_package(make_spec(image), second).empty());
  CHECK(first == second);
  std::string path = temporary("same.kiln");
  REQUIRE(write_package(make_spec(image), path).empty());
  CHECK(read_file(path) == first);
}

TEST_CASE("weights come from data or from a function, in any order") {
  std::vector<uint8_t> image = read_file(image_path()), first, second;
  PackageSpec spec = make_spec(image);
  REQUIRE(build_package(spec, first).empty());
  std::swap(spec.weights[0], spec.weights[1]);
  const void *data = spec.weights[0].data;
  spec.weights[0].data = nullptr;
  spec.weights[0].fill = [&](uint8_t *out) { std::memcpy(out, data, 16); };
  REQUIRE(build_package(spec, second).empty());
  CHECK(first == second);
  spec.weights[1].offset = 72;
  CHECK(build_package(spec, second) == "two weights overlap at byte 72");
  spec.weights.resize(1);
  spec.weights[0].offset = 72;
  CHECK(build_package(spec, second) == "a weight at byte 72 ends after the weights");
}

TEST_CASE("bad specs are named") {
  std::vector<uint8_t> image = read_file(image_path()), bytes;
  PackageSpec spec = make_spec(image);
  spec.entries[0].inputs[0].dtype = 99;
  CHECK(build_package(spec, bytes) == "entry 'scale', input 'x': no dtype has the code 99");
  spec = make_spec(image);
  spec.entries[0].inputs[0].dims[0] = dim_symbol(1);
  CHECK(build_package(spec, bytes) ==
        "entry 'scale', input 'x': a symbolic dim that the entry does not have");
  spec = make_spec(image);
  spec.variables[1].offset = 192;
  CHECK(build_package(spec, bytes) == "variable 'count': it ends after the variables block");
  spec = make_spec(image);
  spec.code.push_back(spec.code[0]);
  CHECK(build_package(spec, bytes) ==
        std::string("two code sections for the target '") + base_target() + "'");
}

TEST_CASE("a write that fails leaves nothing behind") {
  std::vector<uint8_t> image = read_file(image_path());
  std::string folder = temporary("target_is_a_folder");
  std::filesystem::create_directory(folder);
  std::string inside = folder + "/in.kiln";
  std::filesystem::create_directory(inside);
  CHECK(write_package(make_spec(image), inside).find("cannot write '" + inside) == 0);
  CHECK(std::distance(std::filesystem::directory_iterator(folder), {}) == 1);
}

TEST_CASE("a package goes into a pipe from its first byte to its last") {
  std::vector<uint8_t> image = read_file(image_path());
  std::vector<uint8_t> bytes;
  REQUIRE(build_package(make_spec(image), bytes).empty());
  std::string path = temporary("pipe");
  std::filesystem::remove(path);
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  std::vector<uint8_t> got;
  std::thread reader([&] { got = read_file(path); });
  CHECK(write_package(make_spec(image), path) == "");
  reader.join();
  CHECK(got == bytes);
  CHECK(std::filesystem::is_fifo(path));
}
