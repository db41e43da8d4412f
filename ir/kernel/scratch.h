// Where the local memory of a kernel lies. Small `alloc ... stack` are on the stack of the thread that
// runs them. What a block of rows needs in between (the tiles of a transformed image, a row block of a
// chain of convolutions) is too large for stacks that are not ours: it lies in scratch memory that
// every worker has one block of, and that the context owns.
#pragma once

#include "ir/kernel/kernel.h"

#include <unordered_map>

namespace kiln {

struct ScratchLayout {
  // Bytes from the start of the worker's block, multiples of 64, for the allocs that lie in it; the
  // statements are those of the kernel that was looked at.
  std::unordered_map<const Stmt *, int64_t> offsets;
  int64_t size = 0; // bytes that one worker needs, a multiple of 64; 0 where all is on the stack

  bool holds_any(const std::vector<Stmt> &body) const; // whether an alloc inside lies in scratch
};

// A kernel whose `stack` allocs together stay below 16 KiB has them all on the stack; otherwise those
// of 1 KiB and more lie in scratch memory, which bodies that are not alive together share.
ScratchLayout scratch_layout(const Kernel &kernel);

} // namespace kiln
