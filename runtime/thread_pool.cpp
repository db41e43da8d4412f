// See thread_pool.h. Sleeping is on futexes, which cost nothing where nobody sleeps.
#include "runtime/thread_pool.h"

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <linux/futex.h>
#include <new>
#include <sys/syscall.h>

#include "runtime/errors.h"
#include "runtime/thread.h"

namespace kiln::rt {
namespace {

constexpr uint32_t kMaxThreads = 1024;
constexpr int64_t kSpinNanoseconds = 30000;

void pause_briefly() {
#if defined(__x86_64__)
  __asm__ volatile("pause");
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

int64_t now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return int64_t{time.tv_sec} * 1000000000 + time.tv_nsec;
}

// Waits while `word` holds `value`, for a while by looking again and again. True once it differs.
bool spin_while(const std::atomic<uint32_t> &word, uint32_t value) {
  for (int64_t end = now() + kSpinNanoseconds; now() < end;)
    for (uint32_t i = 0; i < 32; ++i, pause_briefly())
      if (word.load(std::memory_order_acquire) != value)
        return true;
  return false;
}

// Not libc's syscall(), which writes errno: a bare thread has none of its own (see thread.h).
void futex(std::atomic<uint32_t> &word, int64_t operation, int64_t value) {
#if defined(__x86_64__)
  int64_t result;
  register int64_t timeout __asm__("r10") = 0;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(int64_t{SYS_futex}), "D"(&word), "S"(operation), "d"(value), "r"(timeout)
                   : "rcx", "r11", "memory");
#elif defined(__aarch64__)
  register int64_t number __asm__("x8") = SYS_futex;
  register void *address __asm__("x0") = &word;
  register int64_t x1 __asm__("x1") = operation;
  register int64_t x2 __asm__("x2") = value;
  register int64_t timeout __asm__("x3") = 0;
  __asm__ volatile("svc 0"
                   : "+r"(address)
                   : "r"(number), "r"(x1), "r"(x2), "r"(timeout)
                   : "memory");
#endif
}

void sleep_while(std::atomic<uint32_t> &word, uint32_t value) {
  futex(word, FUTEX_WAIT_PRIVATE, value);
}

void wake(std::atomic<uint32_t> &word, uint32_t count) {
  futex(word, FUTEX_WAKE_PRIVATE, count);
}

using Body = void (*)(void *closure, int64_t begin, int64_t end);

} // namespace
} // namespace kiln::rt

// One loop runs at a time; `round` counts them. `ticket` is the round and the next part to take, in
// one word, so that a thread that comes late cannot take a part of a loop it has not read: the
// loop's description changes only when all its parts are done, and taking a part fails if the round
// has moved on.
struct KilnPool {
  std::atomic<uint64_t> ticket{0};  // round << 32 | next part
  std::atomic<uint32_t> round{0};   // what idle threads watch
  std::atomic<uint32_t> pending{0}; // parts not done yet; what the caller watches
  std::atomic<uint32_t> sleepers{0};
  std::atomic<bool> caller_sleeps{false};
  std::atomic<bool> is_busy{false};
  std::atomic<bool> is_closing{false};

  std::atomic<kiln::rt::Body> body{nullptr};
  std::atomic<void *> closure{nullptr};
  std::atomic<int64_t> n{0};
  std::atomic<uint32_t> parts{0};

  uint32_t threads = 1; // with the caller
  uint32_t started = 0;
  KilnExecutor executor{};
  kiln::rt::Thread workers[1]; // as many as `threads - 1`
};

namespace kiln::rt {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

int64_t boundary(int64_t n, uint32_t part, uint32_t parts) {
  int64_t each = n / parts, more = n % parts;
  return each * part + (part < more ? part : more);
}

// Takes parts of the current loop until none is left; returns the round it last saw.
uint32_t work(KilnPool *pool) {
  for (;;) {
    uint64_t ticket = pool->ticket.load(std::memory_order_acquire);
    auto part = static_cast<uint32_t>(ticket);
    Body body = pool->body.load(kRelaxed);
    void *closure = pool->closure.load(kRelaxed);
    int64_t n = pool->n.load(kRelaxed);
    uint32_t parts = pool->parts.load(kRelaxed);
    // The loads above must not sink below the exchange that proves them current.
    std::atomic_thread_fence(std::memory_order_acquire);
    if (part >= parts)
      return static_cast<uint32_t>(ticket >> 32);
    if (!pool->ticket.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel))
      continue;
    body(closure, boundary(n, part, parts), boundary(n, part + 1, parts));
    if (pool->pending.fetch_sub(1) == 1 && pool->caller_sleeps.load())
      wake(pool->pending, 1);
  }
}

