// A scheduled kernel as native code in this process, called with one pointer for each of its
// buffers.
#pragma once

#include "codegen/machine.h"
#include "ir/kernel/kernel.h"
#include "runtime/elf_image.h"

#include <memory>

namespace kiln::bench {

class Compiled {
public:
  // Schedules and compiles; empty and `error` set if that fails.
  Compiled(const Kernel &naive, const MachineDesc &machine, std::vector<int64_t> dims = {});
  // A kernel that is scheduled already.
  static Compiled as_written(const Kernel &kernel, const MachineDesc &machine,
                             std::vector<int64_t> dims = {});
  Compiled(Compiled &&other) noexcept;
  ~Compiled();

  const std::string &error() const { return error_; }
  int run(const std::vector<void *> &buffers) const; // 0, or the trap

private:
  Compiled() = default;
  void compile(const Kernel &scheduled, const MachineDesc &machine);

  std::vector<int64_t> dims_;
  std::vector<std::byte> elf_;
  rt::CodeImage image_;
  std::string error_;
  int64_t scratch_size_ = 0;
  std::unique_ptr<uint8_t, void (*)(void *)> scratch_{nullptr, nullptr};
};

std::string assembly(const Kernel &naive, const MachineDesc &machine);

} // namespace kiln::bench
