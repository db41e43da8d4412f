/* Answers the `cpuid` instructions that hold_avx2.py replaced by `ud2`: as the processor does, without AVX-512, AMX and
 * AVX-VNNI. Loaded with LD_PRELOAD, so that the handler is there before the libraries ask. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

static uint32_t without(uint32_t word, const int* bits) {
  for (; *bits >= 0; ++bits) word &= ~(1u << *bits);
  return word;
}

static void answer(int number, siginfo_t* info, void* context) {
  static const int leaf7_b[] = {16, 17, 21, 26, 27, 28, 30, 31, -1}; /* f dq ifma pf er cd bw vl */
  static const int leaf7_c[] = {1, 6, 11, 12, 14, -1};               /* vbmi vbmi2 vnni bitalg vpopcntdq */
  static const int leaf7_d[] = {2, 3, 8, 22, 23, 24, 25, -1};        /* 4vnniw 4fmaps vp2intersect amx-bf16 fp16 amx-tile amx-int8 */
  static const int leaf71_a[] = {4, 5, 21, 23, -1};                  /* avx-vnni avx512-bf16 amx-fp16 avx-ifma */
  static const int leaf71_d[] = {4, 5, 8, 10, 19, -1};               /* avx-vnni-int8 avx-ne-convert amx-complex avx-vnni-int16 avx10 */
  static const int leaf13_a[] = {5, 6, 7, 17, 18, -1};               /* states of masks, zmm and tiles */
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  const uint8_t* at = (const uint8_t*)registers[REG_RIP];
  (void)info;
  if (at[0] != 0x0f || at[1] != 0x0b) {
    signal(number, SIG_DFL); /* a real one: happens again and ends the process */
    return;
  }
  uint32_t leaf = (uint32_t)registers[REG_RAX], sub = (uint32_t)registers[REG_RCX], a, b, c, d;
  __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(sub));
  if (leaf == 7 && sub == 0) {
    b = without(b, leaf7_b);
    c = without(c, leaf7_c);
    d = without(d, leaf7_d);
  } else if (leaf == 7 && sub == 1) {
    a = without(a, leaf71_a);
    d = without(d, leaf71_d);
  } else if (leaf == 13 && sub == 0) {
    a = without(a, leaf13_a);
  }
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
  registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void install(void) {
  struct sigaction action = {0};
  action.sa_sigaction = answer;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGILL, &action, 0);
}
