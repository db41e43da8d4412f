// Nests whose loops end early, as rectangles. Two kinds occur: windows that are cut off at the edges of an image,
//
//   for i in 0..14 { for k in max(0, 1 - i)..min(3, 15 - i) reduce { acc += x[14*i + .. + k] * w[k] } }
//
// whose loop becomes 0..3 and whose operand counts as zero where 0 <= i + k - 1 < 14 does not hold, and an axis in blocks, the last of which
// is not whole,
//
//   for b in 0..63 { for l in 0..min(16, 1000 - 16*b) { .. } }
//
// whose loops become 0..63 and 0..16, or one loop 0..1000 with b = j / 16 and l = j % 16.
#pragma once

#include "ir/kernel/kernel.h"

#include <optional>
#include <vector>

namespace kiln::cuda {

// Holds where 0 <= value, and value < limit if there is one.
struct Guard {
  Dim value;
  std::optional<Dim> limit;
};

// The axis `total`, of which `outer` counts blocks of `block` and `inner` what is in one.
struct RaggedAxis {
  Symbol outer, inner;
  Dim total, block;
};

struct Rectangle {
  Stmt nest;
  std::vector<Guard> guards; // of the reduction's steps
  std::optional<RaggedAxis> ragged;
};

// The nest with its outer parallel loops, and the reduction right behind an accumulator in them, made rectangular as far as they
// have these forms.
Rectangle make_rectangular(const Stmt &nest);

// The nest with such an axis as one loop; nothing where it has none.
std::optional<Stmt> with_whole_axis(const Stmt &nest);

// The nest with windows that are cut off at edges as whole ones, whose steps ask whether they are inside: loops of a few
// steps are unrolled then, and their loads on their way together.
Stmt with_guarded_windows(const Stmt &nest);

// What a buffer's index moves by at the first steps of a loop, where it is no sum with the loop's variable but may be one with
// its remainder.
std::optional<int64_t> first_step(const Dim &index, Symbol loop);

} // namespace kiln::cuda
