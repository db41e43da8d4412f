// The CUDA C of streamed softmax, with names for what depends on sizes ($KEYS, $STAGE, ...), which emit_streamed.cpp fills in:
// what a block of four warps does for a share of rows, and the steps in it that differ between halves and f32.
#pragma once

#include <string_view>

namespace kiln::cuda {

extern const std::string_view kStreamedRun, kStreamedQueryHalves, kStreamedHoldQueries, kStreamedHeldQuery, kStreamedFetchQuery, kStreamedMultiplyHalves, kStreamedWeighHalves, kStreamedKeepHalves, kStreamedQueryFloats, kStreamedMultiplyFloats, kStreamedWeighFloats, kStreamedKeepFloats;

} // namespace kiln::cuda
