// Schedules that were measured on a machine, as text: what `kiln compile --tune` writes and
// `--tune-file` reads. A line names a kernel by a hash of its naive form and the target's name, so that
// it holds for that kernel wherever it appears and for no other; kernels without a line, or with one
// that sets nothing, are scheduled as the machine description says.
//
//   kiln-tune 1
//   x86-64-v4 51d0c3a2b9e87f64 rows=8 vectors=3 prefetch=0   # conv+relu conv1: 0.4120 ms, was 0.4551
//   x86-64-v4 a90e5577c1d2083b   # matmul fc: 0.0310 ms
//
// The same file gives the same package.
#pragma once

#include "codegen/machine.h"
#include "ir/kernel/kernel.h"
#include "passes/kernel/schedule.h"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace kiln {

struct KernelTuning {
  TileChoice tile;
  std::optional<bool> threads; // whether its loops may be split over threads

  ScheduleOptions options() const;
  friend bool operator==(const KernelTuning &, const KernelTuning &) = default;
};

// What tells a naive kernel from others: 16 hexadecimal digits.
std::string tuning_key(const Kernel &kernel);
// "rows=8 vectors=3"; empty where nothing is set.
std::string tuning_text(const KernelTuning &tuning);

class Tuning {
public:
  // Reports every line that is not understood to `diagnostics`, with its place; false if there is one.
  bool read(const std::string &file, std::string_view text, Diagnostics &diagnostics);
  std::string text() const;

  // Of a kernel as lowering made it; nothing if there is no line for it.
  const KernelTuning *find(const Kernel &kernel, const MachineDesc &machine) const;
  // An empty tuning says that the default was measured as the best. `note` is for people.
  void set(const Kernel &kernel, const MachineDesc &machine, const KernelTuning &tuning, std::string note);
  size_t size() const { return lines_.size(); }

private:
  struct Line {
    KernelTuning tuning;
    std::string note;
  };
  std::map<std::pair<std::string, std::string>, Line> lines_; // by target and hash
};

} // namespace kiln
