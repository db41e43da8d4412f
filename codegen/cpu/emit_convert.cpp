// Conversions by the language's rules: float to int saturates and NaN becomes 0, int to narrower
// int wraps, anything to bool is != 0, f16 and bf16 round to nearest even (from f64 and integers
// through f32). f16 uses the machine's instructions where it has them and integer arithmetic
// elsewhere, with the results of ir/dtype.h; no library is called.
#include "codegen/cpu/kernel_emitter.h"
#include "codegen/cpu/types.h"

#include <llvm/IR/IntrinsicsX86.h>

namespace kiln::cpu {

llvm::Value *KernelEmitter::emit_convert(llvm::Value *a, DType from, DType to, int lanes) {
  if (from == to)
    return a;
  llvm::Type *type = value_type(context_, to, lanes);
  if (from == DType::f16)
    return emit_convert(half_to_float(a, lanes), DType::f32, to, lanes);
  if (from == DType::bf16)
    return emit_convert(bfloat_to_float(a, lanes), DType::f32, to, lanes);
  if (to == DType::f16)
    return float_to_half(emit_convert(a, from, DType::f32, lanes), lanes);
  if (to == DType::bf16)
    return float_to_bfloat(emit_convert(a, from, DType::f32, lanes), lanes);
  if (is_bool(to))
    return is_float(from) ? b_.CreateFCmpUNE(a, splat_float(a->getType(), 0))
                          : b_.CreateICmpNE(a, splat_int(a->getType(), 0));
  if (is_float(from) && is_float(to))
    return to == DType::f64 ? b_.CreateFPExt(a, type) : b_.CreateFPTrunc(a, type);
  if (is_float(from))
    return float_to_int(a, to, lanes);
  if (is_float(to))
    return is_signed_int(from) ? b_.CreateSIToFP(a, type) : b_.CreateUIToFP(a, type);
  return is_signed_int(from) ? b_.CreateSExtOrTrunc(a, type) : b_.CreateZExtOrTrunc(a, type);
}

// u8 from f32, to the nearest or truncated, on x86: what is too large becomes the largest unsigned
// integer there and saturates with it, and max gives its second operand, 0, for a NaN. Null for
// vectors that are not those of a register.
llvm::Value *KernelEmitter::float_to_code(llvm::Value *a, bool rounds, int lanes) {
  if (!is_x86(machine_) || lanes < 4 || lanes > machine_.lanes(DType::f32) ||
      (lanes & (lanes - 1)) != 0)
    return nullptr;
  using namespace llvm::Intrinsic;
  llvm::Type *i32 = value_type(context_, DType::i32, lanes);
  llvm::Constant *zero = llvm::Constant::getNullValue(a->getType());
  llvm::Value *whole;
  if (lanes == 16) {
    llvm::Value *positive = b_.CreateIntrinsic(x86_avx512_max_ps_512, {}, {a, zero, b_.getInt32(4)});
    whole = b_.CreateIntrinsic(
        rounds ? x86_avx512_mask_cvtps2dq_512 : x86_avx512_mask_cvttps2dq_512, {},
        {positive, llvm::Constant::getNullValue(i32), b_.getInt16(0xffff), b_.getInt32(4)});
  } else if (lanes == 8) {
    llvm::Value *positive = b_.CreateIntrinsic(x86_avx_max_ps_256, {}, {a, zero});
    whole = b_.CreateIntrinsic(rounds ? x86_avx_cvt_ps2dq_256 : x86_avx_cvtt_ps2dq_256, {},
                               {positive});
  } else {
    llvm::Value *positive = b_.CreateIntrinsic(x86_sse_max_ps, {}, {a, zero});
    whole = b_.CreateIntrinsic(rounds ? x86_sse2_cvtps2dq : x86_sse2_cvttps2dq, {}, {positive});
  }
  whole = b_.CreateBinaryIntrinsic(umin, whole, splat_int(i32, 255));
  return b_.CreateTrunc(whole, value_type(context_, DType::u8, lanes));
}

// Clamped first, so that the instruction never meets what it has no answer for.
llvm::Value *KernelEmitter::float_to_int(llvm::Value *a, DType to, int lanes) {
  unsigned bits = unsigned(dtype_bits(to));
  bool is_signed = is_signed_int(to);
  auto least = is_signed ? llvm::APInt::getSignedMinValue(bits) : llvm::APInt::getMinValue(bits);
  auto most = is_signed ? llvm::APInt::getSignedMaxValue(bits) : llvm::APInt::getMaxValue(bits);
  llvm::Type *from = a->getType(), *type = value_type(context_, to, lanes);
  auto as_float = [&](const llvm::APInt &number, bool &exact) {
    llvm::APFloat f(from->getScalarType()->getFltSemantics());
    exact =
        f.convertFromAPInt(number, is_signed, llvm::APFloat::rmTowardZero) == llvm::APFloat::opOK;
    return llvm::ConstantFP::get(from, f);
  };
  bool exact = true;
  llvm::Value *low = as_float(least, exact);
  llvm::Value *high = as_float(most, exact);
  llvm::Value *x = b_.CreateSelect(b_.CreateFCmpOGT(a, low), a, low);
  x = b_.CreateSelect(b_.CreateFCmpOLT(x, high), x, high);
  llvm::Value *out;
  if (bits < 32)
    out = b_.CreateTrunc(b_.CreateFPToSI(x, value_type(context_, DType::i32, lanes)), type);
  else
    out = is_signed ? b_.CreateFPToSI(x, type) : b_.CreateFPToUI(x, type);
  if (!exact) // `high` is the last float below the limit; what is above it saturates
    out = b_.CreateSelect(b_.CreateFCmpOGT(a, high), llvm::ConstantInt::get(type, most), out);
  return b_.CreateSelect(b_.CreateFCmpUNO(a, a), llvm::Constant::getNullValue(type), out);
}

namespace {

bool has_half_conversion(const MachineDesc &machine) {
  // F16C is part of x86-64-v3, as FMA is; aarch64 always converts.
  return machine.has_fma;
}

} // namespace

llvm::Value *KernelEmitter::half_to_float(llvm::Value *a, int lanes) {
  llvm::Type *f32 = value_type(context_, DType::f32, lanes);
  llvm::Type *i32 = value_type(context_, DType::i32, lanes);
  if (has_half_conversion(machine_)) {
    llvm::Type *half = b_.getHalfTy();
    llvm::Type *type = lanes == 1 ? half : llvm::FixedVectorType::get(half, unsigned(lanes));
    return b_.CreateFPExt(b_.CreateBitCast(a, type), f32);
  }
  auto constant = [&](uint32_t v) { return splat_int(i32, v); };
  llvm::Value *bits = b_.CreateZExt(a, i32);
  llvm::Value *sign = b_.CreateShl(b_.CreateAnd(bits, constant(0x8000)), constant(16));
  llvm::Value *magnitude = b_.CreateAnd(bits, constant(0x7fff));
  llvm::Value *wide = b_.CreateShl(magnitude, constant(13));
  llvm::Value *normal = b_.CreateAdd(wide, constant(112u << 23));
  llvm::Value *special = b_.CreateOr(wide, constant(0x7f800000));
  // A subnormal half is its mantissa times 2^-24, a normal float.
  llvm::Value *small = b_.CreateBitCast(
      b_.CreateFMul(b_.CreateSIToFP(magnitude, f32), splat_float(f32, 0x1p-24)), i32);
  llvm::Value *out = b_.CreateSelect(b_.CreateICmpULT(magnitude, constant(0x400)), small, normal);
  out = b_.CreateSelect(b_.CreateICmpUGE(magnitude, constant(0x7c00)), special, out);
  return b_.CreateBitCast(b_.CreateOr(out, sign), f32);
}

llvm::Value *KernelEmitter::float_to_half(llvm::Value *a, int lanes) {
  llvm::Type *f32 = value_type(context_, DType::f32, lanes);
  llvm::Type *i32 = value_type(context_, DType::i32, lanes);
  llvm::Type *i16 = value_type(context_, DType::i16, lanes);
  if (has_half_conversion(machine_)) {
    llvm::Type *half = b_.getHalfTy();
    llvm::Type *type = lanes == 1 ? half : llvm::FixedVectorType::get(half, unsigned(lanes));
    return b_.CreateBitCast(b_.CreateFPTrunc(a, type), i16);
  }
  auto constant = [&](uint32_t v) { return splat_int(i32, v); };
  llvm::Value *bits = b_.CreateBitCast(a, i32);
  llvm::Value *sign = b_.CreateAnd(b_.CreateLShr(bits, constant(16)), constant(0x8000));
  llvm::Value *magnitude = b_.CreateAnd(bits, constant(0x7fffffff));
  llvm::Value *odd = b_.CreateAnd(b_.CreateLShr(magnitude, constant(13)), constant(1));
  llvm::Value *normal = b_.CreateLShr(
      b_.CreateAdd(b_.CreateAdd(magnitude, constant(0xfff - 0x38000000u)), odd), constant(13));
  // Adding 0.5 aligns the mantissa of what becomes a subnormal half, and rounds it to nearest even.
  llvm::Value *aligned = b_.CreateFAdd(b_.CreateBitCast(magnitude, f32), splat_float(f32, 0.5));
  llvm::Value *small = b_.CreateSub(b_.CreateBitCast(aligned, i32), constant(0x3f000000));
  llvm::Value *out =
      b_.CreateSelect(b_.CreateICmpULT(magnitude, constant(0x38800000)), small, normal);
  out = b_.CreateSelect(b_.CreateICmpUGE(magnitude, constant(0x477ff000)), constant(0x7c00), out);
  out = b_.CreateSelect(b_.CreateICmpUGT(magnitude, constant(0x7f800000)), constant(0x7e00), out);
  return b_.CreateTrunc(b_.CreateOr(out, sign), i16);
}

llvm::Value *KernelEmitter::bfloat_to_float(llvm::Value *a, int lanes) {
  llvm::Type *i32 = value_type(context_, DType::i32, lanes);
  llvm::Value *bits = b_.CreateShl(b_.CreateZExt(a, i32), splat_int(i32, 16));
  return b_.CreateBitCast(bits, value_type(context_, DType::f32, lanes));
}

llvm::Value *KernelEmitter::float_to_bfloat(llvm::Value *a, int lanes) {
  llvm::Type *i32 = value_type(context_, DType::i32, lanes);
  if (machine_.has_bf16_dots && lanes == 16 && !options_.denormals_keep) // takes denormals as zero
    return b_.CreateBitCast(b_.CreateIntrinsic(llvm::Intrinsic::x86_avx512bf16_cvtneps2bf16_512, {}, {a}),
                            value_type(context_, DType::i16, lanes));
  auto constant = [&](uint32_t v) { return splat_int(i32, v); };
  llvm::Value *bits = b_.CreateBitCast(a, i32);
  llvm::Value *upper = b_.CreateLShr(bits, constant(16));
  llvm::Value *round = b_.CreateAdd(b_.CreateAnd(upper, constant(1)), constant(0x7fff));
  llvm::Value *rounded = b_.CreateLShr(b_.CreateAdd(bits, round), constant(16));
  llvm::Value *quiet = b_.CreateOr(upper, constant(0x40));
  llvm::Value *out = b_.CreateSelect(b_.CreateFCmpUNO(a, a), quiet, rounded);
  return b_.CreateTrunc(out, value_type(context_, DType::i16, lanes));
}

} // namespace kiln::cpu
