// Caches as state: a decoder that is passed its past and one that keeps it give the same results, in runs
// of any length; state is saved, loaded and reset; what does not fit is refused by name. And forms: code
// of its own for some sizes gives the same results as the general one.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "codegen/compile.h"
#include "frontend/kir/kir.h"
#include "frontend/onnx/import.h"
#include "ir/interpret.h"
#include "kiln/kiln.hpp"
#include "passes/graph/specialise.h"
#include "passes/graph/state.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

using namespace kiln;
namespace rt_api = kiln::runtime;

namespace {

constexpr const char *kDecoder = R"(
export func step(x: f32[1, 2, n, 4], `past.k`: f32[1, 2, P, 4], `past.v`: f32[1, 2, P, 4])
    -> (y: f32[1, 2, n, 4], `present.k`: f32[1, 2, P + n, 4], `present.v`: f32[1, 2, P + n, 4]) {
  `present.k` = concat(`past.k`, x, axis=2)
  `present.v` = concat(`past.v`, tanh(x), axis=2)
  scores = dot(x, `present.k`, transpose_b=true)
  y = dot(softmax(scores, axis=3), `present.v`)
  return y, `present.k`, `present.v`
}
)";

Module load(const std::string &text) {
  Module module;
  Diagnostics diagnostics;
  bool fine = load_kir("decoder.kir", text, {}, module, diagnostics);
  INFO(diagnostics.render());
  REQUIRE(fine);
  return module;
}

std::string state_error(Module &module, const StateOptions &options) {
  Diagnostics diagnostics;
  return make_state(module, options, diagnostics) ? "" : diagnostics.render();
}

rt_api::Module compile(Module &module, std::vector<FormDims> forms = {}) {
  Diagnostics diagnostics;
  CompileOptions options;
  options.forms = std::move(forms);
  options.machines = {host_machine()};
  options.passes.verify_each = true;
  Compiled compiled;
  bool fine = compile_module(module, options, compiled, diagnostics);
  INFO(diagnostics.render());
  REQUIRE(fine);
  std::string path = (std::filesystem::temp_directory_path() / ("kiln_state_" + std::to_string(getpid()) + ".kiln")).string();
  REQUIRE(write_package(package_spec(module, compiled), path) == "");
  rt_api::Module out = rt_api::Module::open(path);
  std::filesystem::remove(path);
  return out;
}

std::vector<float> values(size_t count, int seed) {
  std::vector<float> out(count);
  for (size_t i = 0; i < count; ++i)
    out[i] = float(int(i * 37 + size_t(seed) * 101) % 23 - 11) / 8;
  return out;
}

// What runs of these lengths give, the past passed by hand.
std::vector<std::vector<float>> by_hand(const std::vector<int64_t> &lengths) {
  Module module = load(kDecoder);
  rt_api::Module package = compile(module);
  rt_api::Context context = package.context("step", {.dims = {8, 32}});
  std::vector<std::vector<float>> out;
  std::vector<float> k, v;
  int64_t past = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    int64_t n = lengths[i];
    std::vector<float> x = values(size_t(8 * n), int(i)), y(size_t(8 * n)), next_k(size_t(8 * (past + n))), next_v = next_k;
    context.input("x", x, {1, 2, n, 4});
    context.input("past.k", k, {1, 2, past, 4});
    context.input("past.v", v, {1, 2, past, 4});
    context.output("y", y);
    context.output("present.k", next_k);
    context.output("present.v", next_v);
    context.run();
    out.push_back(y);
    k = next_k, v = next_v;
    past += n;
  }
  return out;
}

std::vector<float> step(rt_api::Context &context, int64_t n, int seed) {
  std::vector<float> x = values(size_t(8 * n), seed), y(size_t(8 * n));
  context.input("x", x, {1, 2, n, 4});
  context.output("y", y);
  context.run();
  return y;
}

