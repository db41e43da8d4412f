// What a fusion may be: the contract between the fuse pass and the lowering of fusions to kernels.
//
// A `fusion` node is one kernel. Its operands are captured values, its one region has an argument
// for each and uses nothing else from outside. Inside stand ops with `scalar`, `element`, `reduce`
// or `lower` and constants of one element; larger constants are captured. The form follows from
// what is inside:
//
//   elementwise   Only scalar and element nodes. 1 to kMaxResults results, all of one shape, each
//   result
//                 computed by a node inside. The index of every node is one function of the
//                 result's index, apart from operands of ops like gather, which come from captured
//                 values or single-element constants through movement at most.
//
//   reduce        Exactly one node with `reduce`, the root. After it: scalar nodes whose results
//   have the
//                 root's shape, and reshapes that only add or drop unit dims of it (then the scalar
//                 nodes after have that shape); their other operands are captured, constants, or
//                 movement of captured values, and broadcast to that shape. One result, the last of
//                 them. Before it:
//                   kReduction    scalar and element nodes on the shape of its operand (or
//                   broadcast to it) dot           reshape, permute, broadcast_to and slice, for
//                   each operand, such that
//                                 offsets are linear in the dot's indices under the layout of the
//                                 value
//                   dot, conv     a convert of the weights, where these are a captured constant; for GPUs, converts of
//                                 halves to f32 and of bytes to i32, behind which a dot's views may stand
//                   dot           what unpacks its weights (index_map.h), of captured constants
//                   other roots   nothing
//
//   rows          One or more kReduction nodes over the same trailing axes of the same shape S =
//                 [outer..., R...]. All other nodes are scalar (shape S, or a row: S with every R
//                 dim 1 or dropped, or smaller and broadcast), reshapes of rows that add or drop
//                 unit dims, broadcast_to of rows or captured values, and movement of captured
//                 values. 1 to kMaxResults results, each of shape S or a row's. It is this form
//                 wherever a reduction's result goes back into shape S, or there are two
//                 reductions.
//
//   row_block     A contraction, as in `reduce`, with one value v of its result's shape, S, which is `rows` for the others:
//                 reductions over the last dim. What of the inside depends on the contraction depends on it
//                 through v (held_value()). Results as in `rows`, or v.
//
//   attention     Two dots with a softmax between them, as match_attention() (attention.h) finds them
//                 from the second, the root. Besides: scalar nodes of the scores' size before the
//                 softmax, for GPUs what they read that is made of indices alone (index_map.h), views of
//                 the dots' operands and of what the scalar nodes read, linear in the
//                 last two dims, and scalar nodes of the root's shape after it. One result.
//
//   lower         Exactly one node with `lower`, the root. Either its results are those of the
//   fusion, in order,
//                 and before it are scalar and element nodes, as in `elementwise`, for each operand;
//                 or it has kEpilogue, nothing is before it, and after it are scalar nodes of its
//                 result's shape, whose other operands are as in `reduce`. One result, the last of
//                 them: each is computed where the root stores the element that it depends on.
//
//   chain         Made after layout, by the pass of that name: fusions of the forms above and ops
//                 that stand alone, the stages. Each but the first reads the one before it, which
//                 nothing else reads; the last one's result is the chain's. `block` says how many
//                 channels, rows and columns (all of them, where it does not say) are computed at a time
//                 (passes/lower/chain.cpp).
//
// An op that no fusion takes stands alone, and is the same as a fusion of nothing else.
#pragma once

#include "ir/graph.h"

namespace kiln {

inline constexpr size_t kMaxResults = 8;

enum class FusionForm : uint8_t { elementwise, reduce, rows, row_block, attention, lower, chain };

struct FusionInfo {
  FusionForm form = FusionForm::elementwise;
  NodeId root;          // reduce, row_block, attention, lower: the root; rows: the first reduction
  Shape space;          // elementwise: the results' shape; reduce: the root's result; rows, row_block: S
  ValueId held;         // row_block: v
  int reduced_dims = 0; // rows: how many trailing dims of S are R
};

// The form of a fusion node, or of a node that stands alone (which is its own root). KILN_CHECKs
// that it is one of the above.
FusionInfo describe_fusion(const Function &function, NodeId node);

// Whether a reduction's axes are the last dims of its operand; how many they are, or 0.
int trailing_axes(const Function &function, const Node &reduction);

} // namespace kiln
