#include "codegen/cpu/emit_entry.h"

#include "codegen/cpu/entry_dims.h"
#include "runtime/entry_abi.h"

#include <cstddef>

namespace kiln::cpu {
namespace {

// Whether the dims are those of a form, or all of them at least as large.
llvm::Value *is_form(llvm::IRBuilder<> &b, EntryDims &dims, const PlanForm &form, bool or_larger) {
  llvm::Value *all = b.getTrue();
  for (const auto &[symbol, value] : form.dims) {
    llvm::Value *dim = dims.emit(Dim::symbol(symbol)), *number = b.getInt64(uint64_t(value));
    all = b.CreateAnd(all, or_larger ? b.CreateICmpSGE(dim, number) : b.CreateICmpEQ(dim, number));
  }
  return all;
}

class RunEmitter {
public:
  RunEmitter(llvm::Module &module, const EntryContext &context, const Plan &plan,
             llvm::Function *function)
      : context_(context), plan_(plan), function_(function),
        b_(llvm::BasicBlock::Create(module.getContext(), "", function)), dims_(b_, false) {}

  Status emit() {
    llvm::Value *values = load_ptr(offsetof(KilnFrame, dims));
    for (size_t i = 0; i < plan_.dims.size(); ++i)
      dims_.push(plan_.dims[i], load_at(b_.getInt64Ty(), values, 8 * i));
    load_regions();
    services_self_ = load_at(b_.getPtrTy(), services_, offsetof(KilnServices, self));
    hook_ = load_at(b_.getPtrTy(), services_, offsetof(KilnServices, after_kernel));
    has_hook_ = b_.CreateIsNotNull(hook_);
    b_.CreateStore(b_.getInt32(0), field(offsetof(KilnFrame, trap)));
    steps(plan_.steps);
    b_.CreateRet(b_.getInt32(0));
    if (!dims_.is_complete())
      problem("uses a symbol that is no dim of it");
    if (!error_.empty())
      return Error{"entry " + plan_.name + " " + error_};
    return Unit{};
  }

private:
  void problem(std::string message) {
    if (error_.empty())
      error_ = std::move(message);
  }

  llvm::Value *field(size_t offset) {
    return b_.CreateConstInBoundsGEP1_64(b_.getInt8Ty(), function_->getArg(0), offset);
  }
  llvm::Value *load_at(llvm::Type *type, llvm::Value *base, size_t offset) {
    return b_.CreateLoad(type, b_.CreateConstInBoundsGEP1_64(b_.getInt8Ty(), base, offset));
  }
  llvm::Value *load_ptr(size_t offset) { return b_.CreateLoad(b_.getPtrTy(), field(offset)); }
  llvm::BasicBlock *new_block() { return llvm::BasicBlock::Create(b_.getContext(), "", function_); }

  void load_regions() {
    services_ = load_ptr(offsetof(KilnFrame, services));
    arena_ = load_ptr(offsetof(KilnFrame, arena));
    weights_ = load_ptr(offsetof(KilnFrame, weights));
    variables_ = load_ptr(offsetof(KilnFrame, variables));
    llvm::Value *args = load_ptr(offsetof(KilnFrame, args));
    for (size_t i = 0; i < plan_.inputs.size() + plan_.outputs.size(); ++i)
      args_.push_back(load_at(b_.getPtrTy(), args, 8 * i));
  }

  llvm::Value *address(int index) {
    if (index < 0 || size_t(index) >= plan_.buffers.size()) {
      problem("names a buffer out of range");
      return arena_;
    }
    const PlanBuffer &buffer = plan_.buffers[size_t(index)];
    auto in = [](int at, const auto &list) { return at >= 0 && size_t(at) < list.size(); };
    llvm::Value *base = arena_;
    int64_t place = 0;
    switch (buffer.kind) {
    case PlanBuffer::Kind::argument:
      if (!in(buffer.argument, args_)) {
        problem("names an argument out of range");
        return arena_;
      }
      base = args_[size_t(buffer.argument)];
      break;
    case PlanBuffer::Kind::weight:
      if (!in(buffer.weight, context_.program.weights)) {
        problem("names a weight out of range");
        return arena_;
      }
      base = weights_;
      place = context_.program.weights[size_t(buffer.weight)].offset;
      break;
    case PlanBuffer::Kind::variable:
      if (!in(buffer.variable, context_.program.variables)) {
        problem("names a variable out of range");
        return arena_;
      }
      base = variables_;
      place = context_.program.variables[size_t(buffer.variable)].offset;
      break;
    case PlanBuffer::Kind::arena:
      break;
    }
    return b_.CreateGEP(b_.getInt8Ty(), base, dims_.emit(buffer.offset + Dim(place)));
  }