void *work_until_closed(void *argument) {
  auto *pool = static_cast<KilnPool *>(argument);
  for (;;) {
    uint32_t seen = work(pool);
    if (!spin_while(pool->round, seen)) {
      pool->sleepers.fetch_add(1);
      while (pool->round.load() == seen)
        sleep_while(pool->round, seen);
      pool->sleepers.fetch_sub(1);
    }
    if (pool->is_closing.load(std::memory_order_acquire))
      return nullptr;
  }
}

void announce(KilnPool *pool, uint32_t wanted) {
  pool->round.fetch_add(1);
  if (pool->sleepers.load() != 0)
    wake(pool->round, wanted);
}

void wait_for_parts(KilnPool *pool) {
  for (;;) {
    uint32_t pending = pool->pending.load(std::memory_order_acquire);
    if (pending == 0)
      return;
    if (spin_while(pool->pending, pending))
      continue;
    pool->caller_sleeps.store(true);
    pending = pool->pending.load();
    if (pending != 0)
      sleep_while(pool->pending, pending);
    pool->caller_sleeps.store(false);
  }
}

void parallel_for(void *self, int64_t n, Body body, void *closure) {
  auto *pool = static_cast<KilnPool *>(self);
  auto parts = static_cast<uint32_t>(n < pool->threads ? (n < 0 ? 0 : n) : pool->threads);
  if (parts < 2 || pool->is_busy.exchange(true, std::memory_order_acquire)) {
    if (n > 0)
      body(closure, 0, n);
    return;
  }
  pool->body.store(body, kRelaxed);
  pool->closure.store(closure, kRelaxed);
  pool->n.store(n, kRelaxed);
  pool->parts.store(parts, kRelaxed);
  pool->pending.store(parts, kRelaxed);
  uint64_t round = pool->round.load(kRelaxed) + uint32_t{1};
  pool->ticket.store((round & UINT32_MAX) << 32, std::memory_order_release);
  announce(pool, parts - 1);
  work(pool);
  wait_for_parts(pool);
  pool->is_busy.store(false, std::memory_order_release);
}

// Signals are for the program's own threads.
bool start_workers(KilnPool *pool) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool is_fine = true;
  while (is_fine && pool->started + 1 < pool->threads) {
    is_fine = start_thread(&pool->workers[pool->started], work_until_closed, pool);
    pool->started += is_fine ? 1 : 0;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return is_fine;
}

} // namespace

int32_t pool_create(uint32_t threads, KilnPool **pool, KilnError *error) {
  if (pool == nullptr)
    return fail(error, KILN_ERROR_USAGE, "pool_create: null pointer");
  *pool = nullptr;
  if (threads == 0 || threads > kMaxThreads)
    return fail(error, KILN_ERROR_USAGE, "pool_create: ", threads, " threads; from 1 to ",
                kMaxThreads, " are possible");
  void *memory = std::malloc(sizeof(KilnPool) + threads * sizeof(Thread));
  if (memory == nullptr)
    return fail(error, KILN_ERROR_MEMORY, "out of memory");
  auto *made = ::new (memory) KilnPool();
  made->threads = threads;
  made->executor = {threads, 0, made, parallel_for};
  if (!start_workers(made)) {
    uint32_t started = made->started;
    pool_destroy(made);
    return fail(error, KILN_ERROR_MEMORY, "the system gives no more than ", started + 1, " of ",
                threads, " threads");
  }
  *pool = made;
  return KILN_OK;
}

const KilnExecutor *pool_executor(KilnPool *pool) {
  return pool != nullptr ? &pool->executor : nullptr;
}

void pool_destroy(KilnPool *pool) {
  if (pool == nullptr)
    return;
  pool->is_closing.store(true, std::memory_order_release);
  announce(pool, pool->threads);
  for (uint32_t i = 0; i < pool->started; ++i)
    join_thread(&pool->workers[i]);
  std::free(pool);
}

} // namespace kiln::rt
