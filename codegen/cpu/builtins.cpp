#include "codegen/cpu/builtins.h"

namespace kiln::cpu {
namespace {

// Builds one function; bytes beyond the last whole block of 16 go one by one.
class Builder {
public:
  Builder(llvm::Module &module, const MachineDesc &machine, const EmitOptions &options,
          const char *name, bool second_is_pointer)
      : b_(module.getContext()) {
    llvm::Type *ptr = b_.getPtrTy();
    llvm::Type *second = second_is_pointer ? ptr : b_.getInt32Ty();
    auto *type = llvm::FunctionType::get(ptr, {ptr, second, b_.getInt64Ty()}, false);
    function_ = llvm::Function::Create(type, llvm::GlobalValue::ExternalLinkage, name, module);
    set_function_attributes(*function_, machine, options);
    b_.SetInsertPoint(new_block());
    to_ = function_->getArg(0);
    size_ = function_->getArg(2);
  }

  void copy() {
    forward(true);
    b_.CreateRet(to_);
  }

  // Backwards, byte by byte, where the target starts inside the source.
  void move() {
    llvm::Value *from = function_->getArg(1);
    llvm::Value *distance = b_.CreateSub(b_.CreatePtrToInt(to_, b_.getInt64Ty()),
                                         b_.CreatePtrToInt(from, b_.getInt64Ty()));
    llvm::BasicBlock *ahead = new_block(), *behind = new_block(), *loop = new_block(),
                     *done = new_block();
    b_.CreateCondBr(b_.CreateICmpUGE(distance, size_), ahead, behind);
    b_.SetInsertPoint(ahead);
    forward(true);
    b_.CreateRet(to_);
    b_.SetInsertPoint(behind);
    b_.CreateCondBr(b_.CreateICmpNE(size_, b_.getInt64(0)), loop, done);
    b_.SetInsertPoint(loop);
    llvm::PHINode *left = b_.CreatePHI(b_.getInt64Ty(), 2);
    llvm::Value *i = b_.CreateSub(left, b_.getInt64(1));
    auto *load = b_.CreateLoad(b_.getInt8Ty(), at(from, i), /*isVolatile=*/true);
    b_.CreateStore(load, at(to_, i));
    left->addIncoming(size_, behind);
    left->addIncoming(i, loop);
    b_.CreateCondBr(b_.CreateICmpNE(i, b_.getInt64(0)), loop, done);
    b_.SetInsertPoint(done);
    b_.CreateRet(to_);
  }

  void set() {
    forward(false);
    b_.CreateRet(to_);
  }

private:
  llvm::BasicBlock *new_block() { return llvm::BasicBlock::Create(b_.getContext(), "", function_); }
  llvm::Value *at(llvm::Value *base, llvm::Value *offset) {
    return b_.CreateGEP(b_.getInt8Ty(), base, offset);
  }

  void forward(bool copies) {
    llvm::Value *blocks = b_.CreateAnd(size_, b_.getInt64(~uint64_t(15)));
    llvm::Type *wide = llvm::FixedVectorType::get(b_.getInt8Ty(), 16);
    loop(b_.getInt64(0), blocks, 16, wide, copies);
    loop(blocks, size_, 1, b_.getInt8Ty(), copies);
  }

  void loop(llvm::Value *begin, llvm::Value *end, uint64_t step, llvm::Type *type, bool copies) {
    llvm::BasicBlock *before = b_.GetInsertBlock(), *body = new_block(), *after = new_block();
    b_.CreateCondBr(b_.CreateICmpULT(begin, end), body, after);
    b_.SetInsertPoint(body);
    llvm::PHINode *i = b_.CreatePHI(b_.getInt64Ty(), 2);
    llvm::Value *value;
    if (copies) {
      // Volatile, so that no pass takes the loop for the function that it is.
      value = b_.CreateAlignedLoad(type, at(function_->getArg(1), i), llvm::Align(1), true);
    } else {
      value = b_.CreateTrunc(function_->getArg(1), b_.getInt8Ty());
      if (type->isVectorTy())
        value = b_.CreateVectorSplat(16, value);
    }
    b_.CreateAlignedStore(value, at(to_, i), llvm::Align(1));
    llvm::Value *next = b_.CreateAdd(i, b_.getInt64(step));
    i->addIncoming(begin, before);
    i->addIncoming(next, body);
    b_.CreateCondBr(b_.CreateICmpULT(next, end), body, after);
    b_.SetInsertPoint(after);
  }

  llvm::IRBuilder<> b_;
  llvm::Function *function_ = nullptr;
  llvm::Value *to_ = nullptr, *size_ = nullptr;
};

} // namespace

void emit_builtins(llvm::Module &module, const MachineDesc &machine, const EmitOptions &options) {
  Builder(module, machine, options, "memcpy", true).copy();
  Builder(module, machine, options, "memmove", true).move();
  Builder(module, machine, options, "memset", false).set();
}

} // namespace kiln::cpu
