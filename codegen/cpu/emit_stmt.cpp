// Statements. Loops are emitted rotated, with a guard only where the range is not known to hold an
// iteration, so that no loop pass has to bring them into form.
#include "codegen/cpu/kernel_emitter.h"
#include "codegen/cpu/types.h"
#include "runtime/entry_abi.h"

#include <llvm/IR/MDBuilder.h>

#include <algorithm>
#include <cstddef>

namespace kiln::cpu {
namespace {

// Statements that expansion of nested `unroll` loops may make before the rest stays rolled.
constexpr int64_t kExpansionLimit = 1 << 15;

} // namespace

void KernelEmitter::emit_body(const std::vector<Stmt> &body) {
  for (size_t i = 0; i < body.size() && error_.empty();) {
    size_t done = emit_tiles(body, i);
    if (done == 0)
      emit_stmt(body[i]);
    i += std::max<size_t>(done, 1);
  }
}

void KernelEmitter::emit_scoped(const std::vector<Stmt> &body) {
  Scope scope(*this);
  emit_body(body);
}

void KernelEmitter::emit_stmt(const Stmt &s) {
  using Kind = Stmt::Kind;
  switch (s.kind) {
  case Kind::let:
    return emit_let(s);
  case Kind::alloc:
    return emit_alloc(s);
  case Kind::store:
    return emit_store(s);
  case Kind::loop:
    return emit_loop(s);
  case Kind::if_:
    return emit_if(s);
  case Kind::while_:
    return emit_while(s);
  case Kind::barrier: // a body runs on one thread
    return;
  case Kind::prefetch:
    return emit_prefetch(s);
  case Kind::assert_:
    return emit_assert(s);
  }
}

void KernelEmitter::emit_let(const Stmt &s) {
  llvm::Value *value = emit(s.value);
  if (s.value.dtype == DType::i64 && s.value.lanes == 1) // may be negative, unlike a dim
    ranges_.set(s.name, {Dim(-(int64_t(1) << 62)), std::nullopt});
  bind({s.name, value, s.value.dtype, s.value.lanes});
}

void KernelEmitter::emit_alloc(const Stmt &s) {
  if (s.size <= 0 || s.size > (int64_t(1) << 24) || s.lanes <= 0) {
    fail("the size of " + std::string(s.name.text()));
    return;
  }
  llvm::Type *type = memory_type(context_, s.dtype, s.lanes);
  llvm::Value *slot;
  auto place = scratch_layout_.offsets.find(&s);
  if (place != scratch_layout_.offsets.end())
    slot = b_.CreateConstInBoundsGEP1_64(b_.getInt8Ty(), scratch_, uint64_t(place->second));
  else
    slot = entry_alloca(llvm::ArrayType::get(type, uint64_t(s.size)), 64);
  bind({s.name, slot, s.dtype, s.lanes, true, 64});
}

void KernelEmitter::emit_loop(const Stmt &s) {
  if (s.step <= 0) {
    fail("the step of loop " + std::string(s.name.text()));
    return;
  }
  if (s.loop == LoopKind::threads)
    return emit_threads(s);
  auto begin = constant_dim(s.begin), end = constant_dim(s.end);
  if (begin && end) {
    if (*begin >= *end)
      return;
    int64_t trips = (*end - *begin - 1) / s.step + 1;
    bool expand = s.loop == LoopKind::unroll && expansions_ + trips <= kExpansionLimit;
    if (trips == 1 || expand)
      return emit_expanded(s, *begin, *end);
  }
  emit_rolled(s);
}

void KernelEmitter::emit_expanded(const Stmt &s, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end && error_.empty(); i += s.step) {
    ++expansions_;
    Scope scope(*this);
    bind({s.name, b_.getInt64(uint64_t(i))});
    ranges_.set(s.name, {Dim(i), Dim(i + 1)});
    emit_body(s.body);
    if (end - i <= s.step)
      break;
  }
}

void KernelEmitter::emit_rolled(const Stmt &s) {
  emit_rolled(s, [&] { emit_body(s.body); });
}

void KernelEmitter::emit_rolled(const Stmt &s, const std::function<void()> &body) {
  llvm::Value *begin = emit_dim(s.begin), *end = emit_dim(s.end);
  llvm::BasicBlock *before = new_block(), *loop = new_block(), *after = new_block();
  if (known_nonnegative(s.end - s.begin - Dim(1), ranges_))
    b_.CreateBr(before);
  else
    b_.CreateCondBr(b_.CreateICmpSLT(begin, end), before, after);
  b_.SetInsertPoint(before);
  b_.CreateBr(loop);
  b_.SetInsertPoint(loop);
  llvm::PHINode *i = b_.CreatePHI(b_.getInt64Ty(), 2);
  i->addIncoming(begin, before);
  {
    Scope scope(*this);
    bind({s.name, in_turn(s, i, begin, end, s.step)});
    ranges_.set(s.name, {s.begin, s.end});
    body();
  }
  llvm::Value *next = b_.CreateNSWAdd(i, b_.getInt64(uint64_t(s.step)));
  i->addIncoming(next, b_.GetInsertBlock());
  b_.CreateCondBr(b_.CreateICmpSLT(next, end), loop, after);
  b_.SetInsertPoint(after);
}

