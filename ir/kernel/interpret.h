// Runs a kernel as it is written, one lane at a time: what kernel IR means. The tests hold every
// schedule and every target against it. Every access is checked, reads of local memory that was
// never written are errors, and functions that are not primitive are evaluated in f64.
#pragma once

#include "ir/kernel/kernel.h"

#include <cstddef>
#include <span>

namespace kiln {

struct InterpretOptions {
  // Runs parallel and threads loops from the last iteration to the first, to catch loops that are
  // marked independent and are not.
  bool reverse_parallel = false;
  int64_t readable_bytes = 0;   // past the end of each buffer, which loads may read (KILN_ALIGNMENT of runs)
  int64_t max_steps = int64_t(1) << 40; // statements executed before giving up
};

// `buffers` are the kernel's parameters in order, in their dtypes; `dims` the values of its dims.
// Returns 0, or the trap (KilnTrap) of the first failing assert.
Result<int> interpret_kernel(const Kernel &kernel, std::span<const std::span<std::byte>> buffers,
                             std::span<const int64_t> dims, const InterpretOptions &options = {});

} // namespace kiln
