// Asks the processor (cpuid, or the kernel's hwcaps) which instruction sets may be used. For x86-64
// that includes whether the operating system saves the wider registers (XCR0).
#include "runtime/cpu_target.h"

#include <cstring>

#if defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace kiln::rt {
namespace {

struct Name {
  const char *text;
  bool is_here;
};

constexpr uint32_t kMaxFeatures = 16;

struct Machine {
  Name levels[4];
  uint32_t level_count = 0;
  Name features[kMaxFeatures];
  uint32_t feature_count = 0;

  void level(const char *text, bool is_here) {
    bool is_above = level_count == 0 || levels[level_count - 1].is_here;
    levels[level_count++] = {text, is_here && is_above};
  }
  void feature(const char *text, bool is_here) { features[feature_count++] = {text, is_here}; }
};

#if defined(__x86_64__)

struct Registers {
  uint32_t a, b, c, d;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  __asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(subleaf));
  return r;
}

uint64_t saved_registers(bool has_xgetbv) {
  if (!has_xgetbv)
    return 0;
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

bool has(uint32_t word, uint32_t bits) {
  return (word & bits) == bits;
}

constexpr uint32_t bit(uint32_t n) {
  return 1u << n;
}

// Linux gives a process its tile registers on request (ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA),
// and only code that uses them should ask, since they grow every signal frame.
bool is_granted(const char *feature) {
  bool is_tiles = std::strncmp(feature, "amx", 3) == 0;
  return !is_tiles || syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

Machine ask_machine() {
  uint32_t leaves = cpuid(0, 0).a;
  Registers one = cpuid(1, 0);
  Registers none{};
  Registers seven = leaves >= 7 ? cpuid(7, 0) : none;
  Registers seven_one = leaves >= 7 && seven.a >= 1 ? cpuid(7, 1) : none;
  Registers extended = cpuid(0x80000000u, 0).a >= 0x80000001u ? cpuid(0x80000001u, 0) : none;
  uint64_t saved = saved_registers(has(one.c, bit(27)));
  bool saves_ymm = (saved & 0x6) == 0x6;
  bool saves_zmm = (saved & 0xe6) == 0xe6;
  bool saves_tiles = (saved & 0x60000) == 0x60000;

  Machine machine;
  machine.level("x86-64", true);
  machine.level("x86-64-v2", // SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT; LAHF
                has(one.c, bit(0) | bit(9) | bit(13) | bit(19) | bit(20) | bit(23)) &&
                    has(extended.c, bit(0)));
  machine.level("x86-64-v3", // FMA, MOVBE, AVX, F16C; BMI1, AVX2, BMI2; LZCNT
                saves_ymm && has(one.c, bit(12) | bit(22) | bit(28) | bit(29)) &&
                    has(seven.b, bit(3) | bit(5) | bit(8)) && has(extended.c, bit(5)));
  machine.level("x86-64-v4", // AVX512 F, DQ, CD, BW, VL
                saves_zmm && has(seven.b, bit(16) | bit(17) | bit(28) | bit(30) | bit(31)));
  machine.feature("avxvnni", saves_ymm && has(seven_one.a, bit(4)));
  machine.feature("avx512vnni", saves_zmm && has(seven.c, bit(11)));
  machine.feature("avx512bf16", saves_zmm && has(seven_one.a, bit(5)));
  machine.feature("avx512fp16", saves_zmm && has(seven.d, bit(23)));
  machine.feature("amx", // AMX-BF16, AMX-TILE, AMX-INT8
                  saves_tiles && has(seven.d, bit(22) | bit(24) | bit(25)));
  machine.feature("amxint8", // AMX-TILE, AMX-INT8, with AVX512-BF16
                  saves_tiles && saves_zmm && has(seven.d, bit(24) | bit(25)) && has(seven_one.a, bit(5)));
  machine.feature("amxbf16", // the same and AMX-BF16
                  saves_tiles && saves_zmm && has(seven.d, bit(22) | bit(24) | bit(25)) &&
                      has(seven_one.a, bit(5)));
  return machine;
}

constexpr uint16_t kElfMachine = 62;

#elif defined(__aarch64__)

bool is_granted(const char *) {
  return true;
}

Machine ask_machine() {
  uint64_t caps = getauxval(AT_HWCAP);
  uint64_t caps2 = getauxval(AT_HWCAP2);
  Machine machine;
  machine.level("aarch64", true);
  machine.feature("fp16", (caps >> 10 & 1) != 0 && (caps >> 9 & 1) != 0);
  machine.feature("dotprod", (caps >> 20 & 1) != 0);
  machine.feature("sve", (caps >> 22 & 1) != 0);
  machine.feature("sve2", (caps2 >> 1 & 1) != 0);
  machine.feature("i8mm", (caps2 >> 13 & 1) != 0);
  machine.feature("bf16", (caps2 >> 14 & 1) != 0);
  return machine;
}

constexpr uint16_t kElfMachine = 183;

#else
#error "the runtime knows x86-64 and aarch64"
#endif

// Whether `word` (of `size` characters) is one of the names; -1 where unknown or not here.
int32_t find(const Name *names, uint32_t count, const char *word, size_t size) {
  for (uint32_t i = 0; i < count; ++i)
    if (std::strlen(names[i].text) == size && std::memcmp(names[i].text, word, size) == 0)
      return names[i].is_here ? static_cast<int32_t>(i) : -1;
  return -1;
}

} // namespace

int32_t target_rank(const char *target) {
  Machine machine = ask_machine();
  size_t size = std::strcspn(target, "+");
  int32_t level = find(machine.levels, machine.level_count, target, size);
  if (level < 0)
    return -1;
  int32_t rank = level * static_cast<int32_t>(kMaxFeatures);
  for (const char *at = target + size; *at == '+'; at += size) {
    ++at;
    size = std::strcspn(at, "+");
    int32_t feature = find(machine.features, machine.feature_count, at, size);
    if (feature < 0 || !is_granted(machine.features[feature].text))
      return -1;
    const char *text = machine.features[feature].text; // includes others
    rank += std::strcmp(text, "amxint8") == 0 ? 2 : std::strcmp(text, "amxbf16") == 0 ? 3 : 1;
  }
  return rank;
}

bool is_native_architecture(const char *target) {
  Machine machine = ask_machine();
  size_t size = std::strcspn(target, "+");
  for (uint32_t i = 0; i < machine.level_count; ++i)
    if (std::strlen(machine.levels[i].text) == size &&
        std::memcmp(machine.levels[i].text, target, size) == 0)
      return true;
  return false;
}

uint16_t native_elf_machine() {
  return kElfMachine;
}

void describe_machine(Text &text) {
  Machine machine = ask_machine();
  uint32_t best = 0;
  for (uint32_t i = 0; i < machine.level_count; ++i)
    if (machine.levels[i].is_here)
      best = i;
  text << machine.levels[best].text;
  for (uint32_t i = 0; i < machine.feature_count; ++i)
    if (machine.features[i].is_here)
      text << "+" << machine.features[i].text;
}

} // namespace kiln::rt
