// memcpy, memmove and memset, which LLVM may call whatever a module says: an image has no libc.
#pragma once

#include "codegen/cpu/kernel_emitter.h"

namespace kiln::cpu {

inline constexpr const char *kBuiltins[] = {"memcpy", "memmove", "memset"};

// Defines all of them in the module.
void emit_builtins(llvm::Module &module, const MachineDesc &machine, const EmitOptions &options);

} // namespace kiln::cpu
