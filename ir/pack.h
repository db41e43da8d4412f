// Moving values between row-major tensors and the layouts that kernels use.
#pragma once

#include "ir/tensor.h"

#include <cstddef>
#include <span>

namespace kiln {

// Writes `tensor` in `layout` to `out`, which must hold physical_size() elements. Halos and the padding
// of last blocks become zero.
void pack(const Tensor &tensor, const Layout &layout, std::span<std::byte> out);

// The inverse: the logical elements of a buffer.
Tensor unpack(DType dtype, const std::vector<int64_t> &dims, const Layout &layout,
              std::span<const std::byte> bytes);

} // namespace kiln
