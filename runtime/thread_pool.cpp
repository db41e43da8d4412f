// See thread_pool.h. Sleeping is on futexes, which cost nothing where nobody sleeps.
#include "runtime/thread_pool.h"

#include <atomic>
#include <csignal>
#include <cstdint>
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
constexpr int64_t kSpinNanoseconds = 100000;
// Of measuring what a hand-over costs: how long to wait for answers, and for all rounds. Where threads do not answer in time,
// something else has their cores for the moment, which says nothing of the host.
constexpr int64_t kLongestAnswer = 20000, kLongestMeasure = 20000;
constexpr uint32_t kMeasureRounds = 16, kLeastAnswers = 4, kMeasureAttempts = 4;
// Loops and runs from one time to the next; where it seems dear, whether it still is matters more.
constexpr uint32_t kMeasureEvery = 1 << 16, kMeasureDearEvery = 1 << 7;
// What is below is cheap; what is not has to be so for a while, in every measurement, before it counts, and counts as no
// more than what cores without a common cache take.
constexpr int64_t kCheap = 200, kDearFor = 10000000, kDearest = 1000;

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

// One loop runs at a time. Each part but the caller's has a slot, on a cache line of its own: what to do
// and a state, round << 2 | Phase. The caller opens slots; who takes one, the slot's worker or the
// caller, changes open to taken, which cannot succeed once the round has moved on: a loop ends only
// when all its parts were taken. So whatever was read of an open slot before taking it is of its round.
struct alignas(64) KilnPoolSlot {
  std::atomic<uint32_t> state{0};
  std::atomic<uint32_t> sleeps{0}; // the worker does
  std::atomic<kiln::rt::Body> body{nullptr};
  std::atomic<void *> closure{nullptr};
  std::atomic<int64_t> begin{0}, end{0};
  KilnPool *pool = nullptr;
  kiln::rt::Thread worker; // part i + 1 is that of slots[i]
};

struct alignas(64) KilnPool {
  std::atomic<bool> is_busy{false};
  std::atomic<bool> is_closing{false};
  std::atomic<uint32_t> caller_sleeps{0};
  std::atomic<int32_t> hand_over{0}; // nanoseconds; 0: not measured yet
  uint32_t until_measure = 0;         // loops
  uint32_t attempts = 0;              // to measure, that failed
  int64_t dear_since = 0;             // by the clock; 0: it is cheap
  uint32_t round = 0;
  uint32_t threads = 1; // with the caller
  uint32_t started = 0;
  KilnExecutor executor{};

  KilnPoolSlot *slots() { return reinterpret_cast<KilnPoolSlot *>(this + 1); } // threads - 1
};

