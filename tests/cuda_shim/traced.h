// One access of a traced kernel: what tests/cuda_shim/trace.h notes and tests/fake_driver/accesses.cpp puts together.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace kiln_shim {

struct Traced {
  const void *code;
  uintptr_t at;
  unsigned bytes, thread, epoch, turn;
  bool is_write;
  bool is_product; // read by tensor cores: no instruction of lanes
};

// What a kernel's first block did, in order, and where its shared memory lies.
using Analyse = void (*)(const char *kernel, Traced *accesses, size_t count, uintptr_t shared, size_t shared_bytes);

} // namespace kiln_shim
