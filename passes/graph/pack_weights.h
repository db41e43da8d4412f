// Weights whose author keeps them in 8 bits or fewer stay so: products unpack them as they read.
#pragma once

#include "passes/pass.h"

namespace kiln {

// dot(x, dequantize(codes, s, z)) with codes that are constant and x in floats reads words of 32 bits with the codes
// of neighbouring rows. For integer_products, which has done what has codes on both sides.
Changed pack_weights(Module &module, Function &function);

} // namespace kiln
