// What a launch has to do, in numbers that a GpuMachine has rates for: bytes, instructions, and waits that follow each
// other. People look at the estimates (`kiln inspect --launches`), which find what leaves a device idle without there
// being one. They are a model, not compared with a device yet. Sizes that only a run tells count as 64.
#pragma once

#include "codegen/gpu_machine.h"
#include "ir/kernel/kernel.h"

#include <map>
#include <string_view>
#include <vector>

namespace kiln::cuda {

struct Product;
struct TileShape;

enum class LaunchForm : uint8_t { flat, turned, window, split, group, tile };
std::string_view form_name(LaunchForm form);

struct LaunchWork {
  LaunchForm form = LaunchForm::flat;
  double read = 0, written = 0; // bytes of global memory, each counted once
  double moved = 0;             // bytes between the multiprocessors and the second cache, whole sectors
  double products = 0;          // fused or not, of the sums of products; other arithmetic is in `cycles` alone
  double cycles = 0;            // of all multiprocessors together
  double wait = 0;              // cycles that a thread waits for memory, one access after the other
  double least_cycles = 0;      // of the products alone, at the full rate of what multiplies them
  double threads = 1;           // of all blocks together
  std::map<Symbol, double> bytes; // read or written of each buffer
};

// Threads share an iteration of the outer loops: 1 in the flat form, slices of the sum in the window and the split form, lanes of a group.
struct LaunchThreads {
  LaunchForm form;
  int64_t together = 1;
  int64_t warps = 1; // a group of several gives one a row of an inner loop with a group's work
  int width = 1;     // neighbouring iterations that a thread has
};
LaunchWork work_of(const Kernel &kernel, const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, const LaunchThreads &threads);
// Updates one after the other (emit_updates.cpp): shares of the rows, the threads that each has, looks at indices and terms that are
// on their way together.
struct UpdateThreads {
  int64_t shares, threads;
  int looks, terms;
};
LaunchWork updates_work(const Kernel &kernel, const std::vector<const Stmt *> &steps, const std::vector<Stmt> &body, const UpdateThreads &threads);
LaunchWork tile_work(const Kernel &kernel, const Product &product, const TileShape &shape, const GpuMachine &machine);

// Weights that are used up span by span (streamed_softmax.h), of a nest that is a group's otherwise.
struct StreamedWork {
  double rate = 1;    // products that a multiprocessor adds in a cycle
  double padding = 1; // rows that are multiplied for each one that there is
  double steps = 1;   // products for each weight, of both sums together
  double parts = 1;   // blocks that share a row's keys
  double spans = 1;   // of a block, one after the other
};
LaunchWork streamed_work(const Kernel &kernel, const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, int64_t threads, const StreamedWork &streamed);

// Microseconds on a device that does nothing else, and what takes longest.
struct LaunchTime {
  double us = 0;
  std::string_view bound; // "memory", "cache", "math", "waits" or "launch"
};
LaunchTime time_of(const LaunchWork &work, const GpuMachine &machine);

} // namespace kiln::cuda