// The iteration that comes when it is i's turn among begin, begin + step, ..
llvm::Value *KernelEmitter::in_turn(const Stmt &s, llvm::Value *i, llvm::Value *begin, llvm::Value *end, int64_t step) {
  if (s.index.is_const(0))
    return i;
  llvm::Value *span = b_.CreateNSWSub(end, begin), *one = b_.getInt64(1), *by = b_.getInt64(uint64_t(step));
  llvm::Value *rounds = b_.CreateSDiv(b_.CreateNSWSub(span, one), by);
  llvm::Value *back = b_.CreateNSWSub(b_.CreateNSWAdd(b_.CreateNSWAdd(begin, begin), b_.CreateNSWMul(rounds, by)), i);
  llvm::Value *services = load_field(b_, b_.getPtrTy(), frame_, offsetof(KilnFrame, services));
  llvm::Value *threads = load_field(b_, b_.getInt32Ty(), services, offsetof(KilnServices, threads));
  llvm::Value *is_odd = b_.CreateTrunc(emit_dim(s.index), b_.getInt1Ty());
  llvm::Value *few = b_.CreateICmpULE(threads, b_.getInt32(uint32_t(s.integer)));
  return b_.CreateSelect(b_.CreateAnd(is_odd, few), back, i);
}

void KernelEmitter::emit_if(const Stmt &s) {
  llvm::Value *condition = emit(s.value);
  if (!condition->getType()->isIntegerTy(1)) {
    fail("the condition of an if is no bool scalar");
    return;
  }
  if (auto *constant = llvm::dyn_cast<llvm::ConstantInt>(condition))
    return emit_scoped(constant->isOne() ? s.body : s.other);
  llvm::BasicBlock *body = new_block(), *after = new_block();
  llvm::BasicBlock *other = s.other.empty() ? after : new_block();
  b_.CreateCondBr(condition, body, other);
  b_.SetInsertPoint(body);
  emit_scoped(s.body);
  b_.CreateBr(after);
  if (other != after) {
    b_.SetInsertPoint(other);
    emit_scoped(s.other);
    b_.CreateBr(after);
  }
  b_.SetInsertPoint(after);
}

void KernelEmitter::emit_while(const Stmt &s) {
  llvm::BasicBlock *head = new_block(), *body = new_block(), *after = new_block();
  b_.CreateBr(head);
  b_.SetInsertPoint(head);
  Scope scope(*this);
  llvm::Value *condition = emit(s.value);
  if (!condition->getType()->isIntegerTy(1)) {
    fail("the condition of a while is no bool scalar");
    condition = b_.getFalse();
  }
  b_.CreateCondBr(condition, body, after);
  b_.SetInsertPoint(body);
  emit_scoped(s.body);
  b_.CreateBr(head);
  b_.SetInsertPoint(after);
}

void KernelEmitter::emit_prefetch(const Stmt &s) {
  const Binding *buffer = find(s.name);
  if (!buffer || !buffer->is_buffer) {
    fail("prefetch of what is no buffer: " + std::string(s.name.text()));
    return;
  }
  Place place = emit_address(*buffer, s.index);
  uint32_t locality = s.integer == 1 ? 3 : 2;
  b_.CreateIntrinsic(llvm::Intrinsic::prefetch, {b_.getPtrTy()},
                     {place.address, b_.getInt32(0), b_.getInt32(locality), b_.getInt32(1)});
}

void KernelEmitter::emit_assert(const Stmt &s) {
  llvm::Value *holds = emit(s.value);
  if (!holds->getType()->isIntOrIntVectorTy(1)) {
    fail("the condition of an assert is no bool");
    return;
  }
  if (holds->getType()->isVectorTy())
    holds = b_.CreateAndReduce(holds);
  llvm::BasicBlock *trap = new_block(), *next = new_block();
  b_.CreateCondBr(holds, next, trap, llvm::MDBuilder(context_).createBranchWeights(1 << 20, 1));
  b_.SetInsertPoint(trap);
  // Several workers may fail at once; whichever comes last names the trap.
  auto *store = b_.CreateAlignedStore(b_.getInt32(uint32_t(s.integer)),
                                      frame_field(offsetof(KilnFrame, trap)), llvm::Align(4));
  store->setAtomic(llvm::AtomicOrdering::Monotonic);
  b_.CreateRetVoid();
  b_.SetInsertPoint(next);
}

} // namespace kiln::cpu
