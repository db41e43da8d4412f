#include "ir/kernel/scratch.h"

#include "ir/support/check.h"

#include <algorithm>

namespace kiln {
namespace {

constexpr int64_t kStackBytes = 16 << 10;
constexpr int64_t kSmallBytes = 1 << 10;
constexpr int64_t kMostBytes = int64_t(1) << 32;

int64_t alloc_bytes(const Stmt &s) {
  int64_t bytes = 0;
  bool fits = !__builtin_mul_overflow(s.size, int64_t(dtype_bytes(s.dtype)) * s.lanes, &bytes) &&
              bytes <= kMostBytes;
  KILN_CHECK(fits, "an alloc of more than 4 GiB");
  return (bytes + 63) / 64 * 64;
}

// Gives every alloc of `least` bytes and more a place above `at`; returns the end of the highest.
int64_t place(const std::vector<Stmt> &body, int64_t at, int64_t least, ScratchLayout &layout) {
  int64_t end = at;
  for (const Stmt &s : body) {
    if (s.is(Stmt::Kind::alloc) && s.space == MemorySpace::stack && alloc_bytes(s) >= least) {
      layout.offsets[&s] = at;
      at += alloc_bytes(s);
    }
    end = std::max({end, at, place(s.body, at, least, layout), place(s.other, at, least, layout)});
  }
  return end;
}

} // namespace

bool ScratchLayout::holds_any(const std::vector<Stmt> &body) const {
  return std::any_of(body.begin(), body.end(), [&](const Stmt &s) {
    return offsets.contains(&s) || holds_any(s.body) || holds_any(s.other);
  });
}

ScratchLayout scratch_layout(const Kernel &kernel) {
  ScratchLayout all, large;
  if (place(kernel.body, 0, 0, all) < kStackBytes)
    return {};
  large.size = place(kernel.body, 0, kSmallBytes, large);
  return large;
}

} // namespace kiln
