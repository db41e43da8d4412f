// What the first block of every launch reads and writes, as a warp's instructions, for tests of how memory is used:
//
//   * shared memory: passes over its 32 banks, beside the fewest that the lanes' bytes need (1.0: no conflicts);
//   * global memory: sectors of 32 bytes that are touched, beside the fewest that hold the lanes' bytes (1.0: coalesced);
//   * words of shared memory that one warp writes and another one uses with no barrier between: races.
//
// The fake NVRTC compiles with -fsanitize=thread where KILN_SHIM_TRACE names a file; the calls that the compiler puts
// before every access end here, and the fake driver (tests/fake_driver/accesses.cpp) writes a line for each launch to
// that file. Lanes are matched by the place in the code and by how often each one has come by since the last barrier.
#pragma once

#include "tests/cuda_shim/traced.h"

#include <link.h>

namespace kiln_shim {

inline Queue<Traced> g_traced;
inline Analyse g_analyse; // the driver's
inline bool g_is_tracing, g_is_recording; // recording: between begin_trace and end_trace
inline unsigned g_epoch;
struct Range {
  uintptr_t begin = 0, end = 0;
  bool has(uintptr_t at) const { return at >= begin && at < end; }
};
inline Range g_image; // this library: what the shim keeps for itself

inline int find_image(dl_phdr_info *info, size_t, void *) {
  Range r{~uintptr_t(0), 0};
  for (int i = 0; i < info->dlpi_phnum; ++i)
    if (info->dlpi_phdr[i].p_type == PT_LOAD) {
      uintptr_t at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr, end = at + info->dlpi_phdr[i].p_memsz;
      r.begin = at < r.begin ? at : r.begin;
      r.end = end > r.end ? end : r.end;
    }
  if (r.has(reinterpret_cast<uintptr_t>(&g_epoch)))
    g_image = r;
  return 0;
}

inline bool in_shared(uintptr_t at) { return Range{reinterpret_cast<uintptr_t>(g_dynamic), reinterpret_cast<uintptr_t>(g_dynamic) + kSharedBytes}.has(at); }

__attribute__((noinline, no_sanitize("thread"))) inline void trace(const void *code, const void *at, size_t bytes, bool is_write) {
  if (!g_is_tracing)
    return;
  g_is_tracing = false; // what follows is instrumented too
  uintptr_t address = reinterpret_cast<uintptr_t>(at), stacks = reinterpret_cast<uintptr_t>(g_stacks);
  bool is_private = Range{stacks, stacks + kStack * kMaxThreads}.has(address) || (g_image.has(address) && !in_shared(address));
  if (!is_private)
    g_traced.push({code, address, unsigned(bytes), g_current, g_epoch, 0, is_write});
  g_is_tracing = true;
}

// What a warpgroup's product reads, as it does.
inline void trace_product(const void *at, size_t bytes) {
  if (g_is_recording)
    g_traced.push({nullptr, reinterpret_cast<uintptr_t>(at), unsigned(bytes), g_current, g_epoch, 0, false, true});
}

// While one lives, accesses are the shim's own.
struct Untraced {
  bool before = g_is_tracing;
  Untraced() { g_is_tracing = false; }
  ~Untraced() { g_is_tracing = before; }
};

inline void begin_trace() {
  if (g_image.end == 0)
    dl_iterate_phdr(find_image, nullptr);
  g_traced.count = 0;
  g_epoch = 0;
  g_is_tracing = g_is_recording = true;
}

inline void end_trace(const char *kernel) {
  g_is_tracing = g_is_recording = false;
  if (g_analyse)
    g_analyse(kernel, g_traced.items, g_traced.count, reinterpret_cast<uintptr_t>(g_dynamic), kSharedBytes);
  g_traced.count = 0;
}

__attribute__((destructor, used)) inline void give_back_trace() { free(g_traced.items); }

} // namespace kiln_shim

extern "C" {
__attribute__((visibility("default"), used)) inline void kiln_shim_analyse(kiln_shim::Analyse analyse) { kiln_shim::g_analyse = analyse; }
#define KILN_SHIM_SEES(bytes)                                                                                                        \
  inline __attribute__((used)) void __tsan_read##bytes(void *at) { kiln_shim::trace(__builtin_return_address(0), at, bytes, false); } \
  inline __attribute__((used)) void __tsan_write##bytes(void *at) { kiln_shim::trace(__builtin_return_address(0), at, bytes, true); } \
  inline __attribute__((used)) void __tsan_unaligned_read##bytes(void *at) { kiln_shim::trace(__builtin_return_address(0), at, bytes, false); } \
  inline __attribute__((used)) void __tsan_unaligned_write##bytes(void *at) { kiln_shim::trace(__builtin_return_address(0), at, bytes, true); }
KILN_SHIM_SEES(1)
KILN_SHIM_SEES(2)
KILN_SHIM_SEES(4)
KILN_SHIM_SEES(8)
KILN_SHIM_SEES(16)
inline __attribute__((used)) void __tsan_read_range(void *at, unsigned long bytes) { kiln_shim::trace(__builtin_return_address(0), at, bytes, false); }
inline __attribute__((used)) void __tsan_write_range(void *at, unsigned long bytes) { kiln_shim::trace(__builtin_return_address(0), at, bytes, true); }
// What clang calls in the place of these functions.
__attribute__((used, no_sanitize("thread"))) inline void *__tsan_memcpy(void *to, const void *from, unsigned long bytes) {
  kiln_shim::trace(__builtin_return_address(0), from, bytes, false);
  kiln_shim::trace(__builtin_return_address(0), to, bytes, true);
  return memcpy(to, from, bytes);
}
__attribute__((used, no_sanitize("thread"))) inline void *__tsan_memmove(void *to, const void *from, unsigned long bytes) { return memmove(to, from, bytes); }
__attribute__((used, no_sanitize("thread"))) inline void *__tsan_memset(void *to, int value, unsigned long bytes) {
  kiln_shim::trace(__builtin_return_address(0), to, bytes, true);
  return memset(to, value, bytes);
}
inline __attribute__((used)) void __tsan_func_entry(void *) {}
inline __attribute__((used)) void __tsan_func_exit() {}
inline __attribute__((used)) void __tsan_init() {}
inline __attribute__((used)) void __tsan_vptr_update(void **, void *) {}
}
