// The machinery that turns a node into a kernel: expressions are pulled from results to operands.
//
// pull(v, index) gives an expression for one element of v. What is outside the node is loaded by its
// layout; an elementwise op applies its scalar form to what it pulls; a movement op pulls elsewhere; a
// reduction writes its loop nest and gives the accumulator. Statements that come up on the way go to the
// innermost scope (loop body) that knows every symbol of the index, so the mean of a row is computed
// before the loop over the row, whoever asks for it first.
#pragma once

#include "ir/ops/op.h"
#include "passes/graph/attention.h"
#include "passes/graph/row_blocks.h"
#include "passes/lower/lower.h"

#include <functional>
#include <memory>
#include <unordered_map>

namespace kiln {

// Indices [begin, begin + count) of a value along a dim; they may stick out of it on both sides.
struct IndexRange {
  int dim;
  Dim begin, count;
};

// A value of a chain (fuse.h) that is computed into memory of the worker's own, a block at a time.
struct Scratch {
  Symbol buffer;
  std::vector<IndexRange> block; // what is held, what its consumer reads beyond the edges included
};

// A node that is lowered as a part of a chain: which block of its result it computes, and where those of
// its operands lie that other parts have made.
struct ChainStage {
  const Node &chain;
  DimRanges ranges; // of the symbols in blocks
  std::unordered_map<ValueId, Scratch> scratch;
  std::vector<IndexRange> block;
  int number = 0;
};

class KernelLowering {
public:
  KernelLowering(const Module &module, const Function &function, const Node &node,
                 const ChainStage *stage = nullptr);
  void set_options(const LowerOptions &options) { options_ = options; }
  LoweredNode run();

  // The parts of a chain: the stage's statements, the zeros around its result, what it reads so far.
  std::vector<Stmt> run_stage();
  std::vector<Stmt> run_zero_halo();
  const std::vector<ValueId> &inputs() const { return inputs_; }
  const std::vector<KernelBuffer> &input_buffers() const { return input_buffers_; }

  // Used by the context that ops see.
  Expr pull(ValueId value, std::span<const Dim> index);
  Expr pull_operand(const Node &node, int i, std::span<const Dim> index);
  bool zero_padded(ValueId value, int dim, const Dim &lo, const Dim &hi) const;
  Dim bind_index(Expr value, const Dim &lo, const std::optional<Dim> &hi);
  Expr bind(Expr value);
  void emit(Stmt stmt) { stack_.back()->stmts.push_back(std::move(stmt)); }
  Dim simplified(const Dim &d) const { return simplify(d, ranges_); }
  Stmt store(ValueId result, std::span<const Dim> index, Expr value);
  // Stores what the node's one result is at `index` where `root`, a value inside, is `value` there.
  Stmt store_through(ValueId root, std::span<const Dim> index, Expr value);
  void loop(std::string_view name, const Dim &begin, const Dim &end, LoopKind kind,
            const std::function<void(const Dim &)> &body);
  void if_then(Expr condition, const std::function<void()> &body);
  const TensorType &type(ValueId value) const { return function_.type(value); }

private:
  struct Memo {
    ValueId value;
    std::vector<Dim> index;
    Expr expr;
  };
  struct RowBuffer {
    ValueId value;
    std::vector<Dim> outer;
    Symbol buffer;
  };
  // An operand of a node of which a copy lies in a local buffer: its element at an index there.
  struct LocalOperand {
    ValueId result; // of the node
    int operand;
    std::function<Expr(std::span<const Dim>)> load;
  };
  // A loop body (or the kernel's) under construction.
  struct Scope {
    std::vector<Stmt> stmts;
    std::vector<Memo> memos;
    std::vector<RowBuffer> rows;
  };
  struct Nest { // one output loop: what it runs over
    int dim;
    enum class Part : uint8_t { whole, block, lane } part;
  };

