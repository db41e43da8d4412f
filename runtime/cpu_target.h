// Which code sections this machine runs, and which of them is best.
//
// A target's name is an architecture level and any number of features: "x86-64-v2", "x86-64-v3",
// "x86-64-v4+avx512vnni+avx512bf16", "x86-64-v4+amx", "aarch64+dotprod". A name with a word that
// this runtime does not know is one that it does not run.
#pragma once

#include <cstdint>

#include "runtime/errors.h"

namespace kiln::rt {

// -1: not on this machine. Otherwise the larger, the better: the level first, then the features.
int32_t target_rank(const char *target);

// Whether a target's code is for this architecture at all (its ELF machine can be checked).
bool is_native_architecture(const char *target);

// The ELF e_machine of this architecture.
uint16_t native_elf_machine();

// What this machine is, as a target name, for errors.
void describe_machine(Text &text);

} // namespace kiln::rt
