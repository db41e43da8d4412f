// Puts the accesses of a kernel's first block (tests/cuda_shim/trace.h) together to warps' instructions, and counts.
#include "tests/fake_driver/accesses.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <tuple>
#include <vector>

namespace kiln_shim {
namespace {

struct Range {
  uintptr_t begin = 0, end = 0;
  bool has(uintptr_t at) const { return at >= begin && at < end; }
};

// Passes over the banks: lanes go together as far as they ask for 128 bytes.
unsigned passes(const Traced *lanes, size_t count) {
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
unsigned fewest_passes(const Traced *lanes, size_t count) {
  unsigned width = std::max(lanes[0].bytes, 4u), together = std::max(128 / width, 1u), out = 0;
  for (unsigned first = 0; first < 32; first += together)
    out += std::any_of(lanes, lanes + count, [&](const Traced &t) { return t.thread % 32 >= first && t.thread % 32 < first + together; });
  return out;
}
void sectors(const Traced *lanes, size_t count, double &touched, double &fewest) {
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
size_t races(std::span<const Traced> traced, const Range &shared_memory) {
  struct Use {
    unsigned epoch;
    uintptr_t word;
    unsigned warp;
    bool is_write;
  };
  std::vector<Use> uses;
  uintptr_t unit = std::any_of(traced.begin(), traced.end(), [&](const Traced &t) { return shared_memory.has(t.at) && t.is_write && t.bytes < 4; }) ? 1 : 4;
  for (const Traced &t : traced)
    if (shared_memory.has(t.at))
      for (uintptr_t w = t.at / unit; w <= (t.at + t.bytes - 1) / unit; ++w)
        uses.push_back({t.epoch, w, t.thread / 32, t.is_write});
  std::sort(uses.begin(), uses.end(), [](const Use &a, const Use &b) { return a.epoch != b.epoch ? a.epoch < b.epoch : a.word < b.word; });
  size_t out = 0;
  for (size_t i = 0, end; i < uses.size(); i = end) {
    bool written = false, is_shared = false;
    for (end = i; end < uses.size() && uses[end].epoch == uses[i].epoch && uses[end].word == uses[i].word; ++end) {
      written |= uses[end].is_write;
      is_shared |= uses[end].warp != uses[i].warp;
    }
    out += written && is_shared;
  }
  return out;
}

} // namespace

void analyse(const char *kernel, Traced *accesses, size_t count, uintptr_t shared_begin, size_t shared_bytes) {
  std::vector<Traced> traced(accesses, accesses + count);
  Range shared_memory{shared_begin, shared_begin + shared_bytes};
  size_t race = races(traced, shared_memory);
  traced.erase(std::remove_if(traced.begin(), traced.end(), [](const Traced &t) { return t.is_product; }), traced.end());
  // The nth time that a thread comes by a place since the last barrier.
  auto order = [](const Traced &a, const Traced &b) {
    if (a.thread != b.thread)
      return a.thread < b.thread;
    return a.code != b.code ? a.code < b.code : a.epoch < b.epoch;
  };
  std::stable_sort(traced.begin(), traced.end(), order);
  for (size_t i = 1; i < traced.size(); ++i)
    if (!order(traced[i - 1], traced[i]))
      traced[i].turn = traced[i - 1].turn + 1;
  auto key = [](const Traced &t) { return std::make_tuple(t.thread / 32, t.code, t.epoch, t.turn); };
  std::stable_sort(traced.begin(), traced.end(), [&](const Traced &a, const Traced &b) { return key(a) < key(b); });
  double shared = 0, shared_fewest = 0, global = 0, global_fewest = 0;
  for (size_t i = 0, end; i < traced.size(); i = end) {
    for (end = i; end < traced.size() && key(traced[end]) == key(traced[i]); ++end)
      ;
    if (shared_memory.has(traced[i].at)) {
      shared += passes(&traced[i], end - i);
      shared_fewest += fewest_passes(&traced[i], end - i);
    } else {
      sectors(&traced[i], end - i, global, global_fewest);
    }
  }
  if (FILE *file = fopen(getenv("KILN_SHIM_TRACE") ? getenv("KILN_SHIM_TRACE") : "/dev/null", "a")) {
    fprintf(file, "%s shared %.0f %.0f global %.0f %.0f races %zu\n", kernel, shared, shared_fewest, global, global_fewest, race);
    fclose(file);
  }
}

} // namespace kiln_shim
