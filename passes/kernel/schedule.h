// From a naive loop nest, as lowering makes it, to the one a machine runs well. Each pass is a free
// function that changes a kernel in place and says whether it did; schedule() is their order. What
// a kernel computes never changes, except that reductions are summed in another (fixed) order;
// nothing depends on the number of threads.
#pragma once

#include "codegen/machine.h"
#include "ir/kernel/kernel.h"

#include <optional>

namespace kiln {

// A register tile and how its operands are asked for, in the place of what the machine description
// and the cost model say; a field that is not set leaves the choice to them. What a search tries.
struct TileChoice {
  std::optional<int64_t> rows,
      vectors;                   // of a tile at most; one that needs more registers is not taken
  std::optional<int64_t> depth;  // steps of the outermost reduction in a piece; 0: all
  std::optional<int64_t> unroll; // steps of the innermost reduction in a round of its loop
  std::optional<int64_t> prefetch_steps; // how far ahead a packed operand is asked for; 0: never
  std::optional<bool> prefetch_next;     // the next group of panels, while this one is computed
  friend bool operator==(const TileChoice &, const TileChoice &) = default;
};

struct ScheduleOptions {
  TileChoice tile_choice; // for every nest of the kernel
  bool tile = true;       // register tiles for contractions, windows and column reductions
  bool vectorise = true;
  bool parallelise = true;
  bool expand_math = true;
  bool verify_each = true; // KILN_CHECK(verify_kernel) after every pass that changed something
};

void schedule(Kernel &kernel, const MachineDesc &machine, const ScheduleOptions &options = {});

// Folds what is known of bounds and indices, removes loops that run once or never, lets and local
// buffers nobody reads.
bool simplify_kernel(Kernel &kernel);
// Nests in a loop keep the order that changes from turn to turn (ir/kernel/kernel.h) where what they read is about as
// large as the second cache or larger.
bool choose_turns(Kernel &kernel, const MachineDesc &machine);
// Two perfectly nested loops become one where every index allows it: x[i*N + j] over i, j is x[ij].
bool collapse_loops(Kernel &kernel);
// Neighbouring products become dots (ir/kernel/dot.h), where the machine has them.
bool dot_products(Kernel &kernel, const MachineDesc &machine);
// Register tiles: unroll and jam over rows and columns of an accumulator, vectors along the
// columns.
bool tile_contraction(Kernel &kernel, const MachineDesc &machine, const TileChoice &choice = {});
// Elementwise nests that read along another loop than they write: squares transposed in registers.
bool transpose_tiles(Kernel &kernel, const MachineDesc &machine);
// Vectors along the innermost loops that are left: elementwise ones and reductions.
bool vectorise(Kernel &kernel, const MachineDesc &machine);
// Tiles of one row get more accumulators, one set for each of several steps.
bool split_chains(Kernel &kernel, const MachineDesc &machine);
// Vectorised reductions of several rows at once where they share an operand.
bool jam_rows(Kernel &kernel, const MachineDesc &machine);
// The parallel loops of a nest become one loop over worker threads where the work is worth it.
bool parallelise(Kernel &kernel, const MachineDesc &machine);
// Values of narrow dtypes become bytes; for every target.
bool expand_narrow(Kernel &kernel);
// Functions that are no primitives become polynomials; bounds are in math_bounds.def.
bool expand_math(Kernel &kernel, const MachineDesc &machine);

} // namespace kiln
