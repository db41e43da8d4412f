// What a kernel may assume of its pointers, collected from every launch of it: which parameters
// never share bytes with another one (in-place updates do), and which start at a multiple of 64
// bytes.
#pragma once

#include "ir/plan.h"

#include <vector>

namespace kiln::cpu {

struct BufferFacts {
  bool noalias = true;
  int alignment = 64; // bytes
};

// For each kernel of the program, one entry a buffer.
std::vector<std::vector<BufferFacts>> collect_facts(const Program &program,
                                                    const std::vector<Kernel> &kernels);

} // namespace kiln::cpu
