// Static memory: offsets in one arena from lifetimes.
//
// Where every size is a number, buffers are placed largest first at the lowest offset that is free
// during their life (greedy by size; Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
// Inference", 2020). Where sizes are symbolic, buffers share slots in order of definition: a slot is as
// large as the largest that uses it, and slots lie one after the other, so that all offsets are
// expressions that plan() evaluates before the first run.
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

void place_symbolic(Plan &plan, std::vector<int> &arena) {
  struct Slot {
    Dim size;
    std::vector<int> users;
  };
  std::stable_sort(arena.begin(), arena.end(), [&](int a, int b) {
    return plan.buffers[size_t(a)].first_step < plan.buffers[size_t(b)].first_step;
  });
  DimRanges ranges;
  for (Symbol s : plan.dims)
    ranges.set(s, {Dim(1), std::nullopt});
  std::vector<Slot> slots;
  for (int b : arena) {
    const PlanBuffer &buffer = plan.buffers[size_t(b)];
    Dim size = padded(buffer.size);
    Slot *chosen = nullptr;
    int best = -1;
    for (Slot &slot : slots) {
      bool is_free = std::none_of(slot.users.begin(), slot.users.end(),
                               [&](int u) { return overlaps(plan.buffers[size_t(u)], buffer); });
      if (!is_free)
        continue;
      // Best a slot of the same size, then one that is large enough, then one that can grow.
      int rank = slot.size == size                               ? 3
                 : known_nonnegative(slot.size - size, ranges) ? 2
                 : known_nonnegative(size - slot.size, ranges) ? 1
                                                               : 0;
      if (rank > best) {
        best = rank;
        chosen = &slot;
      }
    }
    if (best <= 0) {
      slots.push_back({size, {}});
      chosen = &slots.back();
    } else if (best < 3) {
      // Dims are taken to be 1 at least for the choice, and may be 0.
      chosen->size = known_nonnegative(chosen->size - size, DimRanges())   ? chosen->size
                     : known_nonnegative(size - chosen->size, DimRanges()) ? size
                                                                                  : max(chosen->size, size);
    }
    chosen->users.push_back(b);
  }
  Dim offset = 0;
  for (const Slot &slot : slots) {
    for (int u : slot.users)
      plan.buffers[size_t(u)].offset = offset;
    offset += slot.size;
  }
  plan.arena_size = offset;
}

} // namespace

void plan_memory(Plan &plan, const std::vector<int> &parents) {
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
    place_symbolic(plan, arena);
}

} // namespace kiln
