// A `threads` loop
//
//   void work(frame, captured..., i64 begin, i64 end)   iterations begin..end
//   void shim(ptr closure, i64 begin, i64 end)          loads the captured values and calls work
//
// and, in the kernel, a closure on the stack and a call of services->parallel_for. The work has the
// captured pointers as parameters, not as loads, to keep what is known of them (noalias,
// alignment). Parallel loops directly inside of it stand around the loop over the range.
//
// Where the body has memory in the workers' scratch blocks, the loop that runs in parallel is one over
// parts, at most as many as there are threads; part i is its share of the iterations, in block i.
#include "codegen/cpu/kernel_emitter.h"
#include "codegen/cpu/thread_cost.h"
#include "codegen/cpu/types.h"
#include "runtime/entry_abi.h"

#include <algorithm>
#include <cstddef>
#include <set>
#include <utility>

namespace kiln::cpu {
namespace {

// Every name that a body mentions, whether defined in it or not.
class NameCollector {
public:
  void body(const std::vector<Stmt> &list) {
    for (const Stmt &s : list) {
      names.insert(s.name);
      expr(s.value);
      dims({&s.index, &s.stride, &s.begin, &s.end});
      if (s.count)
        dims({&*s.count});
      body(s.body);
      body(s.other);
    }
  }
  void dims(std::initializer_list<const Dim *> list) {
    for (const Dim *dim : list)
      for (Symbol name : dim->symbols())
        names.insert(name);
  }
  std::set<Symbol> names;

private:
  void expr(const Expr &e) {
    names.insert(e.name);
    dims({&e.index, &e.stride});
    if (e.count)
      dims({&*e.count});
    for (const Expr &arg : e.args)
      expr(arg);
  }
};

// Weights come from the second cache or beyond, whoever reads them; of two threads each has two caches for half of them.
constexpr int64_t kWeightBytesPerCycle = 8;

int64_t weight_bytes(const Kernel &kernel) {
  int64_t sum = 0;
  for (const KernelBuffer &b : kernel.buffers)
    if (b.constant)
      sum += b.size.try_const().value_or(0) * int64_t(dtype_bytes(b.dtype));
  return sum;
}

// min(trips, threads), and 1 at least.
llvm::Value *part_count(llvm::IRBuilder<> &b, llvm::Value *services, llvm::Value *trips) {
  llvm::Value *threads = b.CreateZExt(
      load_field(b, b.getInt32Ty(), services, offsetof(KilnServices, threads)), b.getInt64Ty());
  llvm::Value *parts = b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, threads, trips);
  return b.CreateBinaryIntrinsic(llvm::Intrinsic::smax, parts, b.getInt64(1));
}

// for part in begin..end: work(frame, captured..., scratch block, first, last). `args` are the fields
// of the closure: frame, captured..., trips. The first trips % parts parts have one iteration more.
void call_parts(llvm::IRBuilder<> &b, llvm::Function *shim, llvm::Function *work,
                std::vector<llvm::Value *> args) {
  llvm::Value *frame = args.front(), *trips = args.back();
  args.pop_back();
  llvm::Value *services = load_field(b, b.getPtrTy(), frame, offsetof(KilnFrame, services));
  llvm::Value *parts = part_count(b, services, trips);
  llvm::Value *each = b.CreateSDiv(trips, parts), *more = b.CreateSRem(trips, parts);
  llvm::Value *blocks = load_field(b, b.getPtrTy(), frame, offsetof(KilnFrame, scratch));
  llvm::Value *stride = load_field(b, b.getInt64Ty(), frame, offsetof(KilnFrame, scratch_stride));
  auto start_of = [&](llvm::Value *part) {
    llvm::Value *extra = b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, part, more);
    return b.CreateNSWAdd(b.CreateNSWMul(part, each), extra);
  };
  auto *before = b.GetInsertBlock();
  auto *loop = llvm::BasicBlock::Create(b.getContext(), "", shim);
  auto *after = llvm::BasicBlock::Create(b.getContext(), "", shim);
  b.CreateCondBr(b.CreateICmpSLT(shim->getArg(1), shim->getArg(2)), loop, after);
  b.SetInsertPoint(loop);
  llvm::PHINode *part = b.CreatePHI(b.getInt64Ty(), 2);
  part->addIncoming(shim->getArg(1), before);
  llvm::Value *next = b.CreateNSWAdd(part, b.getInt64(1));
  args.push_back(b.CreateGEP(b.getInt8Ty(), blocks, b.CreateNSWMul(part, stride)));
  args.insert(args.end(), {start_of(part), start_of(next)});
  b.CreateCall(work, args);
  part->addIncoming(next, loop);
  b.CreateCondBr(b.CreateICmpSLT(next, shim->getArg(2)), loop, after);
  b.SetInsertPoint(after);
  b.CreateRetVoid();
}

} // namespace

