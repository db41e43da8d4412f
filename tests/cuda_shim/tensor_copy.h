// Boxes of tensors that the device copies to shared memory by itself, and the barriers that say when they are there (mbarrier,
// cp.async.bulk.tensor), on the CPU:
//
//   * a copy is done when no thread of the block can go on without it, the oldest one first in one block and the newest one
//     in the next; from the moment that it is asked for until then no number stands at its place;
//   * a barrier's turn is over when as many threads have arrived as it waits for and every byte that was told has come; what
//     comes untold, arrives too often, or never comes stops the program;
//   * elements outside of the tensor are 0 and are counted like the others; places are swizzled by the bits of the address.
#pragma once

#include "tests/cuda_shim/tensor_map.h"

struct alignas(16) kiln_tensor_map {
  unsigned char bytes[128];
};

namespace kiln_shim {

// What stands in a barrier's 8 bytes.
struct Ring {
  uint8_t arrivals, left, turn, mark; // turn: how many are over
  int32_t bytes; // that are told and have not come
};
static_assert(sizeof(Ring) == 8);
constexpr uint8_t kRingMark = 0xb7;

struct BoxCopy {
  unsigned char *to;
  EncodedMap map;
  Ring *ring;
  int at[5];
};
constexpr unsigned kMostBoxes = 256; // under way
inline BoxCopy g_boxes[kMostBoxes];
inline unsigned g_box_count;
inline Ring *g_ring_of[kMaxThreads]; // that a thread waits for
inline uint8_t g_parity_of[kMaxThreads];
inline bool g_rings_made;

inline void begin_boxes() {
  g_box_count = 0;
  g_rings_made = false;
}
inline void end_boxes() {
  if (g_box_count > 0)
    stop("a block ends while copies of tensors are under way");
}

inline Ring &ring_of(uint64_t *barrier) {
  auto *ring = reinterpret_cast<Ring *>(barrier);
  if (!is_shared(barrier) || reinterpret_cast<uintptr_t>(barrier) % 8 != 0 || ring->mark != kRingMark)
    stop("a barrier in shared memory that was not made");
  return *ring;
}
inline void settle(Ring &ring) {
  if (ring.left != 0 || ring.bytes != 0)
    return;
  ring.left = ring.arrivals;
  ++ring.turn;
  for (unsigned t = 0; t < kMaxThreads; ++t)
    if (g_ring_of[t] == &ring && ring.turn % 2 != g_parity_of[t]) {
      g_ring_of[t] = nullptr;
      g_states[t] = State::ready;
    }
}
inline void arrive(uint64_t *barrier, int bytes) {
  Untraced own;
  Ring &ring = ring_of(barrier);
  if (ring.left == 0)
    stop("more threads arrive at a barrier than it waits for");
  --ring.left;
  ring.bytes += bytes;
  settle(ring);
}

inline unsigned place_of_line(unsigned at, unsigned width) { return width == 0 ? at : at ^ ((at >> 7 & (width / 16 - 1)) << 4); }

// For threads and for products; nothing is 0.
inline void put(unsigned to, unsigned bytes, const void *from) {
  unsigned char zeros[4] = {};
  memcpy(g_dynamic + to, from ? from : zeros, bytes);
  memcpy(g_seen + to, from ? from : zeros, bytes);
}

inline void run_box(const BoxCopy &copy) {
  const EncodedMap &m = copy.map;
  unsigned total = 1;
  for (unsigned axis = 0; axis < m.rank; ++axis)
    total *= m.box[axis];
  unsigned begin = unsigned(copy.to - g_dynamic) + kSharedBegin;
  for (unsigned i = 0; i < total; ++i) {
    bool inside = true;
    uint64_t from = m.base;
    for (unsigned axis = 0, rest = i; axis < m.rank; rest /= m.box[axis++]) {
      int64_t at = copy.at[axis] + int64_t(rest % m.box[axis]);
      inside &= at >= 0 && at <= int64_t(m.sizes[axis]);
      from += uint64_t(at) * (axis == 0 ? m.element : m.strides[axis - 1]);
    }
    unsigned to = place_of_line(begin + i * m.element, m.swizzle) - kSharedBegin;
    put(to, m.element, inside ? reinterpret_cast<const void *>(from) : nullptr);
  }
  copy.ring->bytes -= int(total * m.element);
  if (copy.ring->bytes < 0)
    stop("more bytes come to a barrier than it was told of");
  settle(*copy.ring);
}

// Whether some copy was left to do.
inline bool do_some_box() {
  Untraced own;
  if (g_box_count == 0)
    return false;
  unsigned at = g_block.x % 2 == 0 ? 0 : g_box_count - 1;
  BoxCopy copy = g_boxes[at];
  --g_box_count;
  memmove(g_boxes + at, g_boxes + at + 1, (g_box_count - at) * sizeof(BoxCopy));
  run_box(copy);
  return true;
}

template <typename... At>
inline void copy_box(void *to, const kiln_tensor_map &map, uint64_t *barrier, At... at) {
  Untraced own;
  BoxCopy copy{static_cast<unsigned char *>(to), {}, &ring_of(barrier), {int(at)...}};
  memcpy(&copy.map, map.bytes, sizeof copy.map);
  if (copy.map.mark != kMapMark || copy.map.rank != sizeof...(At))
    stop("a tensor map that no driver made, or of another rank");
  if (!g_rings_made)
    stop("a copy of a tensor before barriers are made known");
  unsigned bytes = copy.map.element;
  for (unsigned axis = 0; axis < copy.map.rank; ++axis)
    bytes *= copy.map.box[axis];
  if (!is_shared(to) || !is_shared(copy.to + bytes - 1) || (copy.to - g_dynamic) % 128 != 0)
    stop("a copy of a tensor to what is not shared memory, or no multiple of 128 bytes");
  // Whole pieces of the swizzle's pattern, wherever in it the box begins.
  size_t first = size_t(copy.to - g_dynamic) / 1024 * 1024, end = size_t(copy.to - g_dynamic) + bytes;
  if (first != size_t(copy.to - g_dynamic) && copy.map.swizzle == 128)
    stop("a swizzled copy of a tensor to no multiple of 1024 bytes");
  memset(g_dynamic + first, 0xff, end - first);
  memset(g_seen + first, 0xff, end - first);
  if (g_box_count == kMostBoxes)
    stop("more copies of tensors are under way than stages have room for");
  g_boxes[g_box_count++] = copy;
}

} // namespace kiln_shim

