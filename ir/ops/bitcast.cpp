// bitcast: the bits of each element as another dtype of the same width. Narrow dtypes have the width of
// their codes, so f4e2m1 and i4 are of one width, and f8e5m2 and u8. Of bool, 1 is true; any byte but 0
// becomes true.
//
// The form is an element's and not a scalar's because it needs the operand's dtype: f16 and bf16 come as f32.
#include "ir/narrow.h"
#include "ir/ops/elementwise.h"

#include <cstring>
#include <fmt/format.h>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

Result<Types> infer_bitcast(InferContext &context) {
  const TensorType &x = context.operands[0];
  DType to = context.attrs.get_dtype("dtype");
  if (dtype_bits(x.dtype) != dtype_bits(to))
    return Error{fmt::format("an element of {} has {} bits and one of {} has {}: bitcast keeps the width",
                             x.text(), dtype_bits(x.dtype), dtype_name(to), dtype_bits(to))};
  return Types{{to, x.shape}};
}

Result<std::vector<Tensor>> ref_bitcast(const RefContext &context) {
  const Tensor &x = *context.operands[0];
  Tensor out = make_tensor(context.results[0]);
  size_t size = x.bytes().size();
  if (size == 0)
    return std::vector<Tensor>{std::move(out)};
  std::memcpy(out.mutable_bytes(), x.bytes().data(), size);
  for (size_t i = 0; i < size && (is_narrow(out.dtype()) || is_narrow(x.dtype()) || is_bool(out.dtype())); ++i) {
    auto byte = uint8_t(x.bytes()[i]);
    uint8_t code = is_narrow(x.dtype()) ? narrow_code(x.dtype(), byte) : byte;
    out.mutable_bytes()[i] = std::byte(is_narrow(out.dtype()) ? narrow_byte(out.dtype(), code)
                                       : is_bool(out.dtype()) ? uint8_t(code != 0)
                                                              : code);
  }
  return std::vector<Tensor>{std::move(out)};
}

Expr element_bitcast(LowerContext &context, int, std::span<const Dim> index) {
  DType from = context.operand_type(0).dtype, to = context.result_type().dtype;
  // What was loaded, not what became of it in f32: that would lose the payload of NaNs.
  Expr x = kb::convert(from, context.operand(0, index));
  if (is_bool(from))
    x = kb::convert(DType::u8, std::move(x));
  if (!is_bool(to))
    return kb::convert(compute_dtype(to), kb::bitcast(to, std::move(x)));
  x = kb::bitcast(DType::u8, std::move(x));
  return kb::binary(BinaryOp::ne, x, kb::integer(DType::u8, 0));
}

std::vector<OpSample> samples() {
  std::vector<OpSample> out;
  auto add = [&](DType from, DType to, double lo, double hi) {
    out.push_back({{{from, {3, 5}}}, {{"dtype", to}}, lo, hi});
  };
  add(DType::f32, DType::i32, -9, 9);
  add(DType::i32, DType::f32, 0, 2e9);
  add(DType::f64, DType::i64, -9, 9);
  add(DType::u64, DType::f64, 0, 9e18);
  add(DType::f16, DType::u16, -9, 9);
  add(DType::i16, DType::f16, 0, 30000);
  add(DType::bf16, DType::i16, -9, 9);
  add(DType::f16, DType::bf16, -9, 9);
  add(DType::i8, DType::u8, -100, 100);
  add(DType::i8, DType::f8e4m3fn, -100, 100);
  add(DType::f8e5m2, DType::u8, -9, 9);
  add(DType::f8e5m2, DType::f8e4m3fnuz, -9, 9);
  add(DType::f8e8m0, DType::i8, 0, 9);
  add(DType::bool_, DType::u8, 0, 1);
  add(DType::u8, DType::bool_, 0, 2);
  add(DType::i4, DType::u4, -8, 7);
  add(DType::u4, DType::i4, 0, 15);
  add(DType::f4e2m1, DType::i4, -6, 6);
  add(DType::u4, DType::f4e2m1, 0, 15);
  add(DType::i2, DType::u2, -2, 1);
  add(DType::u2, DType::i2, 0, 3);
  return out;
}

} // namespace

const OpDef op_bitcast{
    .name = "bitcast",
    .doc = "The bits of each element as another dtype of the same width; of bool, 1 is true and 0 is false.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"dtype", AttrKind::dtype, std::nullopt, "the result's"}},
    .infer = infer_bitcast,
    .ref = ref_bitcast,
    .element = element_bitcast,
    .samples = samples(),
};

} // namespace kiln
