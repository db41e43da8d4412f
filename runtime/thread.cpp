// See thread.h. Bare threads share the thread-local data of the program's only ordinary thread,
// which they never write.
#include "runtime/thread.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#pragma weak pthread_create

namespace kiln::rt {
namespace {

constexpr size_t kStackSize = size_t{1} << 20; // touched pages only count
constexpr size_t kGuardSize = size_t{1} << 16;

struct Start {
  void *(*function)(void *);
  void *argument;
};

int run_bare(void *argument) {
  auto *start = static_cast<Start *>(argument);
  start->function(start->argument);
  return 0;
}

bool start_bare(Thread *thread, void *(*function)(void *), void *argument) {
  void *memory = mmap(nullptr, kGuardSize + kStackSize, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED)
    return false;
  thread->stack = memory;
  mprotect(memory, kGuardSize, PROT_NONE);
  // What the thread starts with lies at the top of its own stack.
  auto *top = static_cast<uint8_t *>(memory) + kGuardSize + kStackSize - 64;
  auto *start = reinterpret_cast<Start *>(top);
  *start = {function, argument};
  constexpr int kFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                         CLONE_SYSVSEM | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
  if (clone(run_bare, top, kFlags, start, &thread->id, nullptr, &thread->id) >= 0)
    return true;
  munmap(memory, kGuardSize + kStackSize);
  return false;
}

} // namespace

bool start_thread(Thread *thread, void *(*function)(void *), void *argument) {
  *thread = Thread();
  if (pthread_create != nullptr)
    return pthread_create(&thread->ordinary, nullptr, function, argument) == 0;
  return start_bare(thread, function, argument);
}

void join_thread(Thread *thread) {
  if (thread->stack == nullptr) {
    pthread_join(thread->ordinary, nullptr);
    return;
  }
  for (;;) {
    int32_t id = __atomic_load_n(&thread->id, __ATOMIC_ACQUIRE);
    if (id == 0)
      break;
    syscall(SYS_futex, &thread->id, FUTEX_WAIT, id, nullptr, nullptr, 0);
  }
  munmap(thread->stack, kGuardSize + kStackSize);
}

} // namespace kiln::rt
