// What the first block of every launch reads and writes, as a warp's instructions, for tests of how memory is used:
//
//   * shared memory: passes over its 32 banks, beside the fewest that the lanes' bytes need (1.0: no conflicts);
//   * global memory: sectors of 32 bytes that are touched, beside the fewest that hold the lanes' bytes (1.0: coalesced);
//   * words of shared memory that one warp writes and another one uses with no barrier between: races.
//
// The fake NVRTC compiles with -fsanitize=thread where KILN_SHIM_TRACE names a file; the calls that the compiler puts
// before every access end here, and a line for each launch goes to that file. Lanes are matched by the place in the code
// and by how often each one has come by since the last barrier.
#pragma once

#include <link.h>

#include <algorithm>
#include <tuple>
#include <vector>

namespace kiln_shim {

struct Traced {
  const void *code;
  uintptr_t at;
  unsigned bytes, thread, epoch, turn;
  bool is_write;
  bool is_product = false; // read by tensor cores: no instruction of lanes
};
inline std::vector<Traced> g_traced;
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
      uintptr_t at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
      r.begin = std::min(r.begin, at);
      r.end = std::max(r.end, at + info->dlpi_phdr[i].p_memsz);
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
    g_traced.push_back({code, address, unsigned(bytes), g_current, g_epoch, 0, is_write});
  g_is_tracing = true;
}

// What a warpgroup's product reads, as it does.
inline void trace_product(const void *at, size_t bytes) {
  if (g_is_recording)
    g_traced.push_back({nullptr, reinterpret_cast<uintptr_t>(at), unsigned(bytes), g_current, g_epoch, 0, false, true});
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
  g_traced.clear();
  g_epoch = 0;
  g_is_tracing = g_is_recording = true;
}

// Passes over the banks: lanes go together as far as they ask for 128 bytes.
inline unsigned passes(const Traced *lanes, size_t count) {
  unsigned width = std::max(lanes[0].bytes, 4u), together = std::max(128 / width, 1u), out = 0;
  for (unsigned first = 0; first < 32; first += together) {
    std::vector<uintptr_t> words;
    for (size_t i = 0; i < count; ++i)
      if (unsigned lane = lanes[i].thread % 32; lane >= first && lane < first + together)
        for (uintptr_t w = lanes[i].at / 4; w <= (lanes[i].at + lanes[i].bytes - 1) / 4; ++w)
          words.push_back(w);
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    unsigned banks[32] = {}, most = 0;
    for (uintptr_t w : words)
      most = std::max(most, ++banks[w % 32]);
    out += most;
  }
  return out;
}
inline unsigned fewest_passes(const Traced *lanes, size_t count) {
  unsigned width = std::max(lanes[0].bytes, 4u), together = std::max(128 / width, 1u), out = 0;
  for (unsigned first = 0; first < 32; first += together)
    out += std::any_of(lanes, lanes + count, [&](const Traced &t) { return t.thread % 32 >= first && t.thread % 32 < first + together; });
  return out;
}
inline void sectors(const Traced *lanes, size_t count, double &touched, double &fewest) {
  std::vector<uintptr_t> bytes, lines;
  for (size_t i = 0; i < count; ++i)
    for (unsigned b = 0; b < lanes[i].bytes; ++b) {
      bytes.push_back(lanes[i].at + b);
      lines.push_back((lanes[i].at + b) / 32);
    }
  for (std::vector<uintptr_t> *list : {&bytes, &lines}) {
    std::sort(list->begin(), list->end());
    list->erase(std::unique(list->begin(), list->end()), list->end());
  }
  touched += double(lines.size());
  fewest += double((bytes.size() + 31) / 32);
}

// Words (or bytes, where some are written alone) that different warps use between the same barriers, one of them to write.
inline size_t races() {
  struct Use {
    unsigned epoch;
    uintptr_t word;
    unsigned warp;
    bool is_write;
  };
  std::vector<Use> uses;
  uintptr_t unit = std::any_of(g_traced.begin(), g_traced.end(), [](const Traced &t) { return in_shared(t.at) && t.is_write && t.bytes < 4; }) ? 1 : 4;
  for (const Traced &t : g_traced)
    if (in_shared(t.at))
      for (uintptr_t w = t.at / unit; w <= (t.at + t.bytes - 1) / unit; ++w)
        uses.push_back({t.epoch, w, t.thread / 32, t.is_write});
  std::sort(uses.begin(), uses.end(), [](const Use &a, const Use &b) { return a.epoch != b.epoch ? a.epoch < b.epoch : a.word < b.word; });
  size_t out = 0;
  for (size_t i = 0, end; i < uses.size(); i = end) {
    bool written = false, shared = false;
    for (end = i; end < uses.size() && uses[end].epoch == uses[i].epoch && uses[end].word == uses[i].word; ++end) {
      written |= uses[end].is_write;
      shared |= uses[end].warp != uses[i].warp;
    }
    out += written && shared;
  }
  return out;
}

inline void end_trace(const char *kernel) {
  g_is_tracing = g_is_recording = false;
  size_t race = races();
  g_traced.erase(std::remove_if(g_traced.begin(), g_traced.end(), [](const Traced &t) { return t.is_product; }), g_traced.end());
  // The nth time that a thread comes by a place since the last barrier.
  auto order = [](const Traced &a, const Traced &b) {
    if (a.thread != b.thread)
      return a.thread < b.thread;
    return a.code != b.code ? a.code < b.code : a.epoch < b.epoch;
  };
  std::stable_sort(g_traced.begin(), g_traced.end(), order);
  for (size_t i = 1; i < g_traced.size(); ++i)
    if (!order(g_traced[i - 1], g_traced[i]))
      g_traced[i].turn = g_traced[i - 1].turn + 1;
  auto key = [](const Traced &t) { return std::make_tuple(t.thread / 32, t.code, t.epoch, t.turn); };
  std::stable_sort(g_traced.begin(), g_traced.end(), [&](const Traced &a, const Traced &b) { return key(a) < key(b); });
  double shared = 0, shared_fewest = 0, global = 0, global_fewest = 0;
  for (size_t i = 0, end; i < g_traced.size(); i = end) {
    for (end = i; end < g_traced.size() && key(g_traced[end]) == key(g_traced[i]); ++end)
      ;
    if (in_shared(g_traced[i].at)) {
      shared += passes(&g_traced[i], end - i);
      shared_fewest += fewest_passes(&g_traced[i], end - i);
    } else {
      sectors(&g_traced[i], end - i, global, global_fewest);
    }
  }
  if (FILE *file = fopen(getenv("KILN_SHIM_TRACE") ? getenv("KILN_SHIM_TRACE") : "/dev/null", "a")) {
    fprintf(file, "%s shared %.0f %.0f global %.0f %.0f races %zu\n", kernel, shared, shared_fewest, global, global_fewest, race);
    fclose(file);
  }
  g_traced.clear();
}

} // namespace kiln_shim

extern "C" {
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
