// Starts and joins the threads of a pool.
//
// pthread_create alone adds 86 KB to a static program on glibc (it brings the unwinder), more than
// the whole runtime. So the reference to it is weak: a program that has threads anyway, and any
// that is linked dynamically, gets ordinary ones; a static program without them gets bare ones from
// clone(). Those run compiled code and futex calls only, nothing of libc that would need
// thread-local data of its own.
#pragma once

#include <cstdint>
#include <pthread.h>

namespace kiln::rt {

struct Thread {
  pthread_t ordinary;
  void *stack; // of a bare thread; null for an ordinary one
  int32_t id;  // of a bare thread; the kernel sets it to 0 when the thread has ended
};

// `thread` stays where it is until it is joined. False where the system gives no more threads.
bool start_thread(Thread *thread, void *(*function)(void *), void *argument);
void join_thread(Thread *thread);

} // namespace kiln::rt
