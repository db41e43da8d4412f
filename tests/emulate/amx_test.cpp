// The emulator of AMX against tiles computed by hand; the instructions are the assembler's, so each test
// runs on a processor with AMX as well.
#define CATCH_CONFIG_MAIN
#include "tests/emulate/amx.h"

#include <catch2/catch.hpp>

#include <array>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace kiln::test {
namespace {

struct alignas(64) Config {
  std::array<uint8_t, 64> bytes{1};
  Config &tile(size_t i, uint8_t rows, uint8_t row_bytes) {
    bytes[16 + 2 * i] = row_bytes;
    bytes[48 + i] = rows;
    return *this;
  }
};

void configure(const Config &config) { asm volatile("ldtilecfg %0" : : "m"(config.bytes)); }
void release() { asm volatile("tilerelease"); }

// tmm0 += tmm1 * tmm2 by one instruction.
#define MULTIPLY(instruction) asm volatile(instruction " %%tmm2, %%tmm1, %%tmm0" : : : "memory")

template <class C, class A, class B> void load(const C *c, const A *a, const B *b, int64_t c_stride,
                                               int64_t a_stride, int64_t b_stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm0" : : "r"(c), "r"(c_stride) : "memory");
  asm volatile("tileloadd (%0,%1,1), %%tmm1" : : "r"(a), "r"(a_stride) : "memory");
  asm volatile("tileloadd (%0,%1,1), %%tmm2" : : "r"(b), "r"(b_stride) : "memory");
}
template <class C> void store(C *c, int64_t stride) {
  asm volatile("tilestored %%tmm0, (%0,%1,1)" : : "r"(c), "r"(stride) : "memory");
}

// How a child ends that does what the emulator must refuse; 0 if it lives.
template <class F> int signal_of(F &&f) {
  pid_t child = fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL); // sanitizers report it and exit
    f();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

struct Amx {
  Amx() { enable_amx(); }
  ~Amx() { release(); }
};

TEST_CASE("products of bytes, signed and unsigned") {
  Amx amx;
  // 2x2 sums of 8 products each: rows of a are the codes 255, 1, ..., b has -1 (255), 2, ...
  configure(Config().tile(0, 2, 8).tile(1, 2, 8).tile(2, 2, 8));
  const uint8_t a[16] = {255, 1, 0, 0, 2, 0, 0, 0, /**/ 128, 0, 0, 3, 0, 0, 0, 1};
  const uint8_t b[16] = {255, 2, 9, 9, 1, 1, 9, 4, /**/ 3, 9, 9, 128, 254, 9, 9, 5};
  const int32_t c[4] = {10, 20, 30, 40};
  int32_t got[4];
  auto run = [&](auto &&multiply) {
    load(c, a, b, 8, 8, 8);
    multiply();
    store(got, 8);
    return std::vector<int32_t>(got, got + 4);
  };
  // [0,0]: a0*b0 + a1*b1 + a4*b8,  [0,1]: a0*b4 + a1*b5 + a4*b12,
  // [1,0]: a8*b0 + a11*b3 + a15*b11,  [1,1]: a8*b4 + a11*b7 + a15*b15
  CHECK(run([] { MULTIPLY("tdpbuud"); }) ==
        std::vector<int32_t>{10 + 65025 + 2 + 6, 20 + 255 + 1 + 508, 30 + 32640 + 27 + 128,
                             40 + 128 + 12 + 5});
  CHECK(run([] { MULTIPLY("tdpbusd"); }) ==
        std::vector<int32_t>{10 - 255 + 2 + 6, 20 + 255 + 1 - 4, 30 - 128 + 27 - 128,
                             40 + 128 + 12 + 5});
  CHECK(run([] { MULTIPLY("tdpbsud"); }) ==
        std::vector<int32_t>{10 - 255 + 2 + 6, 20 - 1 + 1 + 508, 30 - 32640 + 27 + 128,
                             40 - 128 + 12 + 5});
  CHECK(run([] { MULTIPLY("tdpbssd"); }) ==
        std::vector<int32_t>{10 + 1 + 2 + 6, 20 - 1 + 1 - 4, 30 + 128 + 27 - 128,
                             40 - 128 + 12 + 5});
}

TEST_CASE("sums of bytes wrap") {
  Amx amx;
  configure(Config().tile(0, 1, 4).tile(1, 1, 4).tile(2, 1, 4));
  const uint8_t a[4] = {255, 0, 0, 0};
  const int8_t b[4] = {127, 0, 0, 0};
  const int32_t c = INT32_MAX;
  int32_t got = 0;
  load(&c, a, b, 4, 4, 4);
  MULTIPLY("tdpbusd");
  store(&got, 4);
  CHECK(got == INT32_MIN + 255 * 127 - 1);
}

TEST_CASE("a whole tile equals the sums of its definition") {
  Amx amx;
  Config config;
  for (size_t i = 0; i < 8; ++i)
    config.tile(i, 16, 64);
  configure(config);
  std::vector<uint8_t> a(16 * 80);
  std::vector<int8_t> b(16 * 64);
  for (size_t i = 0; i < a.size(); ++i)
    a[i] = uint8_t(i * 37);
  for (size_t i = 0; i < b.size(); ++i)
    b[i] = int8_t(i * 91);
  std::vector<int32_t> c(16 * 16, 7), want = c;
  for (size_t m = 0; m < 16; ++m)
    for (size_t n = 0; n < 16; ++n)
      for (size_t k = 0; k < 64; ++k)
        want[16 * m + n] += a[80 * m + k] * b[64 * (k / 4) + 4 * n + k % 4];
  load(c.data(), a.data(), b.data(), 64, 80, 64);
  MULTIPLY("tdpbusd");
  store(c.data(), 64);
  CHECK(c == want);
}

TEST_CASE("bf16: the even and the odd products are summed apart") {
  Amx amx;
  configure(Config().tile(0, 1, 4).tile(1, 1, 8).tile(2, 2, 4));
  auto brain = [](float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return uint16_t(bits >> 16);
  };
  // 2^24 + 1 - 2^24 would lose the 1 in one sum; the odd products have it for themselves.
  const uint16_t a[4] = {brain(4096), brain(1), brain(-4096), brain(3)};
  const uint16_t b[4] = {brain(4096), brain(1), brain(4096), brain(0.5f)};
  const float c = 0.25f;
  float got = 0;
  load(&c, a, b, 4, 8, 4);
  MULTIPLY("tdpbf16ps");
  store(&got, 4);
  CHECK(got == 2.75f);
  // A denormal factor is zero, a denormal sum as well.
  const uint16_t small[4] = {0x0001, 0x0080, 0, 0}, large[4] = {0x7f00, brain(0.5f), 0, 0};
  load(&c, small, large, 4, 8, 4);
  MULTIPLY("tdpbf16ps");
  store(&got, 4);
  CHECK(got == 0.25f);
  const uint16_t infinite[4] = {0x7f80, 0, 0, 0};
  load(&c, infinite, b, 4, 8, 4);
  MULTIPLY("tdpbf16ps");
  store(&got, 4);
  CHECK(std::isinf(got));
}

TEST_CASE("f16, denormals of f16 included") {
  if (!multiplies_f16()) {
    WARN("this processor's tiles do not multiply f16: nothing is run");
    return;
  }
  Amx amx;
  configure(Config().tile(0, 1, 4).tile(1, 1, 4).tile(2, 1, 4));
  const uint16_t a[2] = {0x3e00, 0x0001}, b[2] = {0xc000, 0x6400}; // 1.5 * -2, 2^-24 * 1024
  const float c = 1;
  float got = 0;
  load(&c, a, b, 4, 4, 4);
  MULTIPLY("tdpfp16ps");
  store(&got, 4);
  CHECK(got == -2 + 0x1p-14f);
}

TEST_CASE("rows and columns outside of a tile are left alone, and load as zero") {
  Amx amx;
  configure(Config().tile(0, 2, 8).tile(1, 2, 4).tile(2, 1, 8));
  std::array<int32_t, 9> memory{1, 2, 3, 4, 5, 6, 7, 8, 9};
  asm volatile("tileloadd (%0,%1,1), %%tmm0" : : "r"(memory.data()), "r"(int64_t{12}) : "memory");
  std::array<int32_t, 9> out{};
  store(out.data(), 12);
  CHECK(out == std::array<int32_t, 9>{1, 2, 0, 4, 5, 0, 0, 0, 0});
  asm volatile("tilezero %tmm0");
  store(out.data(), 12);
  CHECK(out == std::array<int32_t, 9>{});
}

TEST_CASE("addresses") {
  Amx amx;
  configure(Config().tile(0, 2, 4).tile(7, 2, 4));
  std::vector<int32_t> memory(200);
  for (size_t i = 0; i < memory.size(); ++i)
    memory[i] = int32_t(i);
  int32_t out[2] = {};
  auto stored = [&] {
    store(out, 4);
    return std::vector<int32_t>(out, out + 2);
  };
  const int32_t *at = memory.data();
  // The distance of rows is the index times its scale; registers beyond the eighth; displacements.
  asm volatile("tileloadd 16(%0,%1,8), %%tmm0" : : "r"(at), "r"(int64_t{4}) : "memory");
  CHECK(stored() == std::vector<int32_t>{4, 12});
  asm volatile("mov %0, %%r13; mov %1, %%r12; tileloadd (%%r13,%%r12,2), %%tmm0"
               : : "r"(at + 1), "r"(int64_t{6}) : "memory", "r12", "r13");
  CHECK(stored() == std::vector<int32_t>{1, 4});
  asm volatile("mov %0, %%r12; mov %1, %%r9; tileloadd 512(%%r12,%%r9,1), %%tmm0"
               : : "r"(at), "r"(int64_t{-8}) : "memory", "r9", "r12");
  CHECK(stored() == std::vector<int32_t>{128, 126});
  asm volatile("mov %0, %%r11; tileloaddt1 -4(%%r11), %%tmm0" : : "r"(at + 3) : "memory", "r11");
  CHECK(stored() == std::vector<int32_t>{2, 2});
}

TEST_CASE("the configuration is read back, and a palette of 0 releases") {
  Amx amx;
  Config config, back;
  config.tile(0, 16, 64).tile(3, 5, 12);
  configure(config);
  asm volatile("sttilecfg %0" : "=m"(back.bytes));
  CHECK(back.bytes == config.bytes);
  config.bytes = {};
  configure(config);
  asm volatile("sttilecfg %0" : "=m"(back.bytes));
  CHECK(back.bytes == config.bytes);
}

TEST_CASE("each thread has its own tiles") {
  Amx amx;
  configure(Config().tile(0, 1, 4));
  int32_t mine = 11, got = 0;
  asm volatile("tileloadd (%0,%1,1), %%tmm0" : : "r"(&mine), "r"(int64_t{4}) : "memory");
  std::thread([] {
    configure(Config().tile(0, 1, 4));
    asm volatile("tilezero %tmm0");
    release();
  }).join();
  store(&got, 4);
  CHECK(got == 11);
}

TEST_CASE("what the processor refuses") {
  Amx amx;
  int32_t word = 0;
  // A tile that is not configured.
  CHECK(signal_of([&] {
          release();
          store(&word, 4);
        }) == SIGILL);
  // 8 bytes of a row want two rows of b.
  CHECK(signal_of([] {
          configure(Config().tile(0, 1, 4).tile(1, 1, 8).tile(2, 1, 4));
          MULTIPLY("tdpbusd");
        }) == SIGILL);
  // One register twice, which the assembler refuses: tdpbusd %tmm1, %tmm1, %tmm0.
  CHECK(signal_of([] {
          configure(Config().tile(0, 1, 4).tile(1, 1, 4));
          asm volatile(".byte 0xc4, 0xe2, 0x71, 0x5e, 0xc1");
        }) == SIGILL);
  // 17 rows; a reserved byte.
  CHECK(signal_of([] { configure(Config().tile(0, 17, 4)); }) == SIGSEGV);
  Config reserved;
  reserved.bytes[5] = 1;
  CHECK(signal_of([&] { configure(reserved); }) == SIGSEGV);
  // No instruction of tiles.
  CHECK(signal_of([] { asm volatile("ud2"); }) == SIGILL);
}

} // namespace
} // namespace kiln::test
