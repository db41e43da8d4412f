#pragma once

#include "passes/kernel/math_builder.h"

namespace kiln {

// x = quarters * pi/2 + angle, |angle| <= pi/4 (a little more by rounding); quarters is 0..3, i64.
// x is f64. Infinities and NaN give the angle NaN.
struct QuarterTurn {
  MathValue quarters, angle;
};
QuarterTurn reduce_quarter_turns(MathValue x, MathBuilder &b);

} // namespace kiln
