// What tests of the runtime on a device share: the fake driver's counters, and packages compiled in memory.
#pragma once

#include "codegen/compile.h"
#include "frontend/kir/kir.h"
#include "ir/graph.h"

#include <catch2/catch.hpp>
#include <kiln/kiln.hpp>

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace kiln {

// The driver that the runtime has opened, or will open: the loader gives the same one.
template <typename F>
F from_driver(const char *name) {
  void *library = dlopen(std::getenv("KILN_CUDA_DRIVER"), RTLD_NOW);
  REQUIRE(library);
  return reinterpret_cast<F>(dlsym(library, name));
}
inline int calls(const char *name) { return from_driver<int (*)(const char *)>("kiln_fake_cuda_calls")(name); }
inline std::string happened() { return from_driver<const char *(*)()>("kiln_fake_cuda_log")(); }
inline int left() { return from_driver<int (*)()>("kiln_fake_cuda_left")(); }

struct Package {
  std::unique_ptr<std::byte, void (*)(void *)> memory{nullptr, std::free};
  std::span<const std::byte> bytes;
};

// `change` may spoil what the writer is told.
inline Package compile(const std::string &text, const std::string &dim = "", int64_t most = 0, bool keeps_params = false,
                       const std::function<void(PackageSpec &)> &change = {}, const std::vector<std::string> &gpus = {"sm_80"}) {
  Module module;
  Diagnostics diagnostics;
  Compiled compiled;
  CompileOptions options;
  options.machines = {cpu_machines()[0]};
  options.gpus.clear();
  for (const std::string &gpu : gpus)
    options.gpus.push_back(*find_gpu(gpu));
  options.keep_params = keeps_params;
  bool fine = load_kir("net.kir", text, {}, module, diagnostics);
  if (!dim.empty())
    module.dim_bounds[dim] = {1, most};
  fine = fine && compile_module(module, options, compiled, diagnostics);
  INFO(diagnostics.render());
  REQUIRE(fine);
  std::vector<uint8_t> bytes;
  PackageSpec spec = package_spec(module, compiled);
  if (change)
    change(spec);
  REQUIRE(build_package(spec, bytes) == "");
  Package out;
  out.memory.reset(static_cast<std::byte *>(std::aligned_alloc(4096, (bytes.size() + 4095) / 4096 * 4096)));
  std::memcpy(out.memory.get(), bytes.data(), bytes.size());
  out.bytes = {out.memory.get(), bytes.size()};
  return out;
}

} // namespace kiln