void KernelEmitter::emit_threads(const Stmt &s) {
  if (threads_loops_ > 0 &&
      function_->hasInternalLinkage()) { // nested: the outer one has the threads
    emit_rolled(s);
    return;
  }
  NameCollector collector;
  collector.body(s.body);
  collector.dims({&s.begin, &s.index});
  std::vector<Binding> captured, constants;
  for (auto it = bindings_.rbegin(); it != bindings_.rend(); ++it) {
    auto seen = [&](const Binding &b) { return b.name == it->name; };
    if (!collector.names.contains(it->name) ||
        std::any_of(captured.begin(), captured.end(), seen) ||
        std::any_of(constants.begin(), constants.end(), seen))
      continue;
    (llvm::isa<llvm::Constant>(it->value) ? constants : captured).push_back(*it);
  }
  std::reverse(captured.begin(), captured.end());

  llvm::Value *begin = emit_dim(s.begin), *end = emit_dim(s.end);
  llvm::Value *span = b_.CreateNSWSub(end, begin);
  llvm::Value *trips = s.step == 1
                           ? span
                           : b_.CreateSDiv(b_.CreateNSWAdd(span, b_.getInt64(uint64_t(s.step - 1))),
                                           b_.getInt64(uint64_t(s.step)));
  std::vector<llvm::Type *> fields{b_.getPtrTy()};
  for (const Binding &binding : captured)
    fields.push_back(binding.value->getType());
  bool has_scratch = scratch_layout_.holds_any(s.body);
  if (has_scratch)
    fields.push_back(b_.getInt64Ty()); // the trips
  auto *closure_type = llvm::StructType::get(context_, fields);

  llvm::Function *work;
  {
    auto saved_point = b_.saveIP();
    llvm::Function *saved_function = function_;
    llvm::Value *saved_frame = frame_, *saved_scratch = scratch_;
    auto saved_bindings = std::exchange(bindings_, constants);
    auto saved_cache = std::exchange(cache_, {});
    auto saved_cached = std::exchange(cached_, {});
    ++threads_loops_;
    work = emit_work(s, captured, has_scratch);
    bindings_ = std::move(saved_bindings);
    cache_ = std::move(saved_cache);
    cached_ = std::move(saved_cached);
    function_ = saved_function;
    frame_ = saved_frame;
    scratch_ = saved_scratch;
    b_.restoreIP(saved_point);
  }
  llvm::Function *shim = emit_shim(work, closure_type, has_scratch);

  llvm::AllocaInst *closure = entry_alloca(closure_type, 64);
  b_.CreateStore(frame_, b_.CreateStructGEP(closure_type, closure, 0));
  for (size_t i = 0; i < captured.size(); ++i)
    b_.CreateStore(captured[i].value, b_.CreateStructGEP(closure_type, closure, unsigned(i + 1)));
  if (has_scratch)
    b_.CreateStore(trips,
                   b_.CreateStructGEP(closure_type, closure, unsigned(captured.size() + 1)));
  auto known = [&](Symbol name) {
    const Binding *binding = find(name);
    return binding && !binding->is_buffer;
  };
  llvm::Value *is_small = emit_is_small(thread_cycles(s, machine_, known));
  llvm::BasicBlock *call = new_block(), *after = new_block();
  b_.CreateCondBr(b_.CreateICmpSGT(trips, b_.getInt64(0)), call, after);
  b_.SetInsertPoint(call);
  llvm::Type *ptr = b_.getPtrTy();
  llvm::Value *services = load_field(b_, ptr, frame_, offsetof(KilnFrame, services));
  llvm::Value *self = load_field(b_, ptr, services, offsetof(KilnServices, self));
  llvm::Value *parallel_for = load_field(b_, ptr, services, offsetof(KilnServices, parallel_for));
  if (has_scratch)
    trips = part_count(b_, services, trips);
  auto *type = llvm::FunctionType::get(b_.getVoidTy(), {ptr, b_.getInt64Ty(), ptr, ptr}, false);
  if (is_small) {
    llvm::BasicBlock *here = new_block(), *threads = new_block(), *done = new_block();
    b_.CreateCondBr(is_small, here, threads);
    b_.SetInsertPoint(here);
    b_.CreateCall(shim, {closure, b_.getInt64(0), trips});
    b_.CreateBr(done);
    b_.SetInsertPoint(threads);
    b_.CreateCall(type, parallel_for, {self, trips, shim, closure});
    b_.CreateBr(done);
    b_.SetInsertPoint(done);
  } else {
    b_.CreateCall(type, parallel_for, {self, trips, shim, closure});
  }
  if (may_trap_) { // what follows may rely on what was asserted
    llvm::Value *trap = b_.CreateLoad(b_.getInt32Ty(), frame_field(offsetof(KilnFrame, trap)));
    llvm::BasicBlock *trapped = new_block();
    b_.CreateCondBr(b_.CreateICmpEQ(trap, b_.getInt32(0)), after, trapped);
    b_.SetInsertPoint(trapped);
    b_.CreateRetVoid();
  } else {
    b_.CreateBr(after);
  }
  b_.SetInsertPoint(after);
}