void check_equal(const std::vector<float> &got, const std::vector<float> &want) {
  REQUIRE(got.size() == want.size());
  for (size_t i = 0; i < got.size(); ++i)
    CHECK(got[i] == Approx(want[i]).margin(1e-6));
}

StateOptions automatic(int64_t capacity) {
  StateOptions options;
  options.find = true;
  options.capacity = capacity;
  return options;
}

} // namespace

TEST_CASE("a cache that stays in place") {
  std::vector<int64_t> lengths{3, 1, 1, 2, 1};
  auto want = by_hand(lengths);
  Module module = load(kDecoder);
  REQUIRE(state_error(module, automatic(9)) == "");
  REQUIRE(module.find_function("step")->body.args.size() == 1);
  for (bool forms : {false, true}) {
    Module copy = module;
    rt_api::Module package = compile(copy, forms ? std::vector<FormDims>{{{"n", 1}}, {{"n", 3}}} : std::vector<FormDims>());
    rt_api::Variables variables = package.variables();
    rt_api::Context context = package.context("step", {.dims = {3, 0}, .variables = &variables});
    for (int round = 0; round < 2; ++round) {
      for (size_t i = 0; i < lengths.size(); ++i)
        check_equal(step(context, lengths[i], int(i)), want[i]);
      CHECK(variables.read<int64_t>("P.length") == std::vector<int64_t>{8});
      variables.reset();
    }
  }
}

TEST_CASE("state is saved, loaded, and full at some time") {
  std::vector<int64_t> lengths{3, 1, 1};
  auto want = by_hand(lengths);
  Module module = load(kDecoder);
  REQUIRE(state_error(module, automatic(5)) == "");
  rt_api::Module package = compile(module);
  rt_api::Variables variables = package.variables(), other = package.variables();
  rt_api::Context context = package.context("step", {.dims = {3, 0}, .variables = &variables});
  rt_api::Context again = package.context("step", {.dims = {3, 0}, .variables = &other});
  step(context, 3, 0);
  step(context, 1, 1);
  std::string path = (std::filesystem::temp_directory_path() / ("kiln_state_" + std::to_string(getpid()))).string();
  variables.save(path, true);
  other.load(path);
  std::filesystem::remove(path);
  check_equal(step(again, 1, 2), want[2]);
  check_equal(step(context, 1, 2), want[2]);
  std::vector<float> x(8), y(8);
  context.input("x", x, {1, 2, 1, 4});
  context.output("y", y);
  KilnError error{};
  REQUIRE_FALSE(context.try_run(error));
  CHECK(std::string(error.message).find("5") != std::string::npos);
  CHECK(variables.read<int64_t>("P.length") == std::vector<int64_t>{5}); // nothing was written
  variables.write("P.length", std::vector<int64_t>{-1});
  REQUIRE_FALSE(context.try_run(error));
  CHECK(std::string(error.message).find("outside of 0..5") != std::string::npos);
}

TEST_CASE("the interpreter keeps state, and text does") {
  std::vector<int64_t> lengths{2, 1, 3};
  auto want = by_hand(lengths);
  Module made = load(kDecoder);
  REQUIRE(state_error(made, automatic(8)) == "");
  Module module = load(print_module(made));
  CHECK(first_difference(made, module) == "");
  VariableValues variables = *initial_variables(module);
  for (size_t i = 0; i < lengths.size(); ++i) {
    auto x = values(size_t(8 * lengths[i]), int(i));
    Tensor input(DType::f32, {1, 2, lengths[i], 4});
    std::memcpy(input.mutable_bytes(), x.data(), x.size() * 4);
    auto got = interpret(module, *module.find_function("step"), {&input, 1}, variables);
    INFO((got ? "" : got.error().message));
    REQUIRE(got.ok());
    std::vector<float> y(size_t((*got)[0].count()));
    std::memcpy(y.data(), (*got)[0].bytes().data(), y.size() * 4);
    check_equal(y, want[i]);
  }
}