  void steps(const std::vector<PlanStep> &list) {
    size_t outside = dims_.count();
    for (const PlanStep &step : list) {
      switch (step.kind) {
      case PlanStep::Kind::bind:
        bind_step(step);
        break;
      case PlanStep::Kind::require:
        require_step(step);
        break;
      case PlanStep::Kind::launch:
        launch(step);
        break;
      case PlanStep::Kind::if_:
        if_step(step);
        break;
      case PlanStep::Kind::while_:
        while_step(step);
        break;
      case PlanStep::Kind::loop:
        loop_step(step);
        break;
      case PlanStep::Kind::form:
        branch(is_form(b_, dims_, plan_.forms[size_t(step.form)], false), step);
        break;
      }
    }
    dims_.truncate(outside);
  }

  // Ends the run where `bad` holds.
  void trap_if(llvm::Value *bad, const PlanStep &step, int trap, llvm::Value *value) {
    llvm::BasicBlock *failed = new_block(), *next = new_block();
    b_.CreateCondBr(bad, failed, next);
    b_.SetInsertPoint(failed);
    b_.CreateStore(b_.getInt32(uint32_t(step.position)), field(offsetof(KilnFrame, trap_kernel)));
    b_.CreateStore(b_.getInt32(uint32_t(step.index)), field(offsetof(KilnFrame, trap_index)));
    b_.CreateStore(value, field(offsetof(KilnFrame, trap_value)));
    b_.CreateStore(b_.getInt32(uint32_t(trap)), field(offsetof(KilnFrame, trap)));
    b_.CreateRet(b_.getInt32(uint32_t(trap)));
    b_.SetInsertPoint(next);
  }

  void bind_step(const PlanStep &step) {
    if (step.index < 0 || size_t(step.index) >= plan_.sizes.size() || step.buffers.size() != 1)
      return problem("binds a size out of range");
    const PlanSize &size = plan_.sizes[size_t(step.index)];
    llvm::Value *value = b_.CreateLoad(b_.getInt64Ty(), address(step.buffers[0]));
    // As unsigned numbers, what is below 0 is above every bound.
    trap_if(b_.CreateICmpUGT(value, dims_.emit(size.bound)), step, KILN_TRAP_SIZE, value);
    dims_.push(size.name, value);
    llvm::Value *sizes = load_ptr(offsetof(KilnFrame, sizes));
    llvm::BasicBlock *store = new_block(), *after = new_block();
    b_.CreateCondBr(b_.CreateIsNotNull(sizes), store, after);
    b_.SetInsertPoint(store);
    b_.CreateStore(value, b_.CreateConstInBoundsGEP1_64(b_.getInt64Ty(), sizes, uint64_t(step.index)));
    b_.CreateBr(after);
    b_.SetInsertPoint(after);
  }

  void require_step(const PlanStep &step) {
    if (step.dims.size() != 2)
      return problem("compares other than two sizes");
    llvm::Value *a = dims_.emit(step.dims[0]), *b = dims_.emit(step.dims[1]);
    trap_if(b_.CreateICmpNE(a, b), step, KILN_TRAP_UNEQUAL, a);
  }

