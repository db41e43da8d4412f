// Threads that wait for parallel loops: they spin briefly, then sleep.
//
// A loop over [0, n) is cut into as many parts as there are threads, at places that depend on n and
// the number of threads alone. Part i is for thread i, the caller being the first, so that a thread
// finds in its cache what it wrote there in the loop before; the caller then does the parts that
// nobody has begun, so a short loop is done before sleeping threads have woken. A pool that is busy
// (another context's loop, or a loop within a loop) does not queue: the caller does all parts itself.
//
// What a hand-over costs depends on the caches that the threads' cores share, which differs from host to host and, on virtual
// machines, from hour to hour. So a pool measures it, before its first loop and again after some thousand loops and runs: some
// empty loops, 20 us of them.
#pragma once

#include <cstdint>

#include "runtime/include/kiln/kiln.h"

namespace kiln::rt {

int32_t pool_create(uint32_t threads, KilnPool **pool, KilnError *error);
const KilnExecutor *pool_executor(KilnPool *pool);
void pool_destroy(KilnPool *pool);

// Before a run: nanoseconds until the threads of an executor have answered: what a pool has measured last, what others say. 0: not known.
int32_t hand_over(const KilnExecutor &executor);

} // namespace kiln::rt
