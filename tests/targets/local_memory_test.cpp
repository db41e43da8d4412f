// How many bytes of local memory kernels may keep registers in, by what ptxas says of them. Attention and rows hold so much
// in registers that an index which is kept beside it too long is in memory: slow, and no result shows it.
// It needs NVRTC and no GPU. KILN_TEST_GPUS=sm_90,sm_120 takes others.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "codegen/cuda/cuda.h"
#include "codegen/cuda/device_writer.h"
#include "tests/targets/cubin.h"
#include "tests/targets/load.h"
#include "tests/targets/lowered.h"

#include <fmt/format.h>

#include <iostream>

using namespace kiln;
using namespace kiln::test;

namespace {

// Two numbers of a whole block, which ptxas stores before its loops where that makes room for one more block.
constexpr uint32_t kTwoNumbers = 8;

std::vector<GpuMachine> machines() { return gpus_to_test("sm_80,sm_90,sm_100"); }

void check_frames(const std::string &text, uint32_t limit) {
  INFO(text);
  CompileOptions options;
  options.machines = {cpu_machines()[0]};
  options.gpus = machines();
  Module module = load(text);
  Program program = lowered(module, options);
  for (const GpuMachine &machine : options.gpus) {
    auto section = cuda::device_section(program, machine, {1, true, false});
    INFO(machine.name << ": " << (section ? "" : section.error().message.substr(0, 2000)));
    REQUIRE(section.ok());
    CHECK(largest_frame({section->data(), section->size()}) <= limit);
  }
}

bool has_nvrtc() {
  auto nvrtc = cuda::Nvrtc::open();
  if (!nvrtc)
    std::cout << "nothing is checked: " << nvrtc.error().message << "\n";
  return nvrtc.ok();
}

struct Attention {
  const char *dtype, *heads, *key_heads, *queries, *keys;
  int size; // elements of a head
  const char *rest;
  uint32_t limit;
};

} // namespace

TEST_CASE("attention keeps nothing in local memory") {
  if (!has_nvrtc())
    return;
  const char *causal = ", is_causal=true", *none = "", *read = ", attn_mask=m";
  for (const Attention &a : std::vector<Attention>{
           // heads that share keys and values, by sizes that a run tells
           {"bf16", "4, 4", "4, 1", "Q", "K", 64, causal, 0},
           {"bf16", "4, 4", "4, 1", "Q", "K", 128, causal, 0},
           {"bf16", "4, 4", "4, 1", "Q", "K", 128, none, 0},
           {"bf16", "4, 4", "4, 1", "Q", "Q", 256, causal, 0},
           {"f32", "4, 4", "4, 1", "Q", "K", 64, causal, 0},
           {"f32", "4, 4", "4, 1", "Q", "K", 128, causal, 0},
           // heads of their own
           {"bf16", "16", "16", "Q", "K", 128, causal, 0},
           {"f16", "16", "16", "Q", "K", 256, causal, 0},
           {"bf16", "16", "16", "Q", "K", 128, read, 0},
           {"bf16", "16", "16", "Q", "K", 256, read, 0},
           {"f32", "16", "16", "Q", "K", 128, read, 0},
           {"bf16", "16", "16", "512", "512", 256, causal, kTwoNumbers},
           {"bf16", "16", "16", "512", "512", 128, read, kTwoNumbers},
           {"f32", "4, 4", "4, 1", "Q", "K", 256, causal, kTwoNumbers * 3}, // a group's
           // few queries
           {"bf16", "4, 4", "4, 1", "3", "512", 128, causal, 0},
           {"bf16", "4, 4", "4, 1", "1", "K", 128, none, kTwoNumbers},
           {"bf16", "16", "16", "3", "512", 128, causal, 0},
           {"f32", "4, 4", "4, 1", "3", "512", 128, causal, kTwoNumbers * 3}, // a group's, for three blocks
       }) {
    std::string q = fmt::format("{}[2, {}, {}, {}]", a.dtype, a.heads, a.queries, a.size), k = fmt::format("{}[2, {}, {}, {}]", a.dtype, a.key_heads, a.keys, a.size);
    std::string mask = a.rest == read ? fmt::format(", m: {}[{}, {}]", a.dtype, a.queries, a.keys) : "";
    check_frames(fmt::format("export func f(q: {0}, k: {1}, v: {1}{2}) -> {0} {{ return scaled_dot_product_attention(q, k, v{3}) }}", q, k, mask, a.rest), a.limit);
  }
}

TEST_CASE("rows that threads keep are in registers") {
  if (!has_nvrtc())
    return;
  for (int size : {768, 8192}) {
    check_frames(fmt::format("export func f(x: f32[512, {0}]) -> f32[512, {0}] {{ return softmax(x, axis=1) }}", size), 0);
    check_frames(fmt::format(R"(
export func f(x: f32[512, {0}], g: f32[{0}], b: f32[{0}], w: f32[512, {0}]) {{
  dx, dg, db = grad(sum(layer_norm(x, g, b, axis=1) * w), [x, g, b])
  return dx, dg, db
}}
)",
                             size),
                 0);
  }
}