  void launch(const PlanStep &step) {
    if (step.kernel < 0 || size_t(step.kernel) >= context_.kernels.size()) {
      problem("launches a kernel out of range");
      return;
    }
    const Kernel &kernel = context_.kernels[size_t(step.kernel)];
    if (step.buffers.size() != kernel.buffers.size() || step.dims.size() != kernel.dims.size()) {
      problem("launches " + kernel.name + " with a wrong number of buffers or dims");
      return;
    }
    std::vector<llvm::Value *> args{function_->getArg(0)};
    for (int buffer : step.buffers)
      args.push_back(address(buffer));
    for (const Dim &dim : step.dims)
      args.push_back(dims_.emit(dim));
    b_.CreateCall(context_.kernel_function(step.kernel), args);
    llvm::Value *position = b_.getInt32(uint32_t(step.position));
    if (may_trap(kernel)) {
      llvm::Value *trap = b_.CreateLoad(b_.getInt32Ty(), field(offsetof(KilnFrame, trap)));
      llvm::BasicBlock *failed = new_block(), *next = new_block();
      b_.CreateCondBr(b_.CreateICmpEQ(trap, b_.getInt32(0)), next, failed);
      b_.SetInsertPoint(failed);
      b_.CreateStore(position, field(offsetof(KilnFrame, trap_kernel)));
      b_.CreateRet(trap);
      b_.SetInsertPoint(next);
    }
    llvm::BasicBlock *call = new_block(), *after = new_block();
    b_.CreateCondBr(has_hook_, call, after);
    b_.SetInsertPoint(call);
    auto *type = llvm::FunctionType::get(b_.getVoidTy(), {b_.getPtrTy(), b_.getInt32Ty()}, false);
    b_.CreateCall(type, hook_, {services_self_, position});
    b_.CreateBr(after);
    b_.SetInsertPoint(after);
  }

  llvm::Value *condition(const PlanStep &step) {
    return b_.CreateIsNotNull(b_.CreateLoad(b_.getInt8Ty(), address(step.condition)));
  }

  void if_step(const PlanStep &step) { branch(condition(step), step); }

  void branch(llvm::Value *condition, const PlanStep &step) {
    llvm::BasicBlock *body = new_block(), *other = new_block(), *after = new_block();
    b_.CreateCondBr(condition, body, other);
    b_.SetInsertPoint(body);
    steps(step.body);
    b_.CreateBr(after);
    b_.SetInsertPoint(other);
    steps(step.other);
    b_.CreateBr(after);
    b_.SetInsertPoint(after);
  }

  void while_step(const PlanStep &step) {
    llvm::BasicBlock *head = new_block(), *body = new_block(), *after = new_block();
    llvm::BasicBlock *before = b_.GetInsertBlock();
    b_.CreateBr(head);
    b_.SetInsertPoint(head);
    llvm::PHINode *turn = b_.CreatePHI(b_.getInt64Ty(), 2);
    size_t outside = dims_.count();
    if (!step.var.empty())
      dims_.push(step.var, turn);
    steps(step.condition_body);
    b_.CreateCondBr(condition(step), body, after);
    b_.SetInsertPoint(body);
    steps(step.body);
    dims_.truncate(outside);
    turn->addIncoming(b_.getInt64(0), before);
    turn->addIncoming(b_.CreateAdd(turn, b_.getInt64(1)), b_.GetInsertBlock());
    b_.CreateBr(head);
    b_.SetInsertPoint(after);
  }

  void loop_step(const PlanStep &step) {
    llvm::Value *count = dims_.emit(step.count), *zero = b_.getInt64(0);
    llvm::BasicBlock *before = b_.GetInsertBlock(), *body = new_block(), *after = new_block();
    b_.CreateCondBr(b_.CreateICmpSGT(count, zero), body, after);
    b_.SetInsertPoint(body);
    llvm::PHINode *i = b_.CreatePHI(b_.getInt64Ty(), 2);
    size_t outside = dims_.count();
    dims_.push(step.var, i);
    steps(step.body);
    dims_.truncate(outside);
    llvm::Value *next = b_.CreateNSWAdd(i, b_.getInt64(1));
    i->addIncoming(zero, before);
    i->addIncoming(next, b_.GetInsertBlock());
    b_.CreateCondBr(b_.CreateICmpSLT(next, count), body, after);
    b_.SetInsertPoint(after);
  }

