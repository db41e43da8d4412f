// Drives the rest: kernels to objects in parallel, entries, the image; or all of it in one module.
#include "codegen/cpu/cpu.h"

#include "codegen/cpu/builtins.h"
#include "codegen/cpu/emit_entry.h"
#include "codegen/cpu/facts.h"
#include "codegen/cpu/link.h"
#include "codegen/cpu/target.h"

#include <llvm/BinaryFormat/ELF.h>
#include <llvm/Bitcode/BitcodeWriter.h>
#include <llvm/IR/LLVMContext.h>
#include <llvm/Support/SHA256.h>
#include <llvm/Support/raw_ostream.h>

#include <array>
#include <atomic>
#include <cctype>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

namespace kiln::cpu {
namespace {

using ModuleDigest = std::array<uint8_t, 32>;

std::string identifier(std::string_view text) {
  std::string out;
  for (char c : text)
    out += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return out;
}

std::string kernel_link_name(size_t index) {
  return "kernel." + std::to_string(index);
}

uint16_t elf_machine(const MachineDesc &machine) {
  return llvm::StringRef(machine.triple).starts_with("aarch64") ? llvm::ELF::EM_AARCH64
                                                                : llvm::ELF::EM_X86_64;
}

EmitOptions emit_options(const CpuOptions &options) {
  return {options.denormals_keep};
}

Status check_kernels(const Program &program, const std::vector<Kernel> &kernels) {
  if (kernels.size() != program.kernels.size())
    return Error{"the scheduled kernels are not those of the program"};
  return Unit{};
}

// Of the module as bitcode, where nothing has a name that differs between equal kernels.
ModuleDigest digest(const llvm::Module &module) {
  llvm::SmallVector<char, 0> bitcode;
  llvm::raw_svector_ostream stream(bitcode);
  llvm::WriteBitcodeToFile(module, stream);
  llvm::SHA256 hash;
  hash.update(llvm::StringRef(bitcode.data(), bitcode.size()));
  return hash.final();
}

Result<ObjectFile> make_object(const Target &target, llvm::Module &module) {
  target.optimize(module);
  KILN_TRY(bytes, target.emit(module, llvm::CodeGenFileType::ObjectFile));
  return read_object(std::string_view(bytes.data(), bytes.size()));
}

// Compiles every kernel; equal ones share an object.
class KernelCompiler {
public:
  KernelCompiler(const std::vector<Kernel> &kernels, std::vector<std::vector<BufferFacts>> facts,
                 const MachineDesc &machine, const CpuOptions &options)
      : kernels_(kernels), facts_(std::move(facts)), machine_(machine), options_(options),
        digests_(kernels.size()), errors_(kernels.size()) {}

  Status run() {
    size_t jobs = std::min<size_t>(size_t(std::max(1, options_.jobs)), kernels_.size());
    std::vector<std::thread> threads;
    for (size_t i = 1; i < jobs; ++i)
      threads.emplace_back([this] { work(); });
    work();
    for (std::thread &thread : threads)
      thread.join();
    for (const auto &error : errors_) // the first in order, whichever was found first
      if (error)
        return *error;
    return Unit{};
  }

  // In order of the first kernel that uses each object.
  std::vector<LinkUnit> units() const {
    std::vector<LinkUnit> out;
    std::map<ModuleDigest, size_t> positions;
    for (size_t i = 0; i < kernels_.size(); ++i) {
      auto [it, added] = positions.try_emplace(digests_[i], out.size());
      if (added)
        out.push_back({&*objects_.at(digests_[i]), {}, {}});
      LinkUnit &unit = out[it->second];
      unit.link_names.push_back(kernel_link_name(i));
      unit.labels.push_back(kernels_[i].name);
    }
    return out;
  }

private:
  void work() {
    auto target = Target::create(machine_, options_);
    for (size_t i = next_++; i < kernels_.size(); i = next_++) {
      Status status = target.ok() ? compile(*target, i) : Status(target.error());
      if (!status.ok())
        errors_[i] = status.error();
    }
  }

  Status compile(const Target &target, size_t i) {
    llvm::LLVMContext context;
    context.setDiscardValueNames(true);
    llvm::Module module("kernel", context);
    target.prepare(module);
    KernelEmitter emitter(module, kernels_[i], machine_, facts_[i], emit_options(options_));
    KILN_TRY(function, emitter.emit(kKernelFunction));
    (void)function;
    digests_[i] = digest(module);
    {
      std::lock_guard lock(mutex_);
      if (!objects_.try_emplace(digests_[i]).second)
        return Unit{}; // another kernel's worker has it
    }
    KILN_TRY(object, make_object(target, module));
    std::lock_guard lock(mutex_);
    objects_[digests_[i]] = std::move(object);
    return Unit{};
  }

