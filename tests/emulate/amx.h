// AMX for tests on processors without it: the instructions raise SIGILL there, and a handler carries them
// out on eight tiles that each thread has in memory, by the operations of Intel's manual (Software
// Developer's Manual, volume 2, "Intel AMX instruction set reference").
//
// All of AMX-TILE and AMX-INT8, TDPBF16PS and TDPFP16PS, with any base, index and displacement. What a
// processor answers with #UD (operands that are one register, tiles whose sizes do not fit, a tile that
// is not configured) and every other instruction remains a SIGILL; a bad configuration is a SIGSEGV, as
// #GP is. Addresses relative to fs and gs and of 32 bits are not decoded. Signals that interrupt a
// thread see its tiles as they are, where Linux would start them afresh.
#pragma once

#include <cstdint>

namespace kiln::test {

// From now on AMX instructions run in every thread, by the processor if it has them and Linux grants them.
// True where the emulator is what runs them.
bool enable_amx();

// TDPFP16PS as well, which fewer processors have.
bool multiplies_f16();

// What the emulator has done in all threads; `multiplied`: rows * columns * bytes of depth of all products, of which a
// whole one has 16 * 16 * 64.
struct TileCounts {
  uint64_t products = 0, multiplied = 0, loads = 0, stores = 0, configurations = 0;
};
TileCounts tile_counts();

} // namespace kiln::test
