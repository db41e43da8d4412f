// Every kernel of the op table, of the training cases and of the graphs in KILN_TEST_MODELS as CUDA C, compiled by
// NVRTC for every GPU that Kiln knows. It needs no GPU; where there is no NVRTC the emitted text is still made, and
// the test says so. KILN_TEST_GPUS=sm_90,ptx takes others.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "codegen/cuda/compile_units.h"
#include "frontend/onnx/import.h"
#include "tests/ops/sample.h"
#include "tests/targets/cubin.h"
#include "tests/targets/load.h"
#include "tests/targets/lowered.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <thread>

using namespace kiln;
using namespace kiln::test;

namespace {

std::vector<GpuMachine> machines() { return gpus_to_test("sm_80,sm_86,sm_89,sm_90,sm_90a,sm_100"); }

cuda::DeviceOptions device_options() { return {int(std::max(1u, std::thread::hardware_concurrency())), true, false}; }

std::vector<std::string> files_in(const std::string &folder, const std::string &extension) {
  std::vector<std::string> out;
  std::error_code ignored;
  for (const auto &file : std::filesystem::directory_iterator(folder, ignored))
    if (file.path().extension() == extension)
      out.push_back(file.path().string());
  std::sort(out.begin(), out.end());
  return out;
}

// Products by warpgroups run one after the other, each waited for, where ptxas sees their sums used too early; it says so.
void check_order(const Program &program, const GpuMachine &machine) {
  auto nvrtc = cuda::Nvrtc::open();
  if (machine.warpgroup_rate == 0 || !nvrtc)
    return;
  auto binary = nvrtc->compile(cuda::device_source(program, machine), "order", machine.name);
  REQUIRE(binary.ok());
  INFO(binary->log);
  CHECK(binary->log.find("GMMA") == std::string::npos);
  CHECK(binary->log.find("wgmma") == std::string::npos);
}

// `most_frame`: what functions may keep outside of registers.
void compile_graph(Module &module, const std::string &name, bool keep_params, uint32_t most_frame = UINT32_MAX) {
  CompileOptions options;
  options.machines = {cpu_machines()[0]};
  options.gpus = machines();
  GpuMachine rounding = options.gpus[0];
  rounding.rounds_products = true;
  options.gpus.push_back(rounding);
  options.keep_params = keep_params;
  INFO(name);
  Program program = lowered(module, options);
  auto begin = std::chrono::steady_clock::now();
  for (const GpuMachine &machine : options.gpus) {
    if (!cuda::Nvrtc::open()) {
      CHECK(!cuda::device_source(program, machine).empty());
      continue;
    }
    auto section = cuda::device_section(program, machine, device_options());
    INFO(name << " " << machine.name << ": " << (section ? "" : section.error().message.substr(0, 2000)));
    CHECK(section.ok());
    if (section)
      CHECK(largest_frame({section->data(), section->size()}) <= most_frame);
    if (most_frame != UINT32_MAX)
      check_order(program, machine);
  }
  std::cout << name << ": " << program.kernels.size() << " kernels, "
            << std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() << " s\n";
}

} // namespace

TEST_CASE("every kernel of the op table compiles for every GPU") {
  auto nvrtc = cuda::Nvrtc::open();
  if (!nvrtc)
    std::cout << "only the text is checked: " << nvrtc.error().message << "\n";
  std::deque<Kernel> kernels;
  for (const OpDef *def : all_ops()) {
    if (!def->scalar && !def->element && !def->reduce && !def->lower)
      continue;
    for (const OpSample &sample : def->samples) {
      auto module = sample_module(*find_op(def->name), sample);
      if (!module)
        continue;
      const Function &f = module->functions[0];
      for (NodeId id : f.body.nodes)
        if (!op_def(f.node(id).op).structural)
          kernels.push_back(lower_node(*module, f, id, {true}).kernel);
    }
  }
  CHECK(kernels.size() > 150);
  for (const GpuMachine &machine : machines()) {
    std::vector<cuda::CudaFunction> functions;
    std::vector<const Kernel *> origins;
    std::set<std::string> names;
    for (const Kernel &kernel : kernels)
      for (cuda::CudaLaunch &launch : cuda::emit_cuda(kernel, machine).launches)
        if (names.insert(launch.function.name).second) {
          functions.push_back(std::move(launch.function));
          origins.push_back(&kernel);
        }
    if (!nvrtc)
      continue;
    auto begin = std::chrono::steady_clock::now();
    auto units = cuda::compile_units(*nvrtc, functions, origins, machine, device_options());
    INFO(machine.name << ": " << (units ? "" : units.error().message.substr(0, 4000)));
    CHECK(units.ok());
    std::cout << machine.name << ": " << functions.size() << " functions, "
              << std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() << " s\n";
  }
}