  const std::vector<Kernel> &kernels_;
  std::vector<std::vector<BufferFacts>> facts_;
  const MachineDesc &machine_;
  const CpuOptions &options_;
  std::atomic<size_t> next_{0};
  std::mutex mutex_;
  std::map<ModuleDigest, std::optional<ObjectFile>> objects_;
  std::vector<ModuleDigest> digests_;
  std::vector<std::optional<Error>> errors_;
};

Status emit_entries(llvm::Module &module, const EntryContext &context) {
  for (const Plan &plan : context.program.entries) {
    KILN_RETURN_IF_ERROR(emit_run(module, context, plan, run_symbol(context.program, plan)));
    KILN_RETURN_IF_ERROR(emit_plan(module, context, plan, plan_symbol(context.program, plan)));
  }
  return Unit{};
}

Result<ObjectFile> compile_entries(const Program &program, const std::vector<Kernel> &kernels,
                                   const MachineDesc &machine, const CpuOptions &options,
                                   const Target &target) {
  llvm::LLVMContext context;
  llvm::Module module("entries", context);
  target.prepare(module);
  auto declare = [&](int kernel) {
    auto callee = module.getOrInsertFunction(kernel_link_name(size_t(kernel)),
                                             kernel_type(context, kernels[size_t(kernel)]));
    auto *function = llvm::cast<llvm::Function>(callee.getCallee());
    function->setDSOLocal(true);
    function->addFnAttr(llvm::Attribute::NoUnwind);
    return function;
  };
  KILN_RETURN_IF_ERROR(
      emit_entries(module, {program, kernels, machine, emit_options(options), declare}));
  return make_object(target, module);
}

Result<ObjectFile> compile_builtins(const MachineDesc &machine, const CpuOptions &options,
                                    const Target &target) {
  llvm::LLVMContext context;
  llvm::Module module("builtins", context);
  target.prepare(module);
  emit_builtins(module, machine, emit_options(options));
  return make_object(target, module);
}

// The whole program in one module, optimized.
Status build_module(const Program &program, const std::vector<Kernel> &kernels,
                    const MachineDesc &machine, const CpuOptions &options, const Target &target,
                    llvm::Module &module) {
  KILN_RETURN_IF_ERROR(check_kernels(program, kernels));
  target.prepare(module);
  auto facts = collect_facts(program, kernels);
  std::vector<llvm::Function *> functions;
  std::string prefix = "kiln_" + identifier(program.name) + "_";
  for (size_t i = 0; i < kernels.size(); ++i) {
    KernelEmitter emitter(module, kernels[i], machine, facts[i], emit_options(options));
    KILN_TRY(function, emitter.emit(prefix + identifier(kernels[i].name)));
    function->setLinkage(llvm::GlobalValue::InternalLinkage);
    functions.push_back(function);
  }
  auto defined = [&](int kernel) { return functions[size_t(kernel)]; };
  KILN_RETURN_IF_ERROR(
      emit_entries(module, {program, kernels, machine, emit_options(options), defined}));
  target.optimize(module);
  return Unit{};
}

} // namespace

std::string run_symbol(const Program &program, const Plan &entry) {
  return "kiln_" + identifier(program.name) + "_run_" + identifier(entry.name);
}

std::string plan_symbol(const Program &program, const Plan &entry) {
  return "kiln_" + identifier(program.name) + "_plan_" + identifier(entry.name);
}

Result<CodeImage> compile_image(const Program &program, const std::vector<Kernel> &kernels,
                                const MachineDesc &machine, const CpuOptions &options) {
  KILN_RETURN_IF_ERROR(check_kernels(program, kernels));
  KernelCompiler compiler(kernels, collect_facts(program, kernels), machine, options);
  KILN_RETURN_IF_ERROR(compiler.run());
  KILN_TRY(target, Target::create(machine, options));
  KILN_TRY(entries, compile_entries(program, kernels, machine, options, target));
  std::vector<LinkUnit> units = compiler.units();
  units.push_back({&entries, {}, {}});
  ObjectFile builtins;
  if (!undefined_symbols(units).empty()) {
    KILN_TRY(compiled, compile_builtins(machine, options, target));
    builtins = std::move(compiled);
    units.push_back({&builtins, {}, {}});
  }
  std::vector<LinkEntry> entry_names;
  for (const Plan &plan : program.entries)
    entry_names.push_back({run_symbol(program, plan), plan_symbol(program, plan)});
  KILN_TRY(elf, link_image(elf_machine(machine), units, entry_names));
  return CodeImage{machine.name, std::move(elf)};
}

Result<std::string> emit_llvm_text(const Program &program, const std::vector<Kernel> &kernels,
                                   const MachineDesc &machine, const CpuOptions &options) {
  llvm::LLVMContext context;
  llvm::Module module(program.name, context);
  KILN_TRY(target, Target::create(machine, options));
  KILN_RETURN_IF_ERROR(build_module(program, kernels, machine, options, target, module));
  std::string text;
  llvm::raw_string_ostream stream(text);
  module.print(stream, nullptr);
  return stream.str();
}

Result<std::string> emit_assembly(const Program &program, const std::vector<Kernel> &kernels,
                                  const MachineDesc &machine, const CpuOptions &options) {
  llvm::LLVMContext context;
  llvm::Module module(program.name, context);
  KILN_TRY(target, Target::create(machine, options));
  KILN_RETURN_IF_ERROR(build_module(program, kernels, machine, options, target, module));
  KILN_TRY(text, target.emit(module, llvm::CodeGenFileType::AssemblyFile));
  return std::string(text.begin(), text.end());
}

Result<std::vector<std::byte>> emit_object(const Program &program,
                                           const std::vector<Kernel> &kernels,
                                           const MachineDesc &machine, const CpuOptions &options) {
  llvm::LLVMContext context;
  llvm::Module module(program.name, context);
  KILN_TRY(target, Target::create(machine, options));
  KILN_RETURN_IF_ERROR(build_module(program, kernels, machine, options, target, module));
  KILN_TRY(object, target.emit(module, llvm::CodeGenFileType::ObjectFile));
  auto *bytes = reinterpret_cast<const std::byte *>(object.data());
  return std::vector<std::byte>(bytes, bytes + object.size());
}

} // namespace kiln::cpu
