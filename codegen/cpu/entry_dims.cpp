#include "codegen/cpu/entry_dims.h"

namespace kiln::cpu {

llvm::Value *EntryDims::take_overflow() {
  llvm::Value *out = overflow_;
  overflow_ = b_.getFalse();
  return out;
}

llvm::Value *EntryDims::emit_arithmetic(llvm::Intrinsic::ID checked,
                                        llvm::Instruction::BinaryOps unchecked, llvm::Value *a,
                                        llvm::Value *b) {
  bool constant = llvm::isa<llvm::Constant>(a) && llvm::isa<llvm::Constant>(b);
  if (!checked_ || constant)
    return b_.CreateBinOp(unchecked, a, b);
  llvm::Value *pair = b_.CreateBinaryIntrinsic(checked, a, b);
  overflow_ = b_.CreateOr(overflow_, b_.CreateExtractValue(pair, 1));
  return b_.CreateExtractValue(pair, 0);
}

llvm::Value *EntryDims::emit(const Dim &dim) {
  if (!dim.is_valid())
    complete_ = false;
  llvm::Value *sum = b_.getInt64(uint64_t(dim.constant_part()));
  for (const DimTerm &term : dim.terms()) {
    llvm::Value *product = nullptr;
    for (const DimAtom &factor : term.factors) {
      llvm::Value *value = emit_atom(factor);
      product = product ? emit_arithmetic(llvm::Intrinsic::smul_with_overflow,
                                          llvm::Instruction::Mul, product, value)
                        : value;
    }
    if (term.coefficient != 1)
      product = emit_arithmetic(llvm::Intrinsic::smul_with_overflow, llvm::Instruction::Mul,
                                product, b_.getInt64(uint64_t(term.coefficient)));
    sum =
        emit_arithmetic(llvm::Intrinsic::sadd_with_overflow, llvm::Instruction::Add, product, sum);
  }
  return sum;
}

llvm::Value *EntryDims::emit_atom(const DimAtom &atom) {
  using Kind = DimAtom::Kind;
  if (atom.kind == Kind::symbol) {
    for (auto it = names_.rbegin(); it != names_.rend(); ++it)
      if (it->first == atom.symbol)
        return it->second;
    complete_ = false;
    return b_.getInt64(0);
  }
  llvm::Value *a = emit(atom.args[0]), *b = emit(atom.args[1]);
  if (atom.kind == Kind::min)
    return b_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, a, b);
  if (atom.kind == Kind::max)
    return b_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, a, b);
  llvm::Value *zero = b_.getInt64(0), *one = b_.getInt64(1);
  llvm::Value *bad = b_.CreateICmpSLE(b, zero);
  if (checked_)
    overflow_ = b_.CreateOr(overflow_, bad);
  b = b_.CreateSelect(bad, one, b);
  llvm::Value *q = b_.CreateSDiv(a, b), *r = b_.CreateSRem(a, b);
  llvm::Value *below = b_.CreateICmpSLT(r, zero);
  if (atom.kind == Kind::floordiv)
    return b_.CreateSelect(below, b_.CreateSub(q, one), q);
  return b_.CreateSelect(below, b_.CreateAdd(r, b), r);
}

} // namespace kiln::cpu
