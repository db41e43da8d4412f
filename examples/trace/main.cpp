// A network built in C++, compiled in memory and run: no file in between.
//
//   build/release/bin/trace_example
#include "codegen/compile.h"
#include "frontend/trace/trace.h"

#include <kiln/kiln.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

int main() {
  using kiln::DType;
  using kiln::Dim;
  kiln::Diagnostics diagnostics;
  kiln::trace::Tracer tracer(diagnostics);

  // Exclusive or, by a hidden layer of two: weights that a person can check.
  auto matrix = [](std::vector<int64_t> dims, std::initializer_list<float> values) {
    kiln::Tensor out(DType::f32, std::move(dims));
    std::copy(values.begin(), values.end(), out.data<float>());
    return out;
  };
  auto w1 = tracer.weight("hidden.weight", matrix({2, 2}, {1, 1, 1, 1}));
  auto b1 = tracer.weight("hidden.bias", matrix({2}, {0, -1}));
  auto w2 = tracer.weight("out.weight", matrix({1, 2}, {1, -2}));
  tracer.function("predict", {{"x", {DType::f32, {Dim::symbol("N"), 2}}}}, [&](std::span<const kiln::trace::Tensor> in) {
    auto hidden = relu(linear(in[0], w1, b1));
    return std::vector{linear(hidden, w2).named("y")};
  });
  kiln::Module module = tracer.take();
  module.name = "xor";

  kiln::CompileOptions options;
  options.machines = {kiln::host_machine()};
  kiln::Compiled compiled;
  if (diagnostics.has_errors() || !kiln::compile_module(module, options, compiled, diagnostics)) {
    std::fputs(diagnostics.render().c_str(), stderr);
    return 1;
  }
  std::vector<uint8_t> bytes;
  if (std::string error = kiln::build_package(kiln::package_spec(module, compiled), bytes); !error.empty()) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  // Packages in memory start on a page.
  std::unique_ptr<void, decltype(&std::free)> memory(std::aligned_alloc(4096, (bytes.size() + 4095) / 4096 * 4096),
                                                     std::free);
  std::memcpy(memory.get(), bytes.data(), bytes.size());

  using namespace kiln::runtime;
  auto loaded = kiln::runtime::Module::open(std::span(static_cast<const std::byte *>(memory.get()), bytes.size()));
  Context predict = loaded.context("predict", {.dims = {4}});
  std::vector<float> x{0, 0, 0, 1, 1, 0, 1, 1}, y(4);
  predict.input("x", x, {4, 2});
  predict.output("y", y);
  predict.run();
  for (int i = 0; i < 4; ++i)
    std::printf("%g xor %g = %g\n", x[size_t(2 * i)], x[size_t(2 * i + 1)], y[size_t(i)]);
  return y == std::vector<float>{0, 1, 1, 0} ? 0 : 1;
}
