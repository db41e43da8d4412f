// Casts between strings and numbers, element by element. What is known is converted at once; the rest by loops over the
// bytes of all strings.
//
//   to numbers   white space, a sign, digits with a point, an exponent; "inf", "infinity" and "nan" in any case. What is
//                no number is NaN, and 0 as an integer. Strings of at most 15 digits and powers of ten up to 22 are
//                read exactly, others within 2 ulps of f64. Integers take "100.5" for 100.
//   to strings   the fewest digits that read back as the same number, as "0.1", "1e-05" below 1e-4 and from 1e16 on,
//                "NaN", "INF", "-INF"; integers in full; bools as "1" and "0".
#pragma once

#include "frontend/onnx/cast.h"
#include "frontend/onnx/text.h"

namespace kiln::onnx {

Result<Val> text_to_number(Emitter &e, const Val &text, DType to, const CastRule &rule);
Result<Val> number_to_text(Emitter &e, const Val &x);

} // namespace kiln::onnx
