// Refs that only move elements, where these are narrow: by their values, infinities would saturate and NaNs
// become one.
#pragma once

#include "ir/ops/ref_util.h"

namespace kiln {

// The ref on the bytes of narrow operands and results, taken for integers.
Result<std::vector<Tensor>> ref_on_codes(RefFn ref, const RefContext &context);

} // namespace kiln
