#include "runtime/prefault.h"

#include <csignal>
#include <sys/mman.h>

namespace kiln::rt {
namespace {

// Linux maps the 16 pages around the one that is touched, if they are in memory.
constexpr uint64_t kFaultAround = 65536;
constexpr uint64_t kWorthThread = uint64_t{8} << 20;
constexpr uint64_t kBlock = uint64_t{2} << 20; // a huge page
constexpr uint64_t kAhead = 2 * kBlock;

} // namespace

Prefault::Prefault(const MappedFile &file) : data_(file.data), size_(file.size) {
  if (data_ == nullptr)
    return;
  if (size_ < kWorthThread) {
    touch_all(this);
    return;
  }
  // Files that have yet to be read come into memory in huge pages. Failing changes nothing.
  madvise(const_cast<uint8_t *>(data_), size_, MADV_HUGEPAGE);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  has_thread_ = start_thread(&thread_, touch_all, this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Prefault::~Prefault() {
  __atomic_store_n(&stops_, true, __ATOMIC_RELAXED);
  if (has_thread_)
    join_thread(&thread_);
}

void Prefault::reach(uint64_t end) {
  if (has_thread_)
    while (__atomic_load_n(&taken_, __ATOMIC_RELAXED) < end + kAhead && touch_next()) {
    }
}

// Touches a block that nobody else does; false where there is none.
bool Prefault::touch_next() {
  uint64_t at = __atomic_fetch_add(&taken_, kBlock, __ATOMIC_RELAXED);
  if (at >= size_)
    return false;
  uint64_t end = size_ - at < kBlock ? size_ : at + kBlock;
  for (; at < end; at += kFaultAround)
    static_cast<void>(*const_cast<const volatile uint8_t *>(data_ + at));
  return true;
}

void *Prefault::touch_all(void *self) {
  auto *prefault = static_cast<Prefault *>(self);
  while (!__atomic_load_n(&prefault->stops_, __ATOMIC_RELAXED) && prefault->touch_next()) {
  }
  return nullptr;
}

} // namespace kiln::rt
