// Kernel types as LLVM types. A value of f16 or bf16 is its bits (i16), since kernels only move and
// convert them; a bool is i1 in a register and a byte in memory.
#pragma once

#include "ir/dtype.h"

#include <llvm/IR/IRBuilder.h>

namespace kiln::cpu {

llvm::Type *scalar_type(llvm::LLVMContext &context, DType dtype);
llvm::Type *value_type(llvm::LLVMContext &context, DType dtype, int lanes);
llvm::Type *memory_type(llvm::LLVMContext &context, DType dtype, int lanes);

// A register value as it is stored, and back.
llvm::Value *to_memory(llvm::IRBuilder<> &b, llvm::Value *value, DType dtype, int lanes);
llvm::Value *from_memory(llvm::IRBuilder<> &b, llvm::Value *value, DType dtype, int lanes);

// An integer (or float) constant in every lane of a vector type, or a scalar.
llvm::Constant *splat_int(llvm::Type *type, uint64_t value);
llvm::Constant *splat_float(llvm::Type *type, double value);

} // namespace kiln::cpu
