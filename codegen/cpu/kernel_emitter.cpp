#include "codegen/cpu/kernel_emitter.h"

#include "codegen/cpu/types.h"
#include "runtime/entry_abi.h"

#include <algorithm>
#include <cstddef>

namespace kiln::cpu {

void set_function_attributes(llvm::Function &function, const MachineDesc &machine,
                             const EmitOptions &options) {
  function.addFnAttr(llvm::Attribute::NoUnwind);
  function.addFnAttr("no-builtins");
  function.addFnAttr("no-trapping-math", "true");
  function.addFnAttr("target-cpu", machine.cpu);
  if (!machine.features.empty())
    function.addFnAttr("target-features", machine.features);
  // Without min-legal-vector-width every width is taken to be asked for.
  if (machine.vector_bytes >= 64)
    function.addFnAttr("prefer-vector-width", "512");
  function.addFnAttr("denormal-fp-math",
                     options.denormals_keep ? "ieee,ieee" : "preserve-sign,preserve-sign");
}

llvm::Value *load_field(llvm::IRBuilder<> &b, llvm::Type *type, llvm::Value *base, size_t offset) {
  return b.CreateLoad(type, b.CreateConstInBoundsGEP1_64(b.getInt8Ty(), base, offset));
}

bool may_trap(const Kernel &kernel) {
  auto holds = [](const auto &self, const std::vector<Stmt> &body) -> bool {
    return std::any_of(body.begin(), body.end(), [&](const Stmt &s) {
      return s.is(Stmt::Kind::assert_) || self(self, s.body) || self(self, s.other);
    });
  };
  return holds(holds, kernel.body);
}

KernelEmitter::KernelEmitter(llvm::Module &module, const Kernel &kernel, const MachineDesc &machine,
                             const std::vector<BufferFacts> &facts, const EmitOptions &options)
    : module_(module), context_(module.getContext()), kernel_(kernel), machine_(machine),
      facts_(facts), options_(options), may_trap_(may_trap(kernel)),
      scratch_layout_(scratch_layout(kernel)), b_(context_) {}

KernelEmitter::Scope::Scope(KernelEmitter &e)
    : emitter(e), bindings(e.bindings_.size()), ranges(e.ranges_.size()), cached(e.cached_.size()) {
}

KernelEmitter::Scope::~Scope() {
  emitter.bindings_.resize(bindings);
  emitter.ranges_.truncate(ranges);
  while (emitter.cached_.size() > cached) {
    emitter.cache_.erase(emitter.cached_.back());
    emitter.cached_.pop_back();
  }
}

llvm::Function *KernelEmitter::make_function(const std::string &name,
                                             const std::vector<llvm::Type *> &params) {
  auto *type = llvm::FunctionType::get(b_.getVoidTy(), params, false);
  auto *function = llvm::Function::Create(type, llvm::GlobalValue::InternalLinkage, name, module_);
  set_function_attributes(*function, machine_, options_);
  function->setDSOLocal(true);
  return function;
}

void KernelEmitter::begin_function(llvm::Function *function) {
  function_ = function;
  auto *entry = llvm::BasicBlock::Create(context_, "", function);
  auto *body = llvm::BasicBlock::Create(context_, "", function);
  b_.SetInsertPoint(entry);
  b_.CreateBr(body);
  b_.SetInsertPoint(body);
}

llvm::Value *KernelEmitter::fail(std::string message, llvm::Type *type) {
  if (error_.empty())
    error_ = "kernel " + kernel_.name + ": " + std::move(message);
  return llvm::UndefValue::get(type ? type : b_.getInt64Ty());
}

const KernelEmitter::Binding *KernelEmitter::find(Symbol name) const {
  auto it = std::find_if(bindings_.rbegin(), bindings_.rend(),
                         [&](const Binding &b) { return b.name == name; });
  return it == bindings_.rend() ? nullptr : &*it;
}

llvm::AllocaInst *KernelEmitter::entry_alloca(llvm::Type *type, uint64_t alignment) {
  llvm::IRBuilder<> entry(function_->getEntryBlock().getTerminator());
  auto *slot = entry.CreateAlloca(type);
  slot->setAlignment(llvm::Align(alignment));
  return slot;
}

llvm::BasicBlock *KernelEmitter::new_block() {
  return llvm::BasicBlock::Create(context_, "", function_);
}

llvm::Value *KernelEmitter::frame_field(size_t offset) {
  return b_.CreateConstInBoundsGEP1_64(b_.getInt8Ty(), frame_, offset);
}

Result<llvm::Function *> KernelEmitter::emit(const std::string &name) {
  std::vector<llvm::Type *> params(1 + kernel_.buffers.size(), b_.getPtrTy());
  params.resize(params.size() + kernel_.dims.size(), b_.getInt64Ty());
  llvm::Function *function = make_function(name, params);
  function->setLinkage(llvm::GlobalValue::ExternalLinkage);
  frame_ = function->getArg(0);
  for (size_t i = 0; i < kernel_.buffers.size(); ++i) {
    const KernelBuffer &buffer = kernel_.buffers[i];
    BufferFacts facts = i < facts_.size() ? facts_[i] : BufferFacts{false, 1};
    llvm::Argument *arg = function->getArg(unsigned(1 + i));
    if (facts.noalias)
      arg->addAttr(llvm::Attribute::NoAlias);
    if (facts.alignment > 1)
      arg->addAttr(
          llvm::Attribute::getWithAlignment(context_, llvm::Align(uint64_t(facts.alignment))));
    bind({buffer.name, arg, buffer.dtype, 1, true, unsigned(facts.alignment), int(i)});
  }
  for (size_t i = 0; i < kernel_.dims.size(); ++i)
    bind({kernel_.dims[i], function->getArg(unsigned(1 + kernel_.buffers.size() + i))});
  begin_function(function);
  if (scratch_layout_.size > 0)
    scratch_ = load_field(b_, b_.getPtrTy(), frame_, offsetof(KilnFrame, scratch));
  emit_body(kernel_.body);
  b_.CreateRetVoid();
  share_configuration(*function);
  if (!error_.empty())
    return Error{error_};
  return function;
}

} // namespace kiln::cpu