namespace kiln::rt {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

enum Phase : uint32_t { kIdle = 0, kOpen = 1, kTaken = 2, kDone = 3 };
uint32_t phase(uint32_t state) { return state & 3; }

int64_t boundary(int64_t n, uint32_t part, uint32_t parts) {
  int64_t each = n / parts, more = n % parts;
  return each * part + (part < more ? part : more);
}

// Does the slot's part if nobody has taken it yet.
void try_part(KilnPoolSlot &slot) {
  uint32_t state = slot.state.load(std::memory_order_acquire);
  if (phase(state) != kOpen)
    return;
  Body body = slot.body.load(kRelaxed);
  void *closure = slot.closure.load(kRelaxed);
  int64_t begin = slot.begin.load(kRelaxed), end = slot.end.load(kRelaxed);
  // The loads above must not sink below the exchange that proves them current.
  std::atomic_thread_fence(std::memory_order_acquire);
  if (!slot.state.compare_exchange_strong(state, state - kOpen + kTaken,
                                          std::memory_order_acq_rel))
    return;
  body(closure, begin, end);
  slot.state.store(state - kOpen + kDone);
  if (slot.pool->caller_sleeps.load() != 0)
    wake(slot.state, 1);
}

void *work_until_closed(void *argument) {
  auto &slot = *static_cast<KilnPoolSlot *>(argument);
  while (!slot.pool->is_closing.load(std::memory_order_acquire)) {
    uint32_t seen = slot.state.load(std::memory_order_acquire);
    if (phase(seen) == kOpen) {
      try_part(slot);
    } else if (!spin_while(slot.state, seen)) {
      slot.sleeps.store(1);
      while (slot.state.load() == seen)
        sleep_while(slot.state, seen);
      slot.sleeps.store(0);
    }
  }
  return nullptr;
}

// Sets a slot's state, and wakes its worker.
void announce(KilnPoolSlot &slot, uint32_t state) {
  slot.state.store(state);
  if (slot.sleeps.load() != 0)
    wake(slot.state, 1);
}

void wait_until_done(KilnPool *pool, KilnPoolSlot &slot, uint32_t taken) {
  if (slot.state.load(std::memory_order_acquire) != taken || spin_while(slot.state, taken))
    return;
  pool->caller_sleeps.store(1);
  while (slot.state.load() == taken)
    sleep_while(slot.state, taken);
  pool->caller_sleeps.store(0);
}

// One part for each worker, and none for the caller.
uint32_t open_slots(KilnPool *pool, Body body, void *closure) {
  uint32_t round = ++pool->round << 2;
  for (uint32_t i = 0; i + 1 < pool->threads; ++i) {
    KilnPoolSlot &slot = pool->slots()[i];
    slot.body.store(body, kRelaxed);
    slot.closure.store(closure, kRelaxed);
    announce(slot, round | kOpen);
  }
  return round;
}

void answer(void *closure, int64_t, int64_t) {
  static_cast<std::atomic<uint32_t> *>(closure)->fetch_add(1, std::memory_order_acq_rel);
}

// Nanoseconds until all workers have answered; -1 if that takes too long.
int64_t answer_time(KilnPool *pool) {
  std::atomic<uint32_t> answers{0};
  int64_t begin = now(), end = begin;
  uint32_t round = open_slots(pool, answer, &answers);
  bool is_late = false;
  while (answers.load(std::memory_order_acquire) + 1 < pool->threads && !is_late) {
    for (uint32_t i = 0; i < 16 && answers.load(std::memory_order_acquire) + 1 < pool->threads; ++i)
      pause_briefly();
    end = now();
    is_late = end - begin > kLongestAnswer;
  }
  end = now();
  for (uint32_t i = 0; i + 1 < pool->threads; ++i)
    try_part(pool->slots()[i]);
  for (uint32_t i = 0; i + 1 < pool->threads; ++i)
    wait_until_done(pool, pool->slots()[i], round | kTaken);
  return is_late ? -1 : end - begin;
}

// The median, since single answers may be quick on any host; without the first, for which workers may have to wake.
void measure_hand_over(KilnPool *pool) {
  int64_t times[kMeasureRounds];
  uint32_t count = 0;
  bool is_awake = answer_time(pool) >= 0;
  for (int64_t end = now() + kLongestMeasure; is_awake && count < kMeasureRounds && now() < end;) {
    int64_t time = answer_time(pool);
    if (time < 0)
      break;
    uint32_t at = count++;
    for (; at > 0 && times[at - 1] > time; --at)
      times[at] = times[at - 1];
    times[at] = time;
  }
  if (count < kLeastAnswers && ++pool->attempts < kMeasureAttempts)
    return; // they may be on their way up: once more before the next loop
  bool has_answers = count >= kLeastAnswers;
  pool->attempts = 0;
  int64_t median = has_answers ? times[(count - 1) / 2] : 1;
  bool is_dear = median >= kCheap;
  if (!is_dear)
    pool->dear_since = 0;
  else if (pool->dear_since == 0)
    pool->dear_since = now();
  bool counts = is_dear && now() - pool->dear_since >= kDearFor;
  int64_t known = !counts ? 1 : median < kDearest ? median : kDearest;
  pool->hand_over.store(int32_t(known), kRelaxed);
  pool->until_measure = is_dear || !has_answers ? kMeasureDearEvery : kMeasureEvery;
}

// Before a loop or a run.
void count_down(KilnPool *pool) {
  if (pool->until_measure == 0)
    measure_hand_over(pool);
  else
    --pool->until_measure;
}

void parallel_for(void *self, int64_t n, Body body, void *closure) {
  auto *pool = static_cast<KilnPool *>(self);
  auto parts = static_cast<uint32_t>(n < pool->threads ? (n < 0 ? 0 : n) : pool->threads);
  if (parts < 2 || pool->is_busy.exchange(true, std::memory_order_acquire)) {
    if (n > 0)
      body(closure, 0, n);
    return;
  }
  count_down(pool);
  uint32_t round = ++pool->round << 2;
  KilnPoolSlot *slots = pool->slots();
  for (uint32_t i = 0; i + 1 < parts; ++i) {
    slots[i].body.store(body, kRelaxed);
    slots[i].closure.store(closure, kRelaxed);
    slots[i].begin.store(boundary(n, i + 1, parts), kRelaxed);
    slots[i].end.store(boundary(n, i + 2, parts), kRelaxed);
    announce(slots[i], round | kOpen);
  }
  body(closure, 0, boundary(n, 1, parts));
  for (uint32_t i = 0; i + 1 < parts; ++i)
    try_part(slots[i]);
  for (uint32_t i = 0; i + 1 < parts; ++i)
    wait_until_done(pool, slots[i], round | kTaken);
  pool->is_busy.store(false, std::memory_order_release);
}

// Signals are for the program's own threads.
bool start_workers(KilnPool *pool) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool is_fine = true;
  while (is_fine && pool->started + 1 < pool->threads) {
    KilnPoolSlot &slot = pool->slots()[pool->started];
    is_fine = start_thread(&slot.worker, work_until_closed, &slot);
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
  size_t size = sizeof(KilnPool) + (threads - 1) * sizeof(KilnPoolSlot);
  void *memory = std::aligned_alloc(alignof(KilnPool), size);
  if (memory == nullptr)
    return fail(error, KILN_ERROR_MEMORY, "out of memory");
  auto *made = ::new (memory) KilnPool();
  for (uint32_t i = 0; i + 1 < threads; ++i)
    (::new (made->slots() + i) KilnPoolSlot())->pool = made;
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

int32_t hand_over(const KilnExecutor &executor) {
  if (executor.parallel_for != parallel_for)
    return int32_t(executor.hand_over < INT32_MAX ? executor.hand_over : INT32_MAX);
  auto *pool = static_cast<KilnPool *>(executor.self);
  int32_t known = pool->hand_over.load(kRelaxed);
  // A pool that has no loops to do is left alone.
  if (known == 0 || pool->is_busy.exchange(true, std::memory_order_acquire))
    return known;
  count_down(pool);
  pool->is_busy.store(false, std::memory_order_release);
  return pool->hand_over.load(kRelaxed);
}

void pool_destroy(KilnPool *pool) {
  if (pool == nullptr)
    return;
  pool->is_closing.store(true, std::memory_order_release);
  for (uint32_t i = 0; i < pool->started; ++i)
    announce(pool->slots()[i], (pool->round + 1) << 2 | kIdle);
  for (uint32_t i = 0; i < pool->started; ++i)
    join_thread(&pool->slots()[i].worker);
  std::free(pool);
}

} // namespace kiln::rt