TEST_CASE("state that keeps its size") {
  Module module = load("export func count(x: f32[3], h: f32[3]) -> (y: f32[3], h_out: f32[3]) {\n"
                       "  h_out = h + x\n  y = h * x\n  return y, h_out\n}\n");
  REQUIRE(state_error(module, automatic(0)) == "");
  rt_api::Module package = compile(module);
  rt_api::Context context = package.context("count", {});
  std::vector<float> x{1, 2, 3}, y(3);
  context.input("x", x, {3});
  context.output("y", y);
  for (int i = 0; i < 3; ++i) {
    context.run();
    CHECK(y == std::vector<float>{float(i), float(4 * i), float(9 * i)});
  }
}

TEST_CASE("pairs that are none are refused by name") {
  auto error_of = [](const std::string &text, std::vector<StatePair> pairs, bool find = false) {
    Module module = load(text);
    StateOptions options;
    options.find = find;
    options.pairs = std::move(pairs);
    return state_error(module, options);
  };
  auto says = [](const std::string &text, const std::string &word) {
    INFO(text);
    CHECK(text.find(word) != std::string::npos);
  };
  says(error_of(kDecoder, {{"past.x", "present.k", 8}}), "past.k");
  says(error_of(kDecoder, {{"past.k", "presen.k", 8}}), "present.k");
  says(error_of(kDecoder, {{"past.k", "present.k", 0}}), "--dim P=0..256");
  says(error_of(kDecoder, {{"past.k", "y", 8}}), "'y' is f32[1, 2, n, 4]");
  says(error_of("export func f(x: f32[N]) -> f32[N] { return relu(x) }", {}, true), "past.X");
  says(error_of("export func f(x: f32[1, n], past: f32[B, P]) -> (present: f32[B, P + n]) {\n"
                "  return concat(past, broadcast_to(x, shape=[B, n]), axis=1)\n}",
                {{"past", "present", 8}}),
       "--dim B=1");
  says(error_of("export func f(x: f32[n], past: f32[P]) -> (present: f32[P + n]) { return concat(x, past, axis=0) }",
                {{"past", "present", 8}}),
       "Concat");
}

TEST_CASE("forms that an entry does not have") {
  Module module = load("export func f(x: f32[N, 4]) -> f32[N, 4] { return relu(x) }");
  Diagnostics diagnostics;
  CHECK_FALSE(specialise(module, {{"M", 2}}, diagnostics));
  CHECK(diagnostics.render().find("there are: N") != std::string::npos);
}

// A real one, where it is at hand: the stored greedy continuation of its first token.
TEST_CASE("stories260k generates its hundred tokens") {
  std::string folder = KILN_MODELS;
  std::ifstream file(folder + "/stories260k_greedy100_ids.json");
  if (!file || !std::filesystem::exists(folder + "/stories260k_kv.onnx"))
    return;
  std::stringstream text;
  text << file.rdbuf();
  std::string list = text.str();
  for (char &c : list)
    c = c >= '0' && c <= '9' ? c : ' ';
  std::istringstream numbers(list);
  std::vector<int64_t> want{std::istream_iterator<int64_t>(numbers), {}};
  REQUIRE(want.size() == 100);
  Module module;
  Diagnostics diagnostics;
  OnnxOptions onnx;
  onnx.dims["batch"] = Dim(1);
  REQUIRE(import_onnx(folder + "/stories260k_kv.onnx", onnx, module, diagnostics));
  REQUIRE(state_error(module, automatic(256)) == "");
  rt_api::Module package = compile(module, {{{"seq", 1}}});
  rt_api::Context context = package.context("main", {.dims = {1, 0}});
  std::vector<int64_t> token{1}, got;
  std::vector<float> logits(512);
  while (got.size() < want.size()) {
    context.input("input_ids", token, {1, 1});
    context.output("logits", logits);
    context.run();
    token[0] = std::max_element(logits.begin(), logits.end()) - logits.begin();
    got.push_back(token[0]);
  }
  CHECK(got == want);
}
