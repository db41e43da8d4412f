// Entries of a program: run(frame), which resolves buffers and calls the plan's kernels, and
// plan(dims, out), which checks constraints and computes sizes (runtime/entry_abi.h).
#pragma once

#include "codegen/cpu/kernel_emitter.h"
#include "ir/plan.h"

#include <functional>

namespace kiln::cpu {

struct EntryContext {
  const Program &program;
  const std::vector<Kernel> &kernels;
  const MachineDesc &machine;
  EmitOptions options;
  // The function of a kernel in this module, declared or defined.
  std::function<llvm::Function *(int kernel)> kernel_function;
};

Result<llvm::Function *> emit_run(llvm::Module &module, const EntryContext &context,
                                  const Plan &plan, const std::string &name);
Result<llvm::Function *> emit_plan(llvm::Module &module, const EntryContext &context,
                                   const Plan &plan, const std::string &name);

llvm::FunctionType *kernel_type(llvm::LLVMContext &context, const Kernel &kernel);

} // namespace kiln::cpu
