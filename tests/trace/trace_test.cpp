// The C++ tracing API: the graph it builds, as text, and errors that name the user's line.
#define CATCH_CONFIG_MAIN
#include "frontend/trace/trace.h"

#include "ir/interpret.h"

#include <catch2/catch.hpp>

using namespace kiln;

namespace {

const Dim N = Dim::symbol("N");

Tensor pair_of(double a, double b) {
  Tensor t(DType::f64, {2});
  t.set_f64(0, a);
  t.set_f64(1, b);
  return t;
}

bool has(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("a network becomes a module") {
  Diagnostics diagnostics;
  trace::Tracer tracer(diagnostics);
  auto w = tracer.parameter("fc.weight", {DType::f32, {10, 784}});
  auto b = tracer.weight("fc.bias", Tensor(DType::f32, {10}));
  tracer.function("predict", {{"x", {DType::f32, {N, 1, 28, 28}}}}, [&](std::span<const trace::Tensor> in) {
    auto h = relu(linear(in[0].flatten(1), w, b) * 2.0 + 1).named("h");
    return std::vector{softmax(h - h.mean({1}, true)).named("probs")};
  });
  INFO(diagnostics.render());
  REQUIRE_FALSE(diagnostics.has_errors());
  Module module = tracer.take();
  verify(module, diagnostics);
  CHECK_FALSE(diagnostics.has_errors());
  std::string text = print_module(module);
  CHECK(has(text, "param fc.bias: f32[10] = constant(f32[10]: 0.0"));
  CHECK(has(text, "export func predict(x: f32[N, 1, 28, 28]) -> (probs: f32[N, 10])"));
  CHECK(has(text, "dot(v0, fc.weight, fc.bias, transpose_b=true)   // trace_test.cpp:"));
  CHECK(has(text, "h: f32[N, 10] = relu("));
}

TEST_CASE("mistakes are diagnostics at the user's line") {
  Diagnostics diagnostics;
  trace::Tracer tracer(diagnostics);
  int line = 0;
  tracer.function("f", {{"x", {DType::f32, {4, 3}}}}, [&](std::span<const trace::Tensor> in) {
    line = __LINE__ + 1;
    auto bad = matmul(in[0], in[0]);
    return std::vector{relu(bad) + 1}; // silent: made of what failed
  });
  REQUIRE(diagnostics.error_count() == 1);
  const Diagnostic &d = diagnostics.all()[0];
  CHECK(d.location.line == line);
  CHECK(d.location.file.text() == "trace_test.cpp");
  CHECK(has(d.message, "dot"));
  CHECK(tracer.take().functions.empty());
}

TEST_CASE("operators know where they stand, and numbers their dtype") {
  Diagnostics diagnostics;
  trace::Tracer tracer(diagnostics);
  int line = 0;
  tracer.function("f", {{"i", {DType::i64, {N}}}, {"x", {DType::f32, {N}}}}, [&](std::span<const trace::Tensor> in) {
    auto even = in[0] * 2;
    line = __LINE__ + 1;
    auto bad = in[0] * 0.5;
    auto mixed = in[0] + in[1];
    return std::vector{even, bad, mixed};
  });
  REQUIRE(diagnostics.error_count() == 2);
  CHECK(diagnostics.all()[0].location.line == line);
  CHECK(has(diagnostics.all()[0].message, "0.5 cannot become i64"));
  CHECK(diagnostics.all()[1].location.line == line + 1);
}

TEST_CASE("states are read, written, and read again") {
  Diagnostics diagnostics;
  trace::Tracer tracer(diagnostics);
  auto count = tracer.state("count", {DType::i64, {}});
  tracer.function("step", {}, [&](std::span<const trace::Tensor>) {
    auto next = count + 1;
    tracer.assign(count, next);
    return std::vector{count * 1};
  });
  INFO(diagnostics.render());
  REQUIRE_FALSE(diagnostics.has_errors());
  Module module = tracer.take();
  std::string text = print_module(module);
  CHECK(has(text, "state count: i64[]"));
  CHECK(has(text, "assign(@count, v1)"));
  CHECK(has(text, "mul(v1, "));
}

TEST_CASE("layers") {
  Diagnostics diagnostics;
  trace::Tracer tracer(diagnostics);
  auto w = tracer.parameter("w", {DType::f32, {8, 3, 3, 3}});
  tracer.function("f", {{"x", {DType::f32, {N, 3, 8, 8}}}, {"q", {DType::f32, {N, 4, 16}}}},
                  [&](std::span<const trace::Tensor> in) {
    auto h = conv2d(in[0], w, {}, {.stride = {2, 2}, .padding = {1, 1}});
    auto p = max_pool2d(h, {2, 2}, {.stride = {2, 2}});
    auto a = attention(in[1], in[1], in[1], {}, true);
    CHECK(p.type().text() == "f32[N, 8, 2, 2]");
    CHECK(a.type().text() == "f32[N, 4, 16]");
    CHECK(p.reshape({N, -1}).type().text() == "f32[N, 32]");
    CHECK(p.select(1, 0).type().text() == "f32[N, 2, 2]");
    return std::vector{p, a};
  });
  INFO(diagnostics.render());
  CHECK_FALSE(diagnostics.has_errors());
}

TEST_CASE("gradients, and products with the Jacobian") {
  Diagnostics diagnostics;
  trace::Tracer tracer(diagnostics);
  auto w = tracer.weight("w", pair_of(3, -1));
  auto v = TensorType{DType::f64, {2}};
  tracer.function("f", {{"x", v}, {"t", v}}, [&](std::span<const trace::Tensor> in) {
    auto y = square(in[0]) * w;
    auto g = tracer.grad(y.sum(), {in[0], w});                  // 2 x w, x^2
    auto again = tracer.grad((g[0] * g[0]).sum(), {in[0]});     // 8 x w^2
    auto back = tracer.vjp({y}, {in[0]}, {in[1]}), forth = tracer.jvp({y}, {in[0]}, {in[1]}); // both 2 x w t
    return std::vector{g[0], g[1], again[0], back[0], forth[0]};
  });
  INFO(diagnostics.render());
  REQUIRE_FALSE(diagnostics.has_errors());
  Module module = tracer.take();
  verify(module, diagnostics);
  REQUIRE_FALSE(diagnostics.has_errors());
  std::vector<Tensor> inputs{pair_of(2, 5), pair_of(1, 10)};
  auto variables = initial_variables(module);
  REQUIRE(variables.ok());
  auto results = interpret(module, module.functions[0], inputs, *variables);
  REQUIRE(results.ok());
  const double expected[5][2] = {{12, -10}, {4, 25}, {144, 40}, {12, -100}, {12, -100}};
  for (size_t i = 0; i < 5; ++i)
    for (int64_t k = 0; k < 2; ++k)
      CHECK((*results)[i].at_f64(k) == Approx(expected[i][k]));
}

TEST_CASE("mistakes with gradients") {
  Diagnostics diagnostics;
  trace::Tracer tracer(diagnostics);
  auto w = tracer.parameter("w", {DType::f32, {2}});
  CHECK(tracer.grad(w, {w}).empty());
  tracer.function("f", {{"x", {DType::f32, {2}}}}, [&](std::span<const trace::Tensor> in) {
    CHECK(tracer.grad(in[0], {in[0]}).empty());
    CHECK(tracer.vjp({in[0]}, {in[0]}, {}).empty());
    return std::vector{in[0]};
  });
  std::string text = diagnostics.render();
  INFO(text);
  CHECK(has(text, "grad is called outside of Tracer::function()"));
  CHECK(has(text, "a loss is one number"));
  CHECK(has(text, "vjp takes a cotangent for each output"));
}