// Whether so much work is too little for threads, at the sizes of this run and on this host; null where it never is.
llvm::Value *KernelEmitter::emit_is_small(const std::optional<ThreadCycles> &cycles) {
  constexpr int64_t kMost = (kLongestHandOver - kSharedCacheHandOver) * kCyclesPerHandOver;
  if (!cycles)
    return nullptr;
  Dim work = cycles->least + Dim(weight_bytes(kernel_) / kWeightBytesPerCycle);
  if (work.is_const() && work.as_const() >= kMost)
    return nullptr;
  llvm::Value *hand_over = b_.CreateLoad(b_.getInt32Ty(), frame_field(offsetof(KilnFrame, hand_over)));
  llvm::Value *more = b_.CreateNSWSub(b_.CreateZExt(hand_over, b_.getInt64Ty()), b_.getInt64(kSharedCacheHandOver));
  llvm::Value *least = b_.CreateNSWMul(more, b_.getInt64(kCyclesPerHandOver));
  llvm::Value *is_small = b_.CreateICmpSLT(emit_dim(work), least);
  if (cycles->estimated.is_const()) // the passes have decided
    return is_small;
  return b_.CreateOr(is_small, b_.CreateICmpSLT(emit_dim(cycles->estimated), b_.getInt64(kLeastThreadCycles)));
}