TEST_CASE("every kernel of the training cases compiles for every GPU") {
  std::vector<std::string> files = files_in(KILN_TRAINING_CASES, ".kir");
  CHECK(files.size() >= 5);
  for (const std::string &path : files) {
    std::ifstream file(path);
    std::string text{std::istreambuf_iterator<char>(file), {}};
    INFO(path);
    Module module = load(text);
    compile_graph(module, path, true);
  }
}

TEST_CASE("large tiles of every kind compile for every GPU") {
  Module module = load(R"(
export func f32s(a: f32[2048, 1024], b: f32[1024, 2048], c: f32[2048]) -> f32[2048, 2048] { return relu(a @ b + c) }
export func f32s_turned(a: f32[1024, 2048], b: f32[2048, 1024]) -> f32[2048, 2048] { return transpose(a, 0, 1) @ transpose(b, 0, 1) }
export func f32_maps(x: f32[8, 64, 56, 56], w: f32[64, 64, 3, 3]) -> f32[8, 64, 56, 56] { return relu(conv2d(x, w, padding=1)) }
export func halves(a: bf16[4096, 1024], b: bf16[1024, 4096]) -> bf16[4096, 4096] { return a @ b }
export func turned(a: f16[1024, 2048], b: f16[2048, 1024]) -> f16[2048, 2048] { return transpose(a, 0, 1) @ transpose(b, 0, 1) }
export func codes(a: u8[2048, 1024], b: i8[2048, 1024], c: i32[2048]) -> i32[2048, 2048] { return dot(a, b, c, transpose_b=true) }
export func deep(a: f32[64, 8192], b: f32[8192, 64]) -> f32[64, 64] { return a @ b }
export func total(x: f32[4096, 4096]) -> f32[] { return sum(x * x) }
export func maps(x: bf16[8, 64, 56, 56], w: bf16[64, 64, 3, 3]) -> bf16[8, 64, 56, 56] { return relu(conv2d(x, w, padding=1)) }
export func codes_across(a: u8[2048, 1024], b: i8[1024, 2048], c: i32[2048]) -> i32[2048, 2048] { return dot(a, b, c) }
export func symbolic(a: bf16[N, 512], b: bf16[512, 512]) -> bf16[N, 512] { return softmax(a @ b, axis=1) }
)");
  constexpr uint32_t kMostFrame = 128; // a few addresses that are used once a step
  compile_graph(module, "tiles", false, kMostFrame);
}

TEST_CASE("attention keeps what it gathers in registers") {
  Module module = load(R"(
export func wide(q: bf16[8, 8, 512, 128], k: bf16[8, 8, 512, 128], v: bf16[8, 8, 512, 128]) -> bf16[8, 8, 512, 128] { return scaled_dot_product_attention(q, k, v, is_causal=true) }
export func causal_floats(q: f32[8, 8, 512, 64], k: f32[8, 8, 512, 64], v: f32[8, 8, 512, 64]) -> f32[8, 8, 512, 64] { return scaled_dot_product_attention(q, k, v, is_causal=true) }
export func wide_floats(q: f32[8, 8, 512, 128], k: f32[8, 8, 512, 128], v: f32[8, 8, 512, 128]) -> f32[8, 8, 512, 128] { return scaled_dot_product_attention(q, k, v) }
export func large(q: bf16[8, 8, 512, 256], k: bf16[8, 8, 512, 256], v: bf16[8, 8, 512, 256]) -> bf16[8, 8, 512, 256] { return scaled_dot_product_attention(q, k, v) }
)");
  compile_graph(module, "attention", false, 0);
}

TEST_CASE("every kernel of the graphs in KILN_TEST_MODELS compiles for every GPU") {
  const char *folders = std::getenv("KILN_TEST_MODELS");
  if (!folders) {
    std::cout << "KILN_TEST_MODELS names no folders of ONNX files\n";
    return;
  }
  std::stringstream list(folders);
  for (std::string folder; std::getline(list, folder, ':');)
    for (const std::string &path : files_in(folder, ".onnx")) {
      Module module;
      Diagnostics diagnostics;
      bool fine = import_onnx(path, {}, module, diagnostics);
      INFO(diagnostics.render());
      REQUIRE(fine);
      compile_graph(module, path, false);
    }
}
