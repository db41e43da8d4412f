// Finds the nests that accumulate (matrix products, convolutions, windows, sums over outer axes)
// and puts register tiles in their place. What has no tile form is left to vectorise.
#include "passes/kernel/schedule.h"
#include "passes/kernel/tile_nest.h"

namespace kiln {
namespace {

class Tiler {
public:
  Tiler(Kernel &kernel, const MachineDesc &machine, const TileChoice &choice)
      : kernel_(kernel), machine_(machine), choice_(choice), names_(kernel),
        ranges_(kernel_ranges(kernel)) {}

  bool run() { return body(kernel_.body, true); }

private:
  // `whole`: the statements are not inside a perfect nest that was looked at already.
  bool body(std::vector<Stmt> &stmts, bool whole) {
    bool changed = false;
    size_t mark = ranges_.size();
    std::vector<Stmt> out;
    for (Stmt &s : stmts) {
      bool nest = is_loop(s, LoopKind::parallel);
      if (nest && try_tile(s)) {
        changed = true;
        out.push_back(std::move(s));
        continue;
      }
      std::vector<Stmt> parts;
      if (nest && whole)
        parts = split_at_borders(s, ranges_);
      if (!parts.empty()) {
        changed = true;
        simplify_nests(parts);
        body(parts, false);
        for (Stmt &p : parts)
          out.push_back(std::move(p));
        continue;
      }
      size_t inner = ranges_.size();
      if (s.is(Stmt::Kind::loop))
        push_loop(ranges_, s);
      bool perfect = nest && s.body.size() == 1 && is_loop(s.body[0], LoopKind::parallel);
      changed |= body(s.body, !perfect && whole);
      changed |= body(s.other, whole);
      ranges_.truncate(inner);
      out.push_back(std::move(s));
    }
    stmts = std::move(out);
    ranges_.truncate(mark);
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
    TileShape shape = choose_tile_shape(*nest, machine_, choice_);
    auto tiled = emit_tile_nest(*nest, shape, kernel_, ranges_, names_);
    if (!tiled)
      return false;
    s = std::move(*tiled);
    return true;
  }

  Kernel &kernel_;
  const MachineDesc &machine_;
  const TileChoice &choice_;
  Names names_;
  DimRanges ranges_;
};

} // namespace

bool tile_contraction(Kernel &kernel, const MachineDesc &machine, const TileChoice &choice) {
  return Tiler(kernel, machine, choice).run();
}

} // namespace kiln
