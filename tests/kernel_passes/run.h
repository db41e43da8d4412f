// Runs kernels on the interpreter over pseudo-random buffers.
#pragma once

#include "ir/kernel/kernel.h"

#include <cstddef>

namespace kiln::naive {

using Bytes = std::vector<std::byte>;

double number_at(DType dtype, const Bytes &bytes, int64_t i);
void set_number(DType dtype, Bytes &bytes, int64_t i, double value);
int64_t size_of(const Kernel &kernel, const Dim &d, const std::vector<int64_t> &dims);

struct Run {
  std::vector<Bytes> buffers; // after the run
  int trap = 0;
  std::string error;
};
// The same seed for every kernel: two kernels with the same buffers see the same contents.
std::vector<Bytes> random_buffers(const Kernel &kernel, const std::vector<int64_t> &dims);
Run interpret(const Kernel &kernel, const std::vector<int64_t> &dims, bool reverse);

} // namespace kiln::naive
