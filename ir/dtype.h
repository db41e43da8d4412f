// Element types. The list is ir/dtypes.def; everything below derives from it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace kiln {

enum class DType : uint8_t {
#define KILN_DTYPE(name, bits, kind, code) name = code,
#include "ir/dtypes.def"
#undef KILN_DTYPE
};

enum class DTypeKind : uint8_t {
  float_, signed_, unsigned_, bool_,
  narrow_float_, narrow_signed_, narrow_unsigned_, // no arithmetic: see ir/narrow.h
};

// "f32", "bool", ...
std::string_view dtype_name(DType dtype);
std::optional<DType> dtype_from_name(std::string_view name);
std::optional<DType> dtype_from_code(int code);

int dtype_bits(DType dtype);
// In memory every element has bytes of its own, also where it has 4 bits or 2.
inline int64_t dtype_bytes(DType dtype) { return (dtype_bits(dtype) + 7) / 8; }
DTypeKind dtype_kind(DType dtype);

inline bool is_float(DType d) { return dtype_kind(d) == DTypeKind::float_; }
inline bool is_signed_int(DType d) { return dtype_kind(d) == DTypeKind::signed_; }
inline bool is_unsigned_int(DType d) { return dtype_kind(d) == DTypeKind::unsigned_; }
inline bool is_integer(DType d) { return is_signed_int(d) || is_unsigned_int(d); }
inline bool is_bool(DType d) { return d == DType::bool_; }
// None of is_float, is_integer and is_bool.
inline bool is_narrow(DType d) { return dtype_kind(d) >= DTypeKind::narrow_float_; }
// Of a float dtype, however narrow.
inline bool holds_floats(DType d) { return is_float(d) || dtype_kind(d) == DTypeKind::narrow_float_; }

// The type arithmetic is done in: f16 and bf16 compute and accumulate in f32, all others in themselves.
inline DType compute_dtype(DType d) { return d == DType::f16 || d == DType::bf16 ? DType::f32 : d; }

// One element converted by the language's rules: float to int saturates, NaN becomes 0, int to
// narrower int wraps, anything to bool is != 0. f16 and bf16 round to nearest even.
uint16_t f32_to_f16(float value);
float f16_to_f32(uint16_t bits);
uint16_t f32_to_bf16(float value);
float bf16_to_f32(uint16_t bits);

} // namespace kiln
