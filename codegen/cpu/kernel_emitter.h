// One kernel as an LLVM function
//
//   void k(KilnFrame *frame, ptr buffer..., i64 dim...)
//
// Vectors are explicit, so no vectorizer runs. `unroll` loops are expanded here with their
// variables as constants; offsets are split into a variable part, computed once in each scope, and
// a constant part, which ends up as the displacement of an address. A `threads` loop becomes two
// functions: the work, with the same parameters and a range, and a shim that takes them out of a
// closure for parallel_for. Errors (only malformed kernels cause them) are kept; the first one is
// returned.
#pragma once

#include "codegen/cpu/facts.h"
#include "codegen/cpu/thread_cost.h"
#include "codegen/machine.h"
#include "ir/kernel/scratch.h"
#include "ir/kernel/tile_product.h"

#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/Module.h>

#include <functional>
#include <map>

namespace kiln::cpu {

struct EmitOptions {
  bool denormals_keep = false;
};

// Attributes every generated function has: target, no unwinding, no libcalls, denormals.
void set_function_attributes(llvm::Function &function, const MachineDesc &machine,
                             const EmitOptions &options);

// True if a run of the kernel may set frame->trap.
bool may_trap(const Kernel &kernel);

// The field of a struct of runtime/entry_abi.h, `offset` bytes from its start.
llvm::Value *load_field(llvm::IRBuilder<> &b, llvm::Type *type, llvm::Value *base, size_t offset);

class KernelEmitter {
public:
  KernelEmitter(llvm::Module &module, const Kernel &kernel, const MachineDesc &machine,
                const std::vector<BufferFacts> &facts, const EmitOptions &options);

  Result<llvm::Function *> emit(const std::string &name);

private:
  // What a name stands for.
  struct Binding {
    Symbol name;
    llvm::Value *value = nullptr; // of a scalar or vector; the address of a buffer
    DType dtype = DType::i64;
    int lanes = 1;
    bool is_buffer = false;
    unsigned alignment = 1; // of a buffer's start
    int parameter = -1;     // position among the kernel's buffers
  };
  // constant + variable; variable is null where it is zero.
  struct Linear {
    int64_t constant = 0;
    llvm::Value *variable = nullptr;
  };
  using CacheKey = std::vector<uint64_t>;
  // Restores names, ranges and cached offsets when a body ends.
  struct Scope {
    explicit Scope(KernelEmitter &e);
    ~Scope();
    KernelEmitter &emitter;
    size_t bindings, ranges, cached;
  };

  // kernel_emitter.cpp
  llvm::Function *make_function(const std::string &name, const std::vector<llvm::Type *> &params);
  void begin_function(llvm::Function *function);
  llvm::Value *fail(std::string message, llvm::Type *type = nullptr);
  const Binding *find(Symbol name) const;
  void bind(Binding binding) { bindings_.push_back(std::move(binding)); }
  llvm::AllocaInst *entry_alloca(llvm::Type *type, uint64_t alignment);
  llvm::BasicBlock *new_block();
  llvm::Value *frame_field(size_t offset);

  // emit_dim.cpp
  Linear emit_linear(const Dim &dim);
  llvm::Value *emit_dim(const Dim &dim);
  Linear emit_atom(const DimAtom &atom);
  llvm::Value *emit_division(const DimAtom &atom, llvm::Value *a, llvm::Value *b);
  std::optional<int64_t> constant_dim(const Dim &dim);

  // emit_expr.cpp
  llvm::Value *emit(const Expr &e);
  llvm::Value *emit_number(const Expr &e);
  llvm::Value *emit_select(const Expr &e);
  llvm::Value *emit_reduce(const Expr &e);
  llvm::Value *emit_dot(const Expr &e);
  llvm::Value *dot_by_pairs(llvm::Value *a, llvm::Value *b, llvm::Value *sum, int lanes);
  llvm::Value *dot_one_by_one(const Expr &e, llvm::Value *a, llvm::Value *b, llvm::Value *sum);
  llvm::Value *emit_lanes(const Expr &e);

  // emit_arith.cpp
  llvm::Value *emit_unary(const Expr &e, llvm::Value *a);
  llvm::Value *emit_binary(BinaryOp op, DType dtype, llvm::Value *a, llvm::Value *b);
  llvm::Value *emit_float_binary(BinaryOp op, llvm::Value *a, llvm::Value *b);
  llvm::Value *emit_int_binary(BinaryOp op, bool is_signed, llvm::Value *a, llvm::Value *b);
  llvm::Value *emit_bool_binary(BinaryOp op, llvm::Value *a, llvm::Value *b);
  llvm::Value *emit_float_extremum(bool maximum, llvm::Value *a, llvm::Value *b);
  llvm::Value *emit_float_extremum(bool maximum, llvm::Value *v);
  llvm::Value *emit_int_division(bool remainder, bool is_signed, llvm::Value *a, llvm::Value *b);
  llvm::Value *emit_shift(bool left, bool is_signed, llvm::Value *a, llvm::Value *b);
  llvm::Value *emit_fma(llvm::Value *a, llvm::Value *b, llvm::Value *c);

