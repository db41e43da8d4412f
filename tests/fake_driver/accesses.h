// How the accesses of a kernel's first block use memory: a line of KILN_SHIM_TRACE's file.
#pragma once

#include "tests/cuda_shim/traced.h"

namespace kiln_shim {

void analyse(const char *kernel, Traced *accesses, size_t count, uintptr_t shared_begin, size_t shared_bytes);

} // namespace kiln_shim
