// Finds the nests that accumulate (matrix products, convolutions, windows, sums over outer axes) and
// puts register tiles in their place. What has no tile form is left to vectorise.
#include "passes/kernel/schedule.h"
#include "passes/kernel/tile_nest.h"

namespace kiln {
namespace {

class Tiler {
public:
  Tiler(Kernel &kernel, const MachineDesc &machine)
      : kernel_(kernel), machine_(machine), names_(kernel), ranges_(kernel_ranges(kernel)) {}

  bool run() { return body(kernel_.body); }

private:
  bool body(std::vector<Stmt> &stmts) {
    bool changed = split(stmts);
    size_t mark = ranges_.size();
    for (Stmt &s : stmts) {
      if (is_loop(s, LoopKind::parallel) && try_tile(s)) {
        changed = true;
        continue;
      }
      size_t inner = ranges_.size();
      if (s.is(Stmt::Kind::loop))
        push_loop(ranges_, s);
      changed |= body(s.body);
      changed |= body(s.other);
      ranges_.truncate(inner);
    }
    ranges_.truncate(mark);
    return changed;
  }

  // What is the same along the vector stays so: the ends of the innermost loop become nests of their own.
  bool split(std::vector<Stmt> &stmts) {
    bool changed = false;
    std::vector<Stmt> out;
    for (Stmt &s : stmts) {
      std::vector<Stmt> parts;
      if (is_loop(s, LoopKind::parallel) && !find_tile_nest(s, machine_, ranges_))
        parts = split_at_borders(s, ranges_);
      changed |= !parts.empty();
      for (Stmt &p : parts)
        out.push_back(std::move(p));
      if (parts.empty())
        out.push_back(std::move(s));
    }
    stmts = std::move(out);
    if (changed) {
      DimRanges saved = ranges_;
      simplify_nests(stmts);
      ranges_ = saved;
    }
    return changed;
  }

  // In the middle, and where a border is one iteration, bounds are plain numbers again.
  void simplify_nests(std::vector<Stmt> &stmts) {
    for (Stmt &s : stmts) {
      if (!s.is(Stmt::Kind::loop))
        continue;
      s.begin = simplify(s.begin, ranges_);
      s.end = simplify(s.end, ranges_);
      size_t mark = ranges_.size();
      push_loop(ranges_, s);
      simplify_nests(s.body);
      ranges_.truncate(mark);
    }
  }

  bool try_tile(Stmt &s) {
    auto nest = find_tile_nest(s, machine_, ranges_);
    if (!nest)
      return false;
    TileShape shape = choose_tile_shape(*nest, machine_);
    auto tiled = emit_tile_nest(*nest, shape, kernel_, ranges_, names_);
    if (!tiled)
      return false;
    s = std::move(*tiled);
    return true;
  }

  Kernel &kernel_;
  const MachineDesc &machine_;
  Names names_;
  DimRanges ranges_;
};

} // namespace

bool tile_contraction(Kernel &kernel, const MachineDesc &machine) { return Tiler(kernel, machine).run(); }

} // namespace kiln
