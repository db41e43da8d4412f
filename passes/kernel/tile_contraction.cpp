// Finds the nests that accumulate (matrix products, convolutions, windows, sums over outer axes)
// and puts register tiles in their place. What has no tile form is left to vectorise.
#include "ir/kernel/dot.h"
#include "passes/kernel/product_cost.h"
#include "passes/kernel/schedule.h"
#include "passes/kernel/tile_nest.h"
#include "passes/kernel/tile_operands.h"

#include <algorithm>

namespace kiln {
namespace {

constexpr int64_t kMostOtherSums = 4; // of the rows that are too few for a product

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
    if (auto products = try_products(*nest)) {
      s = std::move(*products);
      return true;
    }
    nest->made = made_operands(*nest);
    TileShape shape = choose_tile_shape(*nest, machine_, choice_);
    if (!nest->made.empty() && !pays_to_make(*nest, shape, machine_)) {
      nest->made.clear();
      shape = choose_tile_shape(*nest, machine_, choice_);
    }
    auto tiled = emit_tile_nest(*nest, shape, kernel_, ranges_, names_);
    if (!tiled)
      return false;
    s = std::move(*tiled);
    return true;
  }

  // On machines with matrix registers: nests of dots whose rows are contiguous.
  std::optional<Stmt> try_products(TileNest nest) {
    bool multiplies = nest.dot_width == 4 ? machine_.has_byte_tiles : nest.dot_width == 2 && machine_.has_bf16_tiles;
    if (!multiplies || !nest.row || nest.accumulators != 1 ||
        !nest.packed.empty() || nest.lanes != machine_.tile_row_bytes / 4 || nest.block > nest.lanes)
      return std::nullopt;
    auto rows = trip_count(nest.loops[*nest.row]).try_const();
    if (rows && *rows - nest.border_lo - nest.border_hi < kLeastProductRows)
      return std::nullopt;
    nest.as_products = true;
    TileShape shape = choose_tile_shape(nest, machine_, choice_);
    auto tiled = emit_tile_nest(nest, shape, kernel_, ranges_, names_);
    std::unordered_map<Symbol, int64_t> sizes;
    ProductCosts costs;
    if (!tiled || !all_products(*tiled, sizes, costs) || !costs.pays())
      return std::nullopt;
    return tiled;
  }

  // Whether every tile of several rows is made of products: as anything else it would not fit in registers.
  bool all_products(const Stmt &s, std::unordered_map<Symbol, int64_t> &sizes, ProductCosts &costs) const {
    if (s.is(Stmt::Kind::alloc))
      sizes[s.name] = s.size;
    if (s.is(Stmt::Kind::store) && dot_width(s.value) > 0 && sizes[s.name] > kMostOtherSums)
      return false;
    if (auto p = tile_product(s)) {
      ProductCosts here = product_costs(*p, machine_);
      costs.products += here.products;
      costs.vectors += here.vectors;
      return true;
    }
    auto holds = [&](const Stmt &inner) { return all_products(inner, sizes, costs); };
    return std::all_of(s.body.begin(), s.body.end(), holds) &&
           std::all_of(s.other.begin(), s.other.end(), holds);
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
