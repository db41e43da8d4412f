// What the forms of a GPU nest share: the loops that become the grid, and coordinates from a flat number.
#pragma once

#include "codegen/c/stmt.h"
#include "codegen/cuda/cuda.h"
#include "codegen/gpu_machine.h"
#include "ir/kernel/kernel.h"

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace kiln::cuda {

// One __global__ function's body, and how it is launched.
struct GpuNest {
  std::string text;
  c::Helpers helpers;
  Dim blocks = 1;
  int threads = 1;
  int together = 1;          // blocks that a multiprocessor should have registers for
  int64_t shared_bytes = 0;  // dynamic: kiln_shared
  bool in_lines = false;     // which begins at a multiple of 1024 bytes
  int64_t scratch_bytes = 0; // for each block, from `scratch` on
  std::vector<TensorMap> maps; // kiln_map0, ...
  // Of the flat form, where it has no loops and no asserts and counts in 32 bits: what a thread does for kiln_at, which is
  // below `turns`; empty elsewhere.
  std::string turn;
  Dim turns;
  bool takes_turns = false;  // as many blocks as the device runs at once do all the work
  LaunchWork work;
};

struct NestContext {
  const Kernel &kernel;
  const GpuMachine &machine;
  bool is_aliased;        // what is written may be what is read
  std::string index_type; // "int" where every offset fits
  std::set<Symbol> unaligned = {}; // buffers that may not begin at a multiple of 16 bytes
};

// Memory that one launch of a kernel leaves for the next one: kiln_work, in the kernel's scratch memory.
inline Symbol work_buffer() { return Symbol("kiln_work"); }
// Gives the nest `elements` of it.
void add_work(GpuNest &nest, DType dtype, int64_t elements);

bool is_loop(const Stmt &s, LoopKind kind);
bool any_stmt(const std::vector<Stmt> &body, const std::function<bool(const Stmt &)> &f); // and inside of them
bool reads(const Expr &e, Symbol buffer);
// The perfectly nested loops of that kind from `s` inwards whose bounds do not depend on each other.
std::vector<const Stmt *> perfect_nest(const Stmt &s, LoopKind kind);
// Whether they count 0, 1, 2, ...
inline bool is_normalised(const Stmt &loop) { return loop.begin.is_const(0) && loop.step == 1; }
bool are_normalised(const std::vector<const Stmt *> &loops);
Dim extent_of(const Stmt &loop); // iterations, 0 at least
Dim product_of(const std::vector<const Stmt *> &loops);
// The greatest value where it is a number.
std::optional<int64_t> constant(const Dim &d);
// Definitions of the loops' variables from `flat`, a number below their product; the last loop is the fastest.
std::string coordinates(const std::vector<const Stmt *> &loops, const std::string &flat, const NestContext &context,
                        c::Helpers &helpers, const std::string &pad);

// Whether a guard's value (rectangle.h) is inside: one comparison, of numbers without a sign, where there is a limit.
std::string guard_text(const std::string &value, const std::optional<Dim> &limit, const NestContext &context, c::Helpers &helpers);

// f32 products in sums are added with one rounding: acc + a*b is fma(a, b, acc).
void fuse_products(std::vector<Stmt> &body);

// The forms.
//
// Flat: a thread for each iteration of the outer parallel loops.
GpuNest emit_flat(const Stmt &nest, const NestContext &context);
// Group: a block, or a warp, for each of them; its threads share the loops inside and what they leave for each other
// (emit_group.cpp). Without loops: all of `body` by one block.
GpuNest emit_group(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, const NestContext &context);
// Whether most loads of a reduction lie along its own steps, not along the loop that neighbouring threads take.
bool reads_along(const Stmt &reduce, Symbol fastest);
// Whether the body of a nest has work for a group.
bool wants_group(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body);
// Split: few results with long reductions, whose steps are shared by the warps of a block; nothing for other nests.
std::optional<GpuNest> try_emit_split(const Stmt &nest, const NestContext &context);
// Updates: elements that steps replace or add to one after the other, at places that a tensor holds; nothing for other nests.
std::optional<GpuNest> try_emit_updates(const Stmt &nest, const NestContext &context);
// Window: neighbouring results that share what they read, by one thread (window.h); nothing where that is not less.
std::optional<GpuNest> try_emit_window(const Stmt &nest, const NestContext &context);
// Turned: values whose neighbours lie apart where they are read, by tiles through shared memory; nothing where none do.
std::optional<GpuNest> try_emit_turned(const Stmt &nest, const NestContext &context);
// Tile: a sum of products, of which a block computes a tile; nothing where the nest is none. Two launches where the sum
// is cut into slices.
std::vector<GpuNest> try_emit_tile(const Stmt &nest, const NestContext &context);

// A reduction with too few results to fill the device, as two nests: parts of it, left in kiln_work, and the whole.
struct SplitReduction {
  Stmt parts;
  std::vector<Stmt> whole;
  DType dtype = DType::f32;
  int64_t elements = 0; // of kiln_work
};
// `body`: of the loops `outer`, or of a kernel's top level.
std::optional<SplitReduction> try_split_reduction(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, const GpuMachine &machine);

// One for each top-level nest of a kernel; runs of other statements stay together in one block. In a kernel whose top
// level allocates, everything stays together.
std::vector<GpuNest> map_gpu(const Kernel &kernel, const GpuMachine &machine, const LaunchFacts &facts);

} // namespace kiln::cuda
