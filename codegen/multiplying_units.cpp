#include "codegen/multiplying_units.h"

#include "ir/kernel/dot.h"
#include "passes/kernel/product_cost.h"
#include "passes/kernel/rewrite.h"
#include "runtime/package_format.h"

namespace kiln {
namespace {

uint32_t units_of(const std::vector<Stmt> &body, const MachineDesc &machine) {
  uint32_t units = 0;
  for (const Stmt &s : body) {
    if (auto p = tile_product(s); p && is_for_tiles(*p, machine)) {
      units |= p->dtype == DType::f32 ? package::kPairTiles : package::kByteTiles;
      continue;
    }
    visit_exprs(s.value, [&](const Expr &e) {
      int width = dot_width(e);
      units |= width == 4 ? package::kByteDots : width == 2 ? package::kPairDots : 0;
    });
    units |= units_of(s.body, machine) | units_of(s.other, machine);
  }
  return units;
}

} // namespace

uint32_t multiplying_units(const Kernel &kernel, const MachineDesc &machine) { return units_of(kernel.body, machine); }

} // namespace kiln
