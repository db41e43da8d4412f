// A concat along a dim that lies in blocks. The elements that lie together in a block of a part lie in one
// block of the result, or in two where the part does not start with a block: they are copied in so many
// runs, innermost, so that the copy is one of vectors whatever the sizes of the parts.
//
//   y = concat(a: [1, 24, H, W], b: [1, 24, H, W], axis=1), block 1:16
//     ->  b[0..8] of each block goes to y's lanes 8..16 of one block, b[8..16] to lanes 0..8 of the next
#include "passes/lower/kernel_lowering.h"

#include <algorithm>

namespace kiln {

// False where the op's own nests are as good: no blocks along the axis, or sizes that are not known.
bool KernelLowering::lower_concat_blocks(const Node &concat) {
  const Value &result = function_.value(results_[0]);
  int rank = result.type.rank();
  int64_t axis = concat.attrs.get_int("axis");
  size_t along = size_t(axis < 0 ? axis + rank : axis);
  int64_t block = result.layout.block_of(int(along));
  if (block == 1 || !std::all_of(concat.operands.begin(), concat.operands.end(), [&](ValueId v) {
        return type(v).shape[along].is_const();
      }))
    return false;
  int64_t offset = 0;
  for (ValueId part : concat.operands) {
    Shape shape = result.type.shape;
    int64_t size = type(part).shape[along].as_const(), whole = size / block;
    int64_t first = block - offset % block;
    std::vector<Dim> index(shape.size());
    // Lanes begin..end of `blocks` blocks from number `from` on.
    auto run = [&](int64_t blocks, int64_t from, int64_t begin, int64_t end) {
      if (begin >= end || blocks == 0)
        return;
      std::function<void(size_t)> nest = [&](size_t d) {
        if (d == shape.size()) {
          Dim start = index[along];
          loop("l", 0, end - begin, LoopKind::parallel, [&](const Dim &lane) {
            index[along] = start + lane + Dim(begin);
            Expr value = pull(part, index);
            std::vector<Dim> to = index;
            to[along] += Dim(offset);
            emit(store(results_[0], to, std::move(value)));
          });
          index[along] = start;
          return;
        }
        Dim count = d == along ? Dim(blocks) : shape[d];
        auto inside = [&](const Dim &at) {
          index[d] = d == along ? (at + Dim(from)) * Dim(block) : at;
          nest(d + 1);
        };
        if (count.is_const(1))
          return inside(0);
        loop("i", 0, count, LoopKind::parallel, inside);
      };
      nest(0);
    };
    for (auto [begin, end] : {std::pair(int64_t(0), first), std::pair(first, block)}) {
      run(whole, 0, begin, end);
      run(1, whole, begin, std::min(end, size % block));
    }
    offset += size;
  }
  return true;
}

} // namespace kiln
