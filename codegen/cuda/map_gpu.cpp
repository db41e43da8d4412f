// Which form each nest of a kernel takes on a GPU.
#include "codegen/cuda/kept_rows.h"
#include "codegen/cuda/nest.h"
#include "codegen/cuda/rectangle.h"
#include "codegen/cuda/streamed_softmax.h"

#include "ir/kernel/build.h"

#include <algorithm>
#include <iterator>

namespace kiln::cuda {
namespace {

// Offsets are computed in 32 bits where none can need more.
std::string index_type(const Kernel &kernel) {
  constexpr int64_t kLimit = int64_t(1) << 29;
  bool fits = kernel.dims.empty() && std::all_of(kernel.buffers.begin(), kernel.buffers.end(), [](const KernelBuffer &b) {
    return b.size.is_const() && b.size.as_const() < kLimit;
  });
  return fits ? "int" : "int64_t";
}

using Nests = std::vector<GpuNest>;

// One launch, or several that follow each other.
Nests emit_nest(const Stmt &nest, const NestContext &context);

Nests emit_split(const SplitReduction &split, const NestContext &context) {
  Nests out = emit_nest(split.parts, context);
  bool is_nest = split.whole.size() == 1 && is_loop(split.whole[0], LoopKind::parallel);
  Nests whole = is_nest ? emit_nest(split.whole[0], context) : Nests{emit_group({}, split.whole, context)};
  std::move(whole.begin(), whole.end(), std::back_inserter(out));
  for (GpuNest &n : out)
    add_work(n, split.dtype, split.elements);
  return out;
}

Nests emit_nest(const Stmt &nest, const NestContext &context) {
  if (Nests tiles = try_emit_tile(nest, context); !tiles.empty())
    return tiles;
  if (auto window = try_emit_window(nest, context))
    return {std::move(*window)};
  if (auto whole = with_whole_axis(nest))
    return emit_nest(*whole, context);
  std::vector<const Stmt *> outer = perfect_nest(nest, LoopKind::parallel);
  if (Nests streamed = try_emit_streamed_softmax(outer, outer.back()->body, context); !streamed.empty())
    return streamed;
  if (auto split = try_split_reduction(outer, outer.back()->body, context.machine))
    return emit_split(*split, context);
  if (wants_group(outer, outer.back()->body) || has_rows_along(outer, outer.back()->body, context))
    return {emit_group(outer, outer.back()->body, context)};
  if (auto split = try_emit_split(nest, context))
    return {std::move(*split)};
  if (auto turned = try_emit_turned(nest, context))
    return {std::move(*turned)};
  return {emit_flat(nest, context)};
}

} // namespace

std::vector<GpuNest> map_gpu(const Kernel &lowered, const GpuMachine &machine, const LaunchFacts &facts) {
  Kernel kernel = lowered;
  fuse_products(kernel.body);
  NestContext context{kernel, machine, facts.is_aliased, index_type(kernel)};
  for (size_t i = 0; i < facts.is_unaligned.size(); ++i)
    if (facts.is_unaligned[i])
      context.unaligned.insert(kernel.buffers[i].name);
  bool shares = std::any_of(kernel.body.begin(), kernel.body.end(), [](const Stmt &s) {
    return s.is(Stmt::Kind::alloc) || s.is(Stmt::Kind::let);
  });
  std::vector<GpuNest> out;
  std::vector<Stmt> others;
  auto end_others = [&] {
    if (others.empty())
      return;
    // A few numbers need one thread, which may be another launch's as well.
    if (std::all_of(others.begin(), others.end(), [](const Stmt &s) { return s.is(Stmt::Kind::let) || s.is(Stmt::Kind::store); })) {
      out.push_back(emit_flat(kb::loop(Symbol("kiln_one"), 0, 1, LoopKind::parallel, std::move(others)), context));
      others.clear();
      return;
    }
    auto split = try_split_reduction({}, others, machine);
    Nests nests = try_emit_streamed_softmax({}, others, context);
    if (nests.empty())
      nests = split ? emit_split(*split, context) : Nests{emit_group({}, others, context)};
    std::move(nests.begin(), nests.end(), std::back_inserter(out));
    others.clear();
  };
  for (const Stmt &s : kernel.body) {
    if (auto updates = shares ? std::nullopt : try_emit_updates(s, context)) {
      end_others();
      out.push_back(std::move(*updates));
      continue;
    }
    if (!is_loop(s, LoopKind::parallel) || shares) {
      others.push_back(s);
      continue;
    }
    end_others();
    Nests nests = emit_nest(s, context);
    std::move(nests.begin(), nests.end(), std::back_inserter(out));
  }
  end_others();
  return out;
}

} // namespace kiln::cuda
