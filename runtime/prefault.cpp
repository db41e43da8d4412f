#include "runtime/prefault.h"

#include <csignal>

namespace kiln::rt {
namespace {

// Linux maps the 16 pages around the one that is touched, if they are in memory.
constexpr uint64_t kFaultAround = 65536;
constexpr uint64_t kWorthThread = uint64_t{8} << 20;

} // namespace

Prefault::Prefault(const MappedFile &file) : data_(file.data), size_(file.size) {
  if (data_ == nullptr)
    return;
  if (size_ < kWorthThread) {
    touch_all(this);
    return;
  }
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

void *Prefault::touch_all(void *self) {
  auto *prefault = static_cast<Prefault *>(self);
  uint8_t sum = 0;
  for (uint64_t at = 0; at < prefault->size_; at += kFaultAround) {
    if (__atomic_load_n(&prefault->stops_, __ATOMIC_RELAXED))
      break;
    sum = static_cast<uint8_t>(sum + *const_cast<const volatile uint8_t *>(prefault->data_ + at));
  }
  return nullptr;
}

} // namespace kiln::rt
