#include "codegen/cpu/types.h"

#include <llvm/IR/Constants.h>

namespace kiln::cpu {

llvm::Type *scalar_type(llvm::LLVMContext &context, DType dtype) {
  if (dtype == DType::f64)
    return llvm::Type::getDoubleTy(context);
  if (dtype == DType::f32)
    return llvm::Type::getFloatTy(context);
  if (is_bool(dtype))
    return llvm::Type::getInt1Ty(context);
  return llvm::Type::getIntNTy(context, unsigned(dtype_bits(dtype)));
}

llvm::Type *value_type(llvm::LLVMContext &context, DType dtype, int lanes) {
  llvm::Type *scalar = scalar_type(context, dtype);
  return lanes == 1 ? scalar : llvm::FixedVectorType::get(scalar, unsigned(lanes));
}

llvm::Type *memory_type(llvm::LLVMContext &context, DType dtype, int lanes) {
  return value_type(context, is_bool(dtype) ? DType::u8 : dtype, lanes);
}

llvm::Value *to_memory(llvm::IRBuilder<> &b, llvm::Value *value, DType dtype, int lanes) {
  return is_bool(dtype) ? b.CreateZExt(value, memory_type(b.getContext(), dtype, lanes)) : value;
}

llvm::Value *from_memory(llvm::IRBuilder<> &b, llvm::Value *value, DType dtype, int) {
  return is_bool(dtype) ? b.CreateICmpNE(value, llvm::Constant::getNullValue(value->getType()))
                        : value;
}

llvm::Constant *splat_int(llvm::Type *type, uint64_t value) {
  unsigned bits = type->getScalarSizeInBits();
  llvm::APInt number(64, value);
  return llvm::ConstantInt::get(type, number.trunc(bits));
}

llvm::Constant *splat_float(llvm::Type *type, double value) {
  return llvm::ConstantFP::get(type, value);
}

} // namespace kiln::cpu
