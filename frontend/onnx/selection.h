// Elements picked by the data: how many there are is a size that the run finds.
#pragma once

#include "frontend/onnx/node.h"

namespace kiln::onnx {

// The positions at which a mask, bool[N], is true, in order: i64[count].
struct Selection {
  Val positions;
  Dim count;
};
Result<Selection> select_true(Emitter &e, const Val &mask, std::string_view stem);

// x with a dim of 1 more at `axis`.
Result<Val> unsqueezed(Emitter &e, const Val &x, int axis);
// A size as a number of the graph (or a known one).
Val number(Emitter &e, const Dim &d);
// 0, 1, 2, ... of that many, as i64.
Result<Val> counted(Emitter &e, const Dim &count);

} // namespace kiln::onnx
