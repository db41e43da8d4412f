// One scalar of the kernel interpreter and the meaning of every scalar operation on it. Floats are
// held as the double that equals them, integers sign- or zero-extended to 64 bits, bool as 0 or 1,
// values of narrow dtypes as their codes.
#pragma once

#include "ir/kernel/kernel.h"

#include <cstddef>

namespace kiln {

struct ScalarValue {
  double f = 0;
  int64_t i = 0;
};

ScalarValue read_scalar(DType dtype, const std::byte *at);
void write_scalar(DType dtype, ScalarValue value, std::byte *at);

ScalarValue float_scalar(DType dtype, double value); // rounded to dtype
ScalarValue int_scalar(DType dtype, int64_t value);  // wrapped to dtype

ScalarValue convert_scalar(DType from, DType to, ScalarValue value);
ScalarValue bitcast_scalar(DType from, DType to, ScalarValue value);
ScalarValue unary_scalar(UnaryOp op, DType dtype, ScalarValue a);
// False if an integer is divided by zero.
bool binary_scalar(BinaryOp op, DType dtype, ScalarValue a, ScalarValue b, ScalarValue &out);
ScalarValue fma_scalar(DType dtype, ScalarValue a, ScalarValue b, ScalarValue c);

} // namespace kiln
