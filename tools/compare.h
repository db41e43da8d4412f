// How far a tensor is from what it should be.
#pragma once

#include "ir/tensor.h"

#include <string>

namespace kiln {

struct Difference {
  bool comparable = true; // same dtype, shape, and NaNs in the same places
  double worst = 0;       // largest |got - want|
  double relative = 0;    // that, over the largest finite |want|
  int64_t at = -1;        // where
  std::string text;       // "element 17 is 0.5, not 0.25"
};

Difference compare(const Tensor &got, const Tensor &want);

struct Tolerance {
  double relative = 1e-3; // of the tensor's largest magnitude (of the element itself where element_wise)
  double absolute = 1e-6;
  bool element_wise = false;
};

// Floats within the tolerance, everything else equal. `why` says what is wrong.
bool within(const Tensor &got, const Tensor &want, const Tolerance &tolerance, std::string &why);

} // namespace kiln
