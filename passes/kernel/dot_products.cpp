// Sums of a few neighbouring products become one instruction, on machines that have it: four of u8 and
// i8, two of bf16.
//
//   for k in 0..4 reduce { acc[0] = add(acc[0], mul(convert(i32, x[i + k]), convert(i32, w[j + k]))) }
//     ->  acc[0] = fma(x[i; x4], w[j; x4], acc[0])
//
// The four may also be neighbouring positions of a window over channels of their own (depthwise), which
// lie a block of channels apart: they are loaded as vectors and interleaved, [4][16] to [16][4], with zeros where
// the window is narrower.
//
// The loop may stand anywhere in a nest of reductions. Weights whose layout has the four innermost
// ([O/16][I/4][16][4]) then fill a vector for 16 outputs, which is what tile_contraction makes of it.
#include "ir/kernel/dot.h"
#include "passes/kernel/rewrite.h"
#include "passes/kernel/schedule.h"

#include <algorithm>

namespace kiln {
namespace {

// A plain load whose value is converted; null otherwise.
const Expr *widened_load(const Expr &e) {
  bool widens = e.is(Expr::Kind::convert) && e.lanes == 1;
  const Expr *load = widens ? &e.args[0] : nullptr;
  return load && load->is(Expr::Kind::load) && load->lanes == 1 && !load->count ? load : nullptr;
}

struct Products {
  const Expr *a = nullptr, *b = nullptr; // loads
  int width = 0;
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
    Products out{widened_load(product.args[i]), widened_load(product.args[1 - i])};
    out.width = out.a && out.b ? dot_width(out.a->dtype, out.b->dtype, product.dtype) : 0;
    if (out.width > 0)
      return out;
  }
  return std::nullopt;
}

bool has_step(const Expr &e, Symbol loop, int64_t expected) {
  auto step = e.index.coefficient_of(loop);
  return step && step->is_const(expected);
}

bool is_group(const Stmt &loop, const Products &p) {
  return loop.begin.is_const(0) && loop.end.is_const(p.width) && loop.step == 1 &&
         has_step(*p.a, loop.name, 1) && has_step(*p.b, loop.name, 1);
}

// Two to four steps of a window whose positions lie as many elements apart as a loop around it, one of
// those in `outer`, has iterations, or a multiple of that: so many, a multiple of `lanes`; or 0.
int64_t window_step(const Stmt &loop, const Products &p, const std::vector<const Stmt *> &outer,
                    int lanes) {
  auto trips = loop.end.try_const();
  auto step = p.a->index.coefficient_of(loop.name);
  if (p.width != 4 || !loop.begin.is_const(0) || !trips || *trips < 2 || *trips > 4 ||
      loop.step != 1 || !step || !step->is_const() || step->as_const() <= 0 ||
      step->as_const() % lanes != 0 ||
      !has_step(*p.b, loop.name, 1))
    return 0;
  bool found = std::any_of(outer.begin(), outer.end(), [&](const Stmt *l) {
    int64_t channels = l->end.try_const().value_or(0);
    return l->loop == LoopKind::parallel && l->begin.is_const(0) && channels > 0 && channels % lanes == 0 &&
           step->as_const() % channels == 0 &&
           l->step == 1 && has_step(*p.a, l->name, 1) && has_step(*p.b, l->name, 4);
  });
  return found ? step->as_const() : 0;
}

bool has_dot(const MachineDesc &machine, int width) {
  return width == 4 ? machine.byte_dots != ByteDots::none : machine.has_bf16_dots;
}

// The perfect nest of reductions that begins at `outer`: one of its loops becomes a dot.
bool fold_group(Stmt &outer, const std::vector<const Stmt *> &around, const MachineDesc &machine) {
  std::vector<Stmt *> loops = {&outer};
  while (loops.back()->body.size() == 1 && is_loop(loops.back()->body[0], LoopKind::reduce))
    loops.push_back(&loops.back()->body[0]);
  auto products = products_of(loops.back()->body);
  if (!products || !has_dot(machine, products->width))
    return false;
  for (size_t i = 0; i < loops.size(); ++i) {
    bool bounds = false;
    for (size_t k = i + 1; k < loops.size(); ++k)
      bounds |= loops[k]->begin.depends_on(loops[i]->name) || loops[k]->end.depends_on(loops[i]->name);
    bool group = is_group(*loops[i], *products);
    int64_t window = group ? 0 : window_step(*loops[i], *products, around, machine.lanes(DType::i32));
    if (bounds || (!group && window == 0))
      continue;
    auto wide = [&](Expr load) {
      load.lanes = products->width;
      load.index = load.index.substitute(loops[i]->name, 0);
      return load;
    };
    Expr a = wide(*products->a), b = wide(*products->b);
    if (!group) {
      a.stride = window;
      if (!loops[i]->end.is_const(4))
        a.count = loops[i]->end;
    }
    Stmt &store = loops.back()->body[0];
    store.value = kb::fma(std::move(a), std::move(b), store.value.args[0]);
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

bool fold_groups(std::vector<Stmt> &body, std::vector<const Stmt *> &around,
                 const MachineDesc &machine) {
  bool changed = false;
  for (Stmt &s : body) {
    if (is_loop(s, LoopKind::reduce) && fold_group(s, around, machine)) {
      changed = true;
      continue;
    }
    if (s.is(Stmt::Kind::loop))
      around.push_back(&s);
    changed |= fold_groups(s.body, around, machine);
    changed |= fold_groups(s.other, around, machine);
    if (s.is(Stmt::Kind::loop))
      around.pop_back();
  }
  return changed;
}

} // namespace

bool dot_products(Kernel &kernel, const MachineDesc &machine) {
  std::vector<const Stmt *> around;
  return fold_groups(kernel.body, around, machine);
}

} // namespace kiln
