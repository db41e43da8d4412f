// Quantisation.
#include "frontend/onnx/ops.h"
#include "frontend/onnx/tensors.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

Status check_blocks(OnnxNode &n) {
  if (n.get_int("block_size", 0) != 0)
    return Error{"scales for blocks (block_size) are not supported"};
  return Unit{};
}

// The axis counts only where there is a scale for each position along it.
Result<Attr> quantized_axis(OnnxNode &n) {
  int64_t given = n.get_int("axis", 1);
  if (n.rank(1) == 0 || element_count(n.shape(1)).is_const(1))
    return attr_int(0);
  KILN_TRY(axis, n.axis(given, n.rank()));
  return attr_int(axis);
}

// A tensor with one element for all is a scalar in Kiln.
Result<Val> whole(OnnxNode &n, const Val &v) {
  return element_count(v.type.shape).is_const(1) ? reshape(n.emitter(), v, {}) : Result<Val>(v);
}

} // namespace

Status import_quantize_linear(OnnxNode &n) {
  n.ignore({"saturate"});
  KILN_RETURN_IF_ERROR(check_blocks(n));
  KILN_TRY(axis, quantized_axis(n));
  DType dtype = n.has(2) ? n.dtype(2) : DType::u8;
  if (int64_t wanted = n.get_int("output_dtype", 0); wanted != 0 && !n.has(2)) {
    auto known = dtype_from_onnx(wanted);
    if (!known)
      return Error{fmt::format("the output type {} is not supported", onnx_type_name(wanted))};
    dtype = *known;
  }
  KILN_TRY(scale, whole(n, n.in(1)));
  KILN_TRY(zero, n.has(2) ? whole(n, n.in(2))
                          : broadcast_to(n.emitter(), n.emitter().scalar(dtype, 0), scale.type.shape));
  return n.finish(Op::quantize, {n.in(0), scale, zero}, {{"axis", axis}, {"dtype", dtype}});
}

Status import_dequantize_linear(OnnxNode &n) {
  KILN_RETURN_IF_ERROR(check_blocks(n));
  KILN_TRY(axis, quantized_axis(n));
  KILN_TRY(scale, whole(n, n.in(1)));
  std::vector<Val> operands = {n.in(0), scale};
  if (n.has(2)) {
    KILN_TRY(zero, whole(n, n.in(2)));
    operands.push_back(zero);
  }
  return n.finish(Op::dequantize, operands, {{"axis", axis}});
}

} // namespace kiln::onnx
