// A pass over the graph: a free function from a module to the same module, changed in place.
//
//   Changed cse(Module &module, PassContext &context);
//
// It reports whether it changed anything, mistakes of the user's go to context.diagnostics, and
// what it leaves verifies. passes/passes.def lists all of them; passes/pipelines.cpp says in which
// order.
#pragma once

#include "ir/graph.h"

#include <span>
#include <string_view>
#include <vector>

namespace kiln {

enum class Changed : bool { no, yes };
inline Changed operator|(Changed a, Changed b) {
  return Changed(bool(a) || bool(b));
}
inline Changed &operator|=(Changed &a, Changed b) {
  return a = a | b;
}

// Bounds on what compile time may cost, whatever the input.
struct PassLimits {
  int64_t fold_bytes = int64_t(16)
                       << 20; // a folded result larger than this and its operands is not made
  int64_t fold_work = int64_t(1) << 28;    // multiply-adds of one folded node
  int64_t inline_nodes = int64_t(1) << 20; // nodes that inlining may create in a function
};

// Tiles of 3x3 convolutions: chosen by size, always of one width, or none.
enum class Winograd : uint8_t { off, two, four, automatic };

struct PassFlags {
  bool keep_params = false;    // parameters stay writable: freeze leaves them alone
  bool blocked_layouts = true; // layout may block channels and make halos
  int64_t block = 16; // elements of a channel block and of a weight panel: a vector of the target
  DType weights = DType::f32; // bf16, f16, i8: constant weights are kept in fewer bits
  double byte_dots = 4; // how many products of bytes the target adds in the time of one of f32
  bool bf16_dots = false; // the target multiplies pairs of bf16
  bool byte_tiles = false, bf16_tiles = false; // it has matrix registers for them: 64 bytes of channels at once
  Winograd winograd = Winograd::off;
  // Of the target, for costs: bytes of a vector and of the cache that a worker has to itself.
  int64_t vector_bytes = 64, cache_bytes = 1 << 20;
  bool shares_weights = false; // other code of the package has the weights as they are: a second form of them is not stored
  bool gpu = false; // the code is for a GPU as well: what is shaped for a processor's caches is left out
  bool unsafe_floats = false; // rules that round otherwise than the program says
};

struct PassContext {
  explicit PassContext(Diagnostics &d) : diagnostics(d) {}

  Diagnostics &diagnostics;
  PassLimits limits = {};
  PassFlags flags = {};
  // Composites that the target computes in one kernel of its own: decompose leaves them.
  std::vector<Op> native = {};
};

using PassFn = Changed (*)(Module &, PassContext &);

struct PassInfo {
  std::string_view name; // "inline-calls"
  std::string_view doc;
  PassFn run;
};

#define KILN_PASS(stem, name, doc) Changed stem(Module &module, PassContext &context);
#include "passes/passes.def"
#undef KILN_PASS

std::span<const PassInfo> all_passes(); // in the order of passes.def
const PassInfo *find_pass(std::string_view name);

} // namespace kiln
