#include "tests/bench/kernels/compiled.h"

#include "codegen/cpu/cpu.h"
#include "ir/kernel/scratch.h"
#include "passes/kernel/schedule.h"
#include "runtime/fp_mode.h"

#include <cstdlib>

namespace kiln::bench {
namespace {

void parallel_for(void *, int64_t n, void (*body)(void *closure, int64_t begin, int64_t end),
                  void *closure) {
  body(closure, 0, n);
}

// One entry with one launch; every buffer of the kernel is an argument.
Program program_of(const Kernel &kernel) {
  Program program;
  program.name = "bench";
  program.kernels = {kernel};
  Plan plan;
  plan.name = "main";
  PlanStep step;
  step.kernel = 0;
  step.position = 0;
  for (size_t i = 0; i < kernel.buffers.size(); ++i) {
    const KernelBuffer &b = kernel.buffers[i];
    TensorType type{b.dtype, {b.size}};
    plan.inputs.push_back({std::string(b.name.text()), type});
    PlanBuffer buffer;
    buffer.kind = PlanBuffer::Kind::argument;
    buffer.argument = int(i);
    buffer.name = std::string(b.name.text());
    buffer.type = type;
    buffer.size = b.size * Dim(dtype_bytes(b.dtype));
    plan.buffers.push_back(buffer);
    step.buffers.push_back(int(i));
  }
  plan.dims = kernel.dims;
  for (Symbol d : kernel.dims)
    step.dims.push_back(Dim::symbol(d));
  plan.steps = {step};
  plan.launches = 1;
  program.entries = {plan};
  return program;
}

} // namespace

void Compiled::compile(const Kernel &kernel, const MachineDesc &machine) {
  auto image = cpu::compile_image(program_of(kernel), {kernel}, machine);
  if (!image.ok()) {
    error_ = image.error().message;
    return;
  }
  scratch_size_ = scratch_layout(kernel).size;
  scratch_ = {static_cast<uint8_t *>(std::aligned_alloc(KILN_ALIGNMENT, size_t(scratch_size_) + KILN_ALIGNMENT)),
              std::free};
  elf_ = std::move(image->elf);
  KilnError error{};
  if (rt::map_image(reinterpret_cast<const uint8_t *>(elf_.data()), elf_.size(), -1, 0,
                    machine.name.c_str(), 1, "bench", &image_, &error) != 0)
    error_ = error.message;
}

Compiled::Compiled(const Kernel &naive, const MachineDesc &machine, std::vector<int64_t> dims)
    : dims_(std::move(dims)) {
  Kernel k = naive;
  schedule(k, machine);
  compile(k, machine);
}

Compiled Compiled::as_written(const Kernel &kernel, const MachineDesc &machine,
                              std::vector<int64_t> dims) {
  Compiled out;
  out.dims_ = std::move(dims);
  out.compile(kernel, machine);
  return out;
}

Compiled::Compiled(Compiled &&other) noexcept
    : dims_(std::move(other.dims_)), elf_(std::move(other.elf_)), image_(other.image_),
      error_(std::move(other.error_)), scratch_size_(other.scratch_size_),
      scratch_(std::move(other.scratch_)) {
  other.image_ = {};
}

Compiled::~Compiled() {
  if (image_.base)
    rt::unmap_image(&image_);
}

int Compiled::run(const std::vector<void *> &buffers) const {
  KilnServices services{};
  services.abi = KILN_ENTRY_ABI;
  services.threads = 1;
  services.parallel_for = parallel_for;
  KilnFrame frame{};
  frame.services = &services;
  frame.args = buffers.data();
  frame.dims = dims_.data();
  frame.scratch = scratch_.get();
  frame.scratch_stride = scratch_size_;
  rt::FpScope scope(rt::fp_mode(false));
  return image_.run(0)(&frame);
}

std::string assembly(const Kernel &naive, const MachineDesc &machine) {
  Kernel k = naive;
  schedule(k, machine);
  auto text = cpu::emit_assembly(program_of(k), {k}, machine);
  return text.ok() ? *text : text.error().message;
}

} // namespace kiln::bench
