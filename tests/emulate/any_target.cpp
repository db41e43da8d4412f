// The runtime's question what this machine runs, answered for one with AMX: instructions that the processor lacks
// are emulated, and counted when KILN_COUNT_TILES is set. With this file instead of runtime/cpu_target.cpp, kiln-run
// runs packages for such targets.
#include "runtime/cpu_target.h"
#include "tests/emulate/amx.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace kiln::rt {

int32_t target_rank(const char *target) {
  if (std::strncmp(target, "x86-64", 6) != 0)
    return -1;
  int32_t rank = 0;
  for (const char *at = target; *at != 0; ++at)
    rank += *at == '+';
  return rank;
}

bool is_native_architecture(const char *target) { return std::strncmp(target, "x86-64", 6) == 0; }
uint16_t native_elf_machine() { return 62; }
void describe_machine(Text &text) { text << "x86-64 with emulated tiles"; }

} // namespace kiln::rt

// In the place of libc's: workers block all signals but the one that emulates.
extern "C" int sigfillset(sigset_t *set) noexcept {
  std::memset(set, 0xff, sizeof *set);
  return sigdelset(set, SIGILL);
}

namespace {

void print_counts() {
  kiln::test::TileCounts counts = kiln::test::tile_counts();
  std::fprintf(stderr, "products %llu, of them filled %.3f, loads %llu, stores %llu, configurations %llu\n",
               static_cast<unsigned long long>(counts.products),
               counts.products == 0 ? 0 : static_cast<double>(counts.multiplied) / (16.0 * 16 * 64) / static_cast<double>(counts.products),
               static_cast<unsigned long long>(counts.loads), static_cast<unsigned long long>(counts.stores),
               static_cast<unsigned long long>(counts.configurations));
}

[[gnu::constructor]] void enable() {
  const bool is_emulated = kiln::test::enable_amx();
  if (is_emulated && std::getenv("KILN_COUNT_TILES") != nullptr) // a processor's own are not counted
    std::atexit(print_counts);
}

} // namespace
