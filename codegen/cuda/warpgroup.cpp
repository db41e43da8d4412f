#include "codegen/cuda/warpgroup.h"

#include "ir/support/check.h"

#include <fmt/format.h>

#include <sstream>
#include <string_view>

namespace kiln::cuda {
namespace {

constexpr std::string_view kStem = "kiln_wgmma_product_";

struct Element {
  std::string_view dtype, ptx;
  int bytes;
};
constexpr Element kElements[] = {{"bf16", "bf16", 2}, {"f16", "f16", 2}, {"f32", "tf32", 4}, {"i8", "s8", 1}, {"u8", "u8", 1}};

const Element &element(std::string_view dtype) {
  for (const Element &e : kElements)
    if (e.dtype == dtype)
      return e;
  KILN_CHECK(false, "warpgroups do not multiply " + std::string(dtype));
  return kElements[0];
}

} // namespace

std::string WarpgroupProduct::name() const {
  return fmt::format("{}{}_{}_{}_{}_{}", kStem, dtype_name(a), dtype_name(b), columns, int(a_across), int(b_across));
}

// PTX ISA 9.7.15.5.1, "Matrix Descriptor Format" and "Strides": along the sum, eight lines of 128 bytes are a piece of the
// swizzle's pattern, the next eight rows begin 1024 bytes later (the stride), and the leading offset is not looked at. Across it, a
// line has 64 rows and eight steps are a piece: the next steps begin 1024 bytes later, the next 64 rows behind all steps (the
// leading offset). A stage has 64 such steps, so both ways 64 rows take 8192 bytes. Pieces lie at multiples of 1024 bytes, so the base offset is 0.
uint64_t warpgroup_descriptor(bool across) {
  constexpr uint64_t kSwizzle128 = 1; // bits 62 and 63
  uint64_t leading = across ? 8192 : 16, stride = 1024;
  return leading / 16 << 16 | stride / 16 << 32 | kSwizzle128 << 62;
}

bool is_warpgroup_product(const std::string &helper) { return helper.starts_with(kStem); }

std::string warpgroup_text(const std::string &helper) {
  std::stringstream words(helper.substr(kStem.size()));
  std::string word[5];
  for (std::string &w : word)
    std::getline(words, w, '_');
  const Element &a = element(word[0]), &b = element(word[1]);
  int columns = std::stoi(word[2]), sums = columns / 2;
  bool is_byte = a.bytes == 1;
  std::string_view sum = is_byte ? "int" : "float", mark = is_byte ? "r" : "f";
  std::string registers, operands;
  for (int i = 0; i < sums; ++i) {
    registers += fmt::format("{}%{}", i == 0 ? "" : ", ", i);
    operands += fmt::format("{}\"+{}\"(d[{}][{}])", i == 0 ? "" : ", ", mark, i / 4, i % 4);
  }
  std::string types = fmt::format("{}.{}.{}", is_byte ? "s32" : "f32", a.ptx, b.ptx);
  // The signs of both operands, and, of 16 bits, whether they lie across the sum.
  std::string tail = is_byte ? "" : a.bytes == 4 ? ", 1, 1" : fmt::format(", 1, 1, {}, {}", word[3], word[4]);
  std::string parameters = fmt::format("{} (&d)[{}][4], uint64_t a, uint64_t b", sum, columns / 8);
  std::string text = fmt::format("#ifndef KILN_CUDA_SHIM\n__device__ __forceinline__ void {}({}) {{\n", helper, parameters);
  text += fmt::format("  asm volatile(\"{{.reg .pred p; setp.ne.b32 p, %{0}, 0; wgmma.mma_async.sync.aligned.m64n{1}k{2}.{3} {{{4}}}, %{5}, %{6}, p{7};}}\"\n"
                      "               : {8}\n               : \"l\"(a), \"l\"(b), \"r\"(1));\n}}\n",
                      sums + 2, columns, 32 / a.bytes, types, registers, sums, sums + 1, tail, operands);
  return text + fmt::format("#else\ninline void {}({}) {{ kiln_shim::wgmma<{}, {}, {}, kiln_shim::at_{}, kiln_shim::at_{}, {}, {}>(&d[0][0], a, b); }}\n"
                            "static const bool {}_used = kiln_shim::g_publishes = true;\n#endif\n",
                            helper, parameters, columns, sum, 4 / a.bytes, word[0], word[1], word[3], word[4], helper);
}

} // namespace kiln::cuda
