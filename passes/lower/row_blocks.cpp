// A contraction and the reductions over its columns: the product of a block of rows goes to scratch memory, by a nest
// that becomes register tiles as any other, and what reduces and uses these rows reads them there.
//
//   for block parallel {
//     alloc s
//     for i in block, n { s[i, n] = epilogue(sum over k of x[i, k] * w[k, n]) }
//     for i in block { m = max s[i, ..]; ...; for n { out[i, n] = ... } }
//   }
#include "passes/graph/fuse.h"
#include "passes/graph/row_blocks.h"
#include "passes/lower/kernel_lowering.h"

#include <utility>

namespace kiln {

void KernelLowering::find_held_rows() {
  if (!region_)
    return;
  FusionInfo info = describe_fusion(function_, function_.value(results_.at(0)).def);
  if (info.form != FusionForm::row_block)
    return;
  auto blocks = row_blocks(info.space, type(function_.node(info.root).operands[0]).shape.back());
  if (!blocks) // sizes became known since it was made
    blocks = few_rows(info.space);
  held_ = HeldRows{info.held, *blocks, std::nullopt, padded_row(info.space.back().as_const()), {}, 0};
  for (size_t i = 0; i < roots_.size(); ++i)
    if (roots_[i] == info.held && function_.value(results_[i]).layout.is_row_major())
      held_->result = results_[i];
}

Expr KernelLowering::load_held(std::span<const Dim> index) const {
  const TensorType &held = type(held_->value);
  if (held_->result)
    return kb::load(held_->buffer, held.dtype, simplified(physical_offset(held.shape, {}, index)));
  int dim = held_->blocks.dim;
  Dim row = dim < 0 ? Dim(0) : index[size_t(dim)] - held_->first;
  return kb::load(held_->buffer, held.dtype, simplified(row * Dim(held_->row) + index.back()));
}

void KernelLowering::lower_row_blocks() {
  const Shape &space = type(held_->value).shape;
  const RowBlocks &blocks = held_->blocks;
  std::function<void(size_t)> over = [&](size_t d) {
    if (d + 1 == space.size())
      return blocks.dim < 0 ? lower_block(0, 1) : lower_blocks(space[size_t(blocks.dim)]);
    if (int(d) == blocks.dim)
      return over(d + 1);
    loop("h", 0, space[d], LoopKind::parallel, [&](const Dim &var) {
      held_block_.push_back({int(d), var, 1});
      over(d + 1);
      held_block_.pop_back();
    });
  };
  over(0);
}

void KernelLowering::lower_blocks(const Dim &rows) {
  Dim size = held_->blocks.rows, whole = simplified(floordiv(rows, size)), rest = simplified(mod(rows, size));
  loop("block", 0, ceildiv(rows, size), LoopKind::parallel, [&](const Dim &block) {
    if (rest.is_const(0) || whole.is_const(0))
      return lower_block(block * size, whole.is_const(0) ? rest : size);
    auto full = in_scope(Symbol(), [&] { lower_block(block * size, size); });
    auto last = in_scope(Symbol(), [&] {
      lower_block(whole * size, rest.is_const() ? rest : bind_index(kb::index(rest), 1, size));
    });
    emit(kb::if_(kb::le(kb::index(whole), kb::index(block)), std::move(last), std::move(full)));
  });
}

void KernelLowering::lower_block(const Dim &first, const Dim &count) {
  // What is computed of the block stays behind the product, however little it depends on.
  size_t before = std::exchange(least_level_, stack_.size() - 1);
  const RowBlocks &blocks = held_->blocks;
  const TensorType &held = type(held_->value);
  if (blocks.dim >= 0)
    held_block_.push_back({blocks.dim, first, count});
  Symbol buffer = held_->result ? Symbol() : fresh("s");
  if (!held_->result)
    emit(kb::alloc(buffer, held.dtype, blocks.rows * held_->row, 1, MemorySpace::stack));
  std::vector<Dim> at(held.shape.size(), 0);
  for (const IndexRange &range : held_block_)
    at[size_t(range.dim)] = range.begin;
  loop("i", 0, count, LoopKind::parallel, [&](const Dim &i) {
    if (blocks.dim >= 0)
      at[size_t(blocks.dim)] = first + i;
    loop("n", 0, held.shape.back(), LoopKind::parallel, [&](const Dim &n) {
      at.back() = n;
      Expr value = pull(held_->value, at);
      Stmt stored = held_->result ? store(*held_->result, at, std::move(value))
                                  : kb::store(buffer, simplified(i * Dim(held_->row) + n), std::move(value));
      buffer = stored.name;
      emit(std::move(stored));
    });
  });
  held_->buffer = buffer;
  held_->first = first;
  lower_elements();
  held_->buffer = {};
  if (blocks.dim >= 0)
    held_block_.pop_back();
  least_level_ = before;
}

} // namespace kiln
