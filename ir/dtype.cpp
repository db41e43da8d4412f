#include "ir/dtype.h"

#include <bit>
#include <cmath>

namespace kiln {

std::string_view dtype_name(DType dtype) {
  switch (dtype) {
#define KILN_DTYPE(name, bits, kind, code)                                                         \
  case DType::name:                                                                                \
    return std::string_view(#name) == "bool_" ? std::string_view("bool") : std::string_view(#name);
#include "ir/dtypes.def"
#undef KILN_DTYPE
  }
  return "?";
}

std::optional<DType> dtype_from_name(std::string_view name) {
#define KILN_DTYPE(n, bits, kind, code)                                                            \
  if (name == dtype_name(DType::n))                                                                \
    return DType::n;
#include "ir/dtypes.def"
#undef KILN_DTYPE
  return std::nullopt;
}

std::optional<DType> dtype_from_code(int code) {
  switch (code) {
#define KILN_DTYPE(name, bits, kind, c)                                                            \
  case c:                                                                                          \
    return DType::name;
#include "ir/dtypes.def"
#undef KILN_DTYPE
  default:
    return std::nullopt;
  }
}

int dtype_bits(DType dtype) {
  switch (dtype) {
#define KILN_DTYPE(name, bits, kind, code)                                                         \
  case DType::name:                                                                                \
    return bits;
#include "ir/dtypes.def"
#undef KILN_DTYPE
  }
  return 0;
}

DTypeKind dtype_kind(DType dtype) {
  switch (dtype) {
#define KILN_DTYPE(name, bits, kind, code)                                                         \
  case DType::name:                                                                                \
    return DTypeKind::kind;
#include "ir/dtypes.def"
#undef KILN_DTYPE
  }
  return DTypeKind::float_;
}

uint16_t f32_to_f16(float value) {
  uint32_t x = std::bit_cast<uint32_t>(value);
  uint32_t sign = (x >> 16) & 0x8000u, magnitude = x & 0x7fffffffu;
  if (magnitude >= 0x7f800000u)
    return uint16_t(sign | (magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u));
  if (magnitude >= 0x477ff000u)
    return uint16_t(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Subnormal half: adding 0.5 aligns the mantissa and rounds to nearest even.
    float aligned = std::bit_cast<float>(magnitude) + 0.5f;
    return uint16_t(sign | (std::bit_cast<uint32_t>(aligned) - 0x3f000000u));
  }
  uint32_t odd = (magnitude >> 13) & 1u;
  return uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

float f16_to_f32(uint16_t bits) {
  uint32_t sign = uint32_t(bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1fu,
           mantissa = bits & 0x3ffu;
  if (exponent == 0x1f)
    return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0)
    return std::copysign(std::ldexp(float(mantissa), -24), std::bit_cast<float>(sign | 0x3f800000u));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t f32_to_bf16(float value) {
  uint32_t x = std::bit_cast<uint32_t>(value);
  if ((x & 0x7fffffffu) > 0x7f800000u)
    return uint16_t((x >> 16) | 0x40u);
  return uint16_t((x + 0x7fffu + ((x >> 16) & 1u)) >> 16);
}

float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }

} // namespace kiln
