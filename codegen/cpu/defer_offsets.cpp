#include "codegen/cpu/defer_offsets.h"

#include <llvm/ADT/STLExtras.h>
#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/IntrinsicInst.h>
#include <llvm/IR/IntrinsicsAArch64.h>
#include <llvm/IR/PatternMatch.h>

#include <map>
#include <utility>

namespace kiln::cpu {
namespace {

using namespace llvm::PatternMatch;

llvm::IntrinsicInst *as_dot(llvm::Value *v) {
  auto *call = llvm::dyn_cast<llvm::IntrinsicInst>(v);
  return call && call->getIntrinsicID() == llvm::Intrinsic::aarch64_neon_sdot ? call : nullptr;
}

// sub(sum, offset) that nobody else reads.
bool is_corrected(llvm::Value *v, llvm::Value *&sum, llvm::Value *&offset) {
  return v->hasOneUse() && match(v, m_Sub(m_Value(sum), m_Value(offset)));
}

class Deferrer {
public:
  bool run(llvm::BasicBlock &block) {
    for (llvm::Instruction &i : llvm::make_early_inc_range(block)) {
      if (llvm::IntrinsicInst *dot = as_dot(&i))
        move_behind(*dot);
      else
        join(i);
    }
    return changed_;
  }

private:
  // dot(sub(s, t), a, b) to sub(dot(s, a, b), t).
  void move_behind(llvm::IntrinsicInst &dot) {
    llvm::Value *sum, *offset, *corrected = dot.getArgOperand(0);
    if (!is_corrected(corrected, sum, offset))
      return;
    dot.setArgOperand(0, sum);
    auto *after = llvm::BinaryOperator::CreateSub(&dot, offset);
    after->insertAfter(&dot);
    dot.replaceUsesWithIf(after, [&](llvm::Use &use) { return use.getUser() != after; });
    llvm::cast<llvm::Instruction>(corrected)->eraseFromParent();
    changed_ = true;
  }

  // sub(sub(s, t), u) to sub(s, t + u), which all rows share.
  void join(llvm::Instruction &i) {
    llvm::Value *inner, *second, *sum, *first;
    if (!match(&i, m_Sub(m_Value(inner), m_Value(second))) || !is_corrected(inner, sum, first))
      return;
    llvm::Value *&both = joined_[{first, second}];
    if (!both) {
      llvm::IRBuilder<> b(&i);
      llvm::IntrinsicInst *dot = as_dot(second);
      if (dot && match(dot->getArgOperand(0), m_Zero()))
        both = b.CreateCall(dot->getCalledFunction(), {first, dot->getArgOperand(1), dot->getArgOperand(2)});
      else
        both = b.CreateAdd(first, second);
    }
    i.setOperand(0, sum);
    i.setOperand(1, both);
    llvm::cast<llvm::Instruction>(inner)->eraseFromParent();
    changed_ = true;
  }

  std::map<std::pair<llvm::Value *, llvm::Value *>, llvm::Value *> joined_; // of this block
  bool changed_ = false;
};

} // namespace

llvm::PreservedAnalyses DeferOffsets::run(llvm::Function &function, llvm::FunctionAnalysisManager &) {
  bool changed = false;
  for (llvm::BasicBlock &block : function)
    changed |= Deferrer().run(block);
  if (!changed)
    return llvm::PreservedAnalyses::all();
  llvm::PreservedAnalyses kept;
  kept.preserveSet<llvm::CFGAnalyses>();
  return kept;
}

} // namespace kiln::cpu
