// IDX files, as MNIST comes: two zero bytes, the element type, the number of dims, the dims (big-endian), the elements.
// Those that end in .gz are unpacked. http://yann.lecun.com/exdb/mnist/ has the format.
#pragma once

#include "ir/support/result.h"
#include "ir/tensor.h"

#include <span>
#include <string>

namespace kiln {

Result<Tensor> parse_idx(std::span<const std::byte> bytes);
Result<Tensor> read_idx(const std::string &path);

} // namespace kiln
