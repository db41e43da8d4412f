#include "codegen/cuda/map_gpu.h"

#include "ir/kernel/build.h"

#include <algorithm>

namespace kiln::cuda {
namespace {

constexpr int kThreads = 256;

bool is_parallel(const Stmt &s) { return s.is(Stmt::Kind::loop) && s.loop == LoopKind::parallel; }

// The perfectly nested parallel loops from `s` inwards whose bounds do not depend on each other.
std::vector<const Stmt *> perfect_nest(const Stmt &s) {
  std::vector<const Stmt *> loops{&s};
  for (const Stmt *inner = &s; inner->body.size() == 1 && is_parallel(inner->body[0]);) {
    inner = &inner->body[0];
    bool independent = std::none_of(loops.begin(), loops.end(), [&](const Stmt *outer) {
      return inner->begin.depends_on(outer->name) || inner->end.depends_on(outer->name);
    });
    if (!independent)
      break;
    loops.push_back(inner);
  }
  return loops;
}

GpuNest flatten(const Stmt &nest) {
  std::vector<const Stmt *> loops = perfect_nest(nest);
  Dim total = 1;
  for (const Stmt *l : loops)
    total *= max(ceildiv(l->end - l->begin, l->step), 0);
  Symbol block("block"), thread("thread"), flat("flat");
  Dim at = Dim::symbol(flat);
  // Coordinates from the innermost outwards; lets, so that each division is done once.
  std::vector<Stmt> body;
  Dim rest = at;
  for (size_t i = loops.size(); i-- > 0;) {
    const Stmt &l = *loops[i];
    Dim extent = ceildiv(l.end - l.begin, l.step);
    Dim coordinate = i == 0 ? rest : mod(rest, extent);
    body.push_back(kb::let(l.name, kb::index(l.begin + coordinate * Dim(l.step))));
    if (i > 0) {
      Symbol name("rest" + std::to_string(i));
      body.push_back(kb::let(name, kb::index(floordiv(rest, extent))));
      rest = Dim::symbol(name);
    }
  }
  body.insert(body.end(), loops.back()->body.begin(), loops.back()->body.end());
  std::vector<Stmt> inside{kb::let(flat, kb::index(Dim::symbol(block) * Dim(kThreads) + Dim::symbol(thread))),
                           kb::if_(kb::lt(kb::index(at), kb::index(total)), std::move(body))};
  GpuNest out;
  out.blocks = ceildiv(total, kThreads);
  out.threads = kThreads;
  out.body.push_back(kb::loop(block, 0, out.blocks, LoopKind::block_x,
                              {kb::loop(thread, 0, kThreads, LoopKind::thread_x, std::move(inside))}));
  return out;
}

} // namespace

std::vector<GpuNest> map_gpu(const Kernel &kernel) {
  bool shares = std::any_of(kernel.body.begin(), kernel.body.end(), [](const Stmt &s) {
    return s.is(Stmt::Kind::alloc) || s.is(Stmt::Kind::let);
  });
  std::vector<GpuNest> out;
  bool open = false;
  for (const Stmt &s : kernel.body) {
    if (is_parallel(s) && !shares) {
      out.push_back(flatten(s));
      open = false;
      continue;
    }
    if (!open)
      out.emplace_back();
    open = true;
    out.back().body.push_back(s);
  }
  return out;
}

} // namespace kiln::cuda
