#include "ir/kernel/scalar_value.h"

#include "ir/narrow.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace kiln {
namespace {

uint64_t to_bits(DType dtype, ScalarValue v) {
  switch (dtype) {
  case DType::f64:
    return std::bit_cast<uint64_t>(v.f);
  case DType::f32:
    return std::bit_cast<uint32_t>(float(v.f));
  case DType::f16:
    return f32_to_f16(float(v.f));
  case DType::bf16:
    return f32_to_bf16(float(v.f));
  default:
    return uint64_t(v.i);
  }
}

ScalarValue from_bits(DType dtype, uint64_t bits) {
  switch (dtype) {
  case DType::f64:
    return {std::bit_cast<double>(bits), 0};
  case DType::f32:
    return {std::bit_cast<float>(uint32_t(bits)), 0};
  case DType::f16:
    return {f16_to_f32(uint16_t(bits)), 0};
  case DType::bf16:
    return {bf16_to_f32(uint16_t(bits)), 0};
  default:
    return int_scalar(dtype, int64_t(bits));
  }
}

int64_t saturate(DType to, double x) {
  if (std::isnan(x))
    return 0;
  x = std::trunc(x);
  int bits = dtype_bits(to);
  if (is_signed_int(to)) {
    double limit = std::ldexp(1.0, bits - 1);
    int64_t top = int64_t((uint64_t(1) << (bits - 1)) - 1);
    return x >= limit ? top : x < -limit ? -top - 1 : int64_t(x);
  }
  double limit = std::ldexp(1.0, bits);
  if (x >= limit)
    return int64_t(bits == 64 ? ~uint64_t(0) : (uint64_t(1) << bits) - 1);
  return x <= 0 ? 0 : int64_t(uint64_t(x));
}

double evaluate(UnaryOp op, double x) {
  switch (op) {
  case UnaryOp::neg:
    return -x;
  case UnaryOp::abs:
    return std::fabs(x);
  case UnaryOp::ceil:
    return std::ceil(x);
  case UnaryOp::floor:
    return std::floor(x);
  case UnaryOp::round:
    return std::nearbyint(x);
  case UnaryOp::trunc:
    return std::trunc(x);
  case UnaryOp::sqrt:
    return std::sqrt(x);
  case UnaryOp::exp:
    return std::exp(x);
  case UnaryOp::expm1:
    return std::expm1(x);
  case UnaryOp::log:
    return std::log(x);
  case UnaryOp::log1p:
    return std::log1p(x);
  case UnaryOp::sin:
    return std::sin(x);
  case UnaryOp::cos:
    return std::cos(x);
  case UnaryOp::tan:
    return std::tan(x);
  case UnaryOp::asin:
    return std::asin(x);
  case UnaryOp::acos:
    return std::acos(x);
  case UnaryOp::atan:
    return std::atan(x);
  case UnaryOp::sinh:
    return std::sinh(x);
  case UnaryOp::cosh:
    return std::cosh(x);
  case UnaryOp::tanh:
    return std::tanh(x);
  case UnaryOp::asinh:
    return std::asinh(x);
  case UnaryOp::acosh:
    return std::acosh(x);
  case UnaryOp::atanh:
    return std::atanh(x);
  case UnaryOp::erf:
    return std::erf(x);
  case UnaryOp::sigmoid:
    return 1 / (1 + std::exp(-x));
  case UnaryOp::bit_not:
  case UnaryOp::is_nan:
    break;
  }
  return x;
}

bool compare(BinaryOp op, auto a, auto b) {
  switch (op) {
  case BinaryOp::eq:
    return a == b;
  case BinaryOp::ne:
    return a != b;
  case BinaryOp::lt:
    return a < b;
  case BinaryOp::le:
    return a <= b;
  case BinaryOp::gt:
    return a > b;
  default:
    return a >= b;
  }
}

double float_binary(BinaryOp op, double a, double b) {
  switch (op) {
  case BinaryOp::add:
    return a + b;
  case BinaryOp::sub:
    return a - b;
  case BinaryOp::mul:
    return a * b;
  case BinaryOp::div:
    return a / b;
  case BinaryOp::rem:
    return std::fmod(a, b);
  case BinaryOp::min:
    return std::isnan(a) || std::isnan(b) ? std::numeric_limits<double>::quiet_NaN()
           : b < a                        ? b
                                          : a;
  case BinaryOp::max:
    return std::isnan(a) || std::isnan(b) ? std::numeric_limits<double>::quiet_NaN()
           : a < b                        ? b
                                          : a;
  case BinaryOp::pow:
    return std::pow(a, b);
  default:
    return std::atan2(a, b);
  }
}

uint64_t shift(BinaryOp op, DType dtype, int64_t a, int64_t amount) {
  bool out = is_unsigned_int(dtype) ? uint64_t(amount) >= uint64_t(dtype_bits(dtype))
                                    : amount < 0 || amount >= dtype_bits(dtype);
  if (out)
    return 0;
  if (op == BinaryOp::shl)
    return uint64_t(a) << amount;
  return is_signed_int(dtype) ? uint64_t(a >> amount) : uint64_t(a) >> amount;
}

// The value of a code, and the dtype that has it.
ScalarValue widened(DType &dtype, ScalarValue v) {
  double value = narrow_value(dtype, uint8_t(v.i));
  bool real = narrow_float(dtype);
  dtype = real ? DType::f64 : DType::i64;
  return real ? ScalarValue{value, 0} : ScalarValue{0, int64_t(value)};
}

ScalarValue to_code(DType from, DType to, ScalarValue v) {
  uint8_t byte = is_float(from)       ? to_narrow(to, v.f)
                 : from == DType::u64 ? to_narrow(to, uint64_t(v.i))
                                      : to_narrow(to, v.i);
  return {0, narrow_code(to, byte)};
}

} // namespace

