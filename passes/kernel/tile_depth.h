// Long reductions in pieces. A column group's operand that is longer than the second level holds is
// read from further away by every row tile; cut along the reduction, each piece is read once and
// then used by all rows, while the sums wait in a buffer.
//
//   for g parallel {
//     alloc part: f32[M*64] stack;  part = 0
//     for kb in 0..K/KC serial {
//       for t parallel { acc = part[...]; for k in KC*kb..KC*(kb+1) { ... }; part[...] = acc } }
//     for t parallel { c[...] = epilogue(part[...]) } }
//
// Sums are added in the same order as without, so results keep their bits.
#pragma once

#include "passes/kernel/tile_nest.h"

namespace kiln {

// The reduction that may be cut: around all others in the order of memory of what the rows share,
// of constant length, and the body nothing but initial values, one reduction and what follows it.
std::optional<Stmt> cuttable_reduction(const TileNest &nest);

// Steps of it in a piece, `wanted` if that is given; 0 to leave it whole.
int64_t choose_depth(const TileNest &nest, const TileShape &shape, const MachineDesc &machine,
                     std::optional<int64_t> wanted);

// The body as three: sums set up, a piece added, results made of the sums.
struct DepthCut {
  Stmt reduction;    // the one that is cut, without body
  Symbol piece;      // number of the piece
  int64_t steps = 0; // of the reduction in a piece
  Dim pieces() const { return ceildiv(trip_count(reduction), steps); }
  Dim begin() const { return Dim::symbol(piece) * Dim(steps); }
  Dim end() const;

  std::vector<Stmt> sums; // allocs of the buffers
  Symbol first_column;    // stands for the group's first panel, or its first column without panels
  std::vector<Stmt> set_up, add, finish;
};

// `nest` with a reduction that can be cut, in a shape whose depth is not 0.
DepthCut cut_reduction(const TileNest &nest, const TileShape &shape, Names &names);

} // namespace kiln
