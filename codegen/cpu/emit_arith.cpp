// Arithmetic with the meanings of ir/kernel/scalar_ops.def. Nothing here depends on LLVM's
// undefined or poison results: every input of every operation gives the documented value at every
// opt level.
#include "codegen/cpu/kernel_emitter.h"
#include "codegen/cpu/types.h"

#include <llvm/IR/IntrinsicsX86.h>

namespace kiln::cpu {
namespace {

bool is_never_nan(llvm::Value *v) {
  auto *constant = llvm::dyn_cast<llvm::Constant>(v);
  if (!constant)
    return false;
  if (auto *splat = constant->getType()->isVectorTy() ? constant->getSplatValue() : constant)
    if (auto *number = llvm::dyn_cast<llvm::ConstantFP>(splat))
      return !number->isNaN();
  return false;
}

// maxps and minps as they are, for whole registers: written as a comparison and a selection, what
// follows would be merged into their mask.
llvm::Value *x86_extremum(llvm::IRBuilder<> &b, const MachineDesc &machine, bool maximum,
                                 llvm::Value *first, llvm::Value *second) {
  auto *type = llvm::dyn_cast<llvm::FixedVectorType>(first->getType());
  unsigned bytes = type ? unsigned(type->getPrimitiveSizeInBits().getFixedValue() / 8) : 0;
  if (bytes < 16 || bytes > unsigned(machine.vector_bytes))
    return nullptr;
  bool wide = type->getElementType()->isDoubleTy();
  using namespace llvm::Intrinsic;
  if (bytes == 64) {
    ID id = wide ? (maximum ? x86_avx512_max_pd_512 : x86_avx512_min_pd_512)
                 : (maximum ? x86_avx512_max_ps_512 : x86_avx512_min_ps_512);
    return b.CreateIntrinsic(id, {}, {first, second, b.getInt32(4)});
  }
  if (bytes != 16 && bytes != 32)
    return nullptr;
  ID id = bytes == 32 ? (wide ? (maximum ? x86_avx_max_pd_256 : x86_avx_min_pd_256)
                              : (maximum ? x86_avx_max_ps_256 : x86_avx_min_ps_256))
                      : (wide ? (maximum ? x86_sse2_max_pd : x86_sse2_min_pd)
                              : (maximum ? x86_sse_max_ps : x86_sse_min_ps));
  return b.CreateIntrinsic(id, {}, {first, second});
}

} // namespace

llvm::Value *KernelEmitter::emit_unary(const Expr &e, llvm::Value *a) {
  DType dtype = e.args[0].dtype;
  llvm::Type *type = a->getType();
  bool floating = type->isFPOrFPVectorTy();
  auto rounding = [&](llvm::Intrinsic::ID id) {
    return floating ? b_.CreateUnaryIntrinsic(id, a) : a;
  };
  switch (e.unary) {
  case UnaryOp::neg:
    return floating ? b_.CreateFNeg(a) : b_.CreateNeg(a);
  case UnaryOp::abs:
    if (floating)
      return b_.CreateUnaryIntrinsic(llvm::Intrinsic::fabs, a);
    return is_signed_int(dtype) ? b_.CreateBinaryIntrinsic(llvm::Intrinsic::abs, a, b_.getFalse())
                                : a;
  case UnaryOp::ceil:
    return rounding(llvm::Intrinsic::ceil);
  case UnaryOp::floor:
    return rounding(llvm::Intrinsic::floor);
  case UnaryOp::round:
    return rounding(llvm::Intrinsic::roundeven);
  case UnaryOp::trunc:
    return rounding(llvm::Intrinsic::trunc);
  case UnaryOp::sqrt:
    return floating ? b_.CreateUnaryIntrinsic(llvm::Intrinsic::sqrt, a)
                    : fail("sqrt of an integer", type);
  case UnaryOp::bit_not:
    return floating ? fail("bit_not of a float", type) : b_.CreateNot(a);
  case UnaryOp::is_nan:
    return floating ? b_.CreateFCmpUNO(a, a)
                    : llvm::Constant::getNullValue(value_type(context_, DType::bool_, e.lanes));
  default:
    return fail("the function " + std::string(unary_name(e.unary)) + " was not expanded", type);
  }
}

llvm::Value *KernelEmitter::emit_binary(BinaryOp op, DType dtype, llvm::Value *a, llvm::Value *b) {
  if (is_primitive(op)) {
    if (is_bool(dtype))
      return emit_bool_binary(op, a, b);
    if (a->getType()->isFPOrFPVectorTy())
      return emit_float_binary(op, a, b);
    if (is_integer(dtype))
      return emit_int_binary(op, is_signed_int(dtype), a, b);
  }
  return fail("the operation " + std::string(binary_name(op)) + " on " +
                  std::string(dtype_name(dtype)) + " was not expanded",
              a->getType());
}

llvm::Value *KernelEmitter::emit_float_binary(BinaryOp op, llvm::Value *a, llvm::Value *b) {
  switch (op) {
  case BinaryOp::add:
    return b_.CreateFAdd(a, b);
  case BinaryOp::sub:
    return b_.CreateFSub(a, b);
  case BinaryOp::mul:
    return b_.CreateFMul(a, b);
  case BinaryOp::div:
    return b_.CreateFDiv(a, b);
  case BinaryOp::min:
  case BinaryOp::max:
    return emit_float_extremum(op == BinaryOp::max, a, b);
  case BinaryOp::eq:
    return b_.CreateFCmpOEQ(a, b);
  case BinaryOp::ne:
    return b_.CreateFCmpUNE(a, b);
  case BinaryOp::lt:
    return b_.CreateFCmpOLT(a, b);
  case BinaryOp::le:
    return b_.CreateFCmpOLE(a, b);
  case BinaryOp::gt:
    return b_.CreateFCmpOGT(a, b);
  case BinaryOp::ge:
    return b_.CreateFCmpOGE(a, b);
  default:
    return fail("the operation " + std::string(binary_name(op)) + " on floats was not expanded",
                a->getType());
  }
}

// NaN if either is. On x86 minps and maxps return their second operand where one is NaN; what is
// left to repair is a NaN in the first, which a constant never is. An accumulator comes as `a` and
// goes second: it does not wait for the repair's comparison then.
llvm::Value *KernelEmitter::emit_float_extremum(bool maximum, llvm::Value *a, llvm::Value *b) {
  if (!llvm::StringRef(machine_.triple).starts_with("x86_64"))
    return b_.CreateBinaryIntrinsic(maximum ? llvm::Intrinsic::maximum : llvm::Intrinsic::minimum,
                                    a, b);
  if (is_never_nan(b) || !is_never_nan(a))
    std::swap(a, b);
  if (!is_never_nan(a))
    if (llvm::Value *extremum = x86_extremum(b_, machine_, maximum, a, b))
      return b_.CreateSelect(b_.CreateFCmpUNO(a, a), a, extremum);
  llvm::Value *first = maximum ? b_.CreateFCmpOGT(a, b) : b_.CreateFCmpOLT(a, b);
  llvm::Value *extremum = b_.CreateSelect(first, a, b);
  if (is_never_nan(a))
    return extremum;
  return b_.CreateSelect(b_.CreateFCmpUNO(a, a), a, extremum);
}

// Of all lanes, looking for NaN once and not at each halving. Nothing where that has no form of its own.
llvm::Value *KernelEmitter::emit_float_extremum(bool maximum, llvm::Value *v) {
  auto *type = llvm::dyn_cast<llvm::FixedVectorType>(v->getType());
  if (!type || !type->getElementType()->isFloatingPointTy() ||
      !llvm::StringRef(machine_.triple).starts_with("x86_64"))
    return nullptr;
  unsigned lanes = type->getNumElements(), least = 128 / type->getScalarSizeInBits();
  llvm::Value *result = v;
  while (lanes > 1) {
    lanes /= 2;
    std::vector<int> low(std::max(lanes, least)), high(low.size());
    for (unsigned i = 0; i < low.size(); ++i)
      low[i] = int(i), high[i] = int(i % lanes + lanes);
    llvm::Value *a = b_.CreateShuffleVector(result, low), *b = b_.CreateShuffleVector(result, high);
    result = x86_extremum(b_, machine_, maximum, b, a);
    if (!result)
      return nullptr;
  }
  llvm::Value *unordered = b_.CreateBitCast(b_.CreateFCmpUNO(v, v), b_.getIntNTy(type->getNumElements()));
  llvm::Value *any = b_.CreateICmpNE(unordered, llvm::ConstantInt::get(unordered->getType(), 0));
  return b_.CreateSelect(any, llvm::ConstantFP::getNaN(type->getElementType()),
                         b_.CreateExtractElement(result, uint64_t(0)));
}

llvm::Value *KernelEmitter::emit_int_binary(BinaryOp op, bool is_signed, llvm::Value *a,
                                            llvm::Value *b) {
  using P = llvm::CmpInst::Predicate;
  auto compare = [&](P when_signed, P when_unsigned) {
    return b_.CreateICmp(is_signed ? when_signed : when_unsigned, a, b);
  };
  switch (op) {
  case BinaryOp::add:
    return b_.CreateAdd(a, b);
  case BinaryOp::sub:
    return b_.CreateSub(a, b);
  case BinaryOp::mul:
    return b_.CreateMul(a, b);
  case BinaryOp::div:
  case BinaryOp::rem:
    return emit_int_division(op == BinaryOp::rem, is_signed, a, b);
  case BinaryOp::min:
    return b_.CreateBinaryIntrinsic(is_signed ? llvm::Intrinsic::smin : llvm::Intrinsic::umin, a,
                                    b);
  case BinaryOp::max:
    return b_.CreateBinaryIntrinsic(is_signed ? llvm::Intrinsic::smax : llvm::Intrinsic::umax, a,
                                    b);
  case BinaryOp::bit_and:
    return b_.CreateAnd(a, b);
  case BinaryOp::bit_or:
    return b_.CreateOr(a, b);
  case BinaryOp::bit_xor:
    return b_.CreateXor(a, b);
  case BinaryOp::shl:
  case BinaryOp::shr:
    return emit_shift(op == BinaryOp::shl, is_signed, a, b);
  case BinaryOp::eq:
    return b_.CreateICmpEQ(a, b);
  case BinaryOp::ne:
    return b_.CreateICmpNE(a, b);
  case BinaryOp::lt:
    return compare(P::ICMP_SLT, P::ICMP_ULT);
  case BinaryOp::le:
    return compare(P::ICMP_SLE, P::ICMP_ULE);
  case BinaryOp::gt:
    return compare(P::ICMP_SGT, P::ICMP_UGT);
  case BinaryOp::ge:
    return compare(P::ICMP_SGE, P::ICMP_UGE);
  default:
    return fail("the operation " + std::string(binary_name(op)) + " on integers", a->getType());
  }
}

llvm::Value *KernelEmitter::emit_bool_binary(BinaryOp op, llvm::Value *a, llvm::Value *b) {
  switch (op) {
  case BinaryOp::add:
  case BinaryOp::max:
  case BinaryOp::bit_or:
    return b_.CreateOr(a, b);
  case BinaryOp::mul:
  case BinaryOp::min:
  case BinaryOp::bit_and:
    return b_.CreateAnd(a, b);
  case BinaryOp::bit_xor:
  case BinaryOp::ne:
    return b_.CreateXor(a, b);
  case BinaryOp::eq:
    return b_.CreateNot(b_.CreateXor(a, b));
  case BinaryOp::lt:
    return b_.CreateAnd(b_.CreateNot(a), b);
  case BinaryOp::le:
    return b_.CreateOr(b_.CreateNot(a), b);
  case BinaryOp::gt:
    return b_.CreateAnd(a, b_.CreateNot(b));
  case BinaryOp::ge:
    return b_.CreateOr(a, b_.CreateNot(b));
  default:
    return fail("the operation " + std::string(binary_name(op)) + " on bools", a->getType());
  }
}

// By zero: anything that does not trap, since lanes past a count divide zeros. INT_MIN / -1 wraps.
llvm::Value *KernelEmitter::emit_int_division(bool remainder, bool is_signed, llvm::Value *a,
                                              llvm::Value *b) {
  llvm::Type *type = a->getType();
  llvm::Constant *one = splat_int(type, 1), *zero = splat_int(type, 0);
  llvm::Value *is_zero = b_.CreateICmpEQ(b, zero);
  if (!is_signed) {
    llvm::Value *safe = b_.CreateSelect(is_zero, one, b);
    return remainder ? b_.CreateURem(a, safe) : b_.CreateUDiv(a, safe);
  }
  llvm::Value *minus = b_.CreateICmpEQ(b, splat_int(type, ~uint64_t(0)));
  llvm::Value *safe = b_.CreateSelect(b_.CreateOr(is_zero, minus), one, b);
  if (remainder) // x % 1 is 0, which is x % -1 too
    return b_.CreateSRem(a, safe);
  return b_.CreateSelect(minus, b_.CreateNeg(a), b_.CreateSDiv(a, safe));
}

llvm::Value *KernelEmitter::emit_shift(bool left, bool is_signed, llvm::Value *a, llvm::Value *b) {
  llvm::Type *type = a->getType();
  llvm::Constant *zero = splat_int(type, 0);
  llvm::Value *fits = b_.CreateICmpULT(b, splat_int(type, type->getScalarSizeInBits()));
  llvm::Value *amount = b_.CreateSelect(fits, b, zero);
  llvm::Value *shifted = left        ? b_.CreateShl(a, amount)
                         : is_signed ? b_.CreateAShr(a, amount)
                                     : b_.CreateLShr(a, amount);
  return b_.CreateSelect(fits, shifted, zero);
}

llvm::Value *KernelEmitter::emit_fma(llvm::Value *a, llvm::Value *b, llvm::Value *c) {
  llvm::Type *type = a->getType();
  if (b->getType() != type || c->getType() != type)
    return fail("fma of different types", type);
  if (!type->isFPOrFPVectorTy())
    return b_.CreateAdd(b_.CreateMul(a, b), c);
  if (machine_.has_fma)
    return b_.CreateIntrinsic(llvm::Intrinsic::fma, {type}, {a, b, c});
  return b_.CreateFAdd(b_.CreateFMul(a, b), c);
}

} // namespace kiln::cpu
