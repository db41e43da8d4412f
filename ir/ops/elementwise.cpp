#include "ir/ops/elementwise.h"

#include <algorithm>

namespace kiln {

bool in_kinds(DType dtype, unsigned kinds) {
  switch (dtype_kind(dtype)) {
  case DTypeKind::float_:
    return (kinds & kFloats) != 0;
  case DTypeKind::signed_:
    return (kinds & kSigned) != 0;
  case DTypeKind::unsigned_:
    return (kinds & kUnsigned) != 0;
  case DTypeKind::bool_:
    return (kinds & kBools) != 0;
  case DTypeKind::narrow_float_:
  case DTypeKind::narrow_signed_:
  case DTypeKind::narrow_unsigned_:
    return (kinds & kNarrow) != 0;
  }
  return false;
}

Status check_kinds(const InferContext &context, int operand, unsigned kinds) {
  std::string list;
  auto part = [&](unsigned bits, std::string_view name) {
    if ((kinds & bits) == bits)
      list += (list.empty() ? "of a " : " or ") + std::string(name);
  };
  part(kFloats, "float");
  if ((kinds & kIntegers) == kIntegers)
    part(kIntegers, "integer");
  else
    part(kSigned, "signed integer");
  part(kBools, "bool");
  return check_dtype(context, operand, in_kinds(context.operands[size_t(operand)].dtype, kinds),
                     list + " dtype; convert it first");
}

} // namespace kiln

namespace kiln::elementwise {

InferResult infer_map(InferContext &context, unsigned kinds) {
  KILN_RETURN_IF_ERROR(check_kinds(context, 0, kinds));
  KILN_RETURN_IF_ERROR(same_dtype(context));
  KILN_TRY(shape, broadcast_operands(context));
  return std::vector{TensorType{context.operands[0].dtype, std::move(shape)}};
}

InferResult infer_predicate(InferContext &context, unsigned kinds) {
  KILN_TRY(types, infer_map(context, kinds));
  types[0].dtype = DType::bool_;
  return std::move(types);
}

namespace {

std::vector<DType> dtypes_of(unsigned kinds) {
  std::vector<DType> out;
#define KILN_DTYPE(name, bits, kind, code)                                                         \
  if (in_kinds(DType::name, kinds))                                                                \
    out.push_back(DType::name);
#include "ir/dtypes.def"
#undef KILN_DTYPE
  return out;
}

// Integers are drawn from a wider range, and never below zero where they have no sign.
OpSample sample(DType dtype, std::vector<Shape> shapes, double lo, double hi, const Attrs &attrs) {
  OpSample out{{}, attrs, lo, hi};
  for (Shape &shape : shapes)
    out.operands.push_back({dtype, std::move(shape)});
  if (is_integer(dtype))
    out.lo = is_unsigned_int(dtype) ? std::max(0.0, lo * 5) : lo * 5, out.hi = hi * 5;
  if (dtype_kind(dtype) == DTypeKind::narrow_unsigned_)
    out.lo = 0;
  if (is_bool(dtype))
    out.lo = 0, out.hi = 1;
  return out;
}

} // namespace

std::vector<OpSample> unary_samples(unsigned kinds, double lo, double hi, Attrs attrs) {
  std::vector<OpSample> out;
  std::vector<DType> dtypes = dtypes_of(kinds);
  for (DType dtype : dtypes)
    out.push_back(sample(dtype, {{3, 37}}, lo, hi, attrs));
  for (const Shape &shape : {Shape{}, Shape{0, 4}, Shape{2, 3, 5}, Shape{64}})
    out.push_back(sample(is_float(dtypes[0]) ? DType::f32 : dtypes[0], {shape}, lo, hi, attrs));
  return out;
}

std::vector<OpSample> binary_samples(unsigned kinds, double lo, double hi) {
  std::vector<OpSample> out;
  std::vector<DType> dtypes = dtypes_of(kinds);
  for (DType dtype : dtypes)
    out.push_back(sample(dtype, {{3, 37}, {3, 37}}, lo, hi, {}));
  DType main = is_float(dtypes[0]) ? DType::f32 : dtypes[0];
  const std::vector<Shape> pairs[] = {{{2, 3, 5}, {5}},    {{3, 1}, {1, 7}}, {{}, {4, 3}},
                                      {{2, 1, 4}, {3, 1}}, {{}, {}},         {{0, 3}, {1, 3}}};
  for (const auto &pair : pairs)
    out.push_back(sample(main, pair, lo, hi, {}));
  return out;
}

std::vector<OpSample> join(std::vector<OpSample> a, std::vector<OpSample> b) {
  for (OpSample &s : b)
    a.push_back(std::move(s));
  return a;
}

} // namespace kiln::elementwise
