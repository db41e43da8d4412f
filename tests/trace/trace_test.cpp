// The C++ tracing API: the graph it builds, as text, and errors that name the user's line.
#define CATCH_CONFIG_MAIN
#include "frontend/trace/trace.h"

#include <catch2/catch.hpp>

using namespace kiln;

namespace {

const Dim N = Dim::symbol("N");

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
