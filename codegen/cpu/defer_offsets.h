// A pass over LLVM's IR for targets whose dots take signed codes only (emit_dot.cpp): each dot is corrected by an
// offset that is the same in all rows of a tile. Unrolled steps add up their offsets first.
//
//   s1 = sub(sdot(s0, a0, b0), t0); s2 = sub(sdot(s1, a1, b1), t1)         t = sdot(0, b, -128)
//     ->  s2 = sub(sdot(sdot(s0, a0, b0), a1, b1), sdot(t0, b1, -128))
#pragma once

#include <llvm/IR/PassManager.h>

namespace kiln::cpu {

struct DeferOffsets : llvm::PassInfoMixin<DeferOffsets> {
  llvm::PreservedAnalyses run(llvm::Function &function, llvm::FunctionAnalysisManager &);
};

} // namespace kiln::cpu
