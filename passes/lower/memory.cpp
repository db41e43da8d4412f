// Static memory: offsets in one arena from lifetimes.
//
// Where every size is a number, buffers are placed largest first at the lowest offset that is free
// during their life (greedy by size; Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
// Inference", 2020). Where sizes are symbolic, buffers share slots, chosen by what sizes usually are: a slot
// is as large as the largest that uses it, whatever the sizes of a run, and slots lie one after the other, so
// that all offsets are expressions that plan() evaluates before the first run.
#include "passes/graph/typical.h"
#include "passes/lower/plan_builder.h"

#include "runtime/entry_abi.h"

#include <algorithm>
#include <numeric>

namespace kiln {
namespace {

constexpr int64_t kAlign = KILN_ALIGNMENT;

// With the slack that lets kernels read whole vectors past the end.
int64_t padded(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign + kAlign; }
Dim padded(const Dim &bytes) { return ceildiv(bytes, kAlign) * Dim(kAlign) + Dim(kAlign); }

bool overlaps(const PlanBuffer &a, const PlanBuffer &b) {
  return a.first_step <= b.last_step && b.first_step <= a.last_step;
}

void place_static(Plan &plan, std::vector<int> &arena) {
  std::stable_sort(arena.begin(), arena.end(), [&](int a, int b) {
    return plan.buffers[size_t(a)].size.as_const() > plan.buffers[size_t(b)].size.as_const();
  });
  std::vector<int> placed; // by offset
  int64_t total = 0;
  for (int b : arena) {
    PlanBuffer &buffer = plan.buffers[size_t(b)];
    int64_t size = padded(buffer.size.as_const()), best = -1, best_gap = INT64_MAX, end = 0;
    for (int p : placed) {
      const PlanBuffer &other = plan.buffers[size_t(p)];
      if (!overlaps(buffer, other))
        continue;
      int64_t offset = other.offset.as_const(), gap = offset - end;
      if (gap >= size && gap < best_gap) {
        best = end;
        best_gap = gap;
      }
      end = std::max(end, offset + padded(other.size.as_const()));
    }
    int64_t offset = best >= 0 ? best : end;
    buffer.offset = offset;
    total = std::max(total, offset + size);
    auto at = std::upper_bound(placed.begin(), placed.end(), offset, [&](int64_t o, int p) {
      return o < plan.buffers[size_t(p)].offset.as_const();
    });
    placed.insert(at, b);
  }
  plan.arena_size = total;
}

// Which of some buffers a slot is made for depends on the sizes of a run; one that is never the largest does
// not count.
void grow(std::vector<Dim> &sizes, const Dim &size) {
  DimRanges any; // dims may be 0
  for (const Dim &s : sizes)
    if (known_nonnegative(s - size, any))
      return;
  std::erase_if(sizes, [&](const Dim &s) { return known_nonnegative(size - s, any); });
  sizes.push_back(size);
}

void place_symbolic(Plan &plan, std::vector<int> &arena, const TypicalSizes &typical) {
  struct Slot {
    std::vector<Dim> sizes;
    std::vector<int> users;
  };
  std::vector<int64_t> usual(plan.buffers.size());
  for (int b : arena)
    usual[size_t(b)] = typical.of(plan.buffers[size_t(b)].size);
  std::stable_sort(arena.begin(), arena.end(), [&](int a, int b) { return usual[size_t(a)] > usual[size_t(b)]; });
  std::vector<Slot> slots; // the largest first
  for (int b : arena) {
    const PlanBuffer &buffer = plan.buffers[size_t(b)];
    auto is_free = [&](const Slot &slot) {
      return std::none_of(slot.users.begin(), slot.users.end(),
                          [&](int u) { return overlaps(plan.buffers[size_t(u)], buffer); });
    };
    auto slot = std::find_if(slots.rbegin(), slots.rend(), is_free);
    if (slot == slots.rend()) {
      slots.emplace_back();
      slot = slots.rbegin();
    }
    grow(slot->sizes, padded(buffer.size));
    slot->users.push_back(b);
  }
  Dim offset = 0;
  for (const Slot &slot : slots) {
    for (int u : slot.users)
      plan.buffers[size_t(u)].offset = offset;
    Dim size = slot.sizes[0];
    for (const Dim &s : slot.sizes)
      size = max(size, s);
    offset += size;
  }
  plan.arena_size = offset;
}

} // namespace

void plan_memory(Plan &plan, const std::vector<int> &parents, const Module &module) {
  std::vector<int> arena;
  bool fixed = true;
  for (size_t b = 0; b < plan.buffers.size(); ++b) {
    const PlanBuffer &buffer = plan.buffers[b];
    if (buffer.kind != PlanBuffer::Kind::arena || parents[b] >= 0)
      continue;
    arena.push_back(int(b));
    fixed = fixed && buffer.size.is_const();
  }
  plan.arena_size = 0;
  if (arena.empty())
    return;
  if (fixed)
    place_static(plan, arena);
  else
    place_symbolic(plan, arena, TypicalSizes(module));
}

} // namespace kiln
