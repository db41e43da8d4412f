#include "ir/ops/ref_codes.h"

#include "ir/narrow.h"

#include <algorithm>

namespace kiln {

Result<std::vector<Tensor>> ref_on_codes(RefFn ref, const RefContext &context) {
  std::vector<Tensor> views;
  for (const Tensor *operand : context.operands)
    views.emplace_back(storage_dtype(operand->dtype()), operand->dims(), operand->bytes());
  std::vector<const Tensor *> operands;
  for (const Tensor &view : views)
    operands.push_back(&view);
  std::vector<TensorType> types(context.results.begin(), context.results.end());
  for (TensorType &type : types)
    type.dtype = storage_dtype(type.dtype);
  KILN_TRY(moved, ref({operands, context.attrs, types}));
  std::vector<Tensor> out;
  for (size_t i = 0; i < moved.size(); ++i) {
    out.push_back(make_tensor(context.results[i]));
    std::copy(moved[i].bytes().begin(), moved[i].bytes().end(), out[i].mutable_bytes());
  }
  return out;
}

} // namespace kiln
