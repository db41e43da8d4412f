#include "ir/narrow.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

namespace kiln {
namespace {

constexpr NarrowFloat kFloats[] = {
    {.dtype = DType::f8e4m3fn, .exponent_bits = 4, .mantissa_bits = 3, .bias = 7, .greatest = 0x7e, .nan = 0x7f},
    {.dtype = DType::f8e4m3fnuz, .exponent_bits = 4, .mantissa_bits = 3, .bias = 8, .greatest = 0x7f, .nan = 0x80,
     .negative_zero = false},
    {.dtype = DType::f8e5m2, .exponent_bits = 5, .mantissa_bits = 2, .bias = 15, .greatest = 0x7b, .nan = 0x7e,
     .has_infinity = true},
    {.dtype = DType::f8e5m2fnuz, .exponent_bits = 5, .mantissa_bits = 2, .bias = 16, .greatest = 0x7f, .nan = 0x80,
     .negative_zero = false},
    {.dtype = DType::f8e8m0, .exponent_bits = 8, .mantissa_bits = 0, .bias = 127, .greatest = 0xfe, .nan = 0xff,
     .has_sign = false},
    {.dtype = DType::f4e2m1, .exponent_bits = 2, .mantissa_bits = 1, .bias = 1, .greatest = 7, .nan = -1},
};

// The value of a code without a sign that is finite.
double magnitude(const NarrowFloat &f, int code) {
  if (f.dtype == DType::f8e8m0)
    return std::ldexp(1.0, code - f.bias);
  int exponent = code >> f.mantissa_bits, mantissa = code & ((1 << f.mantissa_bits) - 1);
  if (exponent == 0)
    return std::ldexp(mantissa, 1 - f.bias - f.mantissa_bits);
  return std::ldexp((1 << f.mantissa_bits) + mantissa, exponent - f.bias - f.mantissa_bits);
}

double float_value(const NarrowFloat &f, int code) {
  int rest = code & f.magnitude_mask();
  bool negative = f.has_sign && code >> f.sign_bit() & 1;
  double sign = negative ? -1 : 1;
  if (!f.negative_zero && code == f.nan)
    return std::numeric_limits<double>::quiet_NaN();
  if (rest <= f.greatest)
    return sign * magnitude(f, rest);
  if (f.has_infinity && rest == f.greatest + 1)
    return sign * std::numeric_limits<double>::infinity();
  return std::copysign(std::numeric_limits<double>::quiet_NaN(), sign);
}

// The code whose value is nearest to x >= 0, of two as near the even one; f8e8m0: the least not below x.
int nearest(const NarrowFloat &f, double x) {
  int low = 0, high = f.greatest; // the greatest code whose value is not above x, or 0
  while (low < high) {
    int middle = (low + high + 1) / 2;
    if (magnitude(f, middle) <= x)
      low = middle;
    else
      high = middle - 1;
  }
  if (low == f.greatest)
    return low;
  double below = magnitude(f, low), above = magnitude(f, low + 1);
  if (f.dtype == DType::f8e8m0)
    return x <= below ? low : low + 1;
  double half = (below + above) / 2; // exact: both have few bits
  return x < half || (x == half && low % 2 == 0) ? low : low + 1;
}

int float_code(const NarrowFloat &f, double x) {
  int sign = f.has_sign && std::signbit(x) ? 1 << f.sign_bit() : 0;
  if (std::isnan(x))
    return f.nan < 0 ? 0 : f.negative_zero ? f.nan | sign : f.nan;
  int code = nearest(f, std::fabs(x));
  return code == 0 && !f.negative_zero ? 0 : code | sign;
}

bool is_signed_code(DType d) { return dtype_kind(d) == DTypeKind::narrow_signed_; }

int code_mask(DType d) { return (1 << dtype_bits(d)) - 1; }

} // namespace

const NarrowFloat *narrow_float(DType dtype) {
  for (const NarrowFloat &f : kFloats)
    if (f.dtype == dtype)
      return &f;
  return nullptr;
}

DType storage_dtype(DType dtype) {
  return !is_narrow(dtype) ? dtype : is_signed_code(dtype) ? DType::i8 : DType::u8;
}

uint8_t narrow_code(DType dtype, uint8_t byte) { return uint8_t(byte & code_mask(dtype)); }

uint8_t narrow_byte(DType dtype, uint8_t code) {
  bool negative = is_signed_code(dtype) && code >> (dtype_bits(dtype) - 1) & 1;
  return uint8_t(negative ? code | ~code_mask(dtype) : code & code_mask(dtype));
}

double narrow_value(DType dtype, uint8_t byte) {
  uint8_t code = narrow_code(dtype, byte);
  if (const NarrowFloat *f = narrow_float(dtype)) {
    static const auto kValues = [] {
      std::array<std::array<double, 256>, std::size(kFloats)> out{};
      for (size_t i = 0; i < std::size(kFloats); ++i)
        for (int c = 0; c < 256; ++c)
          out[i][size_t(c)] = float_value(kFloats[i], c & code_mask(kFloats[i].dtype));
      return out;
    }();
    return kValues[size_t(f - kFloats)][code];
  }
  return is_signed_code(dtype) ? double(int8_t(narrow_byte(dtype, code))) : double(code);
}

uint8_t to_narrow(DType dtype, double value) {
  if (const NarrowFloat *f = narrow_float(dtype))
    return uint8_t(float_code(*f, value));
  int bits = dtype_bits(dtype), least = is_signed_code(dtype) ? -(1 << (bits - 1)) : 0;
  int most = least + code_mask(dtype);
  if (std::isnan(value))
    return 0;
  return uint8_t(int(std::clamp(std::trunc(value), double(least), double(most))));
}

uint8_t to_narrow(DType dtype, int64_t value) {
  if (narrow_float(dtype) && value < 0 && dtype != DType::f8e8m0)
    return to_narrow(dtype, double(value)); // large ones are the least, however they are rounded
  return to_narrow(dtype, value < 0 && narrow_float(dtype) ? -uint64_t(value) : uint64_t(value));
}

uint8_t to_narrow(DType dtype, uint64_t value) {
  if (!narrow_float(dtype))
    return narrow_byte(dtype, uint8_t(value & uint64_t(code_mask(dtype))));
  if (dtype == DType::f8e8m0 && value != 0) // 64 bits are more than a double has
    return uint8_t(127 + std::bit_width(value - 1));
  return to_narrow(dtype, double(value));
}

int64_t packed_bytes(DType dtype, int64_t count) {
  int64_t in_byte = is_narrow(dtype) ? 8 / dtype_bits(dtype) : 1;
  return in_byte == 1 ? count * dtype_bytes(dtype) : count / in_byte + (count % in_byte != 0);
}

Tensor unpack_narrow(DType dtype, std::vector<int64_t> dims, std::span<const std::byte> bytes) {
  Tensor out(dtype, std::move(dims));
  KILN_CHECK(int64_t(bytes.size()) == packed_bytes(dtype, out.count()), "packed elements fill their bytes");
  int bits = dtype_bits(dtype), in_byte = 8 / bits;
  std::byte *to = out.mutable_bytes();
  for (int64_t i = 0; i < out.count(); ++i) {
    int byte = int(bytes[size_t(i / in_byte)]);
    to[i] = std::byte(narrow_byte(dtype, uint8_t(byte >> (i % in_byte * bits) & code_mask(dtype))));
  }
  return out;
}

Result<Tensor> from_codes(const Tensor &codes, DType dtype) {
  bool integers = !narrow_float(dtype);
  if (!is_narrow(dtype) || (codes.dtype() != DType::u8 && !(codes.dtype() == DType::i8 && integers)))
    return Error{"elements of " + std::string(dtype_name(dtype)) + " are given as their codes, in an array of " +
                 (integers ? "i8 or u8" : "u8") + ", not of " + std::string(dtype_name(codes.dtype()))};
  Tensor out(dtype, codes.dims());
  for (int64_t i = 0; i < out.count(); ++i) {
    int64_t code = codes.at_i64(i);
    uint8_t byte = narrow_byte(dtype, uint8_t(code & code_mask(dtype)));
    bool fits = integers ? int64_t(narrow_value(dtype, byte)) == code : code <= code_mask(dtype);
    if (!fits)
      return Error{"element " + std::to_string(i) + " is " + std::to_string(code) + ", which is no " +
                   (integers ? "" : "code of ") + std::string(dtype_name(dtype))};
    out.mutable_bytes()[i] = std::byte(byte);
  }
  return out;
}

} // namespace kiln