inline void kiln_ring_init(uint64_t *barrier, int arrivals) {
  kiln_shim::Untraced own;
  *reinterpret_cast<kiln_shim::Ring *>(barrier) = {uint8_t(arrivals), uint8_t(arrivals), 0, kiln_shim::kRingMark, 0};
}
inline void kiln_ring_made() { kiln_shim::g_rings_made = true; }
inline void kiln_ring_arrive(uint64_t *barrier, bool when) {
  if (when)
    kiln_shim::arrive(barrier, 0);
}
template <int kCount>
inline void kiln_more_registers() {}
template <int kCount>
inline void kiln_fewer_registers() {}
inline void kiln_ring_expect(uint64_t *barrier, int bytes) { kiln_shim::arrive(barrier, bytes); }
inline void kiln_ring_wait(uint64_t *barrier, int parity) {
  {
    kiln_shim::Untraced own;
    kiln_shim::Ring &ring = kiln_shim::ring_of(barrier);
    // A turn of that parity is over: the one that runs has the other one.
    if (ring.turn % 2 != parity)
      return;
    kiln_shim::g_ring_of[kiln_shim::g_current] = &ring;
    kiln_shim::g_parity_of[kiln_shim::g_current] = uint8_t(parity);
  }
  kiln_shim::wait(kiln_shim::State::at_ring);
}
template <typename... At>
inline void kiln_copy_box(void *to, const kiln_tensor_map &map, uint64_t *barrier, At... at) {
  kiln_shim::copy_box(to, map, barrier, at...);
}