llvm::Function *KernelEmitter::emit_work(const Stmt &s, const std::vector<Binding> &captured,
                                         bool has_scratch) {
  std::vector<llvm::Type *> params{b_.getPtrTy()};
  for (const Binding &binding : captured)
    params.push_back(binding.value->getType());
  if (has_scratch)
    params.push_back(b_.getPtrTy());
  params.insert(params.end(), {b_.getInt64Ty(), b_.getInt64Ty()});
  std::string name = std::string(function_->getName()) + ".loop" + std::to_string(threads_loops_);
  llvm::Function *work = make_function(name, params);
  work->addFnAttr(llvm::Attribute::NoInline);
  frame_ = work->getArg(0);
  for (size_t i = 0; i < captured.size(); ++i) {
    Binding binding = captured[i];
    llvm::Argument *arg = work->getArg(unsigned(i + 1));
    binding.value = arg;
    if (binding.is_buffer) {
      size_t at = size_t(binding.parameter);
      if (binding.parameter < 0 || (at < facts_.size() && facts_[at].noalias))
        arg->addAttr(llvm::Attribute::NoAlias);
      if (binding.alignment > 1)
        arg->addAttr(llvm::Attribute::getWithAlignment(context_, llvm::Align(binding.alignment)));
    }
    bind(std::move(binding));
  }
  if (has_scratch) {
    llvm::Argument *arg = work->getArg(unsigned(captured.size() + 1));
    arg->addAttr(llvm::Attribute::NoAlias);
    arg->addAttr(llvm::Attribute::getWithAlignment(context_, llvm::Align(KILN_ALIGNMENT)));
    scratch_ = arg;
  }
  begin_function(work);
  llvm::Value *first = work->getArg(unsigned(params.size() - 2));
  llvm::Value *last = work->getArg(unsigned(params.size() - 1));
  emit_range(s, s.body, first, last);
  b_.CreateRetVoid();
  share_configuration(*work);
  return work;
}

void KernelEmitter::emit_range(const Stmt &threads, const std::vector<Stmt> &body,
                               llvm::Value *first, llvm::Value *last) {
  if (body.size() == 1 && body[0].is(Stmt::Kind::loop) && body[0].loop == LoopKind::parallel &&
      !body[0].begin.depends_on(threads.name) && !body[0].end.depends_on(threads.name)) {
    emit_rolled(body[0], [&] { emit_range(threads, body[0].body, first, last); });
    return;
  }
  llvm::Value *origin = emit_dim(threads.begin);
  llvm::BasicBlock *before = b_.GetInsertBlock(), *loop = new_block(), *after = new_block();
  b_.CreateCondBr(b_.CreateICmpSLT(first, last), loop, after);
  b_.SetInsertPoint(loop);
  llvm::PHINode *trip = b_.CreatePHI(b_.getInt64Ty(), 2);
  trip->addIncoming(first, before);
  llvm::Value *round = in_turn(threads, trip, first, last, 1);
  llvm::Value *i = b_.CreateNSWAdd(origin, b_.CreateNSWMul(round, b_.getInt64(uint64_t(threads.step))));
  {
    Scope scope(*this);
    bind({threads.name, i});
    ranges_.set(threads.name, {threads.begin, threads.end});
    emit_body(body);
  }
  llvm::Value *next = b_.CreateNSWAdd(trip, b_.getInt64(1));
  trip->addIncoming(next, b_.GetInsertBlock());
  b_.CreateCondBr(b_.CreateICmpSLT(next, last), loop, after);
  b_.SetInsertPoint(after);
}

llvm::Function *KernelEmitter::emit_shim(llvm::Function *work, llvm::StructType *closure,
                                         bool has_scratch) {
  llvm::Type *i64 = b_.getInt64Ty();
  llvm::Function *shim =
      make_function(std::string(work->getName()) + ".shim", {b_.getPtrTy(), i64, i64});
  llvm::IRBuilder<> b(llvm::BasicBlock::Create(context_, "", shim));
  std::vector<llvm::Value *> args;
  for (unsigned i = 0; i < closure->getNumElements(); ++i)
    args.push_back(
        b.CreateLoad(closure->getElementType(i), b.CreateStructGEP(closure, shim->getArg(0), i)));
  if (has_scratch) {
    call_parts(b, shim, work, std::move(args));
    return shim;
  }
  args.insert(args.end(), {shim->getArg(1), shim->getArg(2)});
  b.CreateCall(work, args)->setTailCall();
  b.CreateRetVoid();
  return shim;
}

} // namespace kiln::cpu
