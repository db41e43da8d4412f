// The way of one operand's pieces from global into shared memory.
//
// An operand that is a plain load goes there past the registers (cp.async), as many neighbouring elements at a time as are
// known to lie in one aligned piece. Anything else is computed by the threads: fetched into registers one step ahead,
// and stored when its stage is free. What is only turned around or widened on the way (rows of the sum for scalar products,
// halves for products with f32) is fetched in packs of neighbouring elements too.
#pragma once

#include "codegen/cuda/product.h"
#include "codegen/cuda/tensor_map.h"
#include "codegen/cuda/tile_shape.h"

#include <algorithm>

namespace kiln::cuda {

// How a stage lies in shared memory.
enum class TileLayout : uint8_t {
  steps,       // [step][own], rows a little apart: for scalar products, which read along rows and columns
  own_bytes,   // [own][step], swizzled (kiln_swizzle)
  step_halves, // [step][own] of 16 bits, swizzled, for ldmatrix across
  step_words,  // [step][own] of 32 bits, swizzled for words (kiln_swizzle_words)
  step_lines,  // [own / 64][step][64] of 16 bits, swizzled, for warpgroups across
};

class TileOperand {
public:
  // `first`: the variable of the tile's first row or column.
  TileOperand(std::string name, const Expr &value, DType dtype, const Loops &own, const Loops &sum, std::string first, int own_size, const TileShape &shape,
              const NestContext &context, c::Helpers &helpers, const OperandEdges &edges = {});

  bool is_async() const { return width_ > 0; }
  int64_t bytes() const; // of a stage
  int row_elements() const; // of TileLayout::steps
  const std::string &own_total() const { return own_total_; }

  // Declarations before the steps: where the thread's pieces begin.
  std::string places() const;
  // Sends step `step` on its way to the stage at the pointer `stage`, or fetches it into registers.
  std::string send(const std::string &step, const std::string &stage) const;
  std::string fetch(const std::string &step) const;
  // As a tensor of which the device copies boxes, for warpgroups; nothing where it is none. Then what asks for step `step` of it,
  // through the kernel's parameter `map`.
  std::optional<MappedOperand> as_tensor(const Loops &batch) const;
  std::string copy_boxes(const MappedOperand &mapped, const std::string &map, const std::string &step, const std::string &stage) const;
  // Stores what was fetched.
  std::string keep(const std::string &stage) const;
  // For tensor cores: a warp's 16 rows from `base` on (`down`) or 16 columns, for the kth 32 bytes of the sum, into the four
  // registers `to`. An mma takes all of them for rows, and two each for 8 columns.
  std::string fragment(bool down, const std::string &to, const std::string &base, const std::string &stage) const;
  // For warpgroups: the descriptor of the rows or columns from `base` on (a multiple of 64), and what 32 bytes along the
  // sum and 64 rows or columns more add to it.
  std::string descriptor(const std::string &base, const std::string &stage) const;
  int descriptor_step() const { return (lies_across() ? 128 * 32 / element_ : 32) / 16; }
  static constexpr int kDescriptorBlock = 64 * 128 / 16;
  bool lies_across() const { return layout_ == TileLayout::step_lines; }

private:
  int row_bytes() const { return layout_ == TileLayout::own_bytes ? shape_.depth * element_ : own_size_ * element_; }
  int width() const { return std::max({width_, pack_, 1}); } // elements of a piece
  int pieces() const { return own_size_ * shape_.depth / (in_quads_ ? 16 : width()); }
  int turns() const { return (pieces() + shape_.threads - 1) / shape_.threads; }
  // Of the turn j: the number of the piece, its row or column and its step in the tile.
  std::string own_at() const;
  std::string step_at() const;
  // How many different rows or columns a thread's turns have, one after the other.
  int own_turns() const;
  std::string own_turn() const; // which of them the turn j has
  std::string turn_head(const std::string &pad) const;
  std::string place(const std::string &stage) const;
  std::string place(const std::string &stage, const std::string &own, const std::string &step) const;
  std::string fetch_packs(const std::string &step) const;
  std::string keep_packs(const std::string &stage) const;
  std::string fetch_quads(const std::string &step) const;
  std::string keep_quads(const std::string &stage) const;
  std::string held(const Stmt *loop) const;
  std::string guard_at(size_t i) const { return "kiln_" + name_ + "_guard" + std::to_string(i); }
  std::string guards_hold() const; // " && ...", of the turn j
  std::string coordinates_of(const Loops &loops, const std::string &flat, const std::string &pad) const;

  std::string name_;
  const Expr &value_;
  const Loops &own_, &sum_;
  std::string first_;
  int own_size_;
  const TileShape &shape_;
  const NestContext &context_;
  c::Helpers &helpers_;
  std::string own_total_, sum_total_, type_;
  int element_;             // bytes
  int width_ = 0;           // elements of a piece that is copied past the registers
  int pack_ = 0;            // elements of a piece that goes through registers
  int run_;                 // pieces that lie one after the other along the fast direction
  bool sum_is_fast_;
  bool along_own_ = false; // neighbouring threads take neighbouring rows or columns
  bool in_squares_ = false; // a warp takes eight of them by four steps
  bool in_quads_ = false;   // bytes: four of them by four steps for a thread, which turns them around
  TileLayout layout_;
  Dim own_part_, sum_part_; // of the index
  const Expr *load_;        // what the value is, or is converted from; or the value
  struct SplitGuard {
    Dim own_part, sum_part;
    std::optional<Dim> limit;
  };
  std::vector<SplitGuard> guards_;
  bool has_edges_ = false; // which boxes of a tensor know nothing of
};

} // namespace kiln::cuda