ScalarValue float_scalar(DType dtype, double value) {
  switch (dtype) {
  case DType::f32:
    return {double(float(value)), 0};
  case DType::f16:
    return {f16_to_f32(f32_to_f16(float(value))), 0};
  case DType::bf16:
    return {bf16_to_f32(f32_to_bf16(float(value))), 0};
  default:
    return {value, 0};
  }
}

ScalarValue int_scalar(DType dtype, int64_t value) {
  if (is_bool(dtype))
    return {0, value != 0};
  int unused = 64 - dtype_bits(dtype);
  uint64_t up = uint64_t(value) << unused;
  return {0, is_signed_int(dtype) ? int64_t(up) >> unused : int64_t(up >> unused)};
}

ScalarValue read_scalar(DType dtype, const std::byte *at) {
  uint64_t bits = 0;
  std::memcpy(&bits, at, size_t(dtype_bytes(dtype)));
  return from_bits(dtype, bits);
}

void write_scalar(DType dtype, ScalarValue value, std::byte *at) {
  uint64_t bits = to_bits(dtype, value);
  if (is_narrow(dtype))
    bits = narrow_byte(dtype, uint8_t(bits));
  std::memcpy(at, &bits, size_t(dtype_bytes(dtype)));
}

ScalarValue convert_scalar(DType from, DType to, ScalarValue v) {
  if (is_narrow(from))
    v = widened(from, v);
  if (is_narrow(to))
    return to_code(from, to, v);
  if (is_float(from)) {
    if (is_float(to))
      return float_scalar(to, v.f);
    return is_bool(to) ? ScalarValue{0, v.f != 0} : ScalarValue{0, saturate(to, v.f)};
  }
  if (!is_float(to))
    return int_scalar(to, v.i);
  if (to == DType::f64)
    return {from == DType::u64 ? double(uint64_t(v.i)) : double(v.i), 0};
  // Rounded once, from the integer.
  float f = from == DType::u64 ? float(uint64_t(v.i)) : float(v.i);
  return float_scalar(to, f);
}

ScalarValue bitcast_scalar(DType from, DType to, ScalarValue value) {
  return from_bits(to, to_bits(from, value));
}

ScalarValue unary_scalar(UnaryOp op, DType dtype, ScalarValue a) {
  if (op == UnaryOp::is_nan)
    return {0, is_float(dtype) && std::isnan(a.f)};
  if (is_float(dtype))
    return float_scalar(dtype, evaluate(op, a.f));
  if (op == UnaryOp::bit_not)
    return is_bool(dtype) ? ScalarValue{0, !a.i} : int_scalar(dtype, ~a.i);
  bool negative = op == UnaryOp::neg || (is_signed_int(dtype) && a.i < 0);
  return negative ? int_scalar(dtype, int64_t(-uint64_t(a.i))) : a;
}

bool binary_scalar(BinaryOp op, DType dtype, ScalarValue a, ScalarValue b, ScalarValue &out) {
  if (is_narrow(dtype)) {
    DType of_b = dtype;
    b = widened(of_b, b);
    a = widened(dtype, a);
  }
  if (is_float(dtype)) {
    out = is_comparison(op) ? ScalarValue{0, compare(op, a.f, b.f)}
                            : float_scalar(dtype, float_binary(op, a.f, b.f));
    return true;
  }
  bool is_signed = is_signed_int(dtype);
  uint64_t ua = uint64_t(a.i), ub = uint64_t(b.i);
  if (is_comparison(op)) {
    out = {0, is_signed ? compare(op, a.i, b.i) : compare(op, ua, ub)};
    return true;
  }
  uint64_t r = 0;
  switch (op) {
  case BinaryOp::add:
    r = ua + ub;
    break;
  case BinaryOp::sub:
    r = ua - ub;
    break;
  case BinaryOp::mul:
    r = ua * ub;
    break;
  case BinaryOp::div:
  case BinaryOp::rem:
    if (b.i == 0)
      return false;
    if (is_signed && b.i == -1)
      r = op == BinaryOp::div ? -ua : 0;
    else if (is_signed)
      r = uint64_t(op == BinaryOp::div ? a.i / b.i : a.i % b.i);
    else
      r = op == BinaryOp::div ? ua / ub : ua % ub;
    break;
  case BinaryOp::min:
    r = (is_signed ? b.i < a.i : ub < ua) ? ub : ua;
    break;
  case BinaryOp::max:
    r = (is_signed ? a.i < b.i : ua < ub) ? ub : ua;
    break;
  case BinaryOp::bit_and:
    r = ua & ub;
    break;
  case BinaryOp::bit_or:
    r = ua | ub;
    break;
  case BinaryOp::bit_xor:
    r = ua ^ ub;
    break;
  case BinaryOp::pow:
    for (r = 1; ub; ub >>= 1, ua *= ua)
      r *= ub & 1 ? ua : 1;
    break;
  case BinaryOp::shl:
  case BinaryOp::shr:
    r = shift(op, dtype, a.i, b.i);
    break;
  default:
    break;
  }
  out = int_scalar(dtype, int64_t(r));
  return true;
}

ScalarValue fma_scalar(DType dtype, ScalarValue a, ScalarValue b, ScalarValue c) {
  if (dtype == DType::f32)
    return {double(std::fma(float(a.f), float(b.f), float(c.f))), 0};
  if (is_float(dtype))
    return {std::fma(a.f, b.f, c.f), 0};
  return int_scalar(dtype, int64_t(uint64_t(a.i) * uint64_t(b.i) + uint64_t(c.i)));
}

} // namespace kiln