  const EntryContext &context_;
  const Plan &plan_;
  llvm::Function *function_;
  llvm::IRBuilder<> b_;
  EntryDims dims_;
  llvm::Value *services_ = nullptr, *services_self_ = nullptr, *hook_ = nullptr,
              *has_hook_ = nullptr;
  llvm::Value *arena_ = nullptr, *weights_ = nullptr, *variables_ = nullptr;
  std::vector<llvm::Value *> args_;
  std::string error_;
};

llvm::Function *make_entry(llvm::Module &module, const EntryContext &context,
                           const std::string &name, std::vector<llvm::Type *> params) {
  auto *type = llvm::FunctionType::get(llvm::Type::getInt32Ty(module.getContext()), params, false);
  auto *function = llvm::Function::Create(type, llvm::GlobalValue::ExternalLinkage, name, module);
  set_function_attributes(*function, context.machine, context.options);
  function->setDSOLocal(true);
  return function;
}

} // namespace

llvm::FunctionType *kernel_type(llvm::LLVMContext &context, const Kernel &kernel) {
  std::vector<llvm::Type *> params(1 + kernel.buffers.size(), llvm::PointerType::get(context, 0));
  params.resize(params.size() + kernel.dims.size(), llvm::Type::getInt64Ty(context));
  return llvm::FunctionType::get(llvm::Type::getVoidTy(context), params, false);
}

Result<llvm::Function *> emit_run(llvm::Module &module, const EntryContext &context,
                                  const Plan &plan, const std::string &name) {
  auto *ptr = llvm::PointerType::get(module.getContext(), 0);
  llvm::Function *function = make_entry(module, context, name, {ptr});
  RunEmitter emitter(module, context, plan, function);
  KILN_RETURN_IF_ERROR(emitter.emit());
  return function;
}

// A size that overflows, or is negative, becomes an arena of INT64_MAX bytes, which no caller
// grants.
Result<llvm::Function *> emit_plan(llvm::Module &module, const EntryContext &context,
                                   const Plan &plan, const std::string &name) {
  auto *ptr = llvm::PointerType::get(module.getContext(), 0);
  llvm::Function *function = make_entry(module, context, name, {ptr, ptr});
  llvm::IRBuilder<> b(llvm::BasicBlock::Create(module.getContext(), "", function));
  EntryDims dims(b, true);
  auto at = [&](llvm::Value *base, size_t i) {
    return b.CreateConstInBoundsGEP1_64(b.getInt64Ty(), base, i);
  };
  for (size_t i = 0; i < plan.dims.size(); ++i)
    dims.push(plan.dims[i], b.CreateLoad(b.getInt64Ty(), at(function->getArg(0), i)));
  for (size_t i = 0; i < plan.constraints.size(); ++i) {
    llvm::Value *x = dims.emit(plan.constraints[i].a), *y = dims.emit(plan.constraints[i].b);
    llvm::Value *violated = b.CreateOr(dims.take_overflow(), b.CreateICmpNE(x, y));
    auto *failed = llvm::BasicBlock::Create(module.getContext(), "", function);
    auto *next = llvm::BasicBlock::Create(module.getContext(), "", function);
    b.CreateCondBr(violated, failed, next);
    b.SetInsertPoint(failed);
    b.CreateRet(b.getInt32(uint32_t(1 + i)));
    b.SetInsertPoint(next);
  }
  llvm::Value *arena = dims.emit(plan.arena_size), *zero = b.getInt64(0);
  // A context for some dims is also one for smaller ones, whatever form they have.
  for (const PlanForm &form : plan.forms) {
    llvm::Value *both = b.CreateBinaryIntrinsic(llvm::Intrinsic::smax, arena, dims.emit(form.arena_size));
    arena = b.CreateSelect(is_form(b, dims, form, true), both, arena);
  }
  llvm::Value *bad = b.CreateICmpSLT(arena, zero);
  size_t position = 1;
  for (const PlanArgument &output : plan.outputs)
    for (const Dim &dim : output.planned()) {
      llvm::Value *value = dims.emit(dim);
      bad = b.CreateOr(bad, b.CreateICmpSLT(value, zero));
      b.CreateStore(value, at(function->getArg(1), position++));
    }
  bad = b.CreateOr(bad, dims.take_overflow());
  arena = b.CreateSelect(bad, b.getInt64(uint64_t(INT64_MAX)), arena);
  b.CreateStore(arena, function->getArg(1));
  b.CreateRet(b.getInt32(0));
  if (!dims.is_complete())
    return Error{"the sizes of entry " + plan.name + " use a symbol that is no dim of it"};
  return function;
}

} // namespace kiln::cpu
