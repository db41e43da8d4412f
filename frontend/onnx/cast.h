// ONNX's casts, as far as they say more than the language's convert.
#pragma once

#include "frontend/onnx/node.h"

namespace kiln::onnx {

// What the attributes of Cast, CastLike and QuantizeLinear say of what does not fit.
struct CastRule {
  bool saturate = true;     // of 8-bit floats: what is too large becomes the largest, not NaN or infinity
  std::string round = "up"; // to float8e8m0: "up", "down" or "nearest"
};

// The attributes that n has.
Result<CastRule> cast_rule(OnnxNode &n);

// Floats that do not fit an integer of 4 or 2 bits are cut and wrap, as integers do.
Result<Val> cast(Emitter &e, const Val &x, DType to, const CastRule &rule);

} // namespace kiln::onnx
