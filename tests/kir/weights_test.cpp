// Weights given by name: values arrive, and what is missing, unused or of another shape is listed.
#define CATCH_CONFIG_MAIN
#include "frontend/kir/kir.h"

#include <catch2/catch.hpp>

using namespace kiln;

namespace {

constexpr std::string_view kProgram = R"(
import nn
fc = nn.Linear(2, 3)
export func f(x: f32[N, 2]) { return fc(x) + constant("offset") }
)";

KirOptions complete() {
  KirOptions options;
  Tensor w(DType::f32, {3, 2});
  w.set_f64(5, 7.5);
  options.weights.emplace("fc.weight", std::move(w));
  options.weights.emplace("fc.bias", Tensor(DType::f32, {3}));
  options.weights.emplace("offset", Tensor::scalar_f64(DType::f32, 2));
  return options;
}

std::string errors(const KirOptions &options, std::string_view program = kProgram) {
  Module module;
  Diagnostics diagnostics;
  bool ok = load_kir("test.kir", program, options, module, diagnostics);
  CHECK(ok != diagnostics.has_errors());
  return diagnostics.render();
}

bool has(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("values arrive by name, and init is left out") {
  Module module;
  Diagnostics diagnostics;
  REQUIRE(load_kir("test.kir", kProgram, complete(), module, diagnostics));
  REQUIRE(module.variables.size() == 2);
  CHECK(module.variables[0].name == "fc.weight");
  REQUIRE(module.variables[0].initial.valid());
  CHECK(module.constants[size_t(module.variables[0].initial)].tensor.at_f64(5) == 7.5);
  CHECK(module.functions.size() == 1);
}

TEST_CASE("missing and unused weights are all listed, with the nearest names") {
  KirOptions options = complete();
  options.weights.erase("fc.weight");
  options.weights.emplace("fc.weigth", Tensor(DType::f32, {3, 2}));
  options.weights.emplace("other", Tensor(DType::f32, {1}));
  std::string text = errors(options);
  CHECK(has(text, "1 param is not in the weights"));
  CHECK(has(text, "fc.weight (is it 'fc.weigth' in the weights?)"));
  CHECK(has(text, "2 weights are used by nothing"));
  CHECK(has(text, "other"));
  options.strict_weights = false;
  CHECK(errors(options).empty());
}

TEST_CASE("a wrong shape and a missing constant name both sides") {
  KirOptions options = complete();
  options.weights.insert_or_assign("fc.weight", Tensor(DType::f32, {2, 3}));
  CHECK(has(errors(options), "'fc.weight' is f32[3, 2], but the weights have f32[2, 3]"));
  options = complete();
  options.weights.erase("offset");
  CHECK(has(errors(options), "the weights have no 'offset'"));
}

TEST_CASE("files beside the program are imported") {
  KirOptions options;
  options.read_import = [](std::string_view name) -> std::optional<std::string> {
    if (name == "mine")
      return "func twice(x) { return x * 2 }\n";
    return std::nullopt;
  };
  CHECK(errors(options, "import mine\nexport func f(x: f32[N]) { return mine.twice(x) }").empty());
  CHECK(has(errors(options, "import yours\n"), "there is no library 'yours'"));
}
