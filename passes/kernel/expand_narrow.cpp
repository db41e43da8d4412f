// Values of narrow dtypes (ir/narrow.h) become bytes, and what is done with them integer arithmetic:
//
//   y[i] = convert(f32, w[i])        w: f8e5m2      =>  let c = convert(i32, w[i])     w: u8
//                                                       let m = bit_and(c, 127)
//                                                       y[i] = bitcast(f32, ...)
//
// Every target gets its kernels without narrow dtypes, so none knows of them. Schedules run this last, when
// loops are tiled and made of vectors: what is written here works on any number of lanes.
#include "ir/narrow.h"
#include "passes/kernel/expand.h"
#include "passes/kernel/schedule.h"

#include <cmath>

namespace kiln {
namespace {

MathValue le(const MathValue &a, int64_t b) { return a <= bits(a, b); }
MathValue lt(const MathValue &a, int64_t b) { return a < bits(a, b); }
MathValue is(const MathValue &a, int64_t b) { return a == bits(a, b); }
MathValue choose_bits(const MathValue &c, int64_t a, const MathValue &b) { return choose(c, bits(b, a), b); }
MathValue least(const MathValue &a, int64_t b) { return {kb::min(a.e, bits(a, b).e)}; }
MathValue greatest(const MathValue &a, int64_t b) { return {kb::max(a.e, bits(a, b).e)}; }

// The layout of f32 or f64, and the integers of its width.
struct Wide {
  DType dtype, integer;
  int mantissa_bits, bias, width;
  int64_t infinity() const { return int64_t(2 * bias + 1) << mantissa_bits; }
  int64_t magnitude_mask() const { return int64_t((uint64_t(1) << (width - 1)) - 1); }
};
constexpr Wide kF32{DType::f32, DType::i32, 23, 127, 32}, kF64{DType::f64, DType::i64, 52, 1023, 64};

// -- integers of 4 and 2 bits

// The value in i32, from a byte whose upper bits may be anything.
MathValue decoded_integer(DType dtype, const MathValue &byte) {
  MathValue wide = cast(DType::i32, byte);
  int width = dtype_bits(dtype);
  if (dtype_kind(dtype) == DTypeKind::narrow_unsigned_)
    return wide & bits(wide, (1 << width) - 1);
  return (wide << bits(wide, 32 - width)) >> bits(wide, 32 - width);
}

// From a float, which saturates, or from an integer or a bool, which wraps.
MathValue encoded_integer(DType dtype, const MathValue &x) {
  MathValue wide = cast(DType::i32, x);
  if (is_float(x.e.dtype)) {
    int width = dtype_bits(dtype);
    bool is_signed = dtype_kind(dtype) == DTypeKind::narrow_signed_;
    int low = is_signed ? -(1 << (width - 1)) : 0;
    wide = least(greatest(wide, low), low + (1 << width) - 1);
  } else {
    wide = decoded_integer(dtype, wide);
  }
  return cast(storage_dtype(dtype), wide);
}

// -- powers of two

MathValue decoded_exponent(const Wide &w, const MathValue &byte, MathBuilder &b) {
  MathValue code = b.bind(cast(w.integer, byte));
  MathValue value = (code + bits(code, w.bias - 127)) << bits(code, w.mantissa_bits);
  if (w.bias == 127) // 2^-127 is subnormal
    value = choose_bits(is(code, 0), int64_t(1) << (w.mantissa_bits - 1), value);
  int64_t nan = w.infinity() | int64_t(1) << (w.mantissa_bits - 1);
  return as_bits(w.dtype, choose_bits(is(code, 255), nan, value));
}

MathValue encoded_exponent(const Wide &w, const MathValue &x, MathBuilder &b) {
  MathValue raw = as_bits(w.integer, x);
  MathValue size = b.bind(raw & bits(raw, w.magnitude_mask()));
  // Adding all ones below the exponent carries into it unless they are zeros.
  MathValue up = (size + bits(size, (int64_t(1) << w.mantissa_bits) - 1)) >> bits(size, w.mantissa_bits);
  MathValue code = least(up - bits(up, w.bias - 127), 254);
  code = w.bias == 127 ? choose_bits(le(size, int64_t(1) << (w.mantissa_bits - 1)), 0, code) : greatest(code, 0);
  return cast(DType::u8, choose_bits(bits(size, w.infinity()) < size, 255, code));
}

// 64 bits in the 53 of an f64: what is cut off leaves a one behind, so that rounding up sees it.
MathValue sticky_f64(const MathValue &integer, MathBuilder &b) {
  MathValue x = b.bind(integer);
  if (is_signed_int(x.e.dtype))
    x = b.bind(choose(x < bits(x, 0), {kb::unary(UnaryOp::neg, x.e)}, x));
  x = b.bind(cast(DType::u64, x));
  MathValue rest = choose(is(x & bits(x, 2047), 0), bits(x, 0), bits(x, 1));
  MathValue cut = ((x >> bits(x, 11)) | rest) << bits(x, 11);
  return cast(DType::f64, choose(lt(x >> bits(x, 53), 1), x, cut));
}

// -- floats of 8 and 4 bits

MathValue decoded_float(const NarrowFloat &f, const MathValue &byte, MathBuilder &b) {
  const Wide &w = kF32;
  int shift = w.mantissa_bits - f.mantissa_bits;
  int64_t nan = w.infinity() | int64_t(1) << (w.mantissa_bits - 1);
  MathValue code = b.bind(cast(w.integer, byte));
  MathValue size = b.bind(code & bits(code, f.magnitude_mask()));
  MathValue normal = (size << bits(size, shift)) + bits(size, int64_t(w.bias - f.bias) << w.mantissa_bits);
  MathValue steps = cast(w.dtype, size) * std::ldexp(1.0, 1 - f.bias - f.mantissa_bits);
  MathValue value = choose(lt(size, 1 << f.mantissa_bits), as_bits(w.integer, steps), normal);
  if (f.has_infinity)
    value = choose(lt(size, f.greatest + 1), value, (size << bits(size, shift)) | bits(size, w.infinity()));
  else if (f.negative_zero && f.nan >= 0)
    value = choose_bits(is(size, f.nan), nan, value);
  MathValue sign = (code & bits(code, 1 << f.sign_bit())) << bits(code, 31 - f.sign_bit());
  value = value | sign;
  if (!f.negative_zero)
    value = choose_bits(is(code & bits(code, 255), f.nan), nan, value);
  return as_bits(w.dtype, value);
}

// Rounds once, so x may be of either width.
MathValue encoded_float(const NarrowFloat &f, const Wide &w, const MathValue &x, MathBuilder &b) {
  int shift = w.mantissa_bits - f.mantissa_bits;
  MathValue raw = b.bind(as_bits(w.integer, x));
  MathValue size = b.bind(raw & bits(raw, w.magnitude_mask()));
  MathValue odd = (size >> bits(size, shift)) & bits(size, 1);
  int64_t rebias = int64_t(w.bias - f.bias) << w.mantissa_bits;
  MathValue normal = (size + bits(size, (int64_t(1) << (shift - 1)) - 1 - rebias) + odd) >> bits(size, shift);
  // The last bit of the magic number weighs what that of a subnormal code does: adding it rounds.
  double magic = std::ldexp(1.0, w.mantissa_bits + 1 - f.bias - f.mantissa_bits);
  MathValue aligned = as_bits(w.integer, as_bits(w.dtype, size) + magic);
  int64_t magic_bits = int64_t(w.mantissa_bits + 1 - f.bias - f.mantissa_bits + w.bias) << w.mantissa_bits;
  MathValue small = aligned - bits(size, magic_bits);
  int64_t least_normal = int64_t(w.bias + 1 - f.bias) << w.mantissa_bits;
  MathValue code = b.bind(least(choose(lt(size, least_normal), small, normal), f.greatest));
  MathValue sign = (raw >> bits(raw, w.width - 1 - f.sign_bit())) & bits(raw, 1 << f.sign_bit());
  MathValue is_nan = bits(size, w.infinity()) < size;
  if (f.negative_zero && f.nan >= 0) // a NaN has a sign too
    return cast(DType::u8, choose_bits(is_nan, f.nan, code) | sign);
  if (!f.negative_zero)
    sign = choose_bits(is(code, 0), 0, sign);
  return cast(DType::u8, choose_bits(is_nan, std::max(f.nan, 0), code | sign));
}

// -- expressions

// A value of f32, f64, i32 that is equal; f8e8m0 in f64, where nothing of it is subnormal.
MathValue decoded(DType dtype, const MathValue &byte, MathBuilder &b) {
  if (dtype == DType::f8e8m0)
    return decoded_exponent(kF64, byte, b);
  const NarrowFloat *f = narrow_float(dtype);
  return f ? decoded_float(*f, byte, b) : decoded_integer(dtype, byte);
}

MathValue encoded(DType dtype, MathValue x, MathBuilder &b) {
  const NarrowFloat *f = narrow_float(dtype);
  if (compute_dtype(x.e.dtype) != x.e.dtype)
    x = cast(DType::f32, x);
  if (!f)
    return encoded_integer(dtype, x);
  if (dtype == DType::f8e8m0) {
    bool wide = is_integer(x.e.dtype) && dtype_bits(x.e.dtype) == 64;
    if (wide || !is_float(x.e.dtype))
      x = wide ? sticky_f64(x, b) : cast(DType::f64, x);
    return encoded_exponent(x.e.dtype == DType::f64 ? kF64 : kF32, x, b);
  }
  if (!is_float(x.e.dtype)) // exact, or beyond the largest
    x = cast(DType::f32, x);
  return encoded_float(*f, x.e.dtype == DType::f64 ? kF64 : kF32, x, b);
}

bool keeps_subnormals_apart(DType to) { return to == DType::f32 || compute_dtype(to) == DType::f32; }

MathValue converted(DType from, DType to, MathValue x, MathBuilder &b) {
  if (is_narrow(from)) {
    x = b.bind(x);
    x = from == DType::f8e8m0 && keeps_subnormals_apart(to) ? decoded_exponent(kF32, x, b) : decoded(from, x, b);
  }
  return is_narrow(to) ? encoded(to, x, b) : cast(to, x);
}

// The bits as a byte of the result's storage.
MathValue reinterpreted(DType from, DType to, MathValue x) {
  if (!is_narrow(from))
    x = as_bits(DType::u8, x);
  else if (dtype_bits(from) < 8)
    x = cast(DType::u8, cast(DType::i32, x) & bits(cast(DType::i32, x), (1 << dtype_bits(from)) - 1));
  if (!is_narrow(to))
    return as_bits(to, x);
  return storage_dtype(to) == DType::u8 ? x : cast(DType::i8, decoded_integer(to, x));
}

bool is_found(const Expr &e) { return is_narrow(e.dtype); }

void expand(Expr &e, MathBuilder &b) {
  DType from = e.args.empty() ? e.dtype : e.args[0].dtype, to = e.dtype;
  for (Expr &a : e.args)
    expand(a, b);
  bool narrow = is_narrow(from) || is_narrow(to);
  if (narrow && e.is(Expr::Kind::convert)) {
    e = converted(from, to, {std::move(e.args[0])}, b).e;
  } else if (narrow && e.is(Expr::Kind::bitcast)) {
    e = reinterpreted(from, to, {std::move(e.args[0])}).e;
  } else if (is_narrow(from) && e.is(Expr::Kind::binary)) { // eq, ne
    for (Expr &a : e.args)
      a = decoded(from, b.bind({std::move(a)}), b).e;
  } else if (is_narrow(to)) {
    e.dtype = storage_dtype(to);
    if (e.is(Expr::Kind::number))
      e.integer = e.dtype == DType::i8 ? int8_t(narrow_byte(to, uint8_t(e.integer))) : narrow_byte(to, uint8_t(e.integer));
  }
}

bool store_bytes(std::vector<Stmt> &body) {
  bool changed = false;
  for (Stmt &s : body) {
    if (s.is(Stmt::Kind::alloc) && is_narrow(s.dtype)) {
      s.dtype = storage_dtype(s.dtype);
      changed = true;
    }
    changed |= store_bytes(s.body);
    changed |= store_bytes(s.other);
  }
  return changed;
}

} // namespace

bool expand_narrow(Kernel &kernel) {
  bool changed = expand_values(kernel, is_found, expand);
  changed |= store_bytes(kernel.body);
  for (KernelBuffer &b : kernel.buffers) {
    changed |= is_narrow(b.dtype);
    b.dtype = storage_dtype(b.dtype);
  }
  return changed;
}

} // namespace kiln
