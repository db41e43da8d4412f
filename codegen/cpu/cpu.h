// Kernel IR and plans to native code: LLVM IR, LLVM 19's code generator, and a linker of our own
// that makes of the objects one ELF image without imports and relocations (runtime/entry_abi.h).
//
// Each kernel is a module of its own, so kernels compile in parallel, kernels that differ only in
// names compile once, and the bytes are the same for any number of jobs. LLVM stays behind this
// header.
#pragma once

#include "codegen/machine.h"
#include "ir/plan.h"

#include <cstddef>
#include <string>
#include <vector>

namespace kiln::cpu {

struct CpuOptions {
  int opt_level = 2;           // 0..3
  int jobs = 1;                // threads that compile
  bool denormals_keep = false; // else the optimizer may take denormals for zero, as workers do
};

struct CodeImage {
  std::string target;         // MachineDesc::name
  std::vector<std::byte> elf; // ELF64 ET_DYN; e_entry is the address of a KilnImageHeader
};

// `kernels` are the scheduled kernels for `machine`, index-compatible with program.kernels, with
// only primitive scalar operations left. Thread-safe; so are the functions below.
Result<CodeImage> compile_image(const Program &program, const std::vector<Kernel> &kernels,
                                const MachineDesc &machine, const CpuOptions &options = {});

// The whole program as one module: optimized LLVM IR, assembly, or an ET_REL object that exports
// kiln_<model>_run_<entry> and kiln_<model>_plan_<entry> for each entry (it may import memcpy,
// memmove and memset). Characters that C names cannot have are underscores.
Result<std::string> emit_llvm_text(const Program &program, const std::vector<Kernel> &kernels,
                                   const MachineDesc &machine, const CpuOptions &options = {});
Result<std::string> emit_assembly(const Program &program, const std::vector<Kernel> &kernels,
                                  const MachineDesc &machine, const CpuOptions &options = {});
Result<std::vector<std::byte>> emit_object(const Program &program,
                                           const std::vector<Kernel> &kernels,
                                           const MachineDesc &machine,
                                           const CpuOptions &options = {});

std::string run_symbol(const Program &program, const Plan &entry);  // kiln_<model>_run_<entry>
std::string plan_symbol(const Program &program, const Plan &entry); // kiln_<model>_plan_<entry>

} // namespace kiln::cpu
