// LLVM's side: one target machine for each thread that compiles, a short pass list, and emission.
#pragma once

#include "codegen/cpu/cpu.h"

#include <llvm/ADT/SmallVector.h>
#include <llvm/IR/Module.h>
#include <llvm/Target/TargetMachine.h>

#include <memory>

namespace kiln::cpu {

class Target {
public:
  static Result<Target> create(const MachineDesc &machine, const CpuOptions &options);

  // Gives the module its triple and data layout; before anything is emitted into it.
  void prepare(llvm::Module &module) const;
  void optimize(llvm::Module &module) const;
  Result<llvm::SmallVector<char, 0>> emit(llvm::Module &module, llvm::CodeGenFileType type) const;

private:
  Target() = default;
  std::unique_ptr<llvm::TargetMachine> machine_;
  int opt_level_ = 2;
};

} // namespace kiln::cpu
