// Dims over an entry's symbols as i64 arithmetic, for run() and plan(). Where the caller's dims are
// not yet trusted (plan), every step is checked and `overflow()` says whether any failed.
#pragma once

#include "ir/dim.h"

#include <llvm/IR/IRBuilder.h>

#include <utility>
#include <vector>

namespace kiln::cpu {

class EntryDims {
public:
  EntryDims(llvm::IRBuilder<> &b, bool checked)
      : b_(b), checked_(checked), overflow_(b.getFalse()) {}

  void push(Symbol name, llvm::Value *value) { names_.push_back({name, value}); }
  size_t count() const { return names_.size(); }
  void truncate(size_t count) { names_.resize(count); }

  llvm::Value *emit(const Dim &dim);
  // Whether a step since the last call failed; i1.
  llvm::Value *take_overflow();
  bool is_complete() const { return complete_; } // every symbol was found

private:
  llvm::Value *emit_atom(const DimAtom &atom);
  llvm::Value *emit_arithmetic(llvm::Intrinsic::ID checked, llvm::Instruction::BinaryOps unchecked,
                               llvm::Value *a, llvm::Value *b);

  llvm::IRBuilder<> &b_;
  bool checked_;
  bool complete_ = true;
  llvm::Value *overflow_;
  std::vector<std::pair<Symbol, llvm::Value *>> names_;
};

} // namespace kiln::cpu
