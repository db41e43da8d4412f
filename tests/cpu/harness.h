// Compiles programs for every CPU target and runs those that this machine can: its own levels of
// x86-64 in the process, aarch64 under qemu where that is installed.
#pragma once

#include "codegen/cpu/cpu.h"
#include "ir/kernel/build.h"
#include "tests/cpu/image_loader.h"

#include <cstring>
#include <functional>

namespace kiln::test {

using Bytes = std::vector<uint8_t>;

template <typename T>
Bytes bytes_of(const std::vector<T> &values) {
  Bytes out(values.size() * sizeof(T));
  if (!out.empty())
    std::memcpy(out.data(), values.data(), out.size());
  return out;
}

template <typename T>
std::vector<T> values_of(const Bytes &bytes) {
  std::vector<T> out(bytes.size() / sizeof(T));
  if (!out.empty())
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
  return out;
}

struct Run {
  int entry = 0;
  std::vector<int64_t> dims;
  std::vector<Bytes> args; // inputs, then outputs; outputs are filled in
  Bytes weights, variables;
  int32_t hand_over = 0; // nanoseconds
  // Results
  int plan_status = 0;
  int code = 0;
  int trap_kernel = -1;
  std::vector<int64_t> planned;
  std::vector<int> kernel_log;
};

// A program of one entry that launches each kernel once; every buffer of the kernels is an argument
// of its own, unless an earlier kernel has one of that name; dims of the kernels are the entry's.
Program make_program(std::vector<Kernel> kernels);
Kernel make_kernel(std::string kernel_name, std::vector<KernelBuffer> buffers,
                   std::vector<std::string> dims, std::vector<Stmt> body);
KernelBuffer in(std::string_view buffer, DType dtype, Dim size);
KernelBuffer out(std::string_view buffer, DType dtype, Dim size);

inline Dim sym(std::string_view text) {
  return Dim::symbol(text);
}
inline Symbol name(std::string_view text) {
  return Symbol(text);
}

// The targets whose code can run here.
std::vector<MachineDesc> runnable_machines();
cpu::CodeImage compile(const Program &program, const MachineDesc &machine,
                       const cpu::CpuOptions &options = {});
Run execute(const cpu::CodeImage &image, Run run);

using Check = std::function<void(const MachineDesc &, const Run &)>;
// Compiles and runs on each of runnable_machines() at -O2, and on the first also at -O0.
void on_every_machine(const Program &program, const Run &run, const Check &check);
// The same for programs that depend on the machine's vectors.
void on_every_machine_made(const std::function<Program(const MachineDesc &)> &make, const Run &run,
                           const Check &check);

} // namespace kiln::test
