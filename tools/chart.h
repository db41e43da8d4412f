// Lines over their indices as SVG: what `kiln run --output y=@y.svg` writes.
#pragma once

#include "ir/support/result.h"
#include "ir/tensor.h"

#include <string>

namespace kiln {

// A row of [series, points], or [points], is a line; what is not finite leaves a gap.
Result<std::string> chart_svg(const std::string &title, const Tensor &values);

} // namespace kiln
