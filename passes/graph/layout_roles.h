// What a kernel wants of the layouts of the values it reads and writes: asked of its root, never of
// the target.
#pragma once

#include "passes/graph/fuse.h"
#include "passes/pass.h"

namespace kiln {

enum class Want : uint8_t {
  any,     // reads any layout as well
  match,   // as the result
  planar,  // row-major, perhaps with a halo
  exact,   // row-major and nothing else: results of functions, control flow
  blocked, // channels in blocks
  weights, // a constant that is packed for the kernel
};

enum class Makes : uint8_t {
  planar,   // only row-major
  any,      // whatever its users want, row-major otherwise
  as_read,  // blocked where an operand it matches is
  inherits, // blocked where an operand it matches is, or where its users want that
  blocked,
};

// Zero elements that a convolution reads around its input.
struct Padding {
  std::vector<int64_t> lo, hi; // by spatial dim
};

struct KernelWants {
  Makes makes = Makes::planar;
  std::vector<Want> operands;
  int padded = -1; // the operand that is read with padding
  Padding padding;
  std::vector<Layout> packed; // by operand: of weights
  // An operand whose rows along dim 2 are one element longer, so that its planes are no multiple of
  // 4 KiB apart: who writes them side by side would only use a few sets of the cache.
  int spaced = -1;
};

// What a convolution's kernel reads and writes, where there is a choice (layout_choice.h).
enum class ConvForm : uint8_t {
  blocks,         // of channels, which are a vector's lanes
  rows,           // of pixels, which are the lanes
  rows_to_blocks, // reads rows, each pixel for all lanes, and writes blocks
};

// For a node of a block; `block` is the number of channels in a block, and with `pairs` products of
// bf16 are added two by two.
KernelWants kernel_wants(const Function &function, NodeId node, int64_t block, bool pairs,
                         ConvForm form = ConvForm::blocks);

// Whether channels (dim 1) of values of this type may be blocked at all.
bool can_block(const TensorType &type);
// Four channels of bytes are a block of their own. What matrix registers multiply has all channels in one block: the
// channels of a pixel lie side by side, so that products are as deep as they can be.
Layout blocked_layout(const TensorType &type, const PassFlags &flags);

} // namespace kiln
