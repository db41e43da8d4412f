#include "codegen/cpu/target.h"

#include "codegen/cpu/defer_offsets.h"

#include <llvm/Analysis/CGSCCPassManager.h>
#include <llvm/Analysis/LoopAnalysisManager.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/IR/PassManager.h>
#include <llvm/IR/Verifier.h>
#include <llvm/MC/TargetRegistry.h>
#include <llvm/Passes/PassBuilder.h>
#include <llvm/Support/CommandLine.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Support/raw_ostream.h>
#include <llvm/Transforms/InstCombine/InstCombine.h>
#include <llvm/Transforms/Scalar/ADCE.h>
#include <llvm/Transforms/Scalar/EarlyCSE.h>
#include <llvm/Transforms/Scalar/GVN.h>
#include <llvm/Transforms/Scalar/LICM.h>
#include <llvm/Transforms/Scalar/LoopPassManager.h>
#include <llvm/Transforms/Scalar/SROA.h>
#include <llvm/Transforms/Scalar/SimplifyCFG.h>

#include <mutex>

namespace kiln::cpu {
namespace {

// What LLVM knows as an option of its command line only.
void set_option(const char *name, bool value) {
  auto &options = llvm::cl::getRegisteredOptions();
  auto it = options.find(name);
  KILN_CHECK(it != options.end(), std::string("this LLVM has no option ") + name);
  static_cast<llvm::cl::opt<bool> *>(it->second)->setValue(value);
}

void initialize_targets() {
  static std::once_flag once;
  std::call_once(once, [] {
    // Indices come as one variable and a constant for each access of a tile, which is what address
    // modes take. Strength reduction makes pointers of them, dozens where a loop's bounds depend on
    // an outer loop, and spills those; it is most of the code generator's time, too.
    set_option("disable-lsr", true);
    // It shortens chains of integer sums: the terms of all unrolled steps are in registers then.
    set_option("x86-machine-combiner", false);
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeAArch64TargetInfo();
    LLVMInitializeAArch64Target();
    LLVMInitializeAArch64TargetMC();
    LLVMInitializeAArch64AsmPrinter();
  });
}

llvm::CodeGenOptLevel codegen_level(int opt_level) {
  switch (opt_level) {
  case 0:
    return llvm::CodeGenOptLevel::None;
  case 1:
    return llvm::CodeGenOptLevel::Less;
  case 2:
    return llvm::CodeGenOptLevel::Default;
  default:
    return llvm::CodeGenOptLevel::Aggressive;
  }
}

// What the kernel passes leave to do: registers for tiles and scalars, common offsets, invariants
// out of loops. Vectors, unrolling and tiling are there already, and memory idioms must stay loops.
llvm::FunctionPassManager make_passes(int opt_level) {
  llvm::FunctionPassManager passes;
  passes.addPass(llvm::SROAPass(llvm::SROAOptions::ModifyCFG));
  if (opt_level == 0)
    return passes;
  passes.addPass(llvm::EarlyCSEPass());
  passes.addPass(DeferOffsets());
  passes.addPass(llvm::InstCombinePass());
  passes.addPass(llvm::SimplifyCFGPass());
  passes.addPass(llvm::createFunctionToLoopPassAdaptor(llvm::LICMPass(llvm::LICMOptions()),
                                                       /*UseMemorySSA=*/true));
  passes.addPass(llvm::EarlyCSEPass(/*UseMemorySSA=*/true));
  if (opt_level >= 3)
    passes.addPass(llvm::GVNPass());
  passes.addPass(llvm::InstCombinePass());
  passes.addPass(llvm::ADCEPass());
  passes.addPass(llvm::SimplifyCFGPass());
  return passes;
}

} // namespace

Result<Target> Target::create(const MachineDesc &machine, const CpuOptions &options) {
  initialize_targets();
  std::string message;
  const llvm::Target *target = llvm::TargetRegistry::lookupTarget(machine.triple, message);
  if (!target)
    return Error{"this LLVM has no code generator for " + machine.name + ": " + message};
  llvm::TargetOptions target_options;
  target_options.MCOptions.AsmVerbose = true;
  Target out;
  out.opt_level_ = options.opt_level;
  out.machine_.reset(target->createTargetMachine(
      machine.triple, machine.cpu, machine.features, target_options, llvm::Reloc::PIC_,
      llvm::CodeModel::Small, codegen_level(options.opt_level)));
  if (!out.machine_)
    return Error{"LLVM cannot make code for " + machine.name};
  return out;
}

void Target::prepare(llvm::Module &module) const {
  module.setTargetTriple(machine_->getTargetTriple().str());
  module.setDataLayout(machine_->createDataLayout());
  module.setPICLevel(llvm::PICLevel::BigPIC);
}

void Target::optimize(llvm::Module &module) const {
  std::string problem;
  llvm::raw_string_ostream stream(problem);
  KILN_CHECK(!llvm::verifyModule(module, &stream), "malformed LLVM IR: " + stream.str());
  llvm::PassBuilder builder(machine_.get());
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager sccs;
  llvm::ModuleAnalysisManager modules;
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(sccs);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, sccs, modules);
  llvm::FunctionPassManager passes = make_passes(opt_level_);
  for (llvm::Function &function : module)
    if (!function.isDeclaration())
      passes.run(function, functions);
}

Result<llvm::SmallVector<char, 0>> Target::emit(llvm::Module &module,
                                                llvm::CodeGenFileType type) const {
  llvm::SmallVector<char, 0> out;
  llvm::raw_svector_ostream stream(out);
  llvm::legacy::PassManager passes;
  if (machine_->addPassesToEmitFile(passes, stream, nullptr, type, /*DisableVerify=*/true))
    return Error{"LLVM cannot write this kind of file"};
  passes.run(module);
  return out;
}

} // namespace kiln::cpu