  std::optional<AttentionParts> find_attention() const;
  void find_held_rows();
  void find_row_axes();
  void choose_materialised();
  bool is_inner(ValueId value) const { return inner_[size_t(value)]; }
  ValueId resolve(ValueId value) const; // a region argument to the operand it stands for
  void lower_results();
  void lower_elements();
  void lower_root(const Node &root);
  bool lower_concat_blocks(const Node &concat);
  void lower_nest(const std::vector<ValueId> &results);
  std::vector<int64_t> phases(const Shape &shape) const;
  void lower_phase(const std::vector<ValueId> &results, const std::vector<int64_t> &steps,
                   const std::vector<int64_t> &phase);
  void lower_attention();
  void lower_row_blocks();
  Expr load_held(std::span<const Dim> index) const;
  void lower_blocks(const Dim &rows);
  void lower_block(const Dim &first, const Dim &count);
  friend class AttentionNests;
  void zero_halo(ValueId result);
  const Scratch *scratch_of(ValueId value) const;
  const IndexRange *range_of(int dim) const; // of the results, where a chain computes a part of them
  std::vector<Nest> nest_order(ValueId result) const;
  bool sums_over_channels() const;
  bool block_overrun_allowed(ValueId result, int dim) const;

  Expr compute(ValueId value, std::span<const Dim> index);
  Expr pull_external(ValueId value, std::span<const Dim> index);
  Expr pull_scalar(const Node &node, std::span<const Dim> index);
  Expr pull_reduce(const Node &node, ValueId value, std::span<const Dim> index);
  Expr pull_row(ValueId value, std::span<const Dim> index);
  std::optional<Expr> find_memo(ValueId value, std::span<const Dim> index) const;

  size_t level_of(std::span<const Dim> index) const;
  const Node &root_node() const;
  // Runs f with only the scopes up to `level` on the stack.
  void at_level(size_t level, const std::function<void()> &f);
  std::vector<Stmt> in_scope(Symbol var, const std::function<void()> &f);
  const KernelBuffer &input_buffer(ValueId external);
  Symbol fresh(std::string_view stem);

  LowerOptions options_;
  const Module &module_;
  const Function &function_;
  const Node &node_;
  const ChainStage *stage_;
  const Block *region_ = nullptr;  // of a fusion
  std::vector<ValueId> results_;   // values the kernel stores: outer ids
  std::vector<ValueId> roots_;     // the same, inside the region
  std::vector<bool> inner_;        // by value: defined inside the node
  std::vector<int> uses_;          // by value, inside the node
  std::vector<bool> materialised_; // by value: kept in a row buffer
  std::vector<LocalOperand> local_operands_;
  std::optional<AttentionParts> attention_;
  // A contraction with reductions over its columns (fuse.h, row_block): its elements lie in scratch memory.
  struct HeldRows {
    ValueId value;
    RowBlocks blocks;
    std::optional<ValueId> result; // the kernel's that it is: then it lies there, row by row, and not in scratch memory
    int64_t row = 0; // elements between rows of the scratch memory
    Symbol buffer;   // empty while it is written
    Dim first;       // row in it
  };
  std::optional<HeldRows> held_;
  std::vector<IndexRange> held_block_;
  std::vector<int> row_axes_;
  Dim row_size_ = 1;

  Kernel kernel_;
  std::vector<ValueId> inputs_;
  std::vector<KernelBuffer> input_buffers_;
  std::vector<size_t> positions_; // of inputs_ among the node's operands, ascending
  size_t next_constant_ = 0;
  std::vector<std::unique_ptr<Scope>> owned_;
  std::vector<Scope *> stack_;
  size_t least_level_ = 0; // of the scope that statements go to
  std::unordered_map<Symbol, Scope *> symbol_scope_;
  DimRanges ranges_;
  int next_name_ = 0;
};

// A fusion of the form `chain`.
LoweredNode lower_chain(const Module &module, const Function &function, NodeId node);

// Shape, layout and first indices of a block of a value, in memory of its own.
struct BlockPlace {
  Shape shape;
  Layout layout;
  std::vector<Dim> base;
};
BlockPlace block_place(const Value &value, std::span<const IndexRange> block);

// Splits loops whose variable appears under / or % by a constant (a blocked channel, packed panels), so
// that every index is affine: for c in 0..64 with c / 16, c % 16 becomes c.o in 0..4, c.i in 0..16.
void split_loops(Kernel &kernel);
// Loop variables i0, i1, ..., lets t0, ..., local buffers a0, ...: equal kernels become equal values.
void rename_symbols(Kernel &kernel);
// Fills in dims, flops and bytes.
void finish_kernel(Kernel &kernel);

} // namespace kiln