  // emit_convert.cpp
  llvm::Value *float_to_code(llvm::Value *a, bool rounds, int lanes);
  llvm::Value *emit_convert(llvm::Value *a, DType from, DType to, int lanes);
  llvm::Value *float_to_int(llvm::Value *a, DType to, int lanes);
  llvm::Value *half_to_float(llvm::Value *a, int lanes);
  llvm::Value *float_to_half(llvm::Value *a, int lanes);
  llvm::Value *bfloat_to_float(llvm::Value *a, int lanes);
  llvm::Value *float_to_bfloat(llvm::Value *a, int lanes);

  // emit_memory.cpp
  struct Place {
    llvm::Value *address = nullptr;
    llvm::Align alignment;
    int64_t element_bytes = 0;
  };
  Place emit_address(const Binding &buffer, const Dim &index);
  llvm::Value *emit_load(const Expr &e);
  llvm::Value *emit_gather(const Expr &e);
  void emit_store(const Stmt &s);
  llvm::Value *load_full(const Place &place, DType dtype, int lanes, const Dim &stride);
  void store_full(const Place &place, llvm::Value *memory, int lanes, const Dim &stride);
  llvm::Value *load_counted(const Place &place, DType dtype, int lanes, const Dim &stride,
                            const Dim &count);
  void store_counted(const Place &place, llvm::Value *memory, int lanes, const Dim &stride,
                     const Dim &count);
  void store_lanes(const Place &place, llvm::Value *memory, int count);
  llvm::Value *load_deinterleaved(const Place &place, DType dtype, int lanes, int stride, int active);
  llvm::Value *lane_mask(llvm::Value *count, int lanes, int element_bits);
  llvm::Value *lane_addresses(const Place &place, int lanes, const Dim &stride);
  llvm::Value *lane_address(const Place &place, llvm::Value *lane, const Dim &stride);
  // for lane in 0..count: body(lane)
  void emit_lane_loop(llvm::Value *count, const std::function<void(llvm::Value *)> &body);

  // emit_stmt.cpp
  void emit_body(const std::vector<Stmt> &body);
  void emit_scoped(const std::vector<Stmt> &body);
  void emit_stmt(const Stmt &s);
  void emit_let(const Stmt &s);
  void emit_alloc(const Stmt &s);
  void emit_loop(const Stmt &s);
  void emit_expanded(const Stmt &s, int64_t begin, int64_t end);
  void emit_rolled(const Stmt &s);
  llvm::Value *emit_is_small(const std::optional<ThreadCycles> &cycles);
  llvm::Value *in_turn(const Stmt &s, llvm::Value *i, llvm::Value *begin, llvm::Value *end, int64_t step);
  void emit_rolled(const Stmt &s, const std::function<void()> &body);
  void emit_if(const Stmt &s);
  void emit_while(const Stmt &s);
  void emit_prefetch(const Stmt &s);
  void emit_assert(const Stmt &s);

  // emit_tiles.cpp
  struct TileRegion {
    Symbol sums;
    DType dtype = DType::i32;
    int64_t tiles = 0, height = 0, columns = 0; // of rows, their rows; columns
    std::vector<int64_t> depths;
  };
  bool collect_products(const Stmt &s, TileRegion &region) const;
  size_t emit_tiles(const std::vector<Stmt> &body, size_t at);
  void emit_product(const TileProduct &product);
  llvm::Constant *tile_configuration(const TileRegion &region);
  void share_configuration(llvm::Function &function);

  // emit_threads.cpp
  void emit_threads(const Stmt &s);
  void emit_range(const Stmt &threads, const std::vector<Stmt> &body, llvm::Value *first,
                  llvm::Value *last);
  llvm::Function *emit_work(const Stmt &s, const std::vector<Binding> &captured, bool has_scratch);
  llvm::Function *emit_shim(llvm::Function *work, llvm::StructType *closure, bool has_scratch);

  llvm::Module &module_;
  llvm::LLVMContext &context_;
  const Kernel &kernel_;
  const MachineDesc &machine_;
  const std::vector<BufferFacts> &facts_;
  EmitOptions options_;
  bool may_trap_ = false;
  ScratchLayout scratch_layout_;

  llvm::IRBuilder<> b_;
  llvm::Function *function_ = nullptr;
  llvm::Value *frame_ = nullptr;
  llvm::Value *scratch_ = nullptr; // the block of the worker that runs the function
  std::vector<Binding> bindings_;
  DimRanges ranges_;
  std::map<CacheKey, llvm::Value *> cache_;
  std::vector<CacheKey> cached_; // in order of insertion
  const TileRegion *region_ = nullptr; // that is being emitted
  int threads_loops_ = 0;
  int64_t expansions_ = 0;
  std::string error_;
};

} // namespace kiln::cpu
