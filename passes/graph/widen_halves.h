// Products of f16 and bf16, as products of f32 whose operands are converted once.
#pragma once

#include "passes/pass.h"

namespace kiln {

// dot(x, w): f16  ->  convert(dot(convert(x), convert(w)))         w: weights
//
// which is what such a product means. Weights stay as they are and convert as they are loaded; who makes
// an activation makes it as f32, so that no tile converts it again for every column; of two activations with rows enough both are made so. Products of bf16
// that the target adds two by two (flags.bf16_dots) are left alone, and so are all products on GPUs: their tensor cores multiply
// halves with halves.
Changed widen_halves(Module &module, const PassFlags &flags);

} // namespace kiln
