// CUDA C on the CPU, for tests: generated kernels are compiled by a C++ compiler with this header in the
// place of NVRTC's own declarations, and every block runs with real barriers.
//
// Each thread of a block is a fiber. One runs until it meets a barrier, a shuffle or its end, then the next
// one does; a warp goes on when all of its threads that are left wait, a block likewise. Threads that wait
// for each other at different places (a barrier in a branch that others do not take) stop the program, which
// a GPU would not do. One that ends without having waited leaves its stack to the next, so kernels without barriers
// run as a loop. Blocks are taken from a counter, which copies of the library on other processors may share.
// It includes no header of C++, which would take longer to compile than most kernels.
//
//   #include "tests/cuda_shim/shim.h"
//   extern "C" __global__ void k(float *x) { x[threadIdx.x] += 1; }
//   KILN_SHIM_KERNEL(k)       defines kiln_shim_k(grid, block, shared bytes, args) for the fake driver
#pragma once
#define KILN_CUDA_SHIM 1

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};

namespace kiln_shim {

// Stacks are a few lines apart from powers of two, or all of their tops would lie in the same sets of the caches.
constexpr size_t kStack = (96 << 10) + 9 * 64, kMaxThreads = 1024, kSharedBytes = 232 << 10;

enum class State : unsigned char { fresh, ready, at_warp, at_block, at_ring, done };

struct Fiber {
  void *sp;
  unsigned stack;
#if !defined(__x86_64__) && !defined(__aarch64__)
  ucontext_t context;
#endif
};

// A kernel's caller: calls it with its arguments.
using Body = void (*)(void **args);

inline uint3 g_thread, g_block, g_block_dim, g_grid_dim;
inline unsigned g_current;
inline Fiber g_fibers[kMaxThreads], g_scheduler, g_ended;
inline State g_states[kMaxThreads];
inline int g_lines[kMaxThreads];                           // in which they wait for their block
inline uint3 g_ids[kMaxThreads];                           // their threadIdx
inline unsigned g_free_stacks[kMaxThreads], g_free_stack_count;
inline unsigned long long g_own_blocks, *g_next_block = &g_own_blocks;
inline unsigned char *g_stacks;
inline Body g_body;
inline void **g_args;
alignas(1024) inline unsigned char g_dynamic[kSharedBytes];
alignas(16) inline unsigned char g_exchange[kMaxThreads][16];

// What is under way, in order.
template <typename T>
struct Queue {
  T *items;
  size_t count, room;
  T *begin() { return items; }
  T *end() { return items + count; }
  T &operator[](size_t i) { return items[i]; }
  bool empty() const { return count == 0; }
  __attribute__((no_sanitize("thread"))) void push(const T &item) {
    if (count == room) {
      room = room ? 2 * room : 16;
      items = static_cast<T *>(realloc(static_cast<void *>(items), room * sizeof(T)));
    }
    items[count++] = item;
  }
  void drop_first(size_t n) {
    count -= n;
    memmove(static_cast<void *>(items), items + n, count * sizeof(T));
  }
};

[[noreturn]] inline void stop(const char *why) {
  fprintf(stderr, "cuda shim: block (%u, %u, %u), thread %u: %s\n", g_block.x, g_block.y, g_block.z, g_current, why);
  abort();
}

} // namespace kiln_shim
#ifdef KILN_SHIM_TRACED
#include "tests/cuda_shim/trace.h"
#define KILN_SHIM_PLACE __attribute__((noinline)) inline
namespace kiln_shim { // blocks run one after the other
template <typename T>
inline T fetch_add(T *at, T value) {
  T old = *at;
  *at = old + value;
  return old;
}
inline bool replace(int *at, int *expected, int value) {
  int old = *at;
  if (old == *expected)
    *at = value;
  return *expected = old, true;
}
} // namespace kiln_shim
#else
namespace kiln_shim {
inline unsigned g_epoch;
struct Untraced {
  Untraced() {}
};
inline void trace(const void *, const void *, size_t, bool) {}
#define KILN_SHIM_PLACE inline // of the access in the code: not asked for
template <typename T>
inline T fetch_add(T *at, T value) {
  T old = *at, sum;
  do
    sum = old + value;
  while (!__atomic_compare_exchange(at, &old, &sum, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
  return old;
}
inline bool replace(int *at, int *expected, int value) {
  return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
inline void trace_product(const void *, size_t) {}
inline void begin_trace() {}
inline void end_trace(const char *) {}
} // namespace kiln_shim
#endif
namespace kiln_shim {

// An access of several elements at once.
KILN_SHIM_PLACE void note(const void *at, size_t bytes, bool is_write = false) {
  if (reinterpret_cast<uintptr_t>(at) % (bytes < 16 ? bytes : 16) != 0)
    stop("an access whose address is not a multiple of its size");
  for (size_t i = 0; i < bytes; i += 16)
    trace(__builtin_return_address(0), static_cast<const unsigned char *>(at) + i, bytes < 16 ? bytes : 16, is_write);
}

// A load or store of several elements at once, of the kernel's own.
KILN_SHIM_PLACE void move(void *to, const void *from, size_t bytes, bool is_write) {
  const void *at = is_write ? to : from;
  if (reinterpret_cast<uintptr_t>(at) % (bytes < 16 ? bytes : 16) != 0)
    stop("an access whose address is not a multiple of its size");
  for (size_t i = 0; i < bytes; i += 16)
    trace(__builtin_return_address(0), static_cast<const unsigned char *>(at) + i, bytes < 16 ? bytes : 16, is_write);
  Untraced own;
  memcpy(to, from, bytes);
}

#if defined(__clang__)
#define KILN_SHIM_NAKED __attribute__((naked, noinline, used, no_sanitize("thread")))
#else
#define KILN_SHIM_NAKED __attribute__((naked, noipa, used, no_sanitize("thread")))
#endif
#if defined(__x86_64__)
// Saves what a call preserves, changes stacks, goes on there.
KILN_SHIM_NAKED inline void switch_to(void ** /*from*/, void * /*to*/) {
  asm("push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
      "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
      "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret");
}
#elif defined(__aarch64__)
KILN_SHIM_NAKED inline void switch_to(void ** /*from*/, void * /*to*/) {
  asm("sub sp, sp, #176\n"
      "stp x19, x20, [sp, #0]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n stp x25, x26, [sp, #48]\n"
      "stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n"
      "stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"
      "mov x9, sp\n str x9, [x0]\n mov sp, x1\n"
      "ldp x19, x20, [sp, #0]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n ldp x25, x26, [sp, #48]\n"
      "ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n"
      "ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n add sp, sp, #176\n ret");
}
#endif

inline void change(Fiber &from, Fiber &to) {
#if defined(__x86_64__) || defined(__aarch64__)
  switch_to(&from.sp, to.sp);
#else
  swapcontext(&from.context, &to.context);
#endif
}

// The threads of a warp have their turns, forwards or backwards.
struct Turns {
  unsigned first, end, taken;
  bool backwards;
};
inline Turns g_turns;
// The next thread that can run.
inline bool take_turn(unsigned &thread) {
  while (g_turns.taken < g_turns.end - g_turns.first) {
    unsigned i = g_turns.taken++;
    thread = g_turns.backwards ? g_turns.end - 1 - i : g_turns.first + i;
    if (g_states[thread] <= State::ready)
      return true;
  }
  return false;
}

inline bool copies_under_way(unsigned thread);
inline bool products_under_way(unsigned thread);
inline void begin_products(unsigned shared_bytes);
inline void begin_boxes();
inline void end_boxes();
inline bool do_some_box();
inline void note_written(const void *at, unsigned bytes);
inline void enter(unsigned t) {
  g_current = t;
  g_thread = g_ids[t];
}
inline void fiber_main();
inline void prepare(unsigned t) {
  unsigned stack = g_free_stacks[--g_free_stack_count];
  unsigned char *top = g_stacks + (stack + 1) * kStack;
#if defined(__x86_64__)
  void **sp = reinterpret_cast<void **>(top) - 2;
  *sp = reinterpret_cast<void *>(&fiber_main);
  sp -= 6;
  memset(sp, 0, 6 * sizeof(void *));
  g_fibers[t].sp = sp;
#elif defined(__aarch64__)
  auto **sp = reinterpret_cast<void **>(top - 176);
  memset(sp, 0, 176);
  sp[11] = reinterpret_cast<void *>(&fiber_main);
  g_fibers[t].sp = sp;
#else
  getcontext(&g_fibers[t].context);
  g_fibers[t].context.uc_stack.ss_sp = top - kStack;
  g_fibers[t].context.uc_stack.ss_size = kStack;
  makecontext(&g_fibers[t].context, fiber_main, 0);
#endif
  g_fibers[t].stack = stack;
  g_states[t] = State::ready;
}

// Leaves `from` for the warp's next thread, or for the scheduler when all have had their turns.
inline void go_on(Fiber &from) {
  unsigned t = 0;
  if (!take_turn(t))
    return change(from, g_scheduler);
  if (g_states[t] == State::fresh)
    prepare(t);
  enter(t);
  change(from, g_fibers[t]);
}

inline void fiber_main() {
  for (;;) {
    g_body(g_args);
    if (copies_under_way(g_current))
      stop("a thread ends while its copies are under way");
    if (products_under_way(g_current))
      stop("a thread ends while its products are under way");
    g_states[g_current] = State::done;
    unsigned stack = g_fibers[g_current].stack, t = 0;
    bool is_any = take_turn(t);
    if (is_any && g_states[t] == State::fresh) { // has this stack
      g_fibers[t].stack = stack;
      g_states[t] = State::ready;
      enter(t);
      continue;
    }
    g_free_stacks[g_free_stack_count++] = stack;
    if (is_any)
      enter(t);
    change(g_ended, is_any ? g_fibers[t] : g_scheduler);
    stop("a thread that has ended runs again");
  }
}

// Runs the threads of one block to their ends. The order of a warp's threads, and of the warps, turns around with every
// block and every barrier, so that what a missing barrier leaves to chance goes wrong.
inline void run_block(unsigned threads) {
  memset(g_states, int(State::fresh), threads);
  for (unsigned turn = g_block.x;; ++turn) {
    bool progress = false, all_wait = true, any_left = false, any_in_ring = false;
    for (unsigned w = 0; w < threads; w += 32) {
      unsigned warp = turn % 2 != 0 ? (threads - 1) / 32 * 32 - w : w;
      unsigned end = warp + 32 < threads ? warp + 32 : threads;
      bool again = true, backwards = turn % 2 == 0;
      while (again) {
        backwards = !backwards;
        g_turns = {warp, end, 0, backwards};
        for (unsigned t = warp; t < end; ++t)
          progress |= g_states[t] <= State::ready;
        go_on(g_scheduler);
        // Threads that wait for their warp go on once no other one of it can still arrive.
        unsigned at_warp = 0, at_block = 0, at_ring = 0;
        for (unsigned t = warp; t < end; ++t) {
          at_warp += g_states[t] == State::at_warp;
          at_block += g_states[t] == State::at_block;
          at_ring += g_states[t] == State::at_ring;
        }
        again = at_warp > 0 && at_block == 0 && at_ring == 0;
        for (unsigned t = warp; again && t < end; ++t)
          if (g_states[t] == State::at_warp)
            g_states[t] = State::ready;
        if (at_warp > 0 && at_block > 0)
          stop("some threads of a warp wait for the warp, others for the block");
        any_left |= at_block > 0;
        any_in_ring |= at_ring > 0;
      }
    }
    if (any_in_ring) { // copies of tensors are done when nobody can go on without them
      if (!progress && !do_some_box())
        stop("the threads of a block wait for each other, or for copies that nobody asked for, for ever");
      continue;
    }
    for (unsigned t = 0; t < threads; ++t)
      all_wait &= g_states[t] == State::at_block || g_states[t] == State::done;
    if (!any_left)
      return;
    if (!all_wait || !progress)
      stop("the threads of a block wait for each other for ever");
    ++g_epoch;
    int line = 0;
    for (unsigned t = 0; t < threads; ++t)
      if (g_states[t] == State::at_block) {
        if (line != 0 && g_lines[t] != line)
          stop("the threads of a block wait at different barriers");
        line = g_lines[t];
        g_states[t] = State::ready;
      }
  }
}

inline void wait(State state) {
  g_states[g_current] = state;
  go_on(g_fibers[g_current]);
}

inline void launch(const char *name, Body body, uint3 grid, uint3 block, unsigned shared_bytes, void **args) {
  unsigned threads = block.x * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || shared_bytes > kSharedBytes)
    stop("more threads or shared memory than a block can have");
  if (!g_stacks) {
    g_stacks = static_cast<unsigned char *>(aligned_alloc(64, kMaxThreads * kStack));
    for (g_free_stack_count = 0; g_free_stack_count < kMaxThreads; ++g_free_stack_count)
      g_free_stacks[g_free_stack_count] = kMaxThreads - 1 - g_free_stack_count;
  }
  g_body = body;
  g_args = args;
  g_block_dim = block;
  g_grid_dim = grid;
  for (unsigned t = 0; t < threads; ++t)
    g_ids[t] = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
  unsigned long long blocks = 1ull * grid.x * grid.y * grid.z, i = 0;
  g_own_blocks = 0;
  while ((i = fetch_add(g_next_block, 1ull)) < blocks) {
    g_block = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
    memset(g_dynamic, 0xff, shared_bytes); // what was not written is no number
    begin_products(shared_bytes);
    begin_boxes();
    if (i == 0)
      begin_trace();
    run_block(threads);
    end_boxes();
    if (i == 0)
      end_trace(name);
  }
}

// Calls a kernel whose arguments are pointed to, one each.
template <size_t... I>
struct List {};
template <size_t N, size_t... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <size_t... I>
struct Count<0, I...> {
  using type = List<I...>;
};
template <auto F>
struct Caller;
template <typename... Args, void (*F)(Args...)>
struct Caller<F> {
  // How many arguments there are, then the bytes of each.
  static constexpr unsigned sizes[] = {sizeof...(Args), sizeof(Args)...};
  static void call(void **args) { call_at(args, typename Count<sizeof...(Args)>::type()); }
  template <size_t... I>
  __attribute__((no_sanitize("thread"))) static void call_at(void **args, List<I...>) { // a device has arguments in memory of their own
    F(*static_cast<Args *>(args[I])...);
  }
};

// What all threads of the warp hand in is there for each of them.
template <typename T>
inline T exchange(T value, unsigned lane) {
  static_assert(sizeof(T) <= 16);
  memcpy(g_exchange[g_current], &value, sizeof value);
  wait(State::at_warp);
  unsigned first = g_current / 32 * 32, threads = g_block_dim.x * g_block_dim.y * g_block_dim.z;
  T out = value;
  if (first + lane < threads)
    memcpy(&out, g_exchange[first + lane], sizeof out);
  wait(State::at_warp);
  return out;
}

} // namespace kiln_shim

#define threadIdx (kiln_shim::g_thread)
#define blockIdx (kiln_shim::g_block)
#define blockDim (kiln_shim::g_block_dim)
#define gridDim (kiln_shim::g_grid_dim)

// All threads of a block wait in the same line.
inline void kiln_wait_in(int line) {
  kiln_shim::g_lines[kiln_shim::g_current] = line;
  kiln_shim::wait(kiln_shim::State::at_block);
}
#define __syncthreads() kiln_wait_in(__LINE__)
inline void __syncwarp(unsigned = 0xffffffffu) { kiln_shim::wait(kiln_shim::State::at_warp); }
inline float __int_as_float(int x) {
  float f;
  memcpy(&f, &x, 4);
  return f;
}
inline unsigned __float_as_uint(float f) {
  unsigned x;
  memcpy(&x, &f, 4);
  return x;
}
// Bytes of y:x, chosen by four digits.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned digits) {
  uint64_t both = uint64_t(y) << 32 | x;
  unsigned out = 0;
  for (unsigned i = 0; i < 4; ++i)
    out |= unsigned(both >> (digits >> i * 4 & 7) * 8 & 255) << i * 8;
  return out;
}
template <typename T>
inline T __shfl_sync(unsigned, T value, int lane) {
  return kiln_shim::exchange(value, unsigned(lane) & 31);
}
template <typename T>
inline T __shfl_xor_sync(unsigned, T value, int mask) {
  return kiln_shim::exchange(value, (kiln_shim::g_current & 31) ^ unsigned(mask));
}
template <typename T>
inline T __shfl_down_sync(unsigned, T value, unsigned delta) {
  unsigned lane = (kiln_shim::g_current & 31) + delta;
  return kiln_shim::exchange(value, lane < 32 ? lane : kiln_shim::g_current & 31);
}
// The lanes that say yes; those that have ended say nothing.
inline unsigned __ballot_sync(unsigned, int yes) {
  unsigned own = kiln_shim::g_current & 31, first = kiln_shim::g_current - own, out = 0;
  uint4 &mine = reinterpret_cast<uint4 &>(kiln_shim::g_exchange[kiln_shim::g_current]);
  mine.x = unsigned(yes != 0);
  kiln_shim::wait(kiln_shim::State::at_warp);
  for (unsigned i = 0; i < 32 && first + i < kiln_shim::kMaxThreads; ++i)
    if (kiln_shim::g_states[first + i] != kiln_shim::State::done && first + i < kiln_shim::g_block_dim.x * kiln_shim::g_block_dim.y * kiln_shim::g_block_dim.z)
      out |= reinterpret_cast<const uint4 &>(kiln_shim::g_exchange[first + i]).x << i;
  kiln_shim::wait(kiln_shim::State::at_warp);
  return out;
}
inline int __ffs(int x) { return __builtin_ffs(x); }
// Numbers of tensor cores.
namespace kiln_shim {
inline float from_bf16(uint16_t h) {
  uint32_t u = uint32_t(h) << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
inline float from_f16(uint16_t h) {
  uint32_t e = h >> 10 & 31, m = h & 1023;
  float f = e == 0 ? float(m) * 5.9604644775390625e-8f : 0;
  if (e != 0) {
    uint32_t u = (e == 31 ? 255u : e + 112) << 23 | m << 13;
    memcpy(&f, &u, 4);
  }
  return h & 0x8000 ? -f : f;
}

inline uint16_t half_of(uint32_t word, unsigned i) { return uint16_t(word >> i * 16); }
inline float at_bf16(uint32_t word, unsigned i) { return from_bf16(half_of(word, i)); }
inline float at_f16(uint32_t word, unsigned i) { return from_f16(half_of(word, i)); }
inline int at_i8(uint32_t word, unsigned i) { return int8_t(word >> i * 8); }
inline int at_u8(uint32_t word, unsigned i) { return uint8_t(word >> i * 8); }
// The lowest 13 bits are not looked at.
inline float at_f32(uint32_t word, unsigned) {
  word &= 0xffffe000u;
  float f;
  memcpy(&f, &word, 4);
  return f;
}

} // namespace kiln_shim
#include "tests/cuda_shim/warp_products.h"

#include "tests/cuda_shim/tensor_floats.h"
namespace kiln_shim {

// Asynchronous copies happen when the thread waits for them; until then no number is at their place.
struct Copy {
  void *to;
  const void *from;
  unsigned bytes, group;
};
inline Queue<Copy> g_copies[kMaxThreads];
inline unsigned g_copy_group[kMaxThreads];

__attribute__((destructor, used)) inline void give_back_copies() {
  for (Queue<Copy> &copies : g_copies)
    free(copies.items);
  free(g_stacks);
}

inline bool copies_under_way(unsigned thread) { return !g_copies[thread].empty(); }
inline void copy_async(void *to, const void *from, unsigned bytes, bool inside) {
  auto begin = reinterpret_cast<uintptr_t>(g_dynamic), source = reinterpret_cast<uintptr_t>(from);
  if (inside && source >= begin && source < begin + kSharedBytes)
    stop("an asynchronous copy that does not come from global memory");
  note(to, bytes, true);
  if (inside)
    note(from, bytes);
  Untraced own;
  memset(to, 0xff, bytes);
  g_copies[g_current].push({to, inside ? from : nullptr, bytes, g_copy_group[g_current]});
}
inline void copy_wait(unsigned groups) {
  Untraced own;
  Queue<Copy> &copies = g_copies[g_current];
  size_t done = 0;
  for (; done < copies.count && copies[done].group + groups < g_copy_group[g_current]; ++done) {
    const Copy &c = copies[done];
    if (c.from)
      memcpy(c.to, c.from, c.bytes);
    else
      memset(c.to, 0, c.bytes);
    note_written(c.to, c.bytes);
  }
  copies.drop_first(done);
}
} // namespace kiln_shim
#define kiln_mma_bf16 kiln_shim::mma<float, 2, kiln_shim::at_bf16, kiln_shim::at_bf16>
#define kiln_mma_f16 kiln_shim::mma<float, 2, kiln_shim::at_f16, kiln_shim::at_f16>
#define kiln_mma_f32 kiln_shim::mma<float, 1, kiln_shim::at_f32, kiln_shim::at_f32, kiln_shim::CutOff>
#define kiln_mma_i8_i8 kiln_shim::mma<int, 4, kiln_shim::at_i8, kiln_shim::at_i8>
#define kiln_mma_i8_u8 kiln_shim::mma<int, 4, kiln_shim::at_i8, kiln_shim::at_u8>
#define kiln_mma_u8_i8 kiln_shim::mma<int, 4, kiln_shim::at_u8, kiln_shim::at_i8>
#define kiln_mma_u8_u8 kiln_shim::mma<int, 4, kiln_shim::at_u8, kiln_shim::at_u8>
#define kiln_pair_bf16(low, high) (uint32_t(kiln_f32_to_bf16(low)) | uint32_t(kiln_f32_to_bf16(high)) << 16)
#define kiln_pair_f16(low, high) (uint32_t(kiln_f32_to_f16(low)) | uint32_t(kiln_f32_to_f16(high)) << 16)
#define kiln_ldmatrix kiln_shim::ldmatrix<false>
#define kiln_ldmatrix_across kiln_shim::ldmatrix<true>
inline uint32_t kiln_to_tf32(uint32_t bits) { return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u; }
template <int kBytes>
inline void kiln_copy(void *to, const void *from, bool inside) {
  kiln_shim::copy_async(to, from, kBytes, inside);
}
inline void kiln_copy_commit() { ++kiln_shim::g_copy_group[kiln_shim::g_current]; }
template <int kGroups>
inline void kiln_copy_wait() {
  kiln_shim::copy_wait(kGroups);
}

#include "tests/cuda_shim/warpgroup.h"

#include "tests/cuda_shim/tensor_copy.h"

template <typename T>
inline T atomicAdd(T *at, T value) {
  return kiln_shim::fetch_add(at, value);
}
inline int atomicCAS(int *at, int expected, int value) {
  kiln_shim::replace(at, &expected, value);
  return expected;
}

#define KILN_SHIM_EXPORT extern "C" __attribute__((visibility("default")))
#ifndef KILN_SHIM_TRACED
// The next launches take their blocks from this counter; none: each has all of its blocks.
KILN_SHIM_EXPORT __attribute__((used)) inline void kiln_shim_share(unsigned long long *next_block) {
  kiln_shim::g_next_block = next_block ? next_block : &kiln_shim::g_own_blocks;
}
#endif
#define KILN_SHIM_KERNEL(name)                                                                                        \
  KILN_SHIM_EXPORT const unsigned *kiln_shim_##name##_sizes() { return kiln_shim::Caller<&name>::sizes; }             \
  KILN_SHIM_EXPORT void kiln_shim_##name(const unsigned *grid, const unsigned *block, unsigned shared_bytes,          \
                                         void **args) {                                                               \
    kiln_shim::launch(#name, &kiln_shim::Caller<&name>::call, {grid[0], grid[1], grid[2]},                            \
                      {block[0], block[1], block[2]}, shared_bytes, args);                                            \
  }
