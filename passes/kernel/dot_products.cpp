// Sums of four neighbouring products of u8 and i8 become one instruction, on machines that have it.
//
//   for k in 0..4 reduce { acc[0] = add(acc[0], mul(convert(i32, x[i + k]), convert(i32, w[j + k]))) }
//     ->  acc[0] = fma(x[i; x4], w[j; x4], acc[0])
//
// The loop may stand anywhere in a nest of reductions. Weights whose layout has the four innermost
// ([O/16][I/4][16][4]) then fill a vector for 16 outputs, which is what tile_contraction makes of it.
#include "codegen/dot4.h"
#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"

namespace kiln {
namespace {

// The i32 value of a plain load of this dtype; null otherwise.
const Expr *widened_load(const Expr &e, DType dtype) {
  bool widens = e.is(Expr::Kind::convert) && e.dtype == DType::i32 && e.lanes == 1;
  const Expr *load = widens ? &e.args[0] : nullptr;
  return load && load->is(Expr::Kind::load) && load->dtype == dtype && load->lanes == 1 &&
                 !load->count
             ? load
             : nullptr;
}

struct Products {
  const Expr *a = nullptr, *b = nullptr; // loads of u8 and of i8
};

// The operands of the only statement: acc[0] = add(acc[0], mul(a, b)).
std::optional<Products> products_of(const std::vector<Stmt> &body) {
  if (body.size() != 1 || !body[0].is(Stmt::Kind::store))
    return std::nullopt;
  const Stmt &s = body[0];
  if (!s.value.is(Expr::Kind::binary) || s.value.binary != BinaryOp::add)
    return std::nullopt;
  const Expr &sum = s.value.args[0], &product = s.value.args[1];
  bool accumulates = sum.is(Expr::Kind::load) && sum.name == s.name && sum.index == s.index;
  if (!accumulates || !product.is(Expr::Kind::binary) || product.binary != BinaryOp::mul)
    return std::nullopt;
  for (size_t i : {0, 1}) {
    Products out{widened_load(product.args[i], DType::u8),
                 widened_load(product.args[1 - i], DType::i8)};
    if (out.a && out.b)
      return out;
  }
  return std::nullopt;
}

bool is_quad(const Stmt &loop, const Products &p) {
  auto unit = [&](const Expr &e) {
    auto step = e.index.coefficient_of(loop.name);
    return step && step->is_const(1);
  };
  return loop.begin.is_const(0) && loop.end.is_const(4) && loop.step == 1 && unit(*p.a) &&
         unit(*p.b);
}

// The perfect nest of reductions that begins at `outer`: one of its loops becomes a dot4.
bool fold_quad(Stmt &outer) {
  std::vector<Stmt *> loops = {&outer};
  while (loops.back()->body.size() == 1 && is_loop(loops.back()->body[0], LoopKind::reduce))
    loops.push_back(&loops.back()->body[0]);
  auto products = products_of(loops.back()->body);
  if (!products)
    return false;
  for (size_t i = 0; i < loops.size(); ++i) {
    bool bounds = false;
    for (size_t k = i + 1; k < loops.size(); ++k)
      bounds |= loops[k]->begin.depends_on(loops[i]->name) || loops[k]->end.depends_on(loops[i]->name);
    if (bounds || !is_quad(*loops[i], *products))
      continue;
    auto four = [&](Expr load) {
      load.lanes = 4;
      load.index = load.index.substitute(loops[i]->name, 0);
      return load;
    };
    Stmt &store = loops.back()->body[0];
    store.value = kb::fma(four(*products->a), four(*products->b), store.value.args[0]);
    std::vector<Stmt> inner = std::move(loops[i]->body);
    if (i == 0 && !inner[0].is(Stmt::Kind::loop)) {
      // The only reduction: one round of it is left, so that there is a loop to tile around.
      outer.end = 1;
      outer.body = std::move(inner);
      return true;
    }
    if (i == 0) {
      Stmt next = std::move(inner[0]);
      outer = std::move(next);
    } else {
      loops[i - 1]->body = std::move(inner);
    }
    return true;
  }
  return false;
}

bool fold_quads(std::vector<Stmt> &body) {
  bool changed = false;
  for (Stmt &s : body) {
    if (is_loop(s, LoopKind::reduce) && fold_quad(s)) {
      changed = true;
      continue;
    }
    changed |= fold_quads(s.body);
    changed |= fold_quads(s.other);
  }
  return changed;
}

} // namespace

bool dot_products(Kernel &kernel, const MachineDesc &machine) {
  return has_dot4(machine) && fold_quads(kernel.body);
}

} // namespace kiln
