// Threads that wait for parallel loops: they spin briefly, then sleep.
//
// A loop over [0, n) is cut into as many parts as there are threads, at places that depend on n and
// the number of threads alone. Whoever is awake takes the next part, the caller included, so a
// short loop is done before sleeping threads have woken. A pool that is busy (another context's
// loop, or a loop within a loop) does not queue: the caller then does all parts itself.
#pragma once

#include <cstdint>

#include "runtime/include/kiln/kiln.h"

namespace kiln::rt {

int32_t pool_create(uint32_t threads, KilnPool **pool, KilnError *error);
const KilnExecutor *pool_executor(KilnPool *pool);
void pool_destroy(KilnPool *pool);

} // namespace kiln::rt
